//! The shape of `atex.yaml`, as typed structures.
//!
//! The same structures make the JSON schema that `atex-host schema` prints, so the comments on fields are for users. Absent
//! is always told apart from given: defaults are filled in where file and command line meet (`resolve`).

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::plan::Dialect;
use super::units::{Bytes, Span};

/// Configuration of atex-host: which machines, platforms and policies a run uses and where its results go.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct File {
    /// Whose semantics apply where those of tmt and of atex differ.
    pub(crate) dialect: Option<Dialect>,
    /// Who holds the machines; user@host if not given.
    pub(crate) owner: Option<String>,
    /// Plugin libraries to load; paths relative to this file.
    pub(crate) plugins: Vec<PathBuf>,
    /// The plans to run: regular expressions, searched in the plans' names.
    pub(crate) plan: Option<Words>,
    /// Environment variables of tests and scripts.
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) env: IndexMap<String, Scalar>,
    /// Files and directories to send to each machine before it is prepared.
    pub(crate) uploads: Vec<UploadEntry>,
    /// Last changes to the metadata of tests.
    pub(crate) adjust: Vec<AdjustEntry>,
    /// Pools of machines that platforms share, by name.
    #[schemars(with = "BTreeMap<String, PoolEntry>")]
    pub(crate) provisioners: IndexMap<String, PoolEntry>,
    /// The targets to test; without any there is one.
    pub(crate) platforms: Vec<PlatformEntry>,
    /// The policies that order tests and judge runs, in order; destructive, priority, duration if not given.
    pub(crate) policies: Option<Vec<NameOr<PolicyEntry>>>,
    /// Tests that may run at once on one machine; 1 if not given.
    pub(crate) slots: Option<NonZeroU16>,
    /// Machines kept ready beyond what is running; 0 if not given.
    pub(crate) spares: Option<u32>,
    pub(crate) limits: LimitsEntry,
    /// How often a line says how far the run is; never if not given.
    pub(crate) statistics: Option<Span>,
    /// Where results go; jsonl if not given.
    pub(crate) reporters: Option<Vec<NameOr<ReporterEntry>>>,
    /// Where results go of runs that were repeated later; they are dropped if not given.
    pub(crate) old_results: Option<NameOr<ReporterEntry>>,
    /// Whether artifacts stay when all reporters are through; true if not given.
    pub(crate) keep_artifacts: Option<bool>,
}

/// A target: what to test on, with which machines.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PlatformEntry {
    /// Its name in results; distro@arch of the context if not given.
    pub(crate) name: Option<String>,
    /// Dimensions of the context that metadata is adjusted to.
    #[schemars(with = "BTreeMap<String, Words>")]
    pub(crate) context: IndexMap<String, Words>,
    /// What the machine's own facts must be.
    pub(crate) require: BTreeMap<String, Scalar>,
    /// Names of shared pools, or pools of its own, in order of preference; all shared pools if not given.
    pub(crate) provisioners: Option<Vec<NameOr<PoolEntry>>>,
    /// The plans to run here, instead of the common ones.
    pub(crate) plan: Option<Words>,
    /// Environment variables on top of the common ones.
    #[schemars(with = "BTreeMap<String, Scalar>")]
    pub(crate) env: IndexMap<String, Scalar>,
    /// Uploads after the common ones.
    pub(crate) uploads: Vec<UploadEntry>,
    /// Changes to metadata after the common ones.
    pub(crate) adjust: Vec<AdjustEntry>,
    /// Policies instead of the common ones.
    pub(crate) policies: Option<Vec<NameOr<PolicyEntry>>>,
}

/// A file or directory and where it goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UploadEntry {
    /// Path on this box, relative to the configuration file.
    pub(crate) from: PathBuf,
    /// Absolute path on the machine.
    pub(crate) to: String,
}

/// Keys to set in the metadata of the tests whose names match; any metadata keys may stand beside `test`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct AdjustEntry {
    /// Regular expression, searched in the test's name; every test if not given.
    pub(crate) test: Option<String>,
    #[serde(flatten)]
    pub(crate) keys: Map<String, Value>,
}

/// A pool of machines; all other keys are the provisioner's own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct PoolEntry {
    /// The provisioner plugin.
    pub(crate) r#use: String,
    /// The pool's name; the plugin's if not given.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Most machines at a time; as many as the provisioner has if not given.
    #[serde(default)]
    pub(crate) max: Option<NonZeroU32>,
    /// What the host does with machines of this pool.
    #[serde(default)]
    pub(crate) host: PoolHost,
}

impl PoolEntry {
    /// The same pool with what `other` says to the host.
    pub(crate) fn but(&self, other: &Self) -> Self {
        let (ours, theirs) = (&self.host, &other.host);
        Self {
            r#use: self.r#use.clone(),
            name: other.name.as_ref().or(self.name.as_ref()).cloned(),
            max: other.max.or(self.max),
            host: PoolHost {
                slots: theirs.slots.or(ours.slots),
                isolate: theirs.isolate.or(ours.isolate),
                reserve_timeout: theirs.reserve_timeout.or(ours.reserve_timeout),
            },
        }
    }
}

