//! How long a machine is ours, and whether it is still there: renewals, and questions to its provider.
//!
//! A lease with an end is renewed well before it. A renewal that fails is tried again for as long as there is time; meanwhile
//! the machine gets no test that would outlast it. Where the end cannot be helped the machine is used for as long as it is
//! good for something, then given back and replaced.
//!
//! A provider is asked after a machine that was lost, before that is given back: whether it died or only the connection
//! did is what people want to know. It is asked from time to time after a machine that reboots: one that is gone is not
//! waited for until the test's time is used up.

use super::Coordinator;
use crate::core::event::{Action, LeaseId, Ms};
use crate::core::machines::{Lease, Probe, Renewal, State};

/// A machine gets no test so shortly before its end; less if it lives shorter than four times that.
const MARGIN: Ms = 60_000;
/// A renewal is tried again no sooner than this.
const RETRY: Ms = 30_000;

impl Coordinator {
    /// When something is to be done about the end of a lease or about a machine that is away.
    pub(super) fn lifetime_due(it: &Lease) -> Ms {
        let renewal = match it.renewal {
            _ if it.state == State::Releasing => Ms::MAX,
            Renewal::Planned(at) | Renewal::Asked(at) => at,
            Renewal::Final(_) => end_of_use(it),
        };
        match it.probe {
            Probe::Planned(at) | Probe::Asked(at) => renewal.min(at),
            Probe::None => renewal,
        }
    }

    /// Does what is due.
    pub(super) fn lifetime_is_due(&mut self, lease: LeaseId) {
        let now = self.now;
        let Some(it) = self.leases.get(lease) else { return };
        match it.renewal {
            Renewal::Asked(until) if until <= now => self.renew_failed(lease, true),
            Renewal::Planned(at) if at <= now => _ = self.renew(lease),
            Renewal::Final(_) if end_of_use(it) <= now => self.retire(lease),
            _ => {}
        }
        match self.leases.get(lease).map(|it| it.probe) {
            Some(Probe::Planned(at)) if at <= now => self.probe(lease),
            Some(Probe::Asked(until)) if until <= now => self.probed(lease, None),
            _ => {}
        }
    }

    /// The provider has said until when it keeps the machine.
    pub(super) fn promised(&mut self, lease: LeaseId, expires: Option<Ms>) {
        let (now, lead) = (self.now, self.config.limits.renew_lead);
        let Some(it) = self.leases.get_mut(lease) else { return };
        let renews = self.config.pools.get(usize::from(it.pool)).is_some_and(|pool| pool.renews);
        it.expires = expires;
        it.renewal = match expires {
            None => Renewal::Planned(Ms::MAX),
            Some(end) if renews => {
                Renewal::Planned(end.saturating_sub(lead.min(end.saturating_sub(now) / 2)))
            }
            Some(end) => Renewal::Final(last_use(now, end)),
        };
    }

    pub(super) fn renewed(&mut self, lease: LeaseId, expires: Option<Ms>) {
        let now = self.now;
        let Some(it) = self.leases.get_mut(lease) else { return };
        if !matches!(it.renewal, Renewal::Asked(_)) {
            return;
        }
        // A renewal that gains nothing must not be asked for again and again.
        let gained = match (it.expires, expires) {
            (Some(old), Some(new)) => new > old,
            (old, new) => old.is_some() && new.is_none(),
        };
        it.renewed = Some(gained);
        if gained {
            self.promised(lease, expires);
        } else {
            it.expires = expires;
            it.renewal = expires.map_or(Renewal::Planned(Ms::MAX), |end| Renewal::Final(last_use(now, end)));
        }
        self.after_renewal(lease);
    }

    pub(super) fn renew_failed(&mut self, lease: LeaseId, again: bool) {
        let now = self.now;
        let Some(it) = self.leases.get_mut(lease) else { return };
        if !matches!(it.renewal, Renewal::Asked(_)) {
            return;
        }
        it.renewed = Some(false);
        let end = it.expires.unwrap_or(Ms::MAX);
        let pause = end.saturating_sub(now) / 2;
        it.renewal = if again && pause >= RETRY {
            Renewal::Planned(now.saturating_add(pause))
        } else {
            Renewal::Final(last_use(now, end))
        };
        self.after_renewal(lease);
    }

    fn after_renewal(&mut self, lease: LeaseId) {
        self.arm(lease);
        if self.leases.state(lease) == State::Ready {
            self.offer(lease);
        }
    }

    /// Asks for a longer lease, if that is possible. Returns whether an answer is to be waited for.
    pub(super) fn renew(&mut self, lease: LeaseId) -> bool {
        let until = self.now.saturating_add(self.config.limits.call_time);
        let Some(it) = self.leases.get_mut(lease) else { return false };
        match it.renewal {
            Renewal::Asked(_) => true,
            Renewal::Final(_) => false,
            Renewal::Planned(_) => {
                it.renewal = Renewal::Asked(until);
                self.arm(lease);
                self.out.push(Action::Renew { lease });
                true
            }
        }
    }

