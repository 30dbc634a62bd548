//! The `fmf` command alone, for measuring it and for comparing it with other implementations.

use std::io;
use std::process::ExitCode;

use atex_host::cli::fmf::{FmfArgs, run};
use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    fmf: FmfArgs,
}

fn main() -> io::Result<ExitCode> {
    run(&Cli::parse().fmf, &mut io::BufWriter::new(io::stdout().lock())).map(ExitCode::from)
}
