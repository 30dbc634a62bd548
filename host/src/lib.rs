//! Runs FMF tests on machines that plugins supply.

pub mod config;
pub mod core;
pub mod executor;
pub mod plugin;
pub mod store;
