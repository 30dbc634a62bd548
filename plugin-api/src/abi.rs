//! The binary interface between host and plugins. Nothing but data layouts and signatures stands here.
//!
//! Authors do not use this module: they implement the traits of the crate's root, and [`export_plugin!`](crate::export_plugin)
//! puts adapters between the two. Once version 1.0 is out, the only changes that are allowed are
//!
//! - a method or root field appended after the last one, with a default body;
//! - a new constant of one of the open enumerations, whose unknown values both sides ignore;
//! - a new key in one of the JSON texts, or a new number in one of the `more` slices, whose unknown keys both sides ignore.
//!
//! A `#[repr(C)]` struct never gains, loses or reorders a field. `docs/abi.md` holds the digest of this file, and a test
//! compares the two, so that no change goes unnoticed.
//!
//! Panics must not reach this layer: `abi_stable` ends the process. All adapters go through `guard`.
#![allow(
    unsafe_code,
    non_camel_case_types,
    non_local_definitions,
    missing_debug_implementations,
    unused_qualifications,
    elided_lifetimes_in_paths,
    clippy::pedantic,
    clippy::allow_attributes,
    clippy::used_underscore_items,
    reason = "what the derive macros of abi_stable expand to"
)]

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RArc, RBox, RResult, RSlice, RStr, RString, RVec, Tuple2};

macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $constant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(StableAbi, Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(pub u32);

        impl $name {
            $($(#[$item])* pub const $constant: Self = Self($value);)+
        }
    };
}

open_enum! {
    /// [`ErrorKind`](crate::ErrorKind); an unknown value is read as `OTHER`.
    RawErrorKind {
        OTHER = 0,
        PANIC = 1,
        CONFIG = 2,
        CANCELLED = 3,
        BUSY = 4,
        UNSUPPORTED = 5,
        UNREACHABLE = 6,
        DENIED = 7,
    }
}

open_enum! {
    /// [`Level`](crate::Level); an unknown value is read as `INFO`.
    RawLevel {
        ERROR = 1,
        WARN = 2,
        INFO = 3,
        DEBUG = 4,
        TRACE = 5,
    }
}

open_enum! {
    /// What [`RawReporter::event`] is told; unknown ones are ignored.
    RawEvent {
        /// JSON: [`RunStarted`](crate::reporter::RunStarted).
        RUN_STARTED = 1,
        /// JSON: a list of [`Promised`](crate::reporter::Promised).
        PROMISED = 2,
        /// JSON: [`MachineEvent`](crate::reporter::MachineEvent).
        MACHINE = 3,
        /// JSON: [`TestEvent`](crate::reporter::TestEvent).
        TEST = 4,
        /// JSON: [`Finished`](crate::reporter::Finished).
        FINISHED = 5,
        /// JSON: [`RunEnded`](crate::reporter::RunEnded).
        RUN_ENDED = 6,
    }
}

open_enum! {
    /// [`Note`](crate::policy::Note); unknown ones are ignored.
    RawNoteKind {
        /// Uses `test`, `machine`.
        STARTED = 1,
        /// Uses `run`, `last`.
        FINISHED = 2,
        /// Uses `machine`, `key`, `value`.
        LABEL = 3,
        /// Uses `machine`.
        GONE = 4,
        TIME = 5,
    }
}

open_enum! {
    /// [`Command`](crate::policy::Command); unknown ones are ignored.
    RawCommandKind {
        /// Uses `test`, `reason`.
        SKIP = 1,
        /// Uses `test`.
        RERANK = 2,
        /// Uses `reason`.
        STOP = 3,
        /// Uses `at_ms`.
        WAKE_AT = 4,
    }
}

open_enum! {
    /// What a [`RawPrefer`] names; unknown ones are ignored.
    RawPreferKind {
        CLASS = 1,
        TEST = 2,
    }
}

open_enum! {
    /// An opinion; unknown values are read as `NONE`.
    RawVote {
        NONE = 0,
        YES = 1,
        NO = 2,
    }
}

open_enum! {
    /// What [`RawProvisioner::alive`] answers; unknown values are read as `UNKNOWN`.
    RawAlive {
        UNKNOWN = 0,
        ALIVE = 1,
        GONE = 2,
    }
}

/// A failure with its chain of causes, outermost first.
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct RawError {
    pub kind: RawErrorKind,
    /// 1: trying again may help.
    pub retryable: u32,
    pub chain: RVec<RString>,
    /// Long text for logs: a backtrace, a server's answer.
    pub detail: RString,
    /// A JSON object of what later versions add, or empty.
    pub more: RString,
}

/// A number that later versions add to a struct.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawNumber {
    pub key: u32,
    pub reserved: u32,
    pub value: i64,
}

