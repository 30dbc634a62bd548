//! `cargo xtask`: everything a developer of this project runs, by one name each.

use std::process::ExitCode;

use atex_tests::xtask::{self, Xtask};
use clap::Parser as _;

fn main() -> ExitCode {
    match xtask::run(Xtask::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
