//! What this process has used, for the log: of itself, not of what it started.

use std::fs::read_to_string;

use crate::core::simulate::process_cpu_time;

/// Into the log; `cargo xtask bench` reads it there.
pub(super) fn tell() {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let (cpu_ms, peak) = (process_cpu_time().as_secs_f64() * 1e3, peak_mib(&status));
    tracing::info!("this process used {cpu_ms:.1} ms CPU time, {peak:.1} MiB of memory at most");
}

/// 0 where the kernel does not say.
fn peak_mib(status: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_or_zero() {
        assert!((peak_mib("Name:\tx\nVmHWM:\t    2560 kB\nVmRSS:\t 1 kB\n") - 2.5).abs() < 1e-9);
        assert!(peak_mib("Name:\tx\n").abs() < 1e-9);
    }
}
