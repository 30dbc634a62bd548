//! Adding to a lane and keeping its bucket heads true.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use atex_plugin_api::policy::{Class, Rank, TestId, VETO};

use super::{Entry, Head, Level, Row, Ticket};
use crate::core::hash::Map;

/// "In no bucket".
const OUT: u32 = u32::MAX;

/// The tests of one platform as machines of one kind see them.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Number of the platform's first test.
    pub(super) base: TestId,
    pub(super) levels: Arc<[Level]>,
    /// Static scores, `columns` per test.
    scores: Vec<i64>,
    columns: usize,
    seats: Vec<Seat>,
    pub(super) buckets: Vec<Bucket>,
    /// Buckets to use again.
    free: Vec<u32>,
    /// Classes, with the claim behind them, to the bucket of that shape.
    shapes: Map<Box<[u32]>, u32>,
    /// Per class column: the buckets of each class.
    pub(super) members: Vec<Map<Class, Vec<u32>>>,
    /// A head for every bucket: its best test, or one that was better and is gone. So a walk meets a bucket early rather than
    /// late, and what is taken from a bucket that policies like costs nothing here.
    pub(super) heads: BTreeSet<Head>,
    /// Per class column: the heads of a class that was liked while it had many buckets.
    pub(super) ordered: Vec<Map<Class, BTreeSet<Head>>>,
    /// Buckets that were loaded and not sorted yet.
    unsorted: Vec<u32>,
    /// Some test in here ever took more than one slot.
    wide: bool,
}

/// Where a test stands, as long as its ticket is of this generation.
#[derive(Debug, Clone, Copy)]
struct Seat {
    bucket: u32,
    generation: u32,
}

/// Tests with the same classes and claim.
///
/// A bucket that runs empty is taken out of the lists and used again: with a class per machine or per test the dead ones
/// would make every decision slower than the last.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    live: bool,
    /// Where it stands in the member list of each of its classes.
    place: Box<[u32]>,
    /// Its classes, with the claim behind them.
    shape: Box<[u32]>,
    pub(super) claim: u16,
    /// Best last.
    sorted: Vec<Entry>,
    late: BinaryHeap<Reverse<Late>>,
    pub(super) head: Option<(Entry, Head)>,
}

/// A test that was queued after the bulk was sorted.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Late {
    key: Row,
    sequence: u32,
    test: TestId,
    generation: u32,
}

impl Bucket {
    pub(super) fn classes(&self) -> &[Class] {
        self.shape.split_last().map_or(&[], |(_, classes)| classes)
    }
}

impl Lane {
    /// An empty lane for the `count` tests from `base` on.
    pub(crate) fn new(base: TestId, count: usize, levels: &[Level]) -> Self {
        let columns = levels.iter().filter(|level| level.score.is_some()).count();
        let classes = levels.iter().filter(|level| level.class.is_some()).count();
        Self {
            base,
            levels: levels.into(),
            scores: vec![0; count * columns],
            columns,
            seats: vec![Seat { bucket: OUT, generation: 0 }; count],
            buckets: vec![],
            free: vec![],
            shapes: Map::default(),
            members: vec![Map::default(); classes],
            heads: BTreeSet::new(),
            ordered: vec![Map::default(); classes],
            unsorted: vec![],
            wide: false,
        }
    }

    /// How many ranks a test has in [`load`](Self::load) and [`insert`](Self::insert): one per level that ranks.
    pub(crate) fn width(&self) -> usize {
        self.columns
    }

    /// Whether any test here ever took more than one slot.
    pub(crate) fn has_wide(&self) -> bool {
        self.wide
    }

    /// Adds one of many tests, to be followed by [`seal`](Self::seal). A vetoed test is not in the lane at all.
    pub(crate) fn load(&mut self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) {
        let Some((bucket, entry)) = self.place(test, ranks, tickets) else { return };
        if let Some(it) = self.buckets.get_mut(bucket as usize) {
            if it.sorted.is_empty() {
                self.unsorted.push(bucket);
            }
            it.sorted.push(entry);
        }
    }

