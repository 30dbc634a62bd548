//! The project's own tool (`cargo xtask`) and what the end-to-end tests share. Nothing here is shipped.

pub mod build;
pub mod campaign;
pub mod e2e;
pub mod expect;
pub mod watch;
pub mod xtask;
