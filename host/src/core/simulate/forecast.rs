//! How long a run would take, by number of machines.

use std::ops::RangeInclusive;

use serde::Serialize;

use super::{Ms, Outcomes};
use crate::core::event::TestId;

/// One simulated run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub machines: u32,
    pub makespan_ms: Ms,
    /// The share of the machines' time in which tests ran, 0 to 1.
    pub utilisation: f64,
    /// The test that ended last.
    pub last_test: Option<TestId>,
    pub runs: u64,
    pub decisions: u64,
    /// CPU time of the whole simulation, in milliseconds, and by decision, in microseconds.
    pub cpu_ms: u64,
    pub cpu_us_per_decision: f64,
}

/// Simulated runs, by the number of machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Forecast {
    pub rows: Vec<Row>,
    /// The fewest machines with which it ends in time, if a time was given and a number was found.
    pub least_machines: Option<u32>,
}

impl Row {
    /// What a simulated run says.
    pub fn new(machines: u32, outcomes: &Outcomes) -> Self {
        let decisions = outcomes.decisions.max(1) as f64;
        Self {
            machines,
            makespan_ms: outcomes.makespan,
            utilisation: outcomes.utilisation(),
            last_test: outcomes.last_test,
            runs: outcomes.runs,
            decisions: outcomes.decisions,
            cpu_ms: outcomes.cpu.as_millis() as u64,
            cpu_us_per_decision: outcomes.cpu.as_secs_f64() * 1e6 / decisions,
        }
    }
}

/// The numbers of machines worth trying by default: 1, 2, 4, ... up to the number of tests, at most 65,536.
pub fn usual_machines(tests: usize) -> Vec<u32> {
    let most = tests.clamp(1, 1 << 16);
    (0..17)
        .map(|power| 1 << power)
        .take_while(|&machines| machines as usize <= most.next_power_of_two())
        .collect()
}

/// Simulates with each of these numbers of machines, and looks for the least that meets the deadline: between the largest
/// that misses it and the smallest that meets it.
///
/// # Errors
///
/// Those of `run`.
pub fn forecast<E>(
    machines: &[u32],
    deadline: Option<Ms>,
    mut run: impl FnMut(u32) -> Result<Outcomes, E>,
) -> Result<Forecast, E> {
    let mut rows = vec![];
    for &machines in machines {
        rows.push(Row::new(machines, &run(machines)?));
    }
    rows.sort_by_key(|row| row.machines);
    let Some(deadline) = deadline else { return Ok(Forecast { rows, least_machines: None }) };
    let mut meets = rows.iter().find(|row| row.makespan_ms <= deadline).map(|row| row.machines);
    if let Some(most) = meets {
        let misses = rows.iter().map(|row| row.machines).rfind(|&machines| machines < most).unwrap_or(0);
        meets = Some(search(misses + 1..=most, |machines| Ok(run(machines)?.makespan <= deadline))?);
    }
    Ok(Forecast { rows, least_machines: meets })
}

/// The least number of a range that is enough, the last one being known to be.
fn search<E>(range: RangeInclusive<u32>, mut enough: impl FnMut(u32) -> Result<bool, E>) -> Result<u32, E> {
    let (mut low, mut high) = (*range.start(), *range.end());
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(middle)? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(high)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// A run that takes 1000 ms over the machines.
    #[expect(clippy::unnecessary_wraps, reason = "the signature that forecast asks for")]
    fn run(machines: u32) -> Result<Outcomes, Infallible> {
        Ok(Outcomes { makespan: 1000 / u64::from(machines), ..Outcomes::default() })
    }

    #[test]
    fn the_least_number_of_machines_is_between_two_that_were_tried() {
        for (deadline, least) in
            [(1000, Some(1)), (300, Some(4)), (200, Some(5)), (130, Some(8)), (124, None)]
        {
            let found = forecast(&[8, 1, 2, 4], Some(deadline), run).unwrap();
            assert_eq!(found.least_machines, least, "deadline {deadline}");
            assert_eq!(found.rows.iter().map(|row| row.machines).collect::<Vec<_>>(), [1, 2, 4, 8]);
        }
        assert_eq!(forecast(&[1], None, run).unwrap().least_machines, None);
    }

    #[test]
    fn usual_machines_follow_the_tests() {
        assert_eq!(usual_machines(0), [1]);
        assert_eq!(usual_machines(5), [1, 2, 4, 8]);
        assert_eq!(usual_machines(10_000_000).last(), Some(&65_536));
    }
}
