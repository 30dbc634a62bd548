//! Finding the first test for a machine.

use std::ops::Bound;

use atex_plugin_api::policy::{Class, Prefer, TestId, VETO};

use super::lane::{Bucket, Lane};
use super::{Head, Level, Row, Ticket};
use crate::core::event::Wish;

/// A liked class with more buckets than this gets an order of its own instead of being looked at bucket by bucket.
const MANY: usize = 32;

/// The wishes for one machine, ready to be looked up.
struct Wishes {
    /// (class column, class) and score, sorted.
    classes: Vec<((u16, Class), i64)>,
    /// (test, class column) and score, sorted.
    tests: Vec<((TestId, u16), i64)>,
    columns: usize,
}

/// Which buckets a walk visits.
type Within = Option<(u16, Class)>;

/// The best test met so far.
struct Best<'a> {
    levels: &'a [Level],
    found: Option<Candidate>,
}

struct Candidate {
    test: TestId,
    sequence: u32,
    /// What is preferred, per class column.
    liked: Row,
    /// Negated static scores.
    key: Row,
}

impl Wishes {
    fn new(wishes: &[Wish], levels: &[Level], columns: usize) -> Self {
        let (mut classes, mut tests) = (vec![], vec![]);
        for wish in wishes {
            let Some(column) = levels.get(usize::from(wish.level)).and_then(|level| level.class) else {
                continue;
            };
            match wish.prefer {
                Prefer::Class(class, score) => classes.push(((column, class), score)),
                Prefer::Test(test, score) => tests.push(((test, column), score)),
            }
        }
        // The first of several opinions on the same thing counts.
        classes.sort_by_key(|(what, _)| *what);
        classes.dedup_by_key(|(what, _)| *what);
        tests.sort_by_key(|(what, _)| *what);
        tests.dedup_by_key(|(what, _)| *what);
        Self { classes, tests, columns }
    }

    fn score(&self, column: u16, class: Class) -> i64 {
        let found = self.classes.binary_search_by_key(&(column, class), |(what, _)| *what).ok();
        found.and_then(|at| self.classes.get(at)).map_or(0, |(_, score)| *score)
    }

    /// What is preferred of a bucket, per class column.
    fn of(&self, bucket: &Bucket) -> Row {
        if self.classes.is_empty() {
            return Row::collect((0..self.columns).map(|_| 0));
        }
        let classes = bucket.classes().iter().enumerate();
        Row::collect(classes.map(|(column, &class)| self.score(column as u16, class)))
    }

    /// Whether anybody but the reason for this walk speaks of a bucket.
    fn silent(&self, liked: &Row, within: Within) -> bool {
        (0..self.columns as u16)
            .all(|column| liked.get(column) == 0 || within.is_some_and(|(walked, _)| walked == column))
    }
}

impl Best<'_> {
    /// Keeps a candidate if it is sooner than the best so far and not vetoed.
    fn meet(&mut self, new: Candidate) {
        if new.liked.contains(VETO) {
            return;
        }
        let sooner = self.found.as_ref().is_none_or(|best| new.sooner_than(best, self.levels));
        if sooner {
            self.found = Some(new);
        }
    }
}

impl Candidate {
    fn sooner_than(&self, other: &Self, levels: &[Level]) -> bool {
        let at = |it: &Self, level: &Level| {
            let liked = level.class.map_or(0, |column| it.liked.get(column).saturating_neg());
            (liked, level.score.map_or(0, |column| it.key.get(column)))
        };
        for level in levels {
            let (mine, its) = (at(self, level), at(other, level));
            if mine != its {
                return mine < its;
            }
        }
        self.sequence < other.sequence
    }
}

