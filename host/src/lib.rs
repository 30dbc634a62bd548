//! Runs FMF tests on machines that plugins supply.

pub mod cli;
pub mod config;
pub mod core;
pub mod executor;
pub mod fmf;
pub mod plugin;
pub mod store;
