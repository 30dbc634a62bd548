//! Chains of policies on threads of their own.
//!
//! The coordinator asks by actions and is answered by events; this is the way between. Each chain has one thread, which takes
//! its questions in order; each policy in it has another one, so that a policy that blocks is left behind alone
//! ([`OwnThread`](super::own_thread::OwnThread)). What a policy did wrong is told once per kind of fault.
//!
//! Nobody waits for what a policy makes of a note, so notes wait for the next question, a moment at most: to wake a thread costs
//! more than to take a note.

use std::{
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::{Duration, Instant},
};

use crate::core::{
    Chain, Ranks,
    event::{Action, ChainId, Event},
};

use super::input::Input;

/// For how long a note waits at most.
const NOTE_WAIT: Duration = Duration::from_millis(20);

/// The way to all chains.
#[derive(Debug)]
pub(crate) struct Policies {
    chains: Vec<Outbox>,
}

/// The way to one chain.
#[derive(Debug)]
struct Outbox {
    chain: Sender<Vec<Action>>,
    waiting: Vec<Action>,
    /// When notes are sent if no question comes first.
    due: Option<Instant>,
}

impl Outbox {
    fn send(&mut self) {
        self.due = None;
        if !self.waiting.is_empty() {
            let _gone = self.chain.send(std::mem::take(&mut self.waiting));
        }
    }
}

impl Policies {
    /// Moves each chain to a thread called `policies N`. `names`: of each chain's policies, by position.
    pub(crate) fn start(
        chains: Vec<Chain>,
        names: &[Vec<String>],
        inbox: &Sender<Input>,
    ) -> io::Result<Self> {
        let mut senders = Vec::new();
        for (number, chain) in chains.into_iter().enumerate() {
            let (ask, asked) = mpsc::channel();
            let names = names.get(number).cloned().unwrap_or_default();
            let desk = Desk { number: number as ChainId, chain, names, inbox: inbox.clone() };
            thread::Builder::new().name(format!("policies {number}")).spawn(move || desk.serve(&asked))?;
            senders.push(Outbox { chain: ask, waiting: vec![], due: None });
        }
        Ok(Self { chains: senders })
    }

    /// Passes a question on to its chain, after the notes before it. A chain whose thread is gone does not answer; the
    /// coordinator then goes on without it when its deadline is over.
    pub(crate) fn ask(&mut self, chain: ChainId, action: Action) {
        if let Some(outbox) = self.chains.get_mut(usize::from(chain)) {
            outbox.waiting.push(action);
            outbox.send();
        }
    }

    /// Passes a note on, soon.
    pub(crate) fn note(&mut self, chain: ChainId, action: Action) {
        if let Some(outbox) = self.chains.get_mut(usize::from(chain)) {
            outbox.waiting.push(action);
            outbox.due.get_or_insert_with(|| Instant::now() + NOTE_WAIT);
        }
    }

    /// When [`send_due`](Self::send_due) is to be called next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.chains.iter().filter_map(|outbox| outbox.due).min()
    }

    /// Sends notes that have waited for long enough at this time.
    pub(crate) fn send_due(&mut self, now: Instant) {
        for outbox in &mut self.chains {
            if outbox.due.is_some_and(|due| due <= now) {
                outbox.send();
            }
        }
    }
}

/// One chain's thread.
struct Desk {
    number: ChainId,
    chain: Chain,
    names: Vec<String>,
    inbox: Sender<Input>,
}

impl Desk {
    fn serve(mut self, asked: &Receiver<Vec<Action>>) {
        // What went wrong at registration.
        if !self.tell_faults() {
            return;
        }
        for action in asked.iter().flatten() {
            let answer = self.answer(action);
            if !self.tell_faults() {
                return;
            }
            if let Some(event) = answer
                && self.inbox.send(Input::Policies(event)).is_err()
            {
                return;
            }
        }
    }

    /// `None` for what needs no answer.
    fn answer(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Kind { kind, .. } => {
                self.chain.kind(&kind);
                None
            }
            Action::Rank { ask, kinds, tests, .. } => {
                let Ranks { ranks, differ } = self.chain.rank(&kinds, &tests);
                Some(Event::Ranked { ask, ranks, differ })
            }
            Action::Ask { lease, ask, question, .. } => {
                Some(Event::Preferred { lease, ask, wishes: self.chain.prefer(&question) })
            }
            Action::Judge { execution, run, .. } => {
                Some(Event::Judged { execution, ruling: self.chain.judge(&run) })
            }
            Action::Note { now, note, .. } => {
                let commands = self.chain.note(now, &note);
                (!commands.is_empty()).then_some(Event::Commands { chain: self.number, commands })
            }
            _ => None,
        }
    }

    /// Whether anybody still listens.
    fn tell_faults(&mut self) -> bool {
        for fault in self.chain.take_news() {
            let name = self.names.get(usize::from(fault.policy)).map_or("?", String::as_str);
            let mut text = format!("policy {name}: {}", fault.kind.text());
            if !fault.message.is_empty() {
                text.push_str(": ");
                text.push_str(&fault.message);
            }
            if self.inbox.send(Input::PolicyFault(text)).is_err() {
                return false;
            }
        }
        true
    }
}