impl Lane {
    /// The best test for a machine with `free` of `slots` slots free, given what the policies wish there. It is not
    /// removed: the caller unqueues it and calls [`taken`](Self::taken).
    ///
    /// Exact, but for a bucket that stands in two liked classes of more than 32 buckets each.
    pub(crate) fn pick(
        &mut self,
        wishes: &[Wish],
        free: u16,
        slots: u16,
        tickets: &[Ticket],
    ) -> Option<TestId> {
        let fits = |claim: u16| claim.min(slots) <= free;
        if let ([only], true) = (self.buckets.as_slice(), wishes.is_empty()) {
            return if fits(only.claim) { self.first(0, tickets).map(|entry| entry.test) } else { None };
        }
        let levels = self.levels.clone();
        let wishes = Wishes::new(wishes, &levels, self.members.len());
        let mut best = Best { levels: &levels, found: None };
        self.walk(None, &wishes, &fits, tickets, &mut best);
        for &((column, class), score) in &wishes.classes {
            if score <= 0 {
                continue;
            }
            let members = self.members.get(usize::from(column)).and_then(|members| members.get(&class));
            let ordered = self.ordered.get(usize::from(column)).is_some_and(|sets| sets.contains_key(&class));
            match members {
                None => {}
                Some(list) if list.len() <= MANY && !ordered => {
                    let list = list.clone();
                    self.look_at(&list, &wishes, &fits, tickets, &mut best);
                }
                Some(_) => {
                    self.order(column, class);
                    self.walk(Some((column, class)), &wishes, &fits, tickets, &mut best);
                }
            }
        }
        self.look_at_lifted(&wishes, &fits, tickets, &mut best);
        best.found.map(|candidate| candidate.test)
    }

    /// Goes down a static order until nothing behind can be better.
    fn walk(
        &mut self,
        within: Within,
        wishes: &Wishes,
        fits: &dyn Fn(u16) -> bool,
        tickets: &[Ticket],
        best: &mut Best<'_>,
    ) {
        let mut after: Option<Head> = None;
        loop {
            let set = match within {
                None => Some(&self.heads),
                Some((column, class)) => {
                    self.ordered.get(usize::from(column)).and_then(|ordered| ordered.get(&class))
                }
            };
            let next = match &after {
                None => set.and_then(|set| set.first()),
                Some(head) => set.and_then(|set| set.range((Bound::Excluded(head), Bound::Unbounded)).next()),
            };
            let Some(head) = next else { return };
            let number = head.bucket;
            let Some(bucket) = self.buckets.get(number as usize) else { return };
            let Some(entry) = bucket.head.as_ref().map(|(entry, _)| *entry) else { return };
            if !entry.valid(tickets) {
                self.refresh(number, tickets); // it may come again further down
                continue;
            }
            let liked = wishes.of(bucket);
            let fit = fits(bucket.claim);
            let last = fit && wishes.silent(&liked, within);
            let head = head.clone();
            if fit {
                best.meet(Candidate {
                    test: entry.test,
                    sequence: head.sequence,
                    liked,
                    key: head.key.clone(),
                });
            }
            if last {
                return;
            }
            after = Some(head);
        }
    }

    /// Looks at buckets one by one.
    fn look_at(
        &mut self,
        buckets: &[u32],
        wishes: &Wishes,
        fits: &dyn Fn(u16) -> bool,
        tickets: &[Ticket],
        best: &mut Best<'_>,
    ) {
        for &number in buckets {
            let Some((entry, head)) = self.best(number, tickets) else { continue };
            let Some(bucket) = self.buckets.get(number as usize).filter(|bucket| fits(bucket.claim)) else {
                continue;
            };
            let liked = wishes.of(bucket);
            best.meet(Candidate { test: entry.test, sequence: head.sequence, liked, key: head.key });
        }
    }

    /// Looks at the tests that were lifted by name.
    fn look_at_lifted(
        &self,
        wishes: &Wishes,
        fits: &dyn Fn(u16) -> bool,
        tickets: &[Ticket],
        best: &mut Best<'_>,
    ) {
        for wished in wishes.tests.chunk_by(|a, b| a.0.0 == b.0.0) {
            let Some(&((test, _), _)) = wished.first() else { continue };
            let Some(number) = self.bucket_of(test, tickets) else { continue };
            let Some(bucket) = self.buckets.get(number as usize) else { continue };
            let Some(ticket) = tickets.get(test as usize) else { continue };
            if !fits(bucket.claim) {
                continue;
            }
            let mut liked = wishes.of(bucket);
            for &((_, column), score) in wished {
                if liked.get(column) != VETO {
                    liked.set(column, score.max(liked.get(column)));
                }
            }
            best.meet(Candidate { test, sequence: ticket.sequence, liked, key: self.key(test) });
        }
    }
}
