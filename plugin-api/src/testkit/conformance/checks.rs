//! The checks themselves. They share machines where that shows as much: real ones are slow, and cost money.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::book::Entry;
use super::calls::{Pending, When};
use super::{Conformance, Outcome};
use crate::error::{Error, ErrorKind, Result};
use crate::host_side::{Cancel, ProvisionerHandle};
use crate::model::{Held, Lease, Machine};
use crate::provisioner::Capabilities;

/// Machines that are asked for one after the other; those that are held at the same time come on top.
pub(super) const ONE_BY_ONE: u32 = 8;

pub(super) type Verdict = Result<(), Outcome>;
type CheckFn<'a> = fn(&Conformance<'a>, &mut State) -> Verdict;

const NOTHING_IS_LEFT: &str = "nothing is left";

/// In this order: some use what others left.
pub(super) fn all<'a>() -> [(&'static str, CheckFn<'a>); 18] {
    [
        ("a machine is reserved", Conformance::reserve_first),
        ("a machine can be asked for twice", Conformance::reserve_twice),
        ("the list shows it to its owner and to nobody else", Conformance::list_first),
        ("the provider says that it is there", Conformance::alive_first),
        ("a lease can be renewed", Conformance::renew_first),
        ("a machine can be reset", Conformance::reboot_first),
        ("a machine is given back and is gone", Conformance::release_first),
        ("a machine can be given back twice", Conformance::release_first_again),
        ("giving back what is not there succeeds", Conformance::release_unknown),
        ("giving up what is not there succeeds, twice", Conformance::abort_unknown),
        ("a reservation that is given up at once leaves nothing", Conformance::abort_at_once),
        ("a reservation that is given up on its way leaves nothing", Conformance::abort_half_way),
        ("a call that is cancelled beforehand holds nothing", Conformance::cancelled_beforehand),
        ("a reservation whose time is over ends and leaves nothing", Conformance::time_is_over),
        ("a machine can be given up while it is held", Conformance::abort_held),
        ("another host finds a machine whose answer was lost", Conformance::answer_lost),
        ("several machines at a time are different ones", Conformance::several),
        (NOTHING_IS_LEFT, Conformance::clean_up),
    ]
}

/// Whether a check is also made when the rest was interrupted.
pub(super) fn runs_always(name: &str) -> bool {
    name == NOTHING_IS_LEFT
}

/// What checks leave to those that follow.
#[derive(Default)]
pub(super) struct State {
    /// The first machine, while it is held.
    first: Option<(Lease, Machine)>,
    /// Ids that it was known by, after it was given back.
    released: Vec<String>,
    /// How long a reservation takes here.
    reserve_time: Duration,
}

impl State {
    fn first(&self) -> Result<(Lease, String), Outcome> {
        let first = self.first.as_ref().map(|(lease, machine)| (lease.clone(), machine.id.clone()));
        first.ok_or_else(|| skipped("there is no machine"))
    }
}

