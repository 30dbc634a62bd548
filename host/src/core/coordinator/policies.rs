//! Questions to policies, their answers, and what they ask for.

use std::sync::Arc;

use atex_plugin_api::model::Facts;
use atex_plugin_api::policy::{Queued, Rank};

use super::Coordinator;
use crate::core::event::{Action, AskId, ChainId, Command, LeaseId, Ms, PlatformId, TestId, Trouble};
use crate::core::lanes::Pending;
use crate::core::runs::At;
use crate::core::timers::{Open, Timer};
use crate::core::verdict::Cause;

/// Tests per question while a lane is filled: other questions get their turn in between, and an answer stays small.
const BLOCK: usize = 16_384;
/// The closest that a wake-up may be.
const NEXT_WAKE: Ms = 10;

impl Coordinator {
    /// Finds the kind and the queue of a machine, by its facts.
    pub(super) fn board(&mut self, lease: LeaseId, facts: &Facts) {
        let Some(platform) = self.leases.get(lease).map(|it| it.platform) else { return };
        let chain = self.chain_of(platform);
        let state = self.chain_mut(chain);
        let (kind, new) = state.kinds.number(facts);
        let rank_kind = state.kinds.rank_kind(kind);
        let example = state.kinds.example(rank_kind);
        self.announce(chain, new);
        let (stall, is_new) = self.lanes.stall(platform, rank_kind);
        if is_new {
            let (levels, tests) =
                (&self.chains[usize::from(chain)].levels, &self.platforms[usize::from(platform)].tests);
            self.lanes.add_stall(example, chain, platform, levels, tests);
        }
        if let Some(it) = self.leases.get_mut(lease) {
            (it.kind, it.stall) = (kind, stall);
        }
        self.fill_lanes();
    }

    /// Goes on filling lanes, one question at a time.
    pub(super) fn fill_lanes(&mut self) {
        while let Some(lane) = self.lanes.to_fill() {
            let Some((chain, block)) = self.next_block(lane) else { return };
            if block.is_empty() {
                self.lane_is_full();
                continue;
            }
            let ask = self.next_ask();
            self.lanes.ask(ask, lane, block.clone(), true, &self.tickets);
            let state = self.chain(chain);
            if state.ranks && !state.silent {
                self.put_rank_question(ask);
                return;
            }
            self.take_ranks(ask, None, &[]);
        }
    }

    /// The next tests to be loaded into a lane.
    fn next_block(&mut self, lane: u32) -> Option<(ChainId, Arc<[Queued]>)> {
        let berth = self.lanes.berth_mut(lane)?;
        let platform = self.platforms.get(usize::from(berth.platform))?;
        let mut block = vec![];
        while berth.cursor < platform.tests.end && block.len() < BLOCK {
            let test = berth.cursor;
            berth.cursor += 1;
            let (Some(entry), Some(ticket)) =
                (self.tests.get(test as usize), self.tickets.get(test as usize))
            else {
                continue;
            };
            if ticket.queued {
                block.push(entry.queued(test));
            }
        }
        Some((berth.chain, block.into()))
    }

    fn lane_is_full(&mut self) {
        let Some(filled) = self.lanes.finish_filling(&self.tickets) else { return };
        self.to_offer.extend(filled.waiting);
        if let Some(berth) = self.lanes.berth(filled.lane) {
            self.to_wake.push(berth.platform);
        }
        for test in filled.again {
            self.rerank(test);
        }
    }

    fn put_rank_question(&mut self, ask: AskId) {
        let Some(pending) = self.lanes.pending.get(&ask) else { return };
        let Some(berth) = self.lanes.berth(pending.lane) else { return };
        let (chain, kinds, tests) = (berth.chain, pending.kinds.clone(), pending.tests.clone());
        self.timers.ask(self.now.saturating_add(self.config.limits.answer_time), Open::Rank(ask));
        self.out.push(Action::Rank { chain, ask, kinds, tests });
    }

    /// Asks for the ranks of a test in every lane of its platform.
    pub(super) fn rank(&mut self, test: TestId) {
        let platform = self.platform_of(test);
        let Some(queued) = self.tests.get(test as usize).map(|entry| entry.queued(test)) else { return };
        let chain = self.chain_of(platform);
        let state = self.chain(chain);
        let asks = state.ranks && !state.silent;
        for lane in self.lanes.of_platform(platform).to_vec() {
            if !self.lanes.touch(lane, test) {
                continue;
            }
            let ask = self.next_ask();
            self.lanes.ask(ask, lane, Arc::new([queued]), false, &self.tickets);
            if asks {
                self.put_rank_question(ask);
            } else {
                self.take_ranks(ask, None, &[]);
            }
        }
    }

    /// Ranks a waiting test anew: what lanes know of it is void.
    pub(super) fn rerank(&mut self, test: TestId) {
        if self.at(test) != At::Queued {
            return;
        }
        if let Some(ticket) = self.tickets.get_mut(test as usize) {
            ticket.generation += 1;
        }
        self.rank(test);
    }

