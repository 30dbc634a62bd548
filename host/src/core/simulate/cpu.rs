//! CPU time of this thread.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// CPU time that this thread has used, by what the kernel says; where it says nothing, the time that has passed.
pub fn cpu_time() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let used = text.split_whitespace().next().and_then(|field| field.parse().ok()).filter(|&nanos| nanos > 0);
    used.map_or_else(|| start.elapsed(), Duration::from_nanos)
}