/// Calls, with failures as verdicts.
impl Conformance<'_> {
    fn lease(&self) -> Result<Lease, Outcome> {
        let mut next = self.next_lease.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        next().map_err(|error| failed(format!("making a lease: {error}")))
    }

    /// What a failed call means: nothing, if somebody ended the checks meanwhile.
    fn wrong(&self, what: &str, error: &Error) -> Outcome {
        if self.stop.stopped() {
            return skipped("interrupted");
        }
        match error.kind() {
            ErrorKind::Busy => skipped(format!("nothing is free: {error}")),
            _ => failed(format!("{what}: {error}")),
        }
    }

    fn begin(
        &self,
        to: &ProvisionerHandle,
        lease: &Lease,
        limit: Duration,
    ) -> Result<Pending<Machine>, Outcome> {
        self.book().begin(lease);
        let wanted = lease.clone();
        let call = move |to: &ProvisionerHandle, host: &crate::Host| to.reserve(&wanted, host);
        let pending = self.start("reserve", to, Cancel::after(limit), When::Checking, call);
        pending.map_err(|error| failed(error.to_string()))
    }

    /// The end of a reservation: what came of it is in the book.
    fn end(&self, lease: &Lease, pending: Pending<Machine>) -> Result<Result<Machine>, Outcome> {
        match pending.wait() {
            Some(Ok(machine)) => {
                self.book().got(lease, &machine.id);
                Ok(Ok(machine))
            }
            Some(error) => Ok(error),
            None => {
                self.book().unanswered(lease);
                Err(failed(format!("reserve: {}", self.never_ended())))
            }
        }
    }

    fn reserve(&self, to: &ProvisionerHandle, lease: &Lease) -> Result<Machine, Outcome> {
        let pending = self.begin(to, lease, self.reserve_limit)?;
        self.end(lease, pending)?.map_err(|error| self.wrong("reserve", &error))
    }

    fn release(&self, to: &ProvisionerHandle, machine: &str) -> Verdict {
        let id = machine.to_owned();
        let done = self.call("release", to, When::Checking, move |to, host| to.release(&id, host));
        done.map_err(|error| self.wrong(&format!("release {machine}"), &error))
    }

    fn abort(&self, to: &ProvisionerHandle, lease: &Lease) -> Verdict {
        let id = lease.id.clone();
        let done = self.call("abort", to, When::Checking, move |to, host| to.abort(&id, host));
        done.map_err(|error| self.wrong("abort", &error))
    }

    fn list(&self, to: &ProvisionerHandle, owner: &str) -> Result<Vec<Held>, Outcome> {
        let asked = owner.to_owned();
        let told = self.call("list", to, When::Checking, move |to, host| to.list(&asked, host));
        told.map_err(|error| self.optional("list", &error))
    }

    fn alive(&self, machine: &str) -> Result<Option<bool>, Outcome> {
        let id = machine.to_owned();
        let told = self.call("alive", &self.provisioner, When::Checking, move |to, host| to.alive(&id, host));
        told.map_err(|error| self.wrong("alive", &error))
    }

    /// A method that need not work in every configuration.
    fn optional(&self, what: &str, error: &Error) -> Outcome {
        match error.kind() {
            ErrorKind::Unsupported => skipped(error.to_string()),
            _ => self.wrong(what, error),
        }
    }

    fn needs(&self, capability: Capabilities, name: &str) -> Verdict {
        if self.capabilities.has(capability) {
            return Ok(());
        }
        Err(skipped(format!("it does not claim to be able to {name}")))
    }

    fn lists(&self) -> bool {
        self.capabilities.has(Capabilities::LIST)
    }

    /// The list must not have the lease any more; without a list the plugin's word is taken for it.
    fn gone(&self, to: &ProvisionerHandle, lease: &Lease) -> Verdict {
        if self.lists() {
            match self.list(to, &lease.owner) {
                Ok(held) if held.iter().any(|held| held.mark == lease.mark()) => {
                    return Err(failed("the list still shows it".to_owned()));
                }
                Ok(_) | Err(Outcome::Skipped(_)) => {}
                Err(outcome) => return Err(outcome),
            }
        }
        self.book().close(lease);
        Ok(())
    }
}

