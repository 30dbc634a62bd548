
pub mod executor;
