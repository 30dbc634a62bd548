//! What policies say is checked: what makes no sense is left out, counted, and told once.

use super::Chain;
use crate::core::event::{Command, Prefer, Wish};

/// Wishes per call altogether. What is lowered or ruled out is only looked at where it would have come first.
const ALL_WISHES: usize = 4096;
/// Requests per call.
const COMMANDS: usize = 100_000;
/// Bytes of a reason that a policy gives.
pub(super) const REASON: usize = 1024;

/// What a policy did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Registration failed: the policy is left out of the run.
    Register,
    /// It finds the metadata of a test wrong: a matter of the user's, not of the policy.
    Metadata,
    /// A call failed.
    Call,
    /// It ranked more or fewer tests than it was asked for.
    RankCount,
    /// It wished for too much at once.
    TooManyWishes,
    /// It asked for too much at once.
    TooManyCommands,
    /// It named a test that does not exist.
    UnknownTest,
    /// It wished to lower a single test.
    LoweredTest,
}

impl FaultKind {
    /// What is wrong, as part of a sentence.
    pub fn text(self) -> &'static str {
        match self {
            Self::Register => "its registration failed: it is left out of this run",
            Self::Metadata => "the metadata of a test is wrong",
            Self::Call => "a call failed: the host's own order is used instead",
            Self::RankCount => "rank: not one rank per test: the host's own order is used instead",
            Self::TooManyWishes => "prefer: too many wishes: the rest is ignored",
            Self::TooManyCommands => "too many requests in one call: the rest is ignored",
            Self::UnknownTest => "it named a test that does not exist",
            Self::LoweredTest => "prefer: one test can be lifted, not lowered; give it a class of its own",
        }
    }
}

/// A kind of fault of one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Position in the chain.
    pub policy: u16,
    pub kind: FaultKind,
    /// How often.
    pub count: u64,
    /// The first message, if the policy gave one.
    pub message: String,
}

impl Chain {
    pub(super) fn check_wishes(&mut self, level: u16, wishes: &[Prefer], most: usize, out: &mut Vec<Wish>) {
        let all = ALL_WISHES.max(most);
        let lifts = |prefer: &Prefer| matches!(prefer, Prefer::Class(_, 1..) | Prefer::Test(..));
        if wishes.len() > all || wishes.iter().filter(|prefer| lifts(prefer)).count() > most {
            self.fault(level, FaultKind::TooManyWishes, "");
        }
        let mut lifted = 0;
        for &prefer in wishes.iter().take(all) {
            lifted += usize::from(lifts(&prefer));
            if lifts(&prefer) && lifted > most {
                continue;
            }
            let prefer = match prefer {
                Prefer::Class(..) => prefer,
                Prefer::Test(_, ..=0) => {
                    self.fault(level, FaultKind::LoweredTest, "");
                    continue;
                }
                Prefer::Test(test, _) if test >= self.count() => {
                    self.fault(level, FaultKind::UnknownTest, "");
                    continue;
                }
                Prefer::Test(test, score) => Prefer::Test(test + self.tests.start, score),
            };
            out.push(Wish { level, prefer });
        }
    }

    pub(super) fn check_commands(
        &mut self,
        position: u16,
        commands: Vec<Command>,
        out: &mut Vec<(u16, Command)>,
    ) {
        let most = COMMANDS.max(self.tests.len());
        if commands.len() > most {
            self.fault(position, FaultKind::TooManyCommands, "");
        }
        for command in commands.into_iter().take(most) {
            let command = match command {
                Command::Skip(test, _) | Command::Rerank(test) if test >= self.count() => {
                    self.fault(position, FaultKind::UnknownTest, "");
                    continue;
                }
                Command::Skip(test, reason) => Command::Skip(test + self.tests.start, shortened(reason)),
                Command::Rerank(test) => Command::Rerank(test + self.tests.start),
                Command::Stop(reason) => Command::Stop(shortened(reason)),
                other => other,
            };
            out.push((position, command));
        }
    }

    pub(super) fn fault(&mut self, policy: u16, kind: FaultKind, message: &str) {
        let entry = self.faults.entry((policy, kind)).or_insert_with(|| {
            self.news.push((policy, kind));
            Fault { policy, kind, count: 0, message: message.to_owned() }
        });
        entry.count += 1;
    }
}

/// A reason of reasonable length, cut at a character.
fn shortened(mut reason: String) -> String {
    if reason.len() > REASON {
        let end = (0..=REASON).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
        reason.truncate(end);
    }
    reason
}
