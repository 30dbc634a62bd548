//! Write plugins for `atex-host`: provisioners that supply machines, policies that order tests, reporters that publish results.

pub mod error;
pub mod model;
pub mod policy;

pub use error::{Error, ErrorKind, Result};
pub use model::{
    ExecTransport, Facts, Held, HostKeyCheck, Lease, LocalTransport, Machine, SshTransport, Transport,
};
