//! What this process has used, for the log: of itself, not of what it started.

use std::fs::read_to_string;

/// What the kernel counts in, in every file of `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// Into the log; `cargo xtask bench` reads it there.
pub(super) fn tell() {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let (cpu_ms, peak) = (cpu_seconds(&stat) * 1e3, peak_mib(&status));
    tracing::info!("this process used {cpu_ms:.0} ms CPU time, {peak:.1} MiB of memory at most");
}

/// In user and kernel mode, of all threads; 0 where the kernel does not say.
fn cpu_seconds(stat: &str) -> f64 {
    // The second field, the name, may contain spaces.
    let fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
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
        let stat = "7 (a) b) S 1 7 7 0 -1 4194304 100 200 0 0 150 25 9 9 20 0 3 0 1 2 3";
        assert!((cpu_seconds(stat) - 1.75).abs() < 1e-9);
        assert!(cpu_seconds("").abs() < 1e-9);
    }
}