/// The first machine.
impl Conformance<'_> {
    fn reserve_first(&self, state: &mut State) -> Verdict {
        let lease = self.lease()?;
        let begin = Instant::now();
        let machine = self.reserve(&self.provisioner, &lease)?;
        state.reserve_time = begin.elapsed();
        let over = machine.expires.is_some_and(|expires| expires < unix_now());
        state.first = Some((lease, machine));
        if over { Err(failed("its lease has ended already".to_owned())) } else { Ok(()) }
    }

    /// As after a lost answer: whatever it hands out, all of it must be found and given back.
    fn reserve_twice(&self, state: &mut State) -> Verdict {
        let (lease, _) = state.first()?;
        let machine = self.reserve(&self.provisioner, &lease)?;
        state.first = Some((lease, machine));
        Ok(())
    }

    fn list_first(&self, state: &mut State) -> Verdict {
        let (lease, id) = state.first()?;
        self.needs(Capabilities::LIST, "list")?;
        let shows = |owner: &str| -> Result<Vec<String>, Outcome> {
            let mut held = self.list(&self.provisioner, owner)?;
            held.retain(|held| held.mark == lease.mark());
            Ok(held.into_iter().map(|held| held.id).collect())
        };
        let shown = shows(&lease.owner)?;
        if shown.is_empty() {
            return Err(failed("its owner is not shown it".to_owned()));
        }
        if !shown.contains(&id) {
            return Err(failed(format!("the list calls it {shown:?}, but it was handed out as {id:?}")));
        }
        if shows("")?.is_empty() {
            return Err(failed("who asks for everybody's machines is not shown it".to_owned()));
        }
        let longer = format!("{}x", lease.owner);
        let shorter =
            lease.owner.get(..lease.owner.len().saturating_sub(1)).filter(|owner| !owner.is_empty());
        for other in [Some(longer.as_str()), shorter].into_iter().flatten() {
            if !shows(other)?.is_empty() {
                return Err(failed(format!("owner {other:?} is shown it, who is another one")));
            }
        }
        Ok(())
    }

    fn alive_first(&self, state: &mut State) -> Verdict {
        let (_, id) = state.first()?;
        match self.alive(&id)? {
            Some(true) => Ok(()),
            Some(false) => Err(failed("it says that it is not there".to_owned())),
            None => Err(skipped("it cannot tell")),
        }
    }

    fn renew_first(&self, state: &mut State) -> Verdict {
        let (_, id) = state.first()?;
        self.needs(Capabilities::RENEW, "renew")?;
        let call =
            move |to: &ProvisionerHandle, host: &crate::Host| to.renew(&id, Duration::from_hours(1), host);
        let renewed = self.call("renew", &self.provisioner, When::Checking, call);
        match renewed.map_err(|error| self.optional("renew", &error))? {
            Some(until) if until < unix_now() => {
                Err(failed(format!("the renewed lease ended in the past, at {until}")))
            }
            _ => Ok(()),
        }
    }

    fn reboot_first(&self, state: &mut State) -> Verdict {
        let (_, id) = state.first()?;
        self.needs(Capabilities::REBOOT, "reset")?;
        let machine = id.clone();
        let call = move |to: &ProvisionerHandle, host: &crate::Host| to.reboot(&machine, host);
        let reset = self.call("reboot", &self.provisioner, When::Checking, call);
        reset.map_err(|error| self.optional("reboot", &error))?;
        match self.alive(&id) {
            Ok(Some(false)) => Err(failed("after the reset it is not there any more".to_owned())),
            _ => Ok(()),
        }
    }

    fn release_first(&self, state: &mut State) -> Verdict {
        let (lease, id) = state.first()?;
        state.first = None;
        state.released = self.ids_of(&lease);
        state.released.iter().try_for_each(|id| self.release(&self.provisioner, id))?;
        self.gone(&self.provisioner, &lease)?;
        // An error means that it cannot tell, which is no contradiction.
        match self.alive(&id) {
            Ok(Some(true)) => Err(failed("after the release it says that it is still there".to_owned())),
            _ => Ok(()),
        }
    }

    /// What was handed out for a lease, each once.
    fn ids_of(&self, lease: &Lease) -> Vec<String> {
        let entries = self.book().entries();
        entries
            .into_iter()
            .find(|entry| entry.lease.id == lease.id)
            .map(|entry| entry.machines)
            .unwrap_or_default()
    }

    fn release_first_again(&self, state: &mut State) -> Verdict {
        if state.released.is_empty() {
            return Err(skipped("there was no machine"));
        }
        state.released.iter().try_for_each(|id| self.release(&self.provisioner, id))
    }
}

