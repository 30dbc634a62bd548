//! The command line.

pub mod fmf;
