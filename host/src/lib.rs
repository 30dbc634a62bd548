pub mod fmf;
