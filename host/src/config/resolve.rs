//! Where command line, configuration and surroundings become one [`RunPlan`].
//!
//! Order of precedence, lowest first: defaults, the configuration, the same for one platform, the command line.

use std::collections::HashMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path as FilePath, PathBuf};

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::checks;
use super::document::Document;
use super::entries::{self, Given, PoolDefaults, Raw};
use super::error::{ConfigError, Source};
use super::expand::{self, Lookup, is_variable};
use super::file::{
    AdjustEntry, LimitsEntry, NameOr, PlatformEntry, PolicyEntry, PoolEntry, ReporterEntry, Scalar,
    UploadEntry,
};
use super::options::{Assignment, PluginOptions, RunOptions};
use super::path::Path;
use super::plan::{
    AdjustRule, Libraries, Limits, Origin, Permissions, PlanChoice, Platform, Pool, PoolChoice, Reporter,
    RunDirectory, RunPlan, Selection, Upload, free_name,
};
use super::secret::{PluginUse, Secrets, Text};
use super::spec::Spec;
use super::surroundings::{Surroundings, join};
use crate::fmf::expression::Condition;
use crate::fmf::regex::Regex;

/// The policies of a run that names none.
const DEFAULT_POLICIES: [&str; 3] = ["destructive", "priority", "duration"];
/// The reporter of a configuration that names none.
const DEFAULT_REPORTER: &str = "jsonl";
/// The policy that `--reruns` sets.
const RERUNS: &str = "reruns";
/// Directories to look for plugins in, separated by colons.
const PLUGIN_PATH: &str = "ATEX_PLUGIN_PATH";

/// The plan for what was typed. Reads the configuration file, and nothing else.
pub fn plan(options: &RunOptions, around: &Surroundings) -> Result<RunPlan, ConfigError> {
    let mut secrets = Secrets::default();
    let tree = tree_directory(options, around)?;
    let lookup = |name: &str| around.variable(name).map(str::to_owned);
    let document = match &options.tree.config {
        Some(file) => Document::named(around.absolute(file), &lookup, &mut secrets)?,
        None => Document::of_tree(&tree, options.tree.trust_tree, &lookup, &mut secrets)?,
    };
    let maker =
        Maker { options, around, directory: &around.directory, document: &document, recorded: None, secrets };
    let owner = document.content.owner.clone().unwrap_or_else(|| around.owner.clone());
    maker.make(tree, owner, options.seed.unwrap_or(around.seed))
}

/// The plan that an earlier run was made from, with variables resolved anew.
pub fn plan_again(origin: &Origin, around: &Surroundings) -> Result<RunPlan, ConfigError> {
    let mut secrets = Secrets::default();
    let lookup = |name: &str| around.variable(name).map(str::to_owned);
    let document = Document::recorded(origin.file.clone(), &origin.configuration, &lookup, &mut secrets)?;
    let tree = join(&origin.directory, origin.options.tree.tree.as_deref().unwrap_or(FilePath::new(".")));
    let maker = Maker {
        options: &origin.options,
        around,
        directory: &origin.directory,
        document: &document,
        recorded: Some(&lookup),
        secrets,
    };
    maker.make(tree, origin.owner.clone(), origin.seed)
}

/// Where plugins come from without a configuration.
pub fn libraries(options: &PluginOptions, around: &Surroundings) -> Libraries {
    let files = options.plugin.iter().map(|path| around.absolute(path)).collect();
    Libraries { files, directories: plugin_directories(around) }
}

/// The reporters of `--reporter` alone, and the secrets in them.
pub fn reporters(specs: &[Spec], around: &Surroundings) -> Result<(Vec<Reporter>, Secrets), ConfigError> {
    let mut secrets = Secrets::default();
    let mut reporters = Vec::new();
    for spec in specs {
        let given = Given::new("--reporter", spec, &around.directory, None, &mut secrets)?;
        reporters.push(given.build(&secrets, |raw, entry: &ReporterEntry| raw.reporter(entry))?);
    }
    Ok((reporters, secrets))
}

