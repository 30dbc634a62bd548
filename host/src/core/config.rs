//! What the coordinator is told before it begins: pools, platforms, tests, limits, and what an interrupted run had done.

use std::sync::Arc;

use atex_plugin_api::policy::{Ms, TestId, Wants};

use super::event::{ChainId, ExecutionId, LeaseId, MachineId, NONE, PlatformId};

/// Everything but the tests.
#[derive(Debug, Clone)]
pub struct Config {
    pub pools: Vec<Pool>,
    pub platforms: Vec<Platform>,
    pub chains: Vec<Shape>,
    /// Machines held at the same time, over all pools.
    pub max_machines: u32,
    /// Machines that each platform keeps ready beyond those that have work, as long as any test is open.
    pub spares: u32,
    /// Stop starting tests when this many have failed for good.
    pub max_fail: Option<u32>,
    pub limits: Limits,
    pub resume: Resume,
    /// For the jitter of back-offs: the same seed and the same events make the same actions.
    pub seed: u64,
}

/// A pool of machines: one entry of `provisioners`.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Machines held at the same time, those in doubt included.
    pub max: u32,
    /// Tests that may run at the same time on one machine; at least 1.
    pub slots: u16,
    /// A machine is given back after each test.
    pub isolate: bool,
    /// How long a reservation may take.
    pub reserve_time: Ms,
    /// Its provisioner can renew a lease.
    pub renews: bool,
    /// Its provisioner can tell whether a machine is there.
    pub probes: bool,
    /// How long it takes from the reservation until a machine is ready, if that is known beforehand, else 0. Observed
    /// times replace it.
    pub startup: Ms,
    /// The platforms whose tests run on its machines.
    pub serves: Vec<Served>,
}

/// A platform that a pool has machines for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub platform: PlatformId,
    /// Machines of one pool reserved for one platform can be set up for another one of the same flavour.
    pub flavour: u16,
}

/// A named target that tests were chosen for.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// The policies that order its tests.
    pub chain: ChainId,
}

/// What a chain of policies wants to see; from [`Chain::shape`](super::Chain::shape).
#[derive(Debug, Clone, Default)]
pub struct Shape {
    /// In the order of the chain.
    pub wants: Vec<Wants>,
    /// Names of the policies, for causes that name one; in the same order, as far as they are known.
    pub names: Vec<Arc<str>>,
}

/// Limits, in milliseconds or by number.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The whole run; then running tests are cancelled.
    pub time: Option<Ms>,
    /// Set-ups that may fail in a row, per platform.
    pub setup_failures: u32,
    /// Waves of reservations that may fail in a row, per pool.
    pub reserve_failures: u32,
    /// How often a test is run again because its machine was lost.
    pub lost_machine_reruns: u16,
    /// Judged runs of one test, whatever the policies say.
    pub max_attempts: u16,
    /// Machines of a pool in a row that no policy wants a platform's tests on.
    pub fruitless: u32,
    /// Tests in a row that fail on a machine, while most pass elsewhere, before it is put aside; 0: never.
    pub fails_in_a_row: u32,
    /// First pause after a failed reservation; doubled each time, with jitter.
    pub backoff: Ms,
    pub backoff_max: Ms,
    pub setup_time: Ms,
    /// How long an aborted reservation may take to end.
    pub abort_time: Ms,
    /// One call of `release`.
    pub release_time: Ms,
    /// How often `release` is called before the lease is left to gc.
    pub release_tries: u32,
    /// Policies must answer within this time.
    pub answer_time: Ms,
    /// How long after its limit a test may be silent before its machine is taken for dead.
    pub grace: Ms,
    /// How long a cancelled test may take to be collected.
    pub cancel_time: Ms,
    /// How long before it expires a machine's lease is renewed; half of its time if that is less.
    pub renew_lead: Ms,
    /// How long a provider may take to renew a lease, or to say whether it has a machine.
    pub call_time: Ms,
    /// How often it is asked about a machine that reboots.
    pub probe_every: Ms,
    /// How long the absence of a lease in doubt may take to be confirmed, before it no longer gives hope of its place.
    pub settle_time: Ms,
}

/// A test of the run.
#[derive(Debug, Clone, Copy)]
pub struct TestPlan {
    pub platform: PlatformId,
    /// Slots it takes; [`WHOLE_MACHINE`](atex_plugin_api::policy::WHOLE_MACHINE) for all.
    pub claim: u16,
    /// `duration` of its metadata: the limit of one run.
    pub limit: Ms,
    /// How long it will take, from history; 0 if unknown.
    pub expected: Ms,
    pub past: Past,
}

