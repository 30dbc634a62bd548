//! Chains of policies on threads of their own.
//!
//! The coordinator asks by actions and is answered by events; this is the way between. Each chain has one thread, which takes
//! its questions in order; each policy in it has another one, so that a policy that blocks is left behind alone
//! ([`OwnThread`](super::own_thread::OwnThread)). What a policy did wrong is told once per kind of fault.

use std::{
    collections::HashSet,
    io,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use crate::core::{
    Chain,
    event::{Action, ChainId, Event},
};

use super::input::Input;

/// The way to all chains.
#[derive(Debug)]
pub(crate) struct Policies {
    chains: Vec<Sender<Action>>,
}

impl Policies {
    /// Moves each chain to a thread called `policies N`.
    pub(crate) fn start(chains: Vec<Chain>, inbox: &Sender<Input>) -> io::Result<Self> {
        let mut senders = Vec::new();
        for (number, chain) in chains.into_iter().enumerate() {
            let (ask, asked) = mpsc::channel();
            let inbox = inbox.clone();
            thread::Builder::new()
                .name(format!("policies {number}"))
                .spawn(move || Desk { number: number as ChainId, chain, inbox, told: HashSet::new() }.serve(&asked))?;
            senders.push(ask);
        }
        Ok(Self { chains: senders })
    }

    /// Passes a question or a note on to its chain. A chain whose thread is gone does not answer; the coordinator then goes
    /// on without it when its deadline is over.
    pub(crate) fn ask(&self, chain: ChainId, action: Action) {
        if let Some(chain) = self.chains.get(usize::from(chain)) {
            let _gone = chain.send(action);
        }
    }
}

/// One chain's thread.
struct Desk {
    number: ChainId,
    chain: Chain,
    inbox: Sender<Input>,
    told: HashSet<String>,
}

impl Desk {
    fn serve(mut self, asked: &Receiver<Action>) {
        for action in asked {
            let answer = self.answer(action);
            for fault in self.chain.take_faults() {
                let text = fault.to_string();
                if self.told.insert(text.clone()) && self.inbox.send(Input::PolicyFault(text)).is_err() {
                    return;
                }
            }
            if let Some(event) = answer
                && self.inbox.send(Input::Policies(event)).is_err()
            {
                return;
            }
        }
    }

    fn answer(&mut self, action: Action) -> Option<Event> {
        self.chain.answer(self.number, action)
    }
}
