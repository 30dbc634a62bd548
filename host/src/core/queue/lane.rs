//! Adding to a lane and keeping its bucket heads true.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;

use atex_plugin_api::policy::{Class, Rank, TestId, VETO};

use super::column::{Column, Short};
use super::{Entry, Head, Level, Row, Ticket};
use crate::core::hash::Map;

/// "In no bucket".
const OUT: i64 = -1;
/// Fewer tests than these are sorted by looking each score up.
const FEW: usize = 16;

/// The tests of one platform as machines of one kind see them.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Number of the platform's first test.
    pub(super) base: TestId,
    pub(super) levels: Arc<[Level]>,
    /// Static scores.
    scores: Vec<Column>,
    seats: Seats,
    /// Loaded tests, as they came; once sealed bucket by bucket, the best last.
    order: Vec<TestId>,
    /// What was loaded stands in `order`.
    sealed: bool,
    pub(super) buckets: Vec<Bucket>,
    /// Buckets to use again.
    free: Vec<u32>,
    /// Classes, with the claim behind them, to the bucket of that shape.
    shapes: Map<Short, u32>,
    /// Per class column: the buckets of each class.
    pub(super) members: Vec<Map<Class, Vec<u32>>>,
    /// A head for every bucket: its best test, or one that was better and is gone. So a walk meets a bucket early rather than
    /// late, and what is taken from a bucket that policies like costs nothing here.
    pub(super) heads: BTreeSet<Head>,
    /// Per class column: the heads of a class that was liked while it had many buckets.
    pub(super) ordered: Vec<Map<Class, BTreeSet<Head>>>,
    /// Some test in here ever took more than one slot.
    wide: bool,
}

/// Where each test stands. Of one of ours that was never placed this says the first bucket: its ticket is not queued or of
/// another generation, so that is void.
#[derive(Debug)]
struct Seats {
    /// [`OUT`] or the number of a bucket.
    buckets: Column,
    /// Twice the generation of the ticket for which that is so, and one more if the test was inserted late.
    whens: Column,
    count: usize,
}

/// Where a test stands, as long as its ticket is of this generation.
#[derive(Debug, Clone, Copy)]
struct Seat {
    bucket: Option<u32>,
    generation: u32,
    late: bool,
}

impl Seats {
    fn new(count: usize) -> Self {
        Self { buckets: Column::new(0, count), whens: Column::new(0, count), count }
    }

    fn get(&self, at: usize) -> Seat {
        Seat { bucket: self.bucket(at), ..self.when(at) }
    }

    /// The bucket alone; none for a test of another lane, which policies may well name.
    fn bucket(&self, at: usize) -> Option<u32> {
        if at < self.count { u32::try_from(self.buckets.get(at)).ok() } else { None }
    }

    /// The same without the bucket.
    fn when(&self, at: usize) -> Seat {
        let when = self.whens.get(at);
        Seat { bucket: None, generation: (when >> 1) as u32, late: when & 1 == 1 }
    }

    fn set(&mut self, at: usize, seat: Seat) {
        self.buckets.set(at, seat.bucket.map_or(OUT, i64::from));
        self.whens.set(at, i64::from(seat.generation) << 1 | i64::from(seat.late));
    }
}

/// Tests with the same classes and claim.
///
/// A bucket that runs empty is taken out of the lists and used again: with a class per machine or per test the dead ones
/// would make every decision slower than the last.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    live: bool,
    /// Where it stands in the member list of each of its classes.
    place: Short,
    /// Its classes, with the claim behind them.
    shape: Short,
    pub(super) claim: u16,
    /// Its part of the order, as far as that was not taken yet.
    start: u32,
    end: u32,
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

/// How the scores of some tests fit into one number.
struct Packing<'a> {
    /// Columns of scores, with the least score in each and the bits that the others are above it.
    columns: Vec<(&'a Column, i64, u32)>,
    bits: u32,
}

