//! Which queue serves which machines.
//!
//! Each rank kind of each platform has a *stall*; a stall has a *lane*, the queue itself. Kinds that rank every test alike
//! share a lane: a new lane is compared with the existing ones of its platform while it is filled, and given up for one
//! that agrees in everything. When the policies later rank a single test differently for kinds that share, those kinds get
//! lanes of their own, for good.

use std::collections::VecDeque;
use std::sync::Arc;

use atex_plugin_api::policy::{Queued, Rank, TestId};

use super::event::{AskId, ChainId, LeaseId, PlatformId};
use super::hash::Map;
use super::queue::{Lane, Level, Ticket};

/// Machines of one platform and rank kind.
#[derive(Debug)]
pub(crate) struct Stall {
    pub(crate) lane: u32,
    /// A kind that policies know, of this rank kind.
    example: u32,
    /// Ready machines that wait for the lane to be filled.
    pub(crate) waiting: Vec<LeaseId>,
}

/// A lane, with those it serves.
#[derive(Debug)]
pub(crate) struct Berth {
    pub(crate) lane: Lane,
    pub(crate) platform: PlatformId,
    pub(crate) chain: ChainId,
    /// Every waiting test stands in it, or its rank is being asked for.
    pub(crate) ready: bool,
    /// While it is filled: the first test that was not asked for yet.
    pub(crate) cursor: TestId,
    stalls: Vec<u32>,
    /// The example kinds of its stalls.
    pub(crate) kinds: Arc<[u32]>,
    /// Lanes that agree with everything loaded so far.
    candidates: Vec<u32>,
    /// Tests queued or ranked anew while it is filled.
    touched: Vec<TestId>,
    /// Single tests whose rank is being asked for.
    pub(crate) unranked: u32,
}

/// A question for ranks that is open.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) lane: u32,
    pub(crate) kinds: Arc<[u32]>,
    pub(crate) tests: Arc<[Queued]>,
    generations: Box<[u32]>,
    /// Part of the filling of the lane.
    pub(crate) bulk: bool,
}

/// What became of a lane that was filled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// The lane that serves its stalls now: itself, or one that it agreed with.
    pub(crate) lane: u32,
    /// Machines that waited for it.
    pub(crate) waiting: Vec<LeaseId>,
    /// Tests to be ranked again, because they changed while two lanes were compared.
    pub(crate) again: Vec<TestId>,
}

/// All lanes.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    berths: Vec<Berth>,
    stalls: Vec<Stall>,
    stall_of: Map<(PlatformId, u32), u32>,
    of_platform: Vec<Vec<u32>>,
    /// Lanes to be filled, one after the other: answers about a million tests for twenty kinds at once would not fit.
    filling: VecDeque<u32>,
    pub(crate) pending: Map<AskId, Pending>,
    /// The question that is part of filling a lane.
    filling_ask: Option<AskId>,
}

impl Lanes {
    pub(crate) fn new(platforms: usize) -> Self {
        Self { of_platform: vec![vec![]; platforms], ..Self::default() }
    }

    /// The stall of a rank kind; `true` if it is new, and its lane is to be filled.
    pub(crate) fn stall(&mut self, platform: PlatformId, rank_kind: u32) -> (u32, bool) {
        let next = self.stalls.len() as u32;
        let stall = *self.stall_of.entry((platform, rank_kind)).or_insert(next);
        (stall, stall == next)
    }

    /// Adds the stall that [`stall`](Self::stall) said is new, with a lane of its own for now.
    pub(crate) fn add_stall(
        &mut self,
        example: u32,
        chain: ChainId,
        platform: PlatformId,
        levels: &[Level],
        tests: &std::ops::Range<TestId>,
    ) {
        let stall = self.stalls.len() as u32;
        let candidates =
            self.of_platform(platform).iter().copied().filter(|&lane| self.is_ready(lane)).collect();
        self.stalls.push(Stall { lane: 0, example, waiting: vec![] });
        self.add_lane(chain, platform, levels, tests, stall, candidates);
    }

