//! The platforms of a plan, with the pools and chains of policies that they share.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::Value;

use super::checks;
use super::entries;
use super::error::{ConfigError, Source};
use super::file::{AdjustEntry, NameOr, PlatformEntry, PolicyEntry, PoolEntry, Scalar, UploadEntry};
use super::options::Assignment;
use super::path::Path;
use super::plan::{AdjustRule, Limits, PlanChoice, Platform, Pool, PoolChoice, Upload, free_name};
use super::resolve::{Maker, check_pattern, check_variable};
use super::secret::{PluginUse, Text};
use super::surroundings::join;

/// The policies of a run that names none.
const DEFAULT_POLICIES: [&str; 3] = ["destructive", "priority", "duration"];
/// The policy that `--reruns` sets.
const RERUNS: &str = "reruns";

impl Maker<'_> {
    pub(super) fn add_platforms(
        &mut self,
        draft: &mut Draft,
        given: &[Pool],
        policies: Option<&[PluginUse]>,
        env: &IndexMap<String, Text>,
        limits: &Limits,
    ) -> Result<(), ConfigError> {
        let single = [PlatformEntry::default()];
        let listed = &self.document.content.platforms;
        let entries = if listed.is_empty() { &single[..] } else { listed };
        let named = self.platform_names(entries)?;
        self.check_wanted(&named)?;
        draft.pools = given.to_vec();
        for (index, (entry, name)) in entries.iter().zip(named).enumerate() {
            if !self.options.tree.platform.is_empty() && !self.options.tree.platform.contains(&name) {
                continue;
            }
            let path = Path::default().key("platforms").index(index);
            let pools = match given {
                [] => self.pools_of(draft, entry, &path, limits)?,
                _ => PoolChoice::Listed((0..given.len()).collect()),
            };
            let chain = match policies {
                Some(chain) => chain.to_vec(),
                None => self.policies_of(entry, &path)?,
            };
            let policies = draft.chain(self.with_reruns(chain)?);
            let platform = self.platform(entry, &path, name, env)?;
            draft.platforms.push(Platform { pools, policies, ..platform });
        }
        Ok(())
    }

    fn platform_names(&self, entries: &[PlatformEntry]) -> Result<Vec<String>, ConfigError> {
        let mut names: Vec<String> = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = Path::default().key("platforms").index(index);
            let name = match &entry.name {
                Some(name) => name.clone(),
                None => default_name(&self.context(entry)),
            };
            checks::platform(&name).map_err(|message| self.document.wrong(&path.key("name"), message))?;
            if names.contains(&name) {
                return Err(self
                    .document
                    .wrong(&path, format!("two platforms are called {name:?}"))
                    .help("give each a `name` of its own"));
            }
            names.push(name);
        }
        Ok(names)
    }

    fn check_wanted(&self, names: &[String]) -> Result<(), ConfigError> {
        let known: Vec<_> = names.iter().map(String::as_str).collect();
        match self.options.tree.platform.iter().find(|wanted| !names.contains(wanted)) {
            None => Ok(()),
            Some(wanted) => {
                let (message, help) = checks::no_such("platform", wanted, &known);
                let error = ConfigError::new(message).in_source(Source::Argument("--platform".to_owned()));
                Err(match help {
                    Some(help) => error.help(help),
                    None => error,
                })
            }
        }
    }

    /// The context of a platform with what the command line says about it.
    fn context(&self, entry: &PlatformEntry) -> IndexMap<String, Vec<String>> {
        let of_file = entry.context.iter().map(|(dimension, words)| (dimension.clone(), words.0.clone()));
        let of_options = self.options.tree.context.iter().map(|Assignment { key, value }| {
            (key.clone(), value.split(',').map(|word| word.trim().to_owned()).collect())
        });
        of_file.chain(of_options).collect()
    }

    fn platform(
        &self,
        entry: &PlatformEntry,
        path: &Path,
        name: String,
        env: &IndexMap<String, Text>,
    ) -> Result<Platform, ConfigError> {
        let file = &self.document.content;
        let top = Path::default();
        let mut environment = self.environment(&file.env, &top.key("env"))?;
        environment.extend(self.environment(&entry.env, &path.key("env"))?);
        environment.extend(env.iter().map(|(key, text)| (key.clone(), text.clone())));
        let mut uploads = self.uploads(&file.uploads, &top.key("uploads"))?;
        uploads.extend(self.uploads(&entry.uploads, &path.key("uploads"))?);
        let mut adjust = self.adjust(&file.adjust, &top.key("adjust"))?;
        adjust.extend(self.adjust(&entry.adjust, &path.key("adjust"))?);
        Ok(Platform {
            name,
            context: self.context(entry),
            require: entry.require.iter().map(|(fact, value)| (fact.clone(), value.0.clone())).collect(),
            pools: PoolChoice::Unspecified,
            plans: self.plans(entry, path)?,
            environment,
            uploads,
            adjust,
            policies: 0,
        })
    }

    fn plans(&self, entry: &PlatformEntry, path: &Path) -> Result<PlanChoice, ConfigError> {
        let tree = &self.options.tree;
        if tree.no_plan {
            return Ok(PlanChoice::NoPlan);
        }
        if !tree.plan.is_empty() {
            return Ok(PlanChoice::Matching(tree.plan.clone()));
        }
        let (words, path) = match (&entry.plan, &self.document.content.plan) {
            (Some(own), _) => (own, path.key("plan")),
            (None, Some(common)) => (common, Path::default().key("plan")),
            (None, None) => return Ok(PlanChoice::Only),
        };
        for pattern in &words.0 {
            check_pattern(pattern).map_err(|error| self.inside(&path, error))?;
        }
        Ok(PlanChoice::Matching(words.0.clone()))
    }

    fn environment(
        &self,
        variables: &IndexMap<String, Scalar>,
        path: &Path,
    ) -> Result<IndexMap<String, Text>, ConfigError> {
        let written = path.find(&self.document.forms.written);
        let one = |(key, value): (&String, &Scalar)| {
            check_variable(key, &value.0).map_err(|message| self.document.wrong(&path.key(key), message))?;
            let written = match written.and_then(|map| map.get(key)) {
                Some(Value::String(text)) => text.clone(),
                _ => value.0.clone(),
            };
            Ok((key.clone(), Text::new(written, value.0.clone())))
        };
        variables.iter().map(one).collect()
    }

    fn uploads(&self, entries: &[UploadEntry], path: &Path) -> Result<Vec<Upload>, ConfigError> {
        let one = |(index, entry): (usize, &UploadEntry)| {
            if !entry.to.starts_with('/') || entry.to.contains('\0') {
                let message = format!("{:?} is no absolute path on the machine", entry.to);
                return Err(self.document.wrong(&path.index(index).key("to"), message));
            }
            Ok(Upload { from: join(self.base(), &entry.from), to: entry.to.clone() })
        };
        entries.iter().enumerate().map(one).collect()
    }

    fn adjust(&self, entries: &[AdjustEntry], path: &Path) -> Result<Vec<AdjustRule>, ConfigError> {
        let one = |(index, entry): (usize, &AdjustEntry)| {
            if let Some(pattern) = &entry.test {
                check_pattern(pattern).map_err(|error| self.inside(&path.index(index).key("test"), error))?;
            }
            if entry.keys.is_empty() {
                return Err(self
                    .document
                    .wrong(&path.index(index), "sets no key")
                    .help("write e.g. `duration: 8h` beside `test`"));
            }
            Ok(AdjustRule { test: entry.test.clone(), keys: entry.keys.clone() })
        };
        entries.iter().enumerate().map(one).collect()
    }

    /// The pools of a platform by the configuration: its own list, else all shared ones, else none yet.
    fn pools_of(
        &self,
        draft: &mut Draft,
        entry: &PlatformEntry,
        path: &Path,
        limits: &Limits,
    ) -> Result<PoolChoice, ConfigError> {
        let shared = &self.document.content.provisioners;
        let mut chosen = Vec::new();
        match &entry.provisioners {
            None => {
                for name in shared.keys() {
                    chosen.push(self.shared_pool(draft, name, limits)?);
                }
            }
            Some(list) => {
                for (index, item) in list.iter().enumerate() {
                    let path = path.key("provisioners").index(index);
                    let at = match item {
                        NameOr::Name(name) if shared.contains_key(name) => {
                            self.shared_pool(draft, name, limits)?
                        }
                        NameOr::Name(name) => return Err(self.no_shared_pool(name, &path)),
                        NameOr::Entry(entry) => self.add_pool(draft, entry, None, &path, limits)?,
                    };
                    if !chosen.contains(&at) {
                        chosen.push(at);
                    }
                }
            }
        }
        Ok(if chosen.is_empty() { PoolChoice::Unspecified } else { PoolChoice::Listed(chosen) })
    }

    fn no_shared_pool(&self, name: &str, path: &Path) -> ConfigError {
        let known: Vec<_> = self.document.content.provisioners.keys().map(String::as_str).collect();
        let (_, help) = checks::no_such("pool", name, &known);
        let otherwise = format!("for the plugin of that name write `{{use: {name}}}`");
        let help = help.map_or_else(|| otherwise.clone(), |help| format!("{help}; {otherwise}"));
        self.document.wrong(path, format!("there is no pool {name:?} under `provisioners`")).help(help)
    }

    fn shared_pool(&self, draft: &mut Draft, name: &str, limits: &Limits) -> Result<usize, ConfigError> {
        if let Some(known) = draft.shared.get(name) {
            return Ok(*known);
        }
        let path = Path::default().key("provisioners").key(name);
        let Some(entry) = self.document.content.provisioners.get(name) else {
            return Err(self.no_shared_pool(name, &path));
        };
        let index = self.add_pool(draft, entry, Some(name), &path, limits)?;
        draft.shared.insert(name.to_owned(), index);
        Ok(index)
    }

    /// Adds the pool of the entry at `path`. A name that was given must be free; one that is only the plugin's makes way for
    /// given ones and gets a number.
    fn add_pool(
        &self,
        draft: &mut Draft,
        entry: &PoolEntry,
        shared: Option<&str>,
        path: &Path,
        limits: &Limits,
    ) -> Result<usize, ConfigError> {
        let mut pool = self
            .raw(path)
            .pool(entry, shared, self.pool_defaults(limits))
            .map_err(|error| self.inside(path, error))?;
        let taken = |name: &str| draft.pools.iter().any(|known| known.name() == name);
        if entry.name.is_none() && shared.is_none() {
            let given = |name: &str| self.document.content.provisioners.contains_key(name);
            pool.provisioner.name = free_name(pool.name(), |name| taken(name) || given(name));
        } else if taken(pool.name()) {
            return Err(self.document.wrong(path, format!("two pools are called {:?}", pool.name())));
        }
        draft.pools.push(pool);
        Ok(draft.pools.len() - 1)
    }

    /// The policies of a platform by the configuration.
    fn policies_of(&self, entry: &PlatformEntry, path: &Path) -> Result<Vec<PluginUse>, ConfigError> {
        let top = Path::default();
        let (list, path) = match (&entry.policies, &self.document.content.policies) {
            (Some(own), _) => (own, path.key("policies")),
            (None, Some(common)) => (common, top.key("policies")),
            (None, None) => {
                return DEFAULT_POLICIES.iter().map(|name| entries::bare(name, self.base())).collect();
            }
        };
        let one = |(index, entry): (usize, &NameOr<PolicyEntry>)| {
            let path = path.index(index);
            match entry {
                NameOr::Name(name) => entries::bare(name, self.base()),
                NameOr::Entry(entry) => self.raw(&path).policy(entry),
            }
            .map_err(|error| self.inside(&path, error))
        };
        list.iter().enumerate().map(one).collect()
    }

    /// The chain with `--reruns` in it: the policy of that name, or one more at the front; `--reruns 0` takes it out.
    fn with_reruns(&self, mut chain: Vec<PluginUse>) -> Result<Vec<PluginUse>, ConfigError> {
        let Some(max) = self.options.reruns else { return Ok(chain) };
        if max == 0 {
            chain.retain(|policy| policy.plugin != RERUNS);
            return Ok(chain);
        }
        if !chain.iter().any(|policy| policy.plugin == RERUNS) {
            chain.insert(0, entries::bare(RERUNS, self.base())?);
        }
        for policy in chain.iter_mut().filter(|policy| policy.plugin == RERUNS) {
            policy.set("max", max.into());
        }
        Ok(chain)
    }
}

/// What grows while platforms are added.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) pools: Vec<Pool>,
    /// Shared pools that are in use already, by their keys in the configuration.
    shared: HashMap<String, usize>,
    pub(super) chains: Vec<Vec<PluginUse>>,
    pub(super) platforms: Vec<Platform>,
}

impl Draft {
    fn chain(&mut self, chain: Vec<PluginUse>) -> usize {
        if let Some(known) = self.chains.iter().position(|known| *known == chain) {
            return known;
        }
        self.chains.push(chain);
        self.chains.len() - 1
    }
}

/// `distro@arch` of the context, else `default`.
fn default_name(context: &IndexMap<String, Vec<String>>) -> String {
    let first = |dimension: &str| context.get(dimension).and_then(|values| values.first()).cloned();
    match (first("distro"), first("arch")) {
        (Some(distro), Some(arch)) => format!("{distro}@{arch}"),
        (Some(distro), None) => distro,
        _ => "default".to_owned(),
    }
}
