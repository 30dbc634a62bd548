pub mod cli;
pub mod fmf;
