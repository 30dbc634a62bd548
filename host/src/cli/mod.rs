//! The command line.

pub mod discover;
pub mod fmf;
pub mod requires;
pub mod show;