    pub(super) fn ranked(&mut self, ask: AskId, ranks: &[Rank], differ: &[u32]) {
        let Some(pending) = self.lanes.pending.get(&ask) else { return };
        let (lane, count) = (pending.lane, pending.tests.len());
        let Some(berth) = self.lanes.berth(lane) else { return };
        let (platform, whole) = (berth.platform, ranks.len() == count * berth.lane.width());
        self.answered(platform);
        self.take_ranks(ask, whole.then_some(ranks), differ);
        self.fill_lanes();
    }

    /// Takes up an answer, or the host's own order instead.
    pub(super) fn take_ranks(&mut self, ask: AskId, ranks: Option<&[Rank]>, differ: &[u32]) {
        let Some(pending) = self.lanes.pending.remove(&ask) else { return };
        let Some(berth) = self.lanes.berth_mut(pending.lane) else { return };
        if !pending.bulk {
            berth.unranked = berth.unranked.saturating_sub(1);
        }
        let (platform, chain) = (berth.platform, berth.chain);
        if ranks.is_some() && !pending.bulk && berth.ready && berth.kinds != pending.kinds {
            self.ask_again(&pending);
            return;
        }
        self.lanes.add(&pending, ranks, &self.tickets);
        if !differ.is_empty() {
            let (levels, tests) =
                (&self.chains[usize::from(chain)].levels, &self.platforms[usize::from(platform)].tests);
            self.lanes.split(pending.lane, differ, levels, tests);
            self.fill_lanes();
        }
        if !pending.bulk {
            self.to_wake.push(platform);
        }
    }

    /// More kinds share the lane than the question was about.
    fn ask_again(&mut self, pending: &Pending) {
        let ask = self.next_ask();
        let current = pending.tests.iter().any(|queued| self.at(queued.test) == At::Queued);
        if current {
            self.lanes.ask(ask, pending.lane, pending.tests.clone(), false, &self.tickets);
            self.put_rank_question(ask);
        }
    }

    /// The policies of a platform said something: they are asked again.
    pub(super) fn answered(&mut self, platform: PlatformId) {
        let chain = self.chain_of(platform);
        self.chain_mut(chain).silent = false;
    }

    /// A question was not answered in time.
    pub(super) fn unanswered(&mut self, question: Open) {
        let platform = match question {
            Open::Ask(lease, ask) => {
                self.leases.get(lease).filter(|it| it.ask == Some(ask)).map(|it| it.platform)
            }
            Open::Judge(execution) => self.active.get(&execution).map(|active| self.platform_of(active.test)),
            Open::Rank(ask) => {
                let lane = self.lanes.pending.get(&ask).map(|pending| pending.lane);
                lane.and_then(|lane| self.lanes.berth(lane)).map(|berth| berth.platform)
            }
        };
        let Some(chain) = platform.map(|platform| self.chain_of(platform)) else { return };
        if !std::mem::replace(&mut self.chain_mut(chain).silent, true) {
            self.trouble(Trouble::PoliciesSilent { chain });
        }
        match question {
            Open::Ask(lease, _) => {
                if let Some(it) = self.leases.get_mut(lease) {
                    it.ask = None;
                }
                self.choose_and_go_on(lease, &[]);
            }
            Open::Judge(execution) => self.judge(execution, crate::core::event::Ruling::NONE),
            Open::Rank(ask) => {
                self.take_ranks(ask, None, &[]);
                self.fill_lanes();
            }
        }
    }

    pub(super) fn commands(&mut self, chain: ChainId, commands: Vec<(u16, Command)>) {
        if usize::from(chain) >= self.chains.len() {
            return;
        }
        for (policy, command) in commands {
            self.command(chain, policy, command);
        }
    }

    fn command(&mut self, chain: ChainId, policy: u16, command: Command) {
        let waits = |it: &Self, test| it.at(test) == At::Queued && it.chain_of(it.platform_of(test)) == chain;
        match command {
            Command::Skip(test, reason) if waits(self, test) => {
                let name = self.chain(chain).name(policy);
                self.not_run(test, Cause::PolicySkipped { policy, name, reason });
            }
            Command::Rerank(test) if waits(self, test) => self.rerank(test),
            Command::Stop(reason) => {
                let name = self.chain(chain).name(policy);
                self.drain(&Cause::PolicyStopped { policy, name, reason });
            }
            Command::WakeAt(at) => self.wake_policy_at(chain, policy, at),
            _ => {}
        }
    }

    /// One wake-up per policy, a new one replaces it: two policies that both ask for one at each note would double the
    /// timers every time.
    fn wake_policy_at(&mut self, chain: ChainId, policy: u16, at: Ms) {
        let at = at.max(self.now.saturating_add(NEXT_WAKE));
        let Some((wanted, armed)) = self.chain_mut(chain).wakes.get_mut(usize::from(policy)) else { return };
        *wanted = Some(at);
        if at < *armed {
            *armed = at;
            self.timers.set(at, Timer::Policy(chain, policy));
        }
    }
}