impl<'a> Packing<'a> {
    /// For the scores at these places, if they fit.
    fn new(columns: &'a [Column], places: &(impl Iterator<Item = usize> + Clone)) -> Option<Self> {
        let mut it = Self { columns: Vec::with_capacity(columns.len()), bits: 0 };
        for column in columns.iter().filter(|column| !column.is_same()) {
            let (mut least, mut most) = (i64::MAX, i64::MIN);
            for score in places.clone().map(|at| column.get(at)) {
                (least, most) = (least.min(score), most.max(score));
            }
            let width = u64::BITS - (most.wrapping_sub(least) as u64).leading_zeros();
            it.bits += width;
            it.columns.push((column, least, width));
        }
        (it.bits <= u64::BITS).then_some(it)
    }

    /// A number for the scores at this place, in the same order as the scores.
    fn pack(&self, at: usize) -> u64 {
        self.columns.iter().fold(0, |packed, (column, least, width)| {
            packed.checked_shl(*width).unwrap_or(0) | column.get(at).wrapping_sub(*least) as u64
        })
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
            scores: (0..columns).map(|_| Column::new(0, count)).collect(),
            seats: Seats::new(count),
            order: vec![],
            sealed: false,
            buckets: vec![],
            free: vec![],
            shapes: Map::default(),
            members: vec![Map::default(); classes],
            heads: BTreeSet::new(),
            ordered: vec![Map::default(); classes],
            wide: false,
        }
    }

    /// How many ranks a test has in [`load`](Self::load) and [`insert`](Self::insert): one per level that ranks.
    pub(crate) fn width(&self) -> usize {
        self.scores.len()
    }

    /// Whether any test here ever took more than one slot.
    pub(crate) fn has_wide(&self) -> bool {
        self.wide
    }

    /// Adds some of many tests, to be followed by [`seal`](Self::seal). A vetoed test is not in the lane at all.
    pub(crate) fn load(&mut self, mut rows: Vec<(TestId, &[Rank])>, tickets: &[Ticket]) {
        rows.retain(|&(test, ranks)| self.place(test, ranks, false, tickets).is_some());
        self.order.extend(rows.iter().map(|(test, _)| test));
        let base = self.base;
        for (number, column) in self.scores.iter_mut().enumerate() {
            column.set_all(rows.iter().filter_map(|(test, ranks)| {
                Some((test.wrapping_sub(base) as usize, ranks.get(number)?.score))
            }));
        }
    }

    /// Sorts what was loaded. Before that, nothing is picked.
    pub(crate) fn seal(&mut self, tickets: &[Ticket]) {
        let mut loaded = std::mem::take(&mut self.order);
        loaded.retain(|&test| !self.seats.when(self.local(test)).late);
        loaded.shrink_to_fit();
        let mut order = self.by_bucket(loaded);
        for bucket in &self.buckets {
            self.sort(order.get_mut(bucket.start as usize..bucket.end as usize).unwrap_or_default(), tickets);
        }
        (self.order, self.sealed) = (order, true);
        for bucket in 0..self.buckets.len() as u32 {
            self.refresh(bucket, tickets);
        }
    }

    /// Groups tests, and tells their buckets where they stand.
    fn by_bucket(&mut self, tests: Vec<TestId>) -> Vec<TestId> {
        if let [bucket] = self.buckets.as_mut_slice() {
            (bucket.start, bucket.end) = (0, tests.len() as u32);
            return tests;
        }
        let bucket =
            |test: TestId| self.seats.bucket(test.wrapping_sub(self.base) as usize).map(|at| at as usize);
        let mut ends = vec![0_u32; self.buckets.len()];
        for bucket in tests.iter().filter_map(|&test| bucket(test)) {
            if let Some(end) = ends.get_mut(bucket) {
                *end += 1;
            }
        }
        let mut total = 0;
        for (bucket, end) in self.buckets.iter_mut().zip(&mut ends) {
            (bucket.start, bucket.end) = (total, total + *end);
            total = bucket.end;
            *end = bucket.start;
        }
        let mut order = vec![0; total as usize];
        for &test in &tests {
            let Some(end) = bucket(test).and_then(|bucket| ends.get_mut(bucket)) else { continue };
            if let Some(slot) = order.get_mut(*end as usize) {
                *slot = test;
            }
            *end += 1;
        }
        order
    }

    /// Adds one test, late.
    pub(crate) fn insert(&mut self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) {
        let Some((bucket, entry)) = self.place(test, ranks, true, tickets) else { return };
        let local = self.local(test);
        for (column, rank) in self.scores.iter_mut().zip(ranks) {
            column.set(local, rank.score);
        }
        let sequence = tickets.get(test as usize).map_or(0, |ticket| ticket.sequence);
        let late = Late { key: self.key(test), sequence, test, generation: entry.generation };
        if let Some(it) = self.buckets.get_mut(bucket as usize) {
            it.late.push(Reverse(late));
        }
        if self.sealed {
            self.refresh(bucket, tickets);
        }
    }

    /// Whether a queued test stands here with exactly these ranks, or its present rank is not known here yet.
    pub(crate) fn agrees(&self, test: TestId, ranks: &[Rank], tickets: &[Ticket]) -> bool {
        let vetoed = ranks.iter().any(|rank| rank.score == VETO);
        let local = self.local(test);
        let Some(ticket) = tickets.get(test as usize) else { return false };
        let seat = self.seats.get(local);
        if seat.generation != ticket.generation {
            return true;
        }
        let bucket = seat.bucket.and_then(|bucket| self.buckets.get(bucket as usize));
        let Some(bucket) = bucket else { return vetoed };
        !vetoed
            && self.scores.iter().zip(ranks).all(|(column, rank)| column.get(local) == rank.score)
            && self.classes_of(ranks).eq(bucket.classes().iter().copied())
    }

    /// To be called for each test that was picked here and is no longer queued.
    pub(crate) fn taken(&mut self, test: TestId, tickets: &[Ticket]) {
        let Some(bucket) = self.seats.bucket(self.local(test)) else { return };
        let Some(it) = self.buckets.get_mut(bucket as usize) else { return };
        // What comes after it is looked at when it is needed: it is far away in memory.
        if it.start < it.end && self.order.get(it.end as usize - 1) == Some(&test) {
            it.end -= 1;
        }
        if it.start == it.end && it.live {
            self.first(bucket, tickets);
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
        let seat = self.seats.get(self.local(test));
        seat.bucket.filter(|_| seat.generation == ticket.generation)
    }

    /// The static key of a test that stands here.
    pub(super) fn key(&self, test: TestId) -> Row {
        let at = self.local(test);
        Row::collect(self.scores.iter().map(|column| column.get(at).saturating_neg()))
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

    /// Finds the bucket, if the test is not vetoed. The scores are for the caller to write down.
    fn place(
        &mut self,
        test: TestId,
        ranks: &[Rank],
        late: bool,
        tickets: &[Ticket],
    ) -> Option<(u32, Entry)> {
        let ticket = tickets.get(test as usize)?;
        let local = self.local(test);
        let seat = Seat { bucket: None, generation: ticket.generation, late };
        if !ticket.queued || ranks.iter().any(|rank| rank.score == VETO) {
            self.seats.set(local, seat);
            return None;
        }
        self.wide |= ticket.claim > 1;
        let bucket = if self.members.is_empty() && ticket.claim == 1 {
            self.bucket(&[1])
        } else {
            let shape: Vec<u32> = self.classes_of(ranks).chain([ticket.claim.into()]).collect();
            self.bucket(&shape)
        };
        self.seats.set(local, Seat { bucket: Some(bucket), ..seat });
        Some((bucket, Entry { test, generation: ticket.generation }))
    }

    /// The bucket of this shape, a new one if need be.
    fn bucket(&mut self, shape: &[u32]) -> u32 {
        let alike = |bucket: &Bucket| bucket.live && *bucket.shape == *shape;
        if self.buckets.first().is_some_and(alike) {
            return 0;
        }
        if let Some(&bucket) = self.shapes.get(shape) {
            return bucket;
        }
        let bucket = self.free.pop().unwrap_or(self.buckets.len() as u32);
        let mut place = Short::from(shape.get(..self.members.len()).unwrap_or_default());
        for ((members, &class), place) in self.members.iter_mut().zip(shape).zip(place.iter_mut()) {
            let list = members.entry(class).or_default();
            *place = list.len() as u32;
            list.push(bucket);
        }
        self.shapes.insert(shape.into(), bucket);
        let claim = shape.last().map_or(1, |&claim| claim as u16);
        let new = Bucket { live: true, place, shape: shape.into(), claim, ..Bucket::default() };
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
        for (column, (&class, &place)) in gone.classes().iter().zip(gone.place.iter()).enumerate() {
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
    fn sort(&self, tests: &mut [TestId], tickets: &[Ticket]) {
        let sequence = |test: TestId| tickets.get(test as usize).map_or(0, |ticket| ticket.sequence);
        let few = tests.len() < FEW;
        let Some(packing) = (!few).then(|| self.packing(tests)).flatten() else {
            let scores = |test| self.scores.iter().map(move |column| column.get(self.local(test)));
            return tests
                .sort_unstable_by(|&a, &b| scores(a).cmp(scores(b)).then(sequence(b).cmp(&sequence(a))));
        };
        // Looking scores up for each comparison would cost several times as much. From here on the last tie is the position.
        tests.sort_by_key(|&test| Reverse(sequence(test)));
        let scores = tests.iter().map(|&test| packing.pack(self.local(test)));
        let width = u64::BITS - (tests.len() as u64).leading_zeros();
        let sorted: Vec<TestId> = if packing.bits + width <= u64::BITS {
            let mut keys: Vec<u64> = scores.zip(0..).map(|(scores, at)| scores << width | at).collect();
            keys.sort_unstable();
            let position = |key: u64| key & ((1 << width) - 1);
            keys.into_iter().filter_map(|key| tests.get(position(key) as usize).copied()).collect()
        } else {
            let mut keys: Vec<(u64, u32)> = scores.zip(0..).collect();
            keys.sort_unstable();
            keys.into_iter().filter_map(|(_, at)| tests.get(at as usize).copied()).collect()
        };
        for (slot, test) in tests.iter_mut().zip(sorted) {
            *slot = test;
        }
    }

    fn packing(&self, tests: &[TestId]) -> Option<Packing<'_>> {
        Packing::new(&self.scores, &tests.iter().map(|&test| self.local(test)))
    }

    /// The first test of a bucket that still waits; without one the bucket is given up. Its listed head stays as it is.
    pub(super) fn best(&mut self, bucket: u32, tickets: &[Ticket]) -> Option<(Entry, Head)> {
        let entry = self.first(bucket, tickets)?;
        Some((entry, self.head_of(entry, bucket, tickets)))
    }

    /// The same, without looking up its scores: those are far away in memory.
    pub(super) fn first(&mut self, bucket: u32, tickets: &[Ticket]) -> Option<Entry> {
        let (base, seats, order) = (self.base, &self.seats, &self.order);
        let it = self.buckets.get_mut(bucket as usize)?;
        // Of an entry of the order: it was not taken, not queued anew, not ranked anew.
        let stands = |test: TestId| {
            let ticket = tickets.get(test as usize).filter(|ticket| ticket.queued)?;
            let seat = seats.when(test.wrapping_sub(base) as usize);
            let current = seat.generation == ticket.generation && !seat.late;
            current.then_some(Entry { test, generation: ticket.generation })
        };
        let mut early = None;
        while it.start < it.end {
            early = order.get(it.end as usize - 1).and_then(|&test| stands(test));
            if early.is_some() {
                break;
            }
            it.end -= 1;
        }
        let valid = |late: &Late| Entry { test: late.test, generation: late.generation }.valid(tickets);
        while it.late.peek().is_some_and(|late| !valid(&late.0)) {
            it.late.pop();
        }
        let late = it.late.peek().map(|late| Entry { test: late.0.test, generation: late.0.generation });
        let live = it.live;
        match (early, late) {
            (Some(early), Some(late)) => {
                let head = |entry| self.head_of(entry, bucket, tickets);
                Some(if head(early) <= head(late) { early } else { late })
            }
            (None, None) => {
                if live {
                    self.replace_head(bucket, None);
                    self.detach(bucket);
                }
                None
            }
            (early, late) => early.or(late),
        }
    }

    fn head_of(&self, entry: Entry, bucket: u32, tickets: &[Ticket]) -> Head {
        let sequence = tickets.get(entry.test as usize).map_or(0, |ticket| ticket.sequence);
        Head { key: self.key(entry.test), sequence, bucket }
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
