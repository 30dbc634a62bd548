//! Orders on their way to a machine's thread, and the thread's handle.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use super::spec::{MachineSpec, Order, Report};
use super::worker;
use crate::transport::Waker;

/// A machine's thread, seen from the engine. Dropping it abandons the machine.
#[derive(Debug)]
pub struct Handle {
    orders: Sender<Order>,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Handle {
    /// Starts the thread, which connects by itself. `report` is called from that thread and must not block for long: while
    /// it does, nobody listens to the machine.
    pub fn start(spec: MachineSpec, report: Box<dyn Fn(Report) + Send>) -> std::io::Result<Self> {
        let waker = Waker::new()?;
        let (orders, receiver) = channel();
        let inbox = Inbox { receiver, waker: waker.clone(), waiting: VecDeque::new(), closed: false };
        let name: String = spec.name.chars().filter(|c| *c != '\0').collect();
        let thread = std::thread::Builder::new()
            .name(name)
            .stack_size(512 << 10)
            .spawn(move || worker::serve(spec, inbox, report))?;
        Ok(Self { orders, waker, thread: Some(thread) })
    }

    /// Never blocks. After the last report of a machine orders go nowhere.
    pub fn send(&self, order: Order) {
        let wake = match order {
            Order::Abandon => Waker::stop,
            Order::Cancel { .. } => Waker::hurry,
            _ => Waker::wake,
        };
        let _ = self.orders.send(order);
        wake(&self.waker);
    }

    /// Waits for the end of the thread: soon after its last report.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.waker.stop();
        }
    }
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<Order>,
    pub(crate) waker: Waker,
    waiting: VecDeque<Order>,
    closed: bool,
}

impl Inbox {
    /// Takes what has come; says whether anything is waiting.
    fn fill(&mut self) -> bool {
        loop {
            match self.receiver.try_recv() {
                Ok(order) => self.waiting.push_back(order),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.closed = true;
                    break;
                }
            }
        }
        !self.waiting.is_empty()
    }

    pub(crate) fn next(&mut self) -> Option<Order> {
        self.fill();
        self.waiting.pop_front()
    }

    /// Nobody wants anything of this machine any more.
    pub(crate) fn is_abandoned(&mut self) -> bool {
        self.fill();
        self.waker.is_stopped() || (self.closed && self.waiting.is_empty())
    }

    /// Whether setup should give up: abandoned, or to be handed back already.
    pub(crate) fn wants_end(&mut self) -> bool {
        self.is_abandoned() || self.waiting.iter().any(|order| matches!(order, Order::HandBack))
    }

    /// What came of the reset that was asked for, if it is known.
    pub(crate) fn was_reset(&mut self) -> Option<Result<(), String>> {
        self.fill();
        let at = self.waiting.iter().position(|order| matches!(order, Order::WasReset(_)))?;
        match self.waiting.remove(at) {
            Some(Order::WasReset(told)) => Some(told),
            _ => None,
        }
    }

    /// Whether an order waits to cancel this run.
    pub(crate) fn cancels(&mut self, execution: u64) -> bool {
        self.fill();
        self.waiting.iter().any(|order| matches!(order, Order::Cancel { execution: e } if *e == execution))
    }
}
