//! Runs FMF tests on machines that plugins supply.

pub mod core;
