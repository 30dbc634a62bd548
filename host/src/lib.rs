//! Runs FMF tests on machines that plugins supply. `ARCHITECTURE.md` says how the parts fit together.

pub mod cli;
pub mod command;
pub mod config;
pub mod core;
pub mod engine;
pub mod executor;
pub mod fmf;
pub mod plugin;
mod report;
pub mod store;
pub mod text;
pub mod transport;