/// Whether all `patterns` of `option` are regular expressions.
pub fn check_patterns(option: &str, patterns: &[String]) -> Result<(), ConfigError> {
    let located = |error: ConfigError| error.in_source(Source::Argument(option.to_owned()));
    patterns.iter().try_for_each(|pattern| check_pattern(pattern).map_err(located))
}

/// Whether a plugin can be called so.
pub fn check_plugin_name(name: &str) -> Result<(), String> {
    checks::plugin(name)
}

fn plugin_directories(around: &Surroundings) -> Vec<PathBuf> {
    let search = around.variable(PLUGIN_PATH).unwrap_or_default();
    let named = search.split(':').filter(|directory| !directory.is_empty());
    named.map(|directory| around.absolute(FilePath::new(directory))).collect()
}

fn tree_directory(options: &RunOptions, around: &Surroundings) -> Result<PathBuf, ConfigError> {
    let named = options.tree.tree.as_deref().unwrap_or(FilePath::new("."));
    let tree = around.absolute(named);
    match std::fs::metadata(&tree) {
        Ok(found) if found.is_dir() => Ok(tree),
        Ok(_) => Err(ConfigError::new(format!("{} is no directory", named.display()))),
        Err(error) => Err(ConfigError::new(format!("cannot read the tree {}: {error}", named.display()))),
    }
}

/// What all steps of making a plan need.
struct Maker<'a> {
    options: &'a RunOptions,
    around: &'a Surroundings,
    /// Where relative paths of the command line start.
    directory: &'a FilePath,
    document: &'a Document,
    /// How written forms of options are resolved, if they come from run.json.
    recorded: Option<Lookup<'a>>,
    secrets: Secrets,
}