/// [`RunInfo`](crate::policy::RunInfo)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawRunInfo<'a> {
    pub seed: u64,
    pub tests: u32,
    pub platforms: u32,
    pub more: RSlice<'a, RawNumber>,
}

/// [`TestInfo`](crate::policy::TestInfo); its attributes stand beside it.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawTest<'a> {
    pub id: u32,
    pub platform: u32,
    pub claim: u32,
    /// In 1/1000.
    pub fail_rate: u32,
    pub limit_ms: u64,
    pub expected_ms: u64,
    pub name: RStr<'a>,
    pub more: RSlice<'a, RawNumber>,
}

/// [`Queued`](crate::policy::Queued)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawQueued {
    pub test: u32,
    pub attempt: u32,
    pub last_machine: u32,
    pub reserved: u32,
}

/// [`Rank`](crate::policy::Rank)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawRank {
    pub score: i64,
    pub class: u32,
    pub reserved: u32,
}

/// One of the best groups of tests that [`RawPolicy::prefer`] is shown.
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawHead {
    pub class: u32,
    /// Its best test, or `u32::MAX` if the host does not tell.
    pub test: u32,
}

/// [`View`](crate::policy::View)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawView<'a> {
    pub now_ms: u64,
    pub machine: u32,
    pub kind: u32,
    pub platform: u32,
    pub free: u32,
    pub slots: u32,
    pub ran: u32,
    pub last: u32,
    pub last_ok: u32,
    pub running: RSlice<'a, u32>,
    pub labels: RSlice<'a, Tuple2<RStr<'a>, RStr<'a>>>,
    pub more: RSlice<'a, RawNumber>,
}

/// [`Prefer`](crate::policy::Prefer)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawPrefer {
    pub score: i64,
    pub kind: RawPreferKind,
    pub id: u32,
}

/// [`Run`](crate::policy::Run)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawRun<'a> {
    pub now_ms: u64,
    pub wall_ms: u64,
    pub test: u32,
    pub machine: u32,
    pub attempt: u32,
    pub exit: i32,
    /// Numbers of [`Outcome`](crate::policy::Outcome); an unknown one is read as `Failed`.
    pub outcome: u32,
    pub reserved: u32,
    pub status: RStr<'a>,
    pub more: RSlice<'a, RawNumber>,
}

/// [`Judgement`](crate::policy::Judgement)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawJudgement {
    pub rerun: RawVote,
    pub spoilt: RawVote,
    /// `YES` or nothing.
    pub stop: RawVote,
    pub reserved: u32,
}

/// [`Note`](crate::policy::Note)
#[repr(C)]
#[derive(StableAbi, Debug, Clone, Copy)]
pub struct RawNote<'a> {
    pub kind: RawNoteKind,
    pub test: u32,
    pub machine: u32,
    /// 1: the test has its verdict.
    pub last: u32,
    pub run: RawRun<'a>,
    pub key: RStr<'a>,
    pub value: RStr<'a>,
    pub more: RSlice<'a, RawNumber>,
}

/// [`Command`](crate::policy::Command)
#[repr(C)]
#[derive(StableAbi, Debug, Clone)]
pub struct RawCommand {
    pub kind: RawCommandKind,
    pub test: u32,
    pub at_ms: u64,
    pub reason: RString,
}

/// The host, as plugins see it. May be called from any thread, at any time, also after the call it came with has ended.
#[sabi_trait]
pub trait RawHost: Send + Sync + 'static {
    /// `fields`: a JSON object, or empty.
    fn log(&self, level: RawLevel, message: RStr<'_>, fields: RStr<'_>);
    fn progress(&self, text: RStr<'_>);
    fn cancelled(&self) -> bool;
    /// Waits until the call is cancelled, its deadline passes, or `timeout_ms` are over; says whether it is cancelled.
    fn wait_cancelled(&self, timeout_ms: u64) -> bool;
    /// Milliseconds left until the deadline; `u64::MAX` if there is none.
    fn remaining_ms(&self) -> u64;
    /// A JSON object: [`HostInfo`](crate::host::HostInfo).
    #[sabi(last_prefix_field)]
    fn info(&self) -> RString;
}

/// A shared handle on the host.
pub type HostRef = RawHost_TO<RArc<()>>;

