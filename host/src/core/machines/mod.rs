//! Machines as the coordinator counts them: leases, the pools they come from, the platforms they work for.

mod leases;
mod platforms;
mod pools;

pub(crate) use leases::{Lease, Leases, Probe, Renewal, State};
pub(crate) use platforms::PlatformState;
pub(crate) use pools::PoolState;