/// Reservations that are given up, in every state they can be in.
impl Conformance<'_> {
    fn release_unknown(&self, _: &mut State) -> Verdict {
        self.release(&self.provisioner, "testkit-never-heard-of-it")
    }

    fn abort_unknown(&self, _: &mut State) -> Verdict {
        let lease = self.lease()?;
        (0..2).try_for_each(|_| self.abort(&self.provisioner, &lease))
    }

    /// The abort races with the reservation on purpose: whoever wins, nothing may be left.
    fn abort_at_once(&self, _: &mut State) -> Verdict {
        self.abort_after(Duration::ZERO)
    }

    fn abort_half_way(&self, state: &mut State) -> Verdict {
        self.abort_after(state.reserve_time / 2)
    }

    fn abort_after(&self, pause: Duration) -> Verdict {
        let lease = self.lease()?;
        let pending = self.begin(&self.provisioner, &lease, self.reserve_limit)?;
        // Nobody ends this token: it is a pause.
        Cancel::new().wait(pause);
        pending.cancel();
        let aborted = self.abort(&self.provisioner, &lease);
        let reserved = self.end(&lease, pending)?;
        aborted?;
        if let Ok(machine) = reserved {
            self.release(&self.provisioner, &machine.id)?;
        }
        self.abort(&self.provisioner, &lease)?;
        self.gone(&self.provisioner, &lease)
    }

    fn cancelled_beforehand(&self, _: &mut State) -> Verdict {
        self.in_time(Duration::ZERO)
    }

    fn time_is_over(&self, state: &mut State) -> Verdict {
        self.in_time(state.reserve_time / 3)
    }

    /// A reservation with so much time. If it does come back with a machine, that is none the worse.
    fn in_time(&self, limit: Duration) -> Verdict {
        let lease = self.lease()?;
        let pending = self.begin(&self.provisioner, &lease, limit)?;
        if let Ok(machine) = self.end(&lease, pending)? {
            self.release(&self.provisioner, &machine.id)?;
        }
        self.gone(&self.provisioner, &lease)
    }

    /// It may or may not be released by that; the release that follows works in any case.
    fn abort_held(&self, _: &mut State) -> Verdict {
        let lease = self.lease()?;
        let machine = self.reserve(&self.provisioner, &lease)?;
        (0..2).try_for_each(|_| self.abort(&self.provisioner, &lease))?;
        self.release(&self.provisioner, &machine.id)?;
        self.abort(&self.provisioner, &lease)?;
        self.gone(&self.provisioner, &lease)
    }
}

/// More than one host, more than one machine.
impl Conformance<'_> {
    /// The host died between the intent and the answer: all that another one knows is owner and mark.
    fn answer_lost(&self, _: &mut State) -> Verdict {
        self.needs(Capabilities::LIST, "list")?;
        let Some(again) = &self.again else {
            return Err(skipped("there is only one provisioner here"));
        };
        let other = again().map_err(|error| failed(format!("making it once more: {error}")))?;
        let lease = self.lease()?;
        self.reserve(&self.provisioner, &lease)?;
        let held = self.list(&other, &lease.owner)?;
        let found: Vec<&Held> = held.iter().filter(|held| held.mark == lease.mark()).collect();
        if found.is_empty() {
            return Err(failed(
                "the list of another one does not show it: is it kept in memory only?".to_owned(),
            ));
        }
        // And once more by the first one: who releases twice need not be one and the same.
        for to in [&other, &self.provisioner] {
            found.iter().try_for_each(|held| self.release(to, &held.id))?;
        }
        self.gone(&other, &lease)
    }

    fn several(&self, _: &mut State) -> Verdict {
        let leases: Vec<Lease> = (0..self.parallel).map(|_| self.lease()).collect::<Result<_, _>>()?;
        let pending: Vec<_> = leases
            .iter()
            .map(|lease| self.begin(&self.provisioner, lease, self.reserve_limit))
            .collect::<Result<_, _>>()?;
        // Others ask meanwhile.
        let listed = if self.lists() { self.list(&self.provisioner, "").map(drop) } else { Ok(()) };
        let reserved: Vec<Result<Machine, Outcome>> = leases
            .iter()
            .zip(pending)
            .map(|(lease, pending)| self.end(lease, pending)?.map_err(|error| self.wrong("reserve", &error)))
            .collect();
        let mut ids: Vec<&str> = reserved.iter().flatten().map(|machine| machine.id.as_str()).collect();
        self.release_at_once(&ids)?;
        ids.sort_unstable();
        if let Some([id, _]) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(failed(format!("machine {id} was handed out twice")));
        }
        for (lease, reserved) in leases.iter().zip(&reserved) {
            if reserved.is_ok() {
                self.gone(&self.provisioner, lease)?;
            }
        }
        listed?;
        reserved.into_iter().try_for_each(|one| one.map(drop))
    }

    fn release_at_once(&self, machines: &[&str]) -> Verdict {
        let mut pending = Vec::new();
        for machine in machines {
            let id = (*machine).to_owned();
            let call = move |to: &ProvisionerHandle, host: &crate::Host| to.release(&id, host);
            let limit = Cancel::after(self.call_limit);
            let started = self.start("release", &self.provisioner, limit, When::Checking, call);
            pending.push((machine, started.map_err(|error| failed(error.to_string()))?));
        }
        // All are waited for, also if one fails.
        let done: Vec<Verdict> = pending
            .into_iter()
            .map(|(machine, call)| {
                let released = call.wait().unwrap_or_else(|| Err(self.never_ended()));
                released.map_err(|error| self.wrong(&format!("release {machine}"), &error))
            })
            .collect();
        done.into_iter().collect()
    }
}

