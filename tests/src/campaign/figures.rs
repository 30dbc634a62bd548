//! What a campaign counts, and how it is shown.

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    time::Duration,
};

use super::phase;

/// Of one campaign, or of one of its workers.
#[derive(Debug, Default)]
pub struct Figures {
    /// Hosts that were killed.
    pub trials: usize,
    /// Hosts that had come to their end before their moment came.
    pub unharmed: usize,
    /// Kills while something was in that phase: several may apply to one.
    pub phases: BTreeMap<&'static str, usize>,
    /// Machines that had been handed out to hosts that were killed.
    pub reserved: usize,
    /// Machines after the kill, after the first `gc`, and after the last.
    pub left: [usize; 3],
    /// Trials in which the first `gc` could not tell yet: a reservation had been cut off, or the provider refused to answer.
    pub undecided: usize,
    /// Of each first `gc`.
    pub gc: Vec<Duration>,
    /// What should not have been.
    pub wrong: Vec<String>,
}

impl Figures {
    pub(crate) fn add(&mut self, other: Self) {
        self.trials += other.trials;
        self.unharmed += other.unharmed;
        for (phase, count) in other.phases {
            *self.phases.entry(phase).or_default() += count;
        }
        self.reserved += other.reserved;
        for (sum, count) in self.left.iter_mut().zip(other.left) {
            *sum += count;
        }
        self.undecided += other.undecided;
        self.gc.extend(other.gc);
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gc = self.gc.clone();
        gc.sort();
        let shown =
            |time: Option<&Duration>| time.map_or("-".into(), |time| format!("{:.2} s", time.as_secs_f64()));
        let phases = phase::ALL.iter().fold(String::new(), |mut text, phase| {
            let _infallible = write!(text, "{phase} {}, ", self.phases.get(phase).unwrap_or(&0));
            text
        });
        writeln!(f, "  hosts killed                   {}", self.trials)?;
        writeln!(f, "    while                        {}", phases.trim_end_matches(", "))?;
        writeln!(f, "  ended before their moment      {}", self.unharmed)?;
        writeln!(f, "  machines handed out            {}", self.reserved)?;
        writeln!(f, "  machines left after the kill   {}", self.left[0])?;
        writeln!(
            f,
            "  after the first gc             {} ({} trials undecided)",
            self.left[1], self.undecided
        )?;
        writeln!(f, "  after the last gc              {}", self.left[2])?;
        writeln!(
            f,
            "  gc took                        {} (median), {} (longest)",
            shown(gc.get(gc.len() / 2)),
            shown(gc.last())
        )?;
        write!(f, "  wrong                          {}", self.wrong.len())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n    {wrong}"))
    }
}
