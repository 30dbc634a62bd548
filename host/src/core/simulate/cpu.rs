//! CPU time, as the kernel counts it.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Used by this thread.
pub fn cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

/// Used by this process, all of its threads, and none of what it started.
pub fn process_cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

fn duration(time: Timespec) -> Duration {
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}