/// A configured provisioner. Any method may be called from any thread, several at a time.
#[sabi_trait]
pub trait RawProvisioner: Send + Sync + 'static {
    /// JSON in: [`Lease`](crate::Lease); out: [`Machine`](crate::Machine).
    fn reserve(&self, lease: RStr<'_>, host: HostRef) -> RResult<RString, RawError>;
    fn release(&self, machine: RStr<'_>, host: HostRef) -> RResult<(), RawError>;
    fn abort(&self, lease: RStr<'_>, host: HostRef) -> RResult<(), RawError>;
    fn alive(&self, machine: RStr<'_>, host: HostRef) -> RResult<RawAlive, RawError>;
    /// JSON out: a list of [`Held`](crate::Held).
    fn list(&self, owner: RStr<'_>, host: HostRef) -> RResult<RString, RawError>;
    /// In: seconds from now; out: Unix time in seconds at which the lease ends, 0 if it does not.
    fn renew(&self, machine: RStr<'_>, seconds: u64, host: HostRef) -> RResult<u64, RawError>;
    fn reboot(&self, machine: RStr<'_>, host: HostRef) -> RResult<(), RawError>;
    /// Machines that can be held at a time; `u64::MAX` if unknown.
    #[sabi(last_prefix_field)]
    fn capacity(&self, host: HostRef) -> RResult<u64, RawError>;
}

/// An owned provisioner.
pub type ProvisionerBox = RawProvisioner_TO<RBox<()>>;

/// A configured policy. All methods are called from one thread, one at a time.
#[sabi_trait]
pub trait RawPolicy: Send + 'static {
    /// JSON out: [`Wants`](crate::policy::Wants).
    fn wants(&self) -> RResult<RString, RawError>;
    /// `values`: as many per test as `wants` had attributes.
    fn register(
        &mut self,
        run: &RawRunInfo<'_>,
        tests: RSlice<'_, RawTest<'_>>,
        values: RSlice<'_, RStr<'_>>,
    ) -> RResult<(), RawError>;
    fn ready(&mut self, out: &mut RVec<RawCommand>) -> RResult<(), RawError>;
    fn kind(&mut self, kind: u32, facts: RSlice<'_, RStr<'_>>) -> RResult<(), RawError>;
    fn rank(&self, kind: u32, tests: RSlice<'_, RawQueued>, out: &mut RVec<RawRank>)
    -> RResult<(), RawError>;
    fn prefer(
        &self,
        view: &RawView<'_>,
        window: RSlice<'_, RawHead>,
        out: &mut RVec<RawPrefer>,
    ) -> RResult<(), RawError>;
    fn judge(&self, run: &RawRun<'_>) -> RResult<RawJudgement, RawError>;
    #[sabi(last_prefix_field)]
    fn note(&mut self, now_ms: u64, note: &RawNote<'_>, out: &mut RVec<RawCommand>) -> RResult<(), RawError>;
}

/// An owned policy.
pub type PolicyBox = RawPolicy_TO<RBox<()>>;

/// A configured reporter. All methods are called from one thread, one at a time.
#[sabi_trait]
pub trait RawReporter: Send + 'static {
    /// JSON out: [`ReporterWants`](crate::reporter::ReporterWants).
    fn wants(&self) -> RResult<RString, RawError>;
    #[sabi(last_prefix_field)]
    fn event(&mut self, event: RawEvent, json: RStr<'_>, host: HostRef) -> RResult<(), RawError>;
}

/// An owned reporter.
pub type ReporterBox = RawReporter_TO<RBox<()>>;

/// What a library offers. Every function of it may be called from any thread.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRoot_Ref, prefix_fields = PluginRoot_Prefix)))]
#[sabi(missing_field(option))]
pub struct PluginRoot {
    /// JSON out: [`Description`](crate::describe::Description).
    pub describe: extern "C" fn() -> RResult<RString, RawError>,
    /// In: a name of the description, the configuration as a JSON object, the host.
    pub provisioner:
        extern "C" fn(name: RStr<'_>, config: RStr<'_>, host: HostRef) -> RResult<ProvisionerBox, RawError>,
    pub policy:
        extern "C" fn(name: RStr<'_>, config: RStr<'_>, host: HostRef) -> RResult<PolicyBox, RawError>,
    #[sabi(last_prefix_field)]
    pub reporter:
        extern "C" fn(name: RStr<'_>, config: RStr<'_>, host: HostRef) -> RResult<ReporterBox, RawError>,
}

impl RootModule for PluginRoot_Ref {
    abi_stable::declare_root_module_statics! {PluginRoot_Ref}
    const BASE_NAME: &'static str = "atex_plugin";
    const NAME: &'static str = "atex-plugin-api";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
