//! Runs FMF tests on machines that plugins supply.

pub mod core;
pub mod executor;
pub mod config;
pub mod store;
pub mod plugin;