/// The end.
impl Conformance<'_> {
    /// Gives back whatever checks that failed, or were interrupted, have left.
    fn clean_up(&self, state: &mut State) -> Verdict {
        state.first = None;
        let mut problems = Vec::new();
        let entries = self.book().entries();
        for entry in entries {
            match self.free(&entry) {
                Ok(()) => self.book().close(&entry.lease),
                Err(why) => problems.push(format!("lease {}: {why}", entry.lease.id)),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(failed(problems.join("; "))) }
    }

    /// All ways at once: which of them works depends on what went wrong before.
    fn free(&self, entry: &Entry) -> Result<(), String> {
        let to = &self.provisioner;
        let lease = entry.lease.id.clone();
        let aborted = self.call("abort", to, When::TidyingUp, move |to, host| to.abort(&lease, host));
        let mut wrong = aborted.err().map(|error| format!("abort: {error}"));
        for machine in &entry.machines {
            wrong = self.free_machine(machine).err().or(wrong);
        }
        if self.lists() {
            for held in self.still_held(&entry.lease)? {
                self.free_machine(&held.id)?;
            }
            if !self.still_held(&entry.lease)?.is_empty() {
                return Err("the list still shows it".to_owned());
            }
            wrong = None;
        }
        if entry.unanswered {
            wrong = Some("its reservation never came back, so it may still bring a machine".to_owned());
        }
        wrong.map_or(Ok(()), Err)
    }

    fn still_held(&self, lease: &Lease) -> Result<Vec<Held>, String> {
        let owner = lease.owner.clone();
        let told =
            self.call("list", &self.provisioner, When::TidyingUp, move |to, host| to.list(&owner, host));
        let mut held = match told {
            Err(error) if error.kind() == ErrorKind::Unsupported => Vec::new(),
            told => told.map_err(|error| format!("list: {error}"))?,
        };
        held.retain(|held| held.mark == lease.mark());
        Ok(held)
    }

    fn free_machine(&self, machine: &str) -> Result<(), String> {
        let id = machine.to_owned();
        let done =
            self.call("release", &self.provisioner, When::TidyingUp, move |to, host| to.release(&id, host));
        done.map_err(|error| format!("release {machine}: {error}"))
    }
}

fn failed(why: String) -> Outcome {
    Outcome::Failed(why)
}

fn skipped(why: impl Into<String>) -> Outcome {
    Outcome::Skipped(why.into())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