    fn add_lane(
        &mut self,
        chain: ChainId,
        platform: PlatformId,
        levels: &[Level],
        tests: &std::ops::Range<TestId>,
        stall: u32,
        candidates: Vec<u32>,
    ) {
        let number = self.berths.len() as u32;
        let example = self.stalls.get(stall as usize).map_or(0, |stall| stall.example);
        self.berths.push(Berth {
            lane: Lane::new(tests.start, tests.len(), levels),
            platform,
            chain,
            ready: false,
            cursor: tests.start,
            stalls: vec![stall],
            kinds: Arc::new([example]),
            candidates,
            touched: vec![],
            unranked: 0,
        });
        if let Some(stall) = self.stalls.get_mut(stall as usize) {
            stall.lane = number;
        }
        if let Some(lanes) = self.of_platform.get_mut(usize::from(platform)) {
            lanes.push(number);
        }
        self.filling.push_back(number);
    }

    /// The lanes of a platform.
    pub(crate) fn of_platform(&self, platform: PlatformId) -> &[u32] {
        self.of_platform.get(usize::from(platform)).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn berth(&self, lane: u32) -> Option<&Berth> {
        self.berths.get(lane as usize)
    }

    pub(crate) fn berth_mut(&mut self, lane: u32) -> Option<&mut Berth> {
        self.berths.get_mut(lane as usize)
    }

    /// The lane that serves a stall.
    pub(crate) fn serving(&self, stall: u32) -> Option<&Berth> {
        self.berth(self.stalls.get(stall as usize)?.lane)
    }

    pub(crate) fn serving_mut(&mut self, stall: u32) -> Option<&mut Berth> {
        let lane = self.stalls.get(stall as usize)?.lane;
        self.berth_mut(lane)
    }

    /// A ready machine waits until the lane of its stall is filled.
    pub(crate) fn wait(&mut self, stall: u32, lease: LeaseId) {
        if let Some(stall) = self.stalls.get_mut(stall as usize) {
            stall.waiting.push(lease);
        }
    }

    fn is_ready(&self, lane: u32) -> bool {
        self.berth(lane).is_some_and(|berth| berth.ready)
    }

    /// The lane to be filled further now; none while a question about it is open.
    pub(crate) fn to_fill(&self) -> Option<u32> {
        let waits = self.filling_ask.is_some_and(|ask| self.pending.contains_key(&ask));
        self.filling.front().copied().filter(|_| !waits)
    }

    /// Writes down a question for ranks.
    pub(crate) fn ask(
        &mut self,
        ask: AskId,
        lane: u32,
        tests: Arc<[Queued]>,
        bulk: bool,
        tickets: &[Ticket],
    ) {
        let generation =
            |queued: &Queued| tickets.get(queued.test as usize).map_or(0, |ticket| ticket.generation);
        let generations = tests.iter().map(generation).collect();
        let Some(berth) = self.berths.get_mut(lane as usize) else { return };
        if bulk {
            self.filling_ask = Some(ask);
        } else {
            berth.unranked += 1;
        }
        self.pending.insert(ask, Pending { lane, kinds: berth.kinds.clone(), tests, generations, bulk });
    }

    /// A test was queued or ranked anew: whether its rank is to be asked for in this lane now, rather than while the lane is
    /// filled.
    pub(crate) fn touch(&mut self, lane: u32, test: TestId) -> bool {
        let Some(berth) = self.berths.get_mut(lane as usize) else { return false };
        if !berth.ready && test < berth.cursor {
            berth.touched.push(test);
        }
        berth.ready || test < berth.cursor
    }

    /// Takes up ranks: `None` for the host's own order.
    pub(crate) fn add(&mut self, pending: &Pending, ranks: Option<&[Rank]>, tickets: &[Ticket]) {
        let Some(at) = self.berths.get(pending.lane as usize).map(|berth| berth.lane.width()) else { return };
        let neutral = vec![Rank::default(); at];
        let mut candidates = match self.berths.get_mut(pending.lane as usize) {
            Some(berth) if !berth.ready => std::mem::take(&mut berth.candidates),
            _ => vec![],
        };
        let mut rows = Vec::with_capacity(if pending.bulk { pending.tests.len() } else { 0 });
        for (number, (queued, generation)) in pending.tests.iter().zip(&pending.generations).enumerate() {
            let current = tickets.get(queued.test as usize);
            if !current.is_some_and(|ticket| ticket.queued && ticket.generation == *generation) {
                continue;
            }
            let row = ranks.and_then(|ranks| ranks.get(number * at..(number + 1) * at)).unwrap_or(&neutral);
            candidates.retain(|&other| {
                self.berth(other).is_some_and(|other| other.lane.agrees(queued.test, row, tickets))
            });
            if pending.bulk {
                rows.push((queued.test, row));
            } else if let Some(berth) = self.berths.get_mut(pending.lane as usize) {
                berth.lane.insert(queued.test, row, tickets);
            }
        }
        let Some(berth) = self.berths.get_mut(pending.lane as usize) else { return };
        berth.lane.load(rows, tickets);
        if !berth.ready {
            berth.candidates = candidates;
        }
    }

    /// The front lane has everything: it is sorted, or given up for one that agrees with it.
    pub(crate) fn finish_filling(&mut self, tickets: &[Ticket]) -> Option<Filled> {
        let number = self.filling.pop_front()?;
        let berth = self.berths.get_mut(number as usize)?;
        let (stalls, again) = (std::mem::take(&mut berth.stalls), std::mem::take(&mut berth.touched));
        let platform = berth.platform;
        let mut waiting = vec![];
        for stall in &stalls {
            if let Some(stall) = self.stalls.get_mut(*stall as usize) {
                waiting.append(&mut stall.waiting);
            }
        }
        let agreed = self.berth(number).and_then(|berth| berth.candidates.first().copied());
        let Some(agreed) = agreed.filter(|&other| self.is_ready(other)) else {
            let berth = self.berths.get_mut(number as usize)?;
            berth.candidates = vec![];
            berth.lane.seal(tickets);
            (berth.ready, berth.stalls) = (true, stalls);
            return Some(Filled { lane: number, waiting, again: vec![] });
        };
        self.berths.get_mut(number as usize)?.lane = Lane::new(0, 0, &[]);
        if let Some(lanes) = self.of_platform.get_mut(usize::from(platform)) {
            lanes.retain(|&lane| lane != number);
        }
        self.assign(stalls, agreed);
        Some(Filled { lane: agreed, waiting, again })
    }

    /// Gives kinds lanes of their own that no longer rank like the others of their lane.
    pub(crate) fn split(
        &mut self,
        lane: u32,
        kinds: &[u32],
        levels: &[Level],
        tests: &std::ops::Range<TestId>,
    ) {
        let Some(berth) = self.berths.get_mut(lane as usize).filter(|berth| berth.ready) else { return };
        let (chain, platform) = (berth.chain, berth.platform);
        let own = |stalls: &[Stall], stall: u32| {
            stalls.get(stall as usize).is_some_and(|stall| kinds.contains(&stall.example))
        };
        // The first kind is the one that the others were compared with.
        let (leaving, staying): (Vec<u32>, Vec<u32>) = berth
            .stalls
            .iter()
            .partition(|&&stall| own(&self.stalls, stall) && berth.stalls.first() != Some(&stall));
        berth.stalls = vec![];
        self.assign(staying, lane);
        for stall in leaving {
            self.add_lane(chain, platform, levels, tests, stall, vec![]);
        }
    }

    fn assign(&mut self, stalls: Vec<u32>, lane: u32) {
        for stall in &stalls {
            if let Some(stall) = self.stalls.get_mut(*stall as usize) {
                stall.lane = lane;
            }
        }
        let Some(berth) = self.berths.get_mut(lane as usize) else { return };
        berth.stalls.extend(stalls);
        let example = |&stall: &u32| self.stalls.get(stall as usize).map_or(0, |stall| stall.example);
        berth.kinds = berth.stalls.iter().map(example).collect();
    }
}
