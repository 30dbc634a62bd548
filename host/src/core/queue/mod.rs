//! The order of the tests that wait for one kind of machine of one platform.
//!
//! The order is lexicographic over the levels of a chain. At each level two tests compare by *(what the policy prefers on
//! this machine now, the policy's static score)*; the last tie goes to the test that was queued first. [`Lane::pick`]
//! finds the first test of that order without looking at all of them:
//!
//! - Tests with the same classes (and the same claim) form a *bucket*. Whatever a policy prefers, it prefers whole buckets,
//!   so inside one the order is static: a part of one sorted array, and a small heap for what is queued later. Only bucket
//!   heads compete.
//! - All heads stand in one static order. Walking it from the front, buckets that somebody speaks of are compared in full;
//!   the first bucket that nobody speaks of ends the walk, because nothing behind it can beat it, unless it is liked.
//! - Buckets of liked classes are visited one by one, or, when a class has many, in a static order of their own.
//!
//! A lane is not told when another lane takes a test, or when a test gets its verdict: an entry is valid as long as its
//! generation is that of the test's [`Ticket`], and an invalid one is dropped when it comes up.

mod column;
mod lane;
#[cfg(test)]
mod oracle;
mod pick;

pub(crate) use lane::Lane;

use atex_plugin_api::policy::{TestId, Wants};

/// What lanes must know about a test; owned by the coordinator, shared by all lanes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) queued: bool,
    /// Raised whenever the test is queued or ranked anew: entries with an older one are void.
    pub(crate) generation: u32,
    /// Position in the order of queueing: the last tie.
    pub(crate) sequence: u32,
    /// Slots it takes.
    pub(crate) claim: u16,
}

/// What one policy of the chain contributes to a lane's order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Level {
    /// Its column among the static scores, if it ranks.
    pub(crate) score: Option<u16>,
    /// Its column among the classes, if it prefers.
    pub(crate) class: Option<u16>,
}

impl Level {
    /// The levels of a chain, in its order.
    pub(crate) fn of_chain(wants: &[Wants]) -> Vec<Self> {
        let (mut scores, mut classes) = (0, 0);
        let next = |wanted: bool, column: &mut u16| {
            wanted.then(|| {
                *column += 1;
                *column - 1
            })
        };
        let level = |wants: &Wants| Self {
            score: next(wants.rank, &mut scores),
            class: next(wants.prefer, &mut classes),
        };
        wants.iter().map(level).collect()
    }
}

/// A short row of numbers, one per column; up to four need no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    first: [i64; 4],
    more: Box<[i64]>,
}

impl Row {
    fn collect(numbers: impl ExactSizeIterator<Item = i64>) -> Self {
        let mut row = Self::default();
        if let Some(extra) = numbers.len().checked_sub(4).filter(|&extra| extra > 0) {
            row.more = vec![0; extra].into_boxed_slice();
        }
        for (slot, number) in row.first.iter_mut().chain(row.more.iter_mut()).zip(numbers) {
            *slot = number;
        }
        row
    }

    fn get(&self, column: u16) -> i64 {
        let column = usize::from(column);
        let found = self.first.get(column).or_else(|| self.more.get(column.wrapping_sub(4)));
        found.copied().unwrap_or(0)
    }

    fn set(&mut self, column: u16, number: i64) {
        let column = usize::from(column);
        let slot = match self.first.get_mut(column) {
            Some(slot) => Some(slot),
            None => self.more.get_mut(column.wrapping_sub(4)),
        };
        if let Some(slot) = slot {
            *slot = number;
        }
    }

    fn contains(&self, number: i64) -> bool {
        self.first.contains(&number) || self.more.contains(&number)
    }
}

/// The first test of a bucket, as it competes with others: negated scores, so that smaller is sooner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Head {
    key: Row,
    sequence: u32,
    bucket: u32,
}

/// A test as it was queued; void if its ticket is of another generation by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    test: TestId,
    generation: u32,
}

impl Entry {
    fn valid(self, tickets: &[Ticket]) -> bool {
        tickets
            .get(self.test as usize)
            .is_some_and(|ticket| ticket.queued && ticket.generation == self.generation)
    }
}