/// What the host does with machines of a pool.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct PoolHost {
    /// Tests that may run at once on one machine; the run's slots if not given.
    pub(crate) slots: Option<NonZeroU16>,
    /// A fresh machine for every test.
    pub(crate) isolate: Option<bool>,
    /// How long a reservation may take; the run's limit if not given.
    pub(crate) reserve_timeout: Option<Span>,
}

/// A policy; all other keys are its own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct PolicyEntry {
    /// The policy plugin.
    pub(crate) r#use: String,
    /// A name for messages; the plugin's if not given.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// There is nothing to say to the host about policies yet.
    #[serde(default)]
    pub(crate) host: NoHost,
}

/// No keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct NoHost {}

/// A reporter; all other keys are its own.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ReporterEntry {
    /// The reporter plugin.
    pub(crate) r#use: String,
    /// A name for messages; the plugin's if not given.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// What the host grants the reporter.
    #[serde(default)]
    pub(crate) host: ReporterHost,
}

/// What the host grants a reporter.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ReporterHost {
    /// How long it may go on after the last event; 5m if not given.
    pub(crate) finish_timeout: Option<Span>,
}

/// Limits of a run.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LimitsEntry {
    /// Failed set-ups in a row after which a platform gets no more machines; 10.
    pub(crate) setup_failures: Option<u32>,
    /// Failed reservations in a row after which a pool is given up; 10.
    pub(crate) reserve_failures: Option<u32>,
    /// How long one reservation may take; 2h.
    pub(crate) reserve_timeout: Option<Span>,
    /// How often a test runs again because its machine was lost; 2.
    pub(crate) lost_machine_reruns: Option<u32>,
    /// Tests that fail in a row on a machine, while most pass elsewhere, after which it is put aside; 10, 0 for never.
    pub(crate) machine_failures: Option<u32>,
    /// How long the run may take; 12h.
    pub(crate) time: Option<Span>,
    /// How long giving back one machine may take; 5m.
    pub(crate) release: Option<Span>,
    /// After this long a silent connection counts as dead; 60s.
    pub(crate) keepalive: Option<Span>,
    /// Between SIGTERM and SIGKILL for a test whose time is up; 10s.
    pub(crate) grace: Option<Span>,
    /// What one execution of a test may send; 2GiB.
    pub(crate) bytes_per_test: Option<Bytes>,
    /// Results one execution of a test may report; 1000000.
    pub(crate) results_per_test: Option<u64>,
    /// Machines over all pools; no limit if not given.
    pub(crate) max_machines: Option<NonZeroU32>,
    /// Failed tests after which no further test is started; no limit if not given.
    pub(crate) max_fail: Option<NonZeroU32>,
}

/// Text, or a number or boolean taken as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scalar(pub(crate) String);

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }
    fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar(value.to_string()))
    }
    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar(String::new()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "type": ["string", "number", "boolean", "null"] })
    }
}

/// One word or a list of words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

struct WordsVisitor;

impl<'de> Visitor<'de> for WordsVisitor {
    type Value = Words;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text or a list of texts")
    }
    fn visit_str<E>(self, text: &str) -> Result<Words, E> {
        Ok(Words(vec![text.to_owned()]))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Words, E> {
        Ok(Words(vec![value.to_string()]))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Words, E> {
        Ok(Words(vec![value.to_string()]))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Words, E> {
        Ok(Words(vec![value.to_string()]))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Words, E> {
        Ok(Words(vec![value.to_string()]))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Words, A::Error> {
        let mut words = Vec::new();
        while let Some(Scalar(word)) = items.next_element()? {
            words.push(word);
        }
        Ok(Words(words))
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WordsVisitor)
    }
}

impl JsonSchema for Words {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Words".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = generator.subschema_for::<Scalar>();
        schemars::json_schema!({ "anyOf": [word, { "type": "array", "items": word }] })
    }
}

/// A name alone, or an entry in full.
#[derive(Debug)]
pub(crate) enum NameOr<E> {
    Name(String),
    Entry(E),
}

struct NameOrVisitor<E>(PhantomData<E>);

impl<'de, E: Deserialize<'de>> Visitor<'de> for NameOrVisitor<E> {
    type Value = NameOr<E>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name or a mapping with `use`")
    }
    fn visit_str<R: de::Error>(self, name: &str) -> Result<NameOr<E>, R> {
        Ok(NameOr::Name(name.to_owned()))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NameOr<E>, A::Error> {
        E::deserialize(MapAccessDeserializer::new(map)).map(NameOr::Entry)
    }
}

impl<'de, E: Deserialize<'de>> Deserialize<'de> for NameOr<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrVisitor(PhantomData))
    }
}

impl<E: JsonSchema> JsonSchema for NameOr<E> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("NameOr{}", E::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let entry = generator.subschema_for::<E>();
        schemars::json_schema!({ "anyOf": [{ "type": "string" }, entry] })
    }
}

/// The JSON schema of `atex.yaml`.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File);
    schema.insert("title".into(), "atex.yaml".into());
    schema.to_value()
}
