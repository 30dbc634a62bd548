//! What the coordinator wants, carried out.

use std::{path::PathBuf, sync::Arc, time::Duration};

use atex_plugin_api::{Capabilities, Lease, Transport, host_side::Cancel};
use uuid::Uuid;

use crate::{
    core::{
        event::{Action, Event, ExecutionId, LeaseId, PlatformId, PoolId, Refusal, TestId, Trouble},
        verdict::Verdict,
    },
    executor::{
        Handle, names,
        spec::{MachineSpec, Order, RunOrder, Site},
    },
    store::{self, Claim, Class, Entry, MachineChange, What},
};

use super::{
    Engine, Running,
    books::{self, Mark},
    input::Input,
    machines::{Link, Machine},
    unix_ms,
};

impl Engine {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Reserve { lease, .. } => self.reserve(lease),
            Action::Abort { lease } => self.abort(lease),
            Action::Confirm { lease } => self.confirm(lease),
            Action::Setup { lease, setup, platform } => self.set_up(lease, setup, platform),
            Action::Renew { lease } => self.renew(lease),
            Action::Probe { lease } => self.probe(lease),
            Action::Release { lease, spoilt } => self.release(lease, spoilt),
            Action::Run { lease, execution, test, attempt, slot } => {
                self.start_test(lease, execution, test, attempt, slot);
            }
            Action::Cancel { execution } => self.cancel(execution),
            Action::Note { chain, now, ref note } => {
                self.chronicle.tell(What::Note { chain, now, note: note.clone() });
                self.policies.note(chain, action);
            }
            Action::Kind { chain, .. }
            | Action::Rank { chain, .. }
            | Action::Ask { chain, .. }
            | Action::Judge { chain, .. } => self.policies.ask(chain, action),
            Action::Verdict { test, verdict } => self.verdict(test, verdict),
            Action::Trouble(trouble) => self.trouble(trouble),
            Action::Done { uncertain } => {
                self.tally.left_uncertain(uncertain);
                self.over = true;
            }
        }
    }

    /// Writes down what a step of the coordinator is about to do, all of it with one sync. Reservations that could not be
    /// written down are taken out, and refused.
    pub(super) fn announce(&mut self, actions: &mut Vec<Action>) {
        let mut entries = Vec::new();
        for action in &*actions {
            if let Action::Reserve { lease, pool, platform } = *action {
                self.intend(lease, pool, platform);
            }
            let marked = books::before(action).and_then(|(number, mark)| self.entry(number, mark));
            entries.extend(marked);
        }
        let Err(error) = self.chronicle.write_all_down(entries) else { return };
        self.warn(format!("the ledger cannot be written, so no machine is asked for: {error}"));
        actions.retain(|action| {
            let Action::Reserve { lease, .. } = *action else { return true };
            self.machines.remove(&lease);
            let refused = Event::ReserveFailed { lease, refusal: Refusal::Final, certain: true };
            self.pending.push_back(refused);
            false
        });
    }

    /// Writes down what is known of a lease now.
    pub(super) fn enter(&mut self, event: &Event) {
        let Some((number, mark)) = books::after(event) else { return };
        if let Some((lease, entry)) = self.entry(number, mark)
            && let Err(error) = self.chronicle.write_all_down(vec![(lease.clone(), entry)])
        {
            // The lease stays open in the ledger, where gc finds it.
            self.warn(format!("lease {lease}: {error}"));
        }
    }

    /// Nothing for a lease that is unknown: it was never written down, or is known to be gone.
    fn entry(&self, number: LeaseId, mark: Mark) -> Option<(String, Entry)> {
        let machine = self.machines.get(&number)?;
        let entry = match mark {
            Mark::Intent => Entry::Intent { claim: Box::new(self.make_claim(&machine.lease, machine.pool)) },
            Mark::Held => Entry::Held { machine: machine.id().to_owned() },
            Mark::Releasing => Entry::Releasing,
            Mark::Uncertain => Entry::Uncertain,
            Mark::Released => Entry::Released,
        };
        Some((machine.lease.id.clone(), entry))
    }

    fn intend(&mut self, number: LeaseId, pool: PoolId, platform: PlatformId) {
        let lease = self.make_lease(pool, platform);
        let cancel = Cancel::after(Duration::from_secs(lease.timeout_s));
        self.machines.insert(number, Machine::new(lease, pool, platform, cancel));
    }

    fn reserve(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        self.calls.reserve(number, provisioner, machine.lease.clone(), machine.cancel.clone());
        self.tell_machine(number, MachineChange::Requested, None);
    }

    fn make_lease(&self, pool: PoolId, platform: PlatformId) -> Lease {
        let (pool, platform) =
            (&self.job.pools[usize::from(pool)], &self.job.platforms[usize::from(platform)]);
        let id = format!("a{}", Uuid::now_v7());
        let mut lease = Lease::new(id, &self.job.run, &self.job.owner);
        lease.platform.clone_from(&platform.name);
        lease.context =
            platform.context.iter().map(|(name, values)| (name.clone(), values.clone())).collect();
        lease.require.clone_from(&platform.require);
        lease.timeout_s = pool.reserve_timeout.as_secs().max(1);
        lease.lifetime_s = self.job.lifetime.as_secs().max(1);
        lease
    }

    fn make_claim(&self, lease: &Lease, pool: PoolId) -> Claim {
        let pool = &self.job.pools[usize::from(pool)];
        Claim {
            owner: lease.owner.clone(),
            run: lease.run.clone(),
            lease: lease.id.clone(),
            pool: pool.name().to_owned(),
            plugin: pool.plugin.clone(),
            configuration: pool.written.written().clone(),
            base: pool.written.base.clone(),
            place: pool.written.stored_place(),
            settle_s: pool.provisioner.settle().as_secs(),
            timeout_s: lease.timeout_s,
            lifetime_s: pool
                .provisioner
                .capabilities()
                .has(Capabilities::EXPIRES)
                .then_some(lease.lifetime_s),
            release_s: self.job.release_limit.as_secs(),
            directory: self.job.directory.clone(),
            at: unix_ms(),
        }
    }

    fn abort(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        machine.cancel.cancel();
        let (pool, lease) = (machine.pool, machine.lease.id.clone());
        self.calls.abort(number, &self.job.pools[usize::from(pool)].provisioner, lease);
    }

    fn confirm(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        self.calls.confirm(number, provisioner, machine.lease.clone(), machine.id().to_owned());
    }

    fn set_up(&mut self, number: LeaseId, setup: u32, platform: PlatformId) {
        let Some(machine) = self.machines.get_mut(&number) else { return };
        let pool = &self.job.pools[usize::from(machine.pool)];
        let transport = machine.loan.as_ref().map(|loan| &loan.transport);
        let site = Site {
            slots: pool.slots,
            // A container would not come back, and this box is not for tests to reboot.
            may_reboot: matches!(transport, Some(Transport::Ssh(_))),
            may_reset: pool.provisioner.capabilities().has(Capabilities::REBOOT),
            ..self.job.platforms[usize::from(platform)].site.clone()
        };
        let site = Arc::new(site);
        (machine.setup, machine.platform) = (setup, platform);
        machine.worker = match std::mem::replace(&mut machine.worker, Link::None) {
            Link::Up(worker) => {
                worker.send(Order::Setup(site));
                Link::Up(worker)
            }
            Link::Connecting(worker, _) => Link::Connecting(worker, site),
            Link::None | Link::HandingBack(_) => {
                let Some(loan) = &machine.loan else { return };
                let spec = MachineSpec {
                    name: format!("machine {number}"),
                    transport: loan.transport.clone(),
                    disposable: loan.disposable,
                    known_hosts: pool.known_hosts.clone(),
                    boot_time: pool.reserve_timeout,
                    keepalive: self.job.keepalive,
                };
                let inbox = self.sender.clone();
                let report = move |report| {
                    // If nobody listens any more, the run is over.
                    let _over = inbox.send(Input::Machine(number, report));
                };
                match Handle::start(spec, Box::new(report)) {
                    Ok(worker) => Link::Connecting(worker, site),
                    Err(error) => {
                        let text = format!("cannot start a thread for machine {number}: {error}");
                        self.pending.push_back(Event::SetupFailed { lease: number, setup, lost: false });
                        self.warn(text);
                        return;
                    }
                }
            }
        };
    }

    fn renew(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        self.calls.renew(number, provisioner, machine.id().to_owned(), self.job.lifetime);
    }

    fn probe(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        self.calls.alive(number, provisioner, machine.id().to_owned());
    }

    /// A test wants its machine reset. Whatever comes of it, the worker waits for the answer.
    pub(super) fn reset(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        self.calls.reboot(number, provisioner, machine.id().to_owned());
    }

    /// Cleans the machine and disconnects first, where somebody is connected.
    fn release(&mut self, number: LeaseId, spoilt: bool) {
        let hurrying = self.is_hurrying();
        let Some(machine) = self.machines.get_mut(&number) else { return };
        machine.spoilt |= spoilt;
        let disposable = machine.loan.as_ref().is_none_or(|loan| loan.disposable);
        machine.worker = match std::mem::replace(&mut machine.worker, Link::None) {
            Link::Up(worker) if !(machine.spoilt && disposable || machine.away || hurrying) => {
                worker.send(Order::HandBack);
                Link::HandingBack(worker)
            }
            Link::Up(worker) | Link::Connecting(worker, _) | Link::HandingBack(worker) => {
                // Nothing is cleaned where nobody gets to, on what is destroyed anyway, where cleaning took too long, or when
                // people hurry: what a worker leaves behind it, the machine's side of it removes.
                worker.send(Order::Abandon);
                Link::None
            }
            Link::None => Link::None,
        };
        if !matches!(machine.worker, Link::HandingBack(_)) {
            self.call_release(number);
        }
    }

    /// Does not wait any more for scripts that are to run before machines are given back.
    pub(super) fn hurry_hand_backs(&mut self) {
        let mut waiting = Vec::new();
        for (number, machine) in &mut self.machines {
            if let Link::HandingBack(worker) = &machine.worker {
                worker.send(Order::Abandon);
                machine.worker = Link::None;
                waiting.push(*number);
            }
        }
        for number in waiting {
            self.call_release(number);
        }
    }

    /// The provisioner's part of it.
    pub(super) fn call_release(&mut self, number: LeaseId) {
        let Some(machine) = self.machines.get(&number) else { return };
        let provisioner = &self.job.pools[usize::from(machine.pool)].provisioner;
        let (id, limit) = (machine.id().to_owned(), self.job.release_limit);
        self.calls.release(number, provisioner, id, machine.spoilt, limit);
    }

    fn start_test(&mut self, lease: LeaseId, execution: ExecutionId, test: TestId, attempt: u16, slot: u16) {
        let Some(of_run) = self.job.tests.get(test as usize) else { return };
        let platform = &self.job.platforms[usize::from(of_run.platform)].name;
        let order = RunOrder {
            execution,
            test: Arc::clone(&of_run.spec),
            slot,
            serial: test + 1,
            attempt: u32::from(attempt),
            artifacts: self.artifacts(platform, &of_run.name, execution),
        };
        self.executions.insert(execution, Running { test, lease, attempt });
        self.chronicle.tell(What::Started { execution, test, lease, attempt });
        match self.machines.get(&lease).map(|machine| &machine.worker) {
            Some(Link::Up(worker)) => worker.send(Order::Run(Box::new(order))),
            _ => self.pending.push_back(Event::RunLost { execution }),
        }
    }

    /// `artifacts/<platform>/<test>/=<execution>`
    fn artifacts(&self, platform: &str, test: &str, execution: ExecutionId) -> PathBuf {
        let mut path = self.job.directory.join("artifacts");
        path.push(names::platform_component(platform));
        path.push(names::test_directory(test));
        path.push(names::execution_component(execution));
        path
    }

    fn cancel(&mut self, execution: ExecutionId) {
        let Some(running) = self.executions.get(&execution) else { return };
        match self.machines.get(&running.lease).map(|machine| &machine.worker) {
            Some(Link::Up(worker) | Link::HandingBack(worker)) => worker.send(Order::Cancel { execution }),
            _ => self.pending.push_back(Event::Cancelled { execution }),
        }
    }

    fn verdict(&mut self, test: TestId, verdict: Verdict) {
        let execution = verdict.judged().and_then(|judged| self.classes.get(&judged.execution).copied());
        self.tally.count(Class::of_verdict(&verdict, execution));
        if let Some(cause) = verdict.cause().filter(|cause| cause.is_stop()) {
            self.tally.stopped_by(cause.to_string());
        }
        if let Some(judged) = verdict.judged() {
            self.classes.remove(&judged.execution);
        }
        self.chronicle.tell(What::Verdict { test, verdict });
    }

    fn trouble(&mut self, trouble: Trouble) {
        let pool = |pool: PoolId| self.job.pools[usize::from(pool)].name();
        let platform = |platform: PlatformId| &self.job.platforms[usize::from(platform)].name;
        let text = match trouble {
            Trouble::PoolGivenUp { pool: at } => {
                format!("pool {}: given up, no more machines are asked of it", pool(at))
            }
            Trouble::PlatformGivenUp { platform: at } => {
                format!("platform {}: given up, too many set-ups in a row failed", platform(at))
            }
            Trouble::PoolUnsuitable { pool: pool_at, platform: at } => format!(
                "pool {}: the policies want no test of platform {} on its machines",
                pool(pool_at),
                platform(at)
            ),
            Trouble::MachinePutAside { lease } => {
                format!("{}: put aside, tests keep failing on it", self.called(lease))
            }
            Trouble::MachineSilent { lease } => {
                format!("{}: no word about a test long after its limit, taken for dead", self.called(lease))
            }
            Trouble::LeaseUncertain { lease } => {
                format!(
                    "{}: it is not known whether the provider still holds something for it",
                    self.called(lease)
                )
            }
            Trouble::PoliciesSilent { chain } => {
                let names = self.job.policy_names.get(usize::from(chain)).map(|names| names.join(", "));
                format!(
                    "policies {}: no answer in time, the host's own order is used",
                    names.unwrap_or_default()
                )
            }
        };
        self.warn(text);
    }

    /// A machine in messages: number, pool, and the provisioner's name for it if there is one.
    pub(super) fn called(&self, number: LeaseId) -> String {
        let Some(machine) = self.machines.get(&number) else { return format!("machine {number}") };
        let pool = self.job.pools[usize::from(machine.pool)].name();
        match machine.id() {
            "" => format!("machine {number} of pool {pool}"),
            id => format!("machine {number} of pool {pool} ({id})"),
        }
    }

    pub(super) fn tell_machine(&mut self, number: LeaseId, change: MachineChange, note: Option<String>) {
        let Some(machine) = self.machines.get(&number) else { return };
        let record = store::Machine {
            number,
            lease: machine.lease.id.clone(),
            change,
            platform: machine.platform,
            pool: self.job.pools[usize::from(machine.pool)].name().to_owned(),
            machine: machine.id().to_owned(),
            facts: if change == MachineChange::Ready {
                machine.facts.clone()
            } else {
                std::collections::BTreeMap::new()
            },
            note,
        };
        self.chronicle.tell(What::Machine(record));
    }
}