    /// Whether a test that needs a machine for so long may start there, or an answer is to be waited for first.
    pub(super) fn lives_for(&mut self, lease: LeaseId, need: Ms) -> Lives {
        let Some(it) = self.leases.get(lease) else { return Lives::No };
        // Where renewals work the end is not one.
        let endless = it.renewed == Some(true) && !matches!(it.renewal, Renewal::Final(_));
        let in_time = it.expires.is_none_or(|end| self.now.saturating_add(need) <= end);
        if in_time || endless {
            return Lives::LongEnough;
        }
        let fresh = it.is_fresh();
        let untried = it.renewed.is_none() || matches!(it.renewal, Renewal::Asked(_));
        if untried && self.renew(lease) {
            Lives::Unknown
        } else if fresh {
            Lives::LongEnough
        } else {
            Lives::No
        }
    }

    /// A test has announced that the machine reboots.
    pub(super) fn away(&mut self, lease: LeaseId) {
        let at = self.now.saturating_add(self.config.limits.probe_every);
        let Some(it) = self.leases.get_mut(lease) else { return };
        let tells = self.config.pools.get(usize::from(it.pool)).is_some_and(|pool| pool.probes);
        if tells && it.probe == Probe::None && matches!(it.state, State::Ready | State::Draining) {
            it.probe = Probe::Planned(at);
            self.arm(lease);
        }
    }

    pub(super) fn back(&mut self, lease: LeaseId) {
        if let Some(it) = self.leases.get_mut(lease).filter(|it| it.state != State::Releasing) {
            it.probe = Probe::None;
        }
    }

    fn probe(&mut self, lease: LeaseId) {
        let until = self.now.saturating_add(self.config.limits.call_time);
        if let Some(it) = self.leases.get_mut(lease) {
            it.probe = Probe::Asked(until);
            self.arm(lease);
            self.out.push(Action::Probe { lease });
        }
    }

    pub(super) fn probed(&mut self, lease: LeaseId, alive: Option<bool>) {
        let next = self.now.saturating_add(self.config.limits.probe_every);
        let Some(it) = self.leases.get_mut(lease) else { return };
        if !matches!(it.probe, Probe::Asked(_)) {
            return;
        }
        match it.state {
            State::Releasing => self.give_back(lease),
            State::Ready | State::Draining if alive == Some(false) => {
                it.probe = Probe::None;
                // Nothing is left to ask about.
                self.gone_while_away(lease);
            }
            State::Ready | State::Draining => it.probe = Probe::Planned(next),
            _ => it.probe = Probe::None,
        }
        self.arm(lease);
    }

    /// The provider does not have the machine any more that a test waits for.
    fn gone_while_away(&mut self, lease: LeaseId) {
        if let Some(it) = self.leases.get_mut(lease) {
            it.spoilt = true;
        }
        self.release(lease);
    }

    /// Before a lost machine is given back its provider is asked after it. Returns whether an answer is to be waited for.
    pub(super) fn ask_after(&mut self, lease: LeaseId) -> bool {
        let hurry = self.ending.as_ref().is_some_and(super::Ending::lets_go);
        let Some(it) = self.leases.get(lease) else { return false };
        let tells = self.config.pools.get(usize::from(it.pool)).is_some_and(|pool| pool.probes);
        if !it.lost || !tells || hurry {
            return false;
        }
        self.enter(lease, State::Releasing);
        if let Some(it) = self.leases.get_mut(lease) {
            it.deadline = Ms::MAX;
        }
        self.probe(lease);
        true
    }

    /// A lost machine's provider has not yet said what became of it.
    pub(super) fn is_asked_after(&self, lease: LeaseId) -> bool {
        let asked = |it: &Lease| it.state == State::Releasing && it.probe != Probe::None;
        self.leases.get(lease).is_some_and(asked)
    }
}

/// Whether a machine lives long enough for a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lives {
    /// It does, or no other one would live longer.
    LongEnough,
    /// Its provider is asked.
    Unknown,
    No,
}

/// When a machine whose end cannot be helped is given back, unless it is on its way already.
fn end_of_use(it: &Lease) -> Ms {
    match it.renewal {
        Renewal::Final(at) if it.state == State::Ready && !it.spoilt => {
            // One that did nothing yet is of use to the very end: no other one would do better.
            it.expires.filter(|_| it.is_fresh()).unwrap_or(at)
        }
        _ => Ms::MAX,
    }
}

/// The time after which a machine that ends then gets no test.
fn last_use(now: Ms, end: Ms) -> Ms {
    end.saturating_sub(MARGIN.min(end.saturating_sub(now) / 4))
}
