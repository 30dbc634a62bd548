//! What this run knows of the pool's machines: which it was lent, which failed and when to try them again. Pure: the time
//! is told with each call.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::hosts::{Address, Machine};

/// A machine that fails again and again is tried this often at least.
const LONGEST: Duration = Duration::from_mins(30);

/// State of the pool, by address.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    known: HashMap<Address, Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The lease that it is being claimed for, or was lent to.
    lease: Option<String>,
    /// How often this run has handed it back.
    used: u32,
    /// It was handed back in no state for another test.
    spoilt: bool,
    failures: u32,
    not_before: Option<Instant>,
    reason: String,
}

/// Why none of the machines could be had.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Lent, by us or by others.
    pub(crate) lent: u32,
    /// Used before, and not to be used again.
    pub(crate) retired: u32,
    /// Retired because a test left them in no state for another one.
    pub(crate) spoilt: u32,
    /// Facts that do not fit.
    pub(crate) unfit: u32,
    /// Failed, with the last reason.
    pub(crate) failed: Vec<String>,
}

impl Pool {
    /// Takes a machine out for `lease`, so that no other call tries it too: the first of `machines` that is free and not put
    /// aside, beginning at a place that depends on the lease. Those in `tried` are left out.
    pub(crate) fn take<'a>(
        &mut self,
        machines: &'a [Machine],
        tried: &[Address],
        lease: &str,
        reuse: bool,
        now: Instant,
    ) -> Option<&'a Machine> {
        let (before, after) = machines.split_at(start(lease, machines.len()));
        let free = |machine: &&Machine| {
            let known = self.known.get(&machine.address);
            !tried.contains(&machine.address)
                && known.is_none_or(|known| {
                    known.lease.as_deref().is_none_or(|holder| holder == lease)
                        && known.not_before.is_none_or(|time| time <= now)
                        && (reuse || known.used == 0)
                })
        };
        // One that already is this lease's comes first: the call was repeated.
        let ours = |machine: &&Machine| {
            self.known.get(&machine.address).is_some_and(|known| known.lease.as_deref() == Some(lease))
        };
        let all = || after.iter().chain(before);
        let found = all().filter(free).find(ours).or_else(|| all().find(free))?;
        self.known.entry(found.address.clone()).or_default().lease = Some(lease.to_owned());
        Some(found)
    }

    /// Puts back a machine that somebody else has.
    pub(crate) fn put_back(&mut self, address: &Address) {
        self.entry(address).lease = None;
    }

    /// The machine works; says how often this run has used it before, and whether it was left spoilt.
    pub(crate) fn works(&mut self, address: &Address) -> (u32, bool) {
        let known = self.entry(address);
        (known.failures, known.not_before) = (0, None);
        (known.used, known.spoilt)
    }

    /// The machine is handed back in no state for another test.
    pub(crate) fn spoilt(&mut self, address: &Address) {
        self.entry(address).spoilt = true;
    }

    /// Puts a machine aside that failed; says for how long.
    pub(crate) fn failed(
        &mut self,
        address: &Address,
        reason: &str,
        first: Duration,
        now: Instant,
    ) -> Duration {
        let known = self.entry(address);
        let pause = first.saturating_mul(1 << known.failures.min(16)).min(LONGEST.max(first));
        known.failures += 1;
        known.lease = None;
        known.not_before = now.checked_add(pause);
        reason.clone_into(&mut known.reason);
        pause
    }

    /// The machine was handed back.
    pub(crate) fn handed_back(&mut self, address: &Address, lease: &str) {
        let known = self.entry(address);
        if known.lease.as_deref() == Some(lease) {
            known.lease = None;
            known.used += 1;
        }
    }

    /// The machine that this lease was lent, if this run knows.
    pub(crate) fn of_lease(&self, lease: &str) -> Option<Address> {
        let found = self.known.iter().find(|(_, known)| known.lease.as_deref() == Some(lease));
        found.map(|(address, _)| address.clone())
    }

    /// Why a machine that was not tried cannot be had.
    pub(crate) fn count(&self, address: &Address, reuse: bool, now: Instant, tally: &mut Tally) {
        match self.known.get(address) {
            Some(known) if known.lease.is_some() => tally.lent += 1,
            Some(known) if !reuse && known.used > 0 => tally.retired += 1,
            Some(known) if known.not_before.is_some_and(|time| time > now) => {
                tally.failed.push(known.reason.clone());
            }
            _ => {}
        }
    }

    fn entry(&mut self, address: &Address) -> &mut Known {
        self.known.entry(address.clone()).or_default()
    }
}

/// Hosts that want machines at the same time begin at different places; a call that is repeated begins at the same.
fn start(lease: &str, count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    lease.hash(&mut hasher);
    usize::try_from(hasher.finish() % (count.max(1) as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::Entry;

    fn machines(count: u32) -> Vec<Machine> {
        (0..count).map(|n| Entry::Text(format!("n{n}")).machine(None, None).unwrap()).collect()
    }

    #[test]
    fn every_machine_is_lent_once() {
        let (mut pool, machines, now) = (Pool::default(), machines(5), Instant::now());
        let mut lent: Vec<_> = (0..5)
            .map(|n| pool.take(&machines, &[], &format!("a{n}"), true, now).unwrap().address.to_string())
            .collect();
        lent.sort();
        assert_eq!(lent, ["n0", "n1", "n2", "n3", "n4"]);
        assert_eq!(pool.take(&machines, &[], "a9", true, now), None);
        let again = pool.take(&machines, &[], "a3", true, now).unwrap().address.clone();
        assert_eq!(Some(again.clone()), pool.of_lease("a3"), "asked twice, it is the same");
        pool.handed_back(&again, "a3");
        assert_eq!(pool.take(&machines, &[], "a9", false, now), None, "used before");
        assert_eq!(pool.take(&machines, &[], "a9", true, now).unwrap().address, again);
        assert_eq!(pool.works(&again), (1, false));
        pool.spoilt(&again);
        assert_eq!(pool.works(&again), (1, true));
    }

    #[test]
    fn one_that_fails_is_left_alone_for_longer_and_longer() {
        let (mut pool, machines, mut now) = (Pool::default(), machines(1), Instant::now());
        let first = Duration::from_secs(30);
        for expected in [30, 60, 120, 240, 480, 960, 1800, 1800] {
            let address = pool.take(&machines, &[], "a1", true, now).unwrap().address.clone();
            assert_eq!(pool.failed(&address, "no route", first, now).as_secs(), expected);
            assert_eq!(pool.take(&machines, &[], "a1", true, now), None);
            let mut tally = Tally::default();
            pool.count(&address, true, now, &mut tally);
            assert_eq!(tally, Tally { failed: vec!["no route".into()], ..Tally::default() });
            now += Duration::from_secs(expected);
        }
        let address = pool.take(&machines, &[], "a1", true, now).unwrap().address.clone();
        pool.works(&address);
        assert_eq!(pool.failed(&address, "", first, now), first, "it begins anew");
    }

    #[test]
    fn those_tried_are_left_out() {
        let (mut pool, machines, now) = (Pool::default(), machines(2), Instant::now());
        let one = pool.take(&machines, &[], "a1", true, now).unwrap().address.clone();
        pool.put_back(&one);
        let other =
            pool.take(&machines, std::slice::from_ref(&one), "a1", true, now).unwrap().address.clone();
        assert_ne!(one, other);
    }
}
