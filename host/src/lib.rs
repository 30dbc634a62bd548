//! Runs FMF tests on machines that plugins supply.

pub mod config;
pub mod core;
pub mod executor;
pub mod plugin;
pub mod cli;
pub mod fmf;
pub mod store;
pub mod transport;
mod engine;
mod report;
pub mod text;