/// What an interrupted run had done with a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// It has no verdict. `attempt`: judged runs; `last_machine`: of the last of them, or [`NONE`].
    Open { attempt: u16, last_machine: MachineId },
    /// It has its verdict; nothing is done with it.
    Done,
}

impl Past {
    /// A test that never ran.
    pub const FRESH: Self = Self::Open { attempt: 0, last_machine: NONE };
}

/// Where an interrupted run had got to; all 0 for a new one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Resume {
    /// The first number that no lease ever had.
    pub first_lease: LeaseId,
    /// The first number that no execution ever had.
    pub first_execution: ExecutionId,
    /// Tests that have failed for good.
    pub failed: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: None,
            setup_failures: 10,
            reserve_failures: 10,
            lost_machine_reruns: 2,
            max_attempts: 1000,
            fruitless: 3,
            fails_in_a_row: 0,
            backoff: 5_000,
            backoff_max: 600_000,
            setup_time: 1_800_000,
            abort_time: 60_000,
            release_time: 300_000,
            release_tries: 4,
            answer_time: 5_000,
            grace: 120_000,
            cancel_time: 60_000,
            renew_lead: 900_000,
            call_time: 75_000,
            probe_every: 180_000,
            settle_time: 900_000,
        }
    }
}

impl Pool {
    /// A pool of `max` machines for the first `platforms` platforms, each of a flavour of its own.
    pub fn new(max: u32, platforms: u16) -> Self {
        Self {
            max,
            slots: 1,
            isolate: false,
            reserve_time: 7_200_000,
            renews: false,
            probes: false,
            startup: 0,
            serves: (0..platforms).map(|platform| Served { platform, flavour: platform }).collect(),
        }
    }
}

impl Config {
    /// One pool for one platform, whose tests are ordered by policies of `shape`.
    pub fn simple(machines: u32, shape: Shape) -> Self {
        Self {
            pools: vec![Pool::new(machines, 1)],
            platforms: vec![Platform { chain: 0 }],
            chains: vec![shape],
            max_machines: u32::MAX,
            spares: 0,
            max_fail: None,
            limits: Limits::default(),
            resume: Resume::default(),
            seed: 0,
        }
    }

    /// Whether the parts fit together; the engine builds them from a checked configuration, so this finds errors of the
    /// host, not of the user.
    pub(crate) fn check(&self, tests: &[TestPlan]) -> Result<(), Misfit> {
        for (number, platform) in self.platforms.iter().enumerate() {
            if usize::from(platform.chain) >= self.chains.len() {
                return Err(Misfit::Chain { platform: number as PlatformId, chain: platform.chain });
            }
        }
        for (number, pool) in self.pools.iter().enumerate() {
            let unknown =
                pool.serves.iter().find(|served| usize::from(served.platform) >= self.platforms.len());
            if let Some(served) = unknown {
                return Err(Misfit::Pool { pool: number, platform: served.platform });
            }
            if pool.slots == 0 {
                return Err(Misfit::Slots { pool: number });
            }
        }
        if self.platforms.len() > usize::from(u16::MAX) || tests.len() >= NONE as usize {
            return Err(Misfit::TooMany);
        }
        let mut seen = vec![false; self.platforms.len()];
        for (number, group) in tests.chunk_by(|a, b| a.platform == b.platform).enumerate() {
            let platform = group.first().map_or(0, |test| test.platform);
            match seen.get_mut(usize::from(platform)) {
                Some(seen) if !*seen => *seen = true,
                Some(_) => return Err(Misfit::Scattered { platform, group: number }),
                None => return Err(Misfit::Platform { platform }),
            }
        }
        Ok(())
    }
}

/// Why a configuration makes no run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error("platform {platform} names chain {chain} of policies, which does not exist")]
    Chain { platform: PlatformId, chain: ChainId },
    #[error("pool {pool} serves platform {platform}, which does not exist")]
    Pool { pool: usize, platform: PlatformId },
    #[error("machines of pool {pool} have no slot")]
    Slots { pool: usize },
    #[error("a test is of platform {platform}, which does not exist")]
    Platform { platform: PlatformId },
    #[error("tests of platform {platform} are not side by side (again in group {group})")]
    Scattered { platform: PlatformId, group: usize },
    #[error("more tests or platforms than can be numbered")]
    TooMany,
}

/// The tests of one platform: first number and how many.
pub(crate) fn range_of(tests: &[TestPlan], platform: PlatformId) -> std::ops::Range<TestId> {
    let first = tests.iter().position(|test| test.platform == platform).unwrap_or(0);
    let count = tests.iter().skip(first).take_while(|test| test.platform == platform).count();
    first as TestId..(first + count) as TestId
}