    /// Sorts what was loaded. Before that, nothing is picked.
    pub(crate) fn seal(&mut self, tickets: &[Ticket]) {
        for bucket in std::mem::take(&mut self.unsorted) {
            let mut entries =
                self.buckets.get_mut(bucket as usize).map_or(vec![], |it| std::mem::take(&mut it.sorted));
            self.sort(&mut entries, tickets);
            if let Some(it) = self.buckets.get_mut(bucket as usize) {
                it.sorted = entries;
            }
            self.refresh(bucket, tickets);
        }
    }

    /// Adds one test, late.
    pub(crate) fn insert(&mut self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) {
        let Some((bucket, entry)) = self.place(test, ranks, tickets) else { return };
        let sequence = tickets.get(test as usize).map_or(0, |ticket| ticket.sequence);
        let late = Late { key: self.key(test), sequence, test, generation: entry.generation };
        if let Some(it) = self.buckets.get_mut(bucket as usize) {
            it.late.push(Reverse(late));
        }
        self.refresh(bucket, tickets);
    }

    /// Whether a queued test stands here with exactly these ranks, or its present rank is not known here yet.
    pub(crate) fn agrees(&self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) -> bool {
        let vetoed = ranks.iter().any(|rank| rank.score == VETO);
        let local = self.local(test);
        let (Some(seat), Some(ticket)) = (self.seats.get(local), tickets.get(test as usize)) else {
            return false;
        };
        if seat.generation != ticket.generation {
            return true;
        }
        let Some(bucket) = self.buckets.get(seat.bucket as usize) else { return vetoed };
        let scores = self.scores.get(local * self.columns..(local + 1) * self.columns).unwrap_or_default();
        !vetoed
            && scores.iter().zip(ranks).all(|(score, rank)| *score == rank.score)
            && self.classes_of(ranks).eq(bucket.classes().iter().copied())
    }

    /// To be called for each test that was picked here and is no longer queued.
    pub(crate) fn taken(&mut self, test: TestId, tickets: &[Ticket]) {
        let seat = self.seats.get(self.local(test)).copied();
        if let Some(seat) = seat {
            self.best(seat.bucket, tickets);
        }
    }

    /// Classes at `level` of the best `count` buckets: what a policy is shown that does not know which classes it likes.
    pub(crate) fn window(&mut self, level: u16, count: usize, tickets: &[Ticket]) -> Vec<Class> {
        self.refresh_front(count, tickets);
        let Some(column) = self.levels.get(usize::from(level)).and_then(|level| level.class) else {
            return vec![];
        };
        let class = |head: &Head| {
            let bucket = self.buckets.get(head.bucket as usize)?;
            bucket.classes().get(usize::from(column)).copied()
        };
        self.heads.iter().take(count).filter_map(class).collect()
    }

    /// Makes the first heads true.
    fn refresh_front(&mut self, count: usize, tickets: &[Ticket]) {
        loop {
            let stale = self.heads.iter().take(count).find(|head| {
                let listed = self.buckets.get(head.bucket as usize).and_then(|bucket| bucket.head.as_ref());
                listed.is_none_or(|(entry, _)| !entry.valid(tickets))
            });
            let Some(bucket) = stale.map(|head| head.bucket) else { return };
            self.refresh(bucket, tickets);
        }
    }

    /// The bucket of a queued test, if it stands here with its present rank.
    pub(super) fn bucket_of(&self, test: TestId, tickets: &[Ticket]) -> Option<u32> {
        let ticket = tickets.get(test as usize).filter(|ticket| ticket.queued)?;
        let seat = self.seats.get(self.local(test))?;
        (seat.generation == ticket.generation && seat.bucket != OUT).then_some(seat.bucket)
    }

    /// The static key of a test that stands here.
    pub(super) fn key(&self, test: TestId) -> Row {
        let at = self.local(test) * self.columns;
        let scores = self.scores.get(at..at + self.columns).unwrap_or_default();
        Row::collect(scores.iter().map(|score| score.saturating_neg()))
    }