impl Maker<'_> {
    fn make(mut self, tree: PathBuf, owner: String, seed: u64) -> Result<RunPlan, ConfigError> {
        checks::owner(&owner)
            .map_err(|message| self.document.wrong(&Path::default().key("owner"), message))?;
        let (options, file) = (self.options, &self.document.content);
        check_expressions(options)?;
        let limits = self.limits(&file.limits);
        let mut asked = options.clone();
        let env = self.environment_of_options(&mut asked)?;
        let given = self.given_pools(&mut asked, &limits)?;
        let policies = self.given_policies(&mut asked)?;
        let mut draft =
            Draft { pools: Vec::new(), shared: HashMap::new(), chains: Vec::new(), platforms: Vec::new() };
        self.add_platforms(&mut draft, &given, policies.as_deref(), &env, &limits)?;
        let reporters = self.reporters(&mut asked)?;
        let old_results = match &file.old_results {
            Some(entry) => Some(self.reporter(entry, &Path::default().key("old-results"))?),
            None => None,
        };
        Ok(RunPlan {
            dialect: options.tree.dialect.or(file.dialect).unwrap_or_default(),
            libraries: self.libraries(),
            pools: draft.pools,
            platforms: draft.platforms,
            policies: draft.chains,
            reporters,
            old_results,
            selection: self.selection(),
            limits,
            spares: options.spares.or(file.spares).unwrap_or(0),
            seed,
            run_directory: self.run_directory(),
            rerun_failed: options.rerun_failed.as_deref().map(|path| self.absolute(path)),
            keep_artifacts: file.keep_artifacts.unwrap_or(true),
            allow: self.permissions(),
            dry_run: options.dry_run,
            origin: Origin {
                directory: self.directory.to_owned(),
                options: asked,
                file: self.document.file.clone(),
                configuration: self.document.forms.written.clone(),
                owner: owner.clone(),
                seed,
            },
            tree,
            owner,
            secrets: self.secrets,
        })
    }

    fn absolute(&self, path: &FilePath) -> PathBuf {
        join(self.directory, path)
    }

    /// Where relative paths of the configuration start.
    fn base(&self) -> &FilePath {
        self.document.file.as_deref().and_then(FilePath::parent).unwrap_or(self.directory)
    }

    fn permissions(&self) -> Permissions {
        let tree = &self.options.tree;
        Permissions {
            local: self.options.allow_local,
            empty: tree.allow_empty,
            unsupported: tree.ignore_unsupported,
            strict: tree.strict,
        }
    }

    fn selection(&self) -> Selection {
        let tree = &self.options.tree;
        Selection {
            test: tree.test.clone(),
            exclude: tree.exclude.clone(),
            filter: tree.filter.clone(),
            condition: tree.condition.clone(),
        }
    }

    fn run_directory(&self) -> RunDirectory {
        match &self.options.run_dir {
            Some(directory) => RunDirectory::At(self.absolute(directory)),
            None => RunDirectory::Fresh { below: self.directory.to_owned() },
        }
    }

    fn libraries(&self) -> Libraries {
        let of_file = self.document.content.plugins.iter().map(|path| join(self.base(), path));
        let of_options = self.options.plugins.plugin.iter().map(|path| self.absolute(path));
        Libraries { files: of_options.chain(of_file).collect(), directories: plugin_directories(self.around) }
    }

    fn limits(&self, file: &LimitsEntry) -> Limits {
        let (default, options) = (Limits::default(), self.options);
        let fail_fast = options.fail_fast.then_some(NonZeroU32::MIN);
        Limits {
            setup_failures: file.setup_failures.unwrap_or(default.setup_failures),
            reserve_failures: file.reserve_failures.unwrap_or(default.reserve_failures),
            reserve_timeout: file.reserve_timeout.map_or(default.reserve_timeout, |span| span.0),
            lost_machine_reruns: file.lost_machine_reruns.unwrap_or(default.lost_machine_reruns),
            time: options
                .time_limit
                .map(|time| time.0)
                .or(file.time.map(|span| span.0))
                .unwrap_or(default.time),
            release: file.release.map_or(default.release, |span| span.0),
            keepalive: file.keepalive.map_or(default.keepalive, |span| span.0),
            grace: file.grace.map_or(default.grace, |span| span.0),
            bytes_per_test: file.bytes_per_test.map_or(default.bytes_per_test, |bytes| bytes.0),
            results_per_test: file.results_per_test.unwrap_or(default.results_per_test),
            max_machines: options.max_machines.or(file.max_machines),
            max_fail: options.max_fail.or(fail_fast).or(file.max_fail),
        }
    }

    fn pool_defaults(&self, limits: &Limits) -> PoolDefaults {
        let slots = self.options.slots.or(self.document.content.slots).unwrap_or(NonZeroU16::MIN);
        PoolDefaults { slots, reserve_timeout: limits.reserve_timeout }
    }

    /// An entry of the configuration in both forms.
    fn raw(&self, path: &Path) -> Raw<'_> {
        let forms = &self.document.forms;
        Raw {
            written: path.find(&forms.written).unwrap_or(&Value::Null),
            resolved: path.find(&forms.resolved).unwrap_or(&Value::Null),
            base: self.base(),
        }
    }

    /// An error about something inside the entry at `path`.
    fn inside(&self, path: &Path, error: ConfigError) -> ConfigError {
        let whole = error.path().steps().iter().fold(path.clone(), |path, step| path.step(step.clone()));
        self.document.located(error.at(whole), super::yaml::Part::Value)
    }

    fn given_pools(&mut self, asked: &mut RunOptions, limits: &Limits) -> Result<Vec<Pool>, ConfigError> {
        let defaults = self.pool_defaults(limits);
        let mut pools: Vec<Pool> = Vec::new();
        for spec in &mut asked.provisioner {
            let given = Given::new("--provisioner", spec, self.directory, self.recorded, &mut self.secrets)?;
            let mut pool: Pool =
                given.build(&self.secrets, |raw, entry: &PoolEntry| raw.pool(entry, None, defaults))?;
            pool.provisioner.name =
                free_name(pool.name(), |name| pools.iter().any(|pool| pool.name() == name));
            pools.push(pool);
            *spec = given.written();
        }
        Ok(pools)
    }

    fn given_policies(&mut self, asked: &mut RunOptions) -> Result<Option<Vec<PluginUse>>, ConfigError> {
        let mut chain = Vec::new();
        for spec in &mut asked.policy {
            let given = Given::new("--policy", spec, self.directory, self.recorded, &mut self.secrets)?;
            chain.push(given.build(&self.secrets, |raw, entry: &PolicyEntry| raw.policy(entry))?);
            *spec = given.written();
        }
        Ok((!chain.is_empty()).then_some(chain))
    }

    fn reporters(&mut self, asked: &mut RunOptions) -> Result<Vec<Reporter>, ConfigError> {
        let path = Path::default().key("reporters");
        let mut reporters = match &self.document.content.reporters {
            None => vec![entries::bare_reporter(DEFAULT_REPORTER, self.base())?],
            Some(list) => list
                .iter()
                .enumerate()
                .map(|(index, entry)| self.reporter(entry, &path.index(index)))
                .collect::<Result<_, _>>()?,
        };
        for spec in &mut asked.reporter {
            let given = Given::new("--reporter", spec, self.directory, self.recorded, &mut self.secrets)?;
            reporters.push(given.build(&self.secrets, |raw, entry: &ReporterEntry| raw.reporter(entry))?);
            *spec = given.written();
        }
        Ok(reporters)
    }

    fn reporter(&self, entry: &NameOr<ReporterEntry>, path: &Path) -> Result<Reporter, ConfigError> {
        match entry {
            NameOr::Name(name) => entries::bare_reporter(name, self.base()),
            NameOr::Entry(entry) => self.raw(path).reporter(entry),
        }
        .map_err(|error| self.inside(path, error))
    }

    /// The variables of `--env`, which are replaced in `asked` by what may be stored of them.
    fn environment_of_options(
        &mut self,
        asked: &mut RunOptions,
    ) -> Result<IndexMap<String, Text>, ConfigError> {
        let wrong = |error: ConfigError| error.in_source(Source::Argument("--env".to_owned()));
        let mut environment = IndexMap::new();
        for Assignment { key, value } in &mut asked.tree.env {
            check_variable(key, value).map_err(|message| wrong(ConfigError::new(message)))?;
            let one = json!({ key.as_str(): value.as_str() });
            let forms = match self.recorded {
                Some(lookup) => expand::expand(&one, lookup, &mut self.secrets),
                None => expand::literal(&one, &mut self.secrets),
            };
            let forms = forms.map_err(wrong)?;
            let form = |whole: &Value| {
                whole.get(key.as_str()).and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let text = Text::new(form(&forms.written), form(&forms.resolved));
            text.written().clone_into(value);
            environment.insert(key.clone(), text);
        }
        Ok(environment)
    }

    fn add_platforms(
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
struct Draft {
    pools: Vec<Pool>,
    /// Shared pools that are in use already, by their keys in the configuration.
    shared: HashMap<String, usize>,
    chains: Vec<Vec<PluginUse>>,
    platforms: Vec<Platform>,
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

/// Regular expressions and conditions of the command line; a filter that is wrong is wrong about single tests only.
fn check_expressions(options: &RunOptions) -> Result<(), ConfigError> {
    let tree = &options.tree;
    check_patterns("--test", &tree.test)?;
    check_patterns("--exclude", &tree.exclude)?;
    check_patterns("--plan", &tree.plan)?;
    for condition in &tree.condition {
        Condition::parse(condition).map_err(|error| {
            ConfigError::new(error.to_string()).in_source(Source::Argument("--condition".to_owned()))
        })?;
    }
    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), ConfigError> {
    Regex::new(pattern).map_err(|error| ConfigError::new(error.to_string())).map(drop)
}

fn check_variable(key: &str, value: &str) -> Result<(), String> {
    if !is_variable(key) {
        return Err(format!("{key:?} is no name of an environment variable"));
    }
    if value.contains('\0') {
        return Err(format!("the value of {key} has a zero byte in it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