    fn local(&self, test: TestId) -> usize {
        test.wrapping_sub(self.base) as usize
    }

    /// The classes of a test with these ranks; a level that prefers without ranking has class 0 only.
    fn classes_of<'a>(&'a self, ranks: &'a [Rank]) -> impl Iterator<Item = Class> + 'a {
        self.levels.iter().filter(|level| level.class.is_some()).map(|level| {
            level.score.and_then(|column| ranks.get(usize::from(column))).map_or(0, |rank| rank.class)
        })
    }

    /// Writes down the scores and finds the bucket.
    fn place(&mut self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) -> Option<(u32, Entry)> {
        let ticket = tickets.get(test as usize)?;
        let local = self.local(test);
        *self.seats.get_mut(local)? = Seat { bucket: OUT, generation: ticket.generation };
        if !ticket.queued || ranks.iter().any(|rank| rank.score == VETO) {
            return None;
        }
        let scores = self.scores.get_mut(local * self.columns..(local + 1) * self.columns)?;
        for (score, rank) in scores.iter_mut().zip(ranks) {
            *score = rank.score;
        }
        self.wide |= ticket.claim > 1;
        let bucket = if self.members.is_empty() && ticket.claim == 1 {
            self.bucket(&[1])
        } else {
            let shape: Vec<u32> = self.classes_of(ranks).chain([ticket.claim.into()]).collect();
            self.bucket(&shape)
        };
        self.seats.get_mut(local)?.bucket = bucket;
        Some((bucket, Entry { test, generation: ticket.generation }))
    }

    /// The bucket of this shape, a new one if need be.
    fn bucket(&mut self, shape: &[u32]) -> u32 {
        if let Some(&bucket) = self.shapes.get(shape) {
            return bucket;
        }
        let bucket = self.free.pop().unwrap_or(self.buckets.len() as u32);
        let mut place = Vec::with_capacity(self.members.len());
        for (members, &class) in self.members.iter_mut().zip(shape) {
            let list = members.entry(class).or_default();
            place.push(list.len() as u32);
            list.push(bucket);
        }
        self.shapes.insert(shape.into(), bucket);
        let claim = shape.last().map_or(1, |&claim| claim as u16);
        let new = Bucket { live: true, place: place.into(), shape: shape.into(), claim, ..Bucket::default() };
        match self.buckets.get_mut(bucket as usize) {
            Some(old) => *old = new,
            None => self.buckets.push(new),
        }
        bucket
    }

    /// Takes an empty bucket out of all lists.
    fn detach(&mut self, bucket: u32) {
        let Some(it) = self.buckets.get_mut(bucket as usize) else { return };
        let gone = std::mem::take(it);
        for (column, (&class, &place)) in gone.classes().iter().zip(&gone.place).enumerate() {
            let Some(members) = self.members.get_mut(column) else { continue };
            let Some(list) = members.get_mut(&class) else { continue };
            list.swap_remove(place as usize);
            if let Some(&moved) = list.get(place as usize) {
                let moved = self.buckets.get_mut(moved as usize).and_then(|it| it.place.get_mut(column));
                if let Some(its_place) = moved {
                    *its_place = place;
                }
            } else if list.is_empty() {
                members.remove(&class);
                if let Some(ordered) = self.ordered.get_mut(column) {
                    ordered.remove(&class);
                }
            }
        }
        self.shapes.remove(&gone.shape);
        self.free.push(bucket);
    }

    /// Best last: bigger scores, then earlier queued.
    fn sort(&self, entries: &mut Vec<Entry>, tickets: &[Ticket]) {
        let scores = |entry: &Entry| {
            let at = self.local(entry.test) * self.columns;
            self.scores.get(at..at + self.columns).unwrap_or_default()
        };
        let sequence = |entry: &Entry| tickets.get(entry.test as usize).map_or(0, |ticket| ticket.sequence);
        // The first column that tells any two apart is sorted by value; going through the table for each comparison would
        // cost several times as much.
        let first: Vec<i64> = entries.first().map_or(vec![], |entry| scores(entry).to_vec());
        let differs =
            |column: &usize| entries.iter().any(|entry| scores(entry).get(*column) != first.get(*column));
        let column = (0..self.columns).find(differs).unwrap_or(self.columns);
        let mut keyed: Vec<(i64, Reverse<u32>, Entry)> = entries
            .iter()
            .map(|entry| (scores(entry).get(column).copied().unwrap_or(0), Reverse(sequence(entry)), *entry))
            .collect();
        let rest = column + 1;
        keyed.sort_unstable_by(|a, b| {
            let more = || scores(&a.2).get(rest..).cmp(&scores(&b.2).get(rest..));
            a.0.cmp(&b.0).then_with(more).then(a.1.cmp(&b.1))
        });
        entries.clear();
        entries.extend(keyed.into_iter().map(|(_, _, entry)| entry));
    }

    /// The first test of a bucket that still waits; without one the bucket is given up. Its listed head stays as it is.
    pub(super) fn best(&mut self, bucket: u32, tickets: &[Ticket]) -> Option<(Entry, Head)> {
        let it = self.buckets.get_mut(bucket as usize)?;
        while it.sorted.last().is_some_and(|entry| !entry.valid(tickets)) {
            it.sorted.pop();
        }
        let valid = |late: &Late| Entry { test: late.test, generation: late.generation }.valid(tickets);
        while it.late.peek().is_some_and(|late| !valid(&late.0)) {
            it.late.pop();
        }
        let early = it.sorted.last().copied();
        let late = it.late.peek().map(|late| Entry { test: late.0.test, generation: late.0.generation });
        let live = it.live;
        let head_of = |entry: Entry| {
            let sequence = tickets.get(entry.test as usize).map_or(0, |ticket| ticket.sequence);
            (entry, Head { key: self.key(entry.test), sequence, bucket })
        };
        let best = match (early.map(head_of), late.map(head_of)) {
            (Some(early), Some(late)) => Some(if early.1 <= late.1 { early } else { late }),
            (early, late) => early.or(late),
        };
        if best.is_none() && live {
            self.replace_head(bucket, None);
            self.detach(bucket);
        }
        best
    }

    /// Makes the listed head of a bucket true again.
    pub(super) fn refresh(&mut self, bucket: u32, tickets: &[Ticket]) {
        if let Some(best) = self.best(bucket, tickets) {
            self.replace_head(bucket, Some(best));
        }
    }

    fn replace_head(&mut self, bucket: u32, new: Option<(Entry, Head)>) {
        let Some(it) = self.buckets.get_mut(bucket as usize) else { return };
        if it.head == new {
            return;
        }
        let old = it.head.take();
        for (ordered, class) in self.ordered.iter_mut().zip(it.shape.iter()) {
            if ordered.is_empty() {
                continue;
            }
            if let Some(set) = ordered.get_mut(class) {
                if let Some((_, head)) = &old {
                    set.remove(head);
                }
                set.extend(new.iter().map(|(_, head)| head.clone()));
            }
        }
        if let Some((_, head)) = &old {
            self.heads.remove(head);
        }
        self.heads.extend(new.iter().map(|(_, head)| head.clone()));
        it.head = new;
    }

    /// Gives a big class an order of its own, kept from then on.
    pub(super) fn order(&mut self, column: u16, class: Class) {
        let (buckets, column) = (&self.buckets, usize::from(column));
        let (Some(ordered), Some(members)) = (self.ordered.get_mut(column), self.members.get(column)) else {
            return;
        };
        ordered.entry(class).or_insert_with(|| {
            let heads = members.get(&class).into_iter().flatten();
            heads.filter_map(|&bucket| Some(buckets.get(bucket as usize)?.head.as_ref()?.1.clone())).collect()
        });
    }
}
