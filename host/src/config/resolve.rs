//! Where command line, configuration and surroundings become one [`RunPlan`].
//!
//! Order of precedence, lowest first: defaults, the configuration, the same for one platform, the command line.

use std::collections::HashSet;
use std::num::{NonZeroU16, NonZeroU32};
use std::path::{Path as FilePath, PathBuf};

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::again;
use super::checks;
use super::document::Document;
use super::entries::{self, Given, PoolDefaults, Raw};
use super::error::{ConfigError, Source};
use super::expand::{self, Lookup, is_variable};
use super::file::{LimitsEntry, NameOr, PolicyEntry, PoolEntry, ReporterEntry};
use super::options::{Assignment, PluginOptions, RunOptions};
use super::path::Path;
use super::plan::{
    Libraries, Limits, Origin, Permissions, Pool, Reporter, RunDirectory, RunPlan, Selection, free_name,
};
use super::platforms::Draft;
use super::secret::{PluginUse, Secrets, Text};
use super::spec::Spec;
use super::surroundings::{Surroundings, join};
use crate::fmf::expression::Condition;
use crate::fmf::regex::Regex;

/// The reporter of a configuration that names none.
const DEFAULT_REPORTER: &str = "jsonl";
/// Directories to look for plugins in, separated by colons.
const PLUGIN_PATH: &str = "ATEX_PLUGIN_PATH";

/// The plan for what was typed. Reads the configuration file, and nothing else.
pub fn plan(options: &RunOptions, around: &Surroundings) -> Result<RunPlan, ConfigError> {
    let secrets = Secrets::default();
    let tree = tree_directory(options, around)?;
    let lookup = |name: &str| around.variable(name).map(str::to_owned);
    let document = match &options.tree.config {
        Some(file) => Document::named(around.absolute(file), &lookup, &secrets)?,
        None => Document::of_tree(&tree, options.tree.trust_tree, &lookup, &secrets)?,
    };
    let maker =
        Maker { options, around, directory: &around.directory, document: &document, recorded: None, secrets };
    let owner = document.content.owner.clone().unwrap_or_else(|| around.owner.clone());
    maker.make(tree, owner, options.seed.unwrap_or(around.seed))
}

/// The plan that an earlier run was made from, with variables resolved anew.
pub fn plan_again(origin: &Origin, around: &Surroundings) -> Result<RunPlan, ConfigError> {
    let secrets = Secrets::default();
    let lookup = |name: &str| around.variable(name).map(str::to_owned);
    let written = again::configuration(origin);
    let document = Document::recorded(origin.file.clone(), &written, &lookup, &secrets)?;
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
    let secrets = Secrets::default();
    let mut reporters = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let given = Given::new("--reporter", index, spec, &around.directory, None, &secrets)?;
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

/// The reporter that is there if nobody names one, with other options but at the same place.
fn is_default_reporter(spec: &Spec) -> bool {
    spec.value()["use"] == DEFAULT_REPORTER && spec.value().get("path").is_none()
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
pub(super) struct Maker<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) around: &'a Surroundings,
    /// Where relative paths of the command line start.
    pub(super) directory: &'a FilePath,
    pub(super) document: &'a Document,
    /// How written forms of options are resolved, if they come from run.json.
    pub(super) recorded: Option<Lookup<'a>>,
    pub(super) secrets: Secrets,
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
        let mut draft = Draft::default();
        self.add_platforms(&mut draft, &given, policies.as_deref(), &env, &limits)?;
        let mut reporters = self.reporters(&mut asked)?;
        let mut old_results = match &file.old_results {
            Some(entry) => Some(self.reporter(entry, &Path::default().key("old-results"))?),
            None => None,
        };
        name_apart(reporters.iter_mut().chain(&mut old_results).map(|reporter| &mut reporter.plugin));
        draft.chains.iter_mut().for_each(name_apart);
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
            statistics: file.statistics.map(|span| span.0).filter(|every| !every.is_zero()),
            seed,
            run_directory: self.run_directory(),
            rerun_failed: options.rerun_failed.as_deref().map(|path| self.absolute(path)),
            keep_artifacts: file.keep_artifacts.unwrap_or(true),
            allow: self.permissions(),
            dry_run: options.dry_run,
            origin: Origin {
                directory: self.directory.to_owned(),
                options: asked,
                file: self.document.file().map(FilePath::to_owned),
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
    pub(super) fn base(&self) -> &FilePath {
        self.document.file().and_then(FilePath::parent).unwrap_or(self.directory)
    }

    fn permissions(&self) -> Permissions {
        let tree = &self.options.tree;
        Permissions {
            local: self.options.allow_local,
            tree: tree.trust_tree,
            empty: tree.allow_empty,
            unsupported: tree.ignore_unsupported,
            strict: self.options.strict,
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
            machine_failures: file.machine_failures.unwrap_or(default.machine_failures),
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

    pub(super) fn pool_defaults(&self, limits: &Limits) -> PoolDefaults {
        let slots = self.options.slots.or(self.document.content.slots).unwrap_or(NonZeroU16::MIN);
        PoolDefaults { slots, reserve_timeout: limits.reserve_timeout }
    }

    /// An entry of the configuration in both forms.
    pub(super) fn raw(&self, path: &Path) -> Raw<'_> {
        let forms = &self.document.forms;
        Raw {
            written: path.find(&forms.written).unwrap_or(&Value::Null),
            resolved: path.find(&forms.resolved).unwrap_or(&Value::Null),
            base: self.base(),
            place: self.document.place(path),
        }
    }

    /// An error about something inside the entry at `path`.
    pub(super) fn inside(&self, path: &Path, error: ConfigError) -> ConfigError {
        let whole = path.join(error.path());
        self.document.located(error.at(whole), super::yaml::Part::Value)
    }

    /// The pools of `--provisioner`: the configuration's, by their names, and others.
    fn given_pools(&mut self, asked: &mut RunOptions, limits: &Limits) -> Result<Vec<Pool>, ConfigError> {
        let defaults = self.pool_defaults(limits);
        let mut pools: Vec<Pool> = Vec::new();
        for (index, spec) in asked.provisioner.iter_mut().enumerate() {
            let given =
                Given::new("--provisioner", index, spec, self.directory, self.recorded, &self.secrets)?;
            let mut pool: Pool = given.build(&self.secrets, |raw, said: &PoolEntry| {
                match self.document.content.provisioners.get(&said.r#use) {
                    Some(shared) if raw.plugin_keys() == 0 => self.chosen_pool(shared, said, defaults),
                    Some(shared) if shared.r#use != said.r#use => {
                        let message = format!("{:?} is a pool of the configuration", said.r#use);
                        Err(ConfigError::new(message)
                            .help("only `max`, `name` and `host` can be given beside its name"))
                    }
                    _ => raw.pool(said, None, defaults),
                }
            })?;
            pool.provisioner.name =
                free_name(pool.name(), |name| pools.iter().any(|pool| pool.name() == name));
            pools.push(pool);
            *spec = given.written();
        }
        Ok(pools)
    }

    /// A pool of the configuration, with what the command line says about it.
    fn chosen_pool(
        &self,
        shared: &PoolEntry,
        said: &PoolEntry,
        defaults: PoolDefaults,
    ) -> Result<Pool, ConfigError> {
        let path = Path::default().key("provisioners").key(&said.r#use);
        self.raw(&path)
            .pool(&shared.but(said), Some(&said.r#use), defaults)
            .map_err(|error| self.inside(&path, error))
    }

    fn given_policies(&mut self, asked: &mut RunOptions) -> Result<Option<Vec<PluginUse>>, ConfigError> {
        let mut chain: Vec<PluginUse> = Vec::new();
        for (index, spec) in asked.policy.iter_mut().enumerate() {
            let given = Given::new("--policy", index, spec, self.directory, self.recorded, &self.secrets)?;
            chain.push(given.build(&self.secrets, |raw, entry: &PolicyEntry| raw.policy(entry))?);
            *spec = given.written();
        }
        Ok((!chain.is_empty()).then_some(chain))
    }

    fn reporters(&mut self, asked: &mut RunOptions) -> Result<Vec<Reporter>, ConfigError> {
        let path = Path::default().key("reporters");
        let mut reporters = match &self.document.content.reporters {
            // One that is asked for takes the place of the one that would be there anyway: they would write to the same files.
            None if asked.reporter.iter().any(is_default_reporter) => Vec::new(),
            None => vec![entries::bare_reporter(DEFAULT_REPORTER, self.base())?],
            Some(list) => list
                .iter()
                .enumerate()
                .map(|(index, entry)| self.reporter(entry, &path.index(index)))
                .collect::<Result<_, _>>()?,
        };
        for (index, spec) in asked.reporter.iter_mut().enumerate() {
            let given = Given::new("--reporter", index, spec, self.directory, self.recorded, &self.secrets)?;
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
        for Assignment { key, value } in &mut asked.env {
            check_variable(key, value).map_err(|message| wrong(ConfigError::new(message)))?;
            let one = json!({ key.as_str(): value.as_str() });
            let forms = match self.recorded {
                Some(lookup) => expand::expand(&one, lookup, &self.secrets),
                None => expand::literal(&one, &self.secrets),
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
}

/// Gives uses of plugins with the same name a number each: their names tell them apart in messages, and their states.
fn name_apart<'a>(uses: impl IntoIterator<Item = &'a mut PluginUse>) {
    let mut taken = HashSet::new();
    for plugin in uses {
        plugin.name = free_name(&plugin.name, |name| taken.contains(name));
        taken.insert(plugin.name.clone());
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

pub(super) fn check_pattern(pattern: &str) -> Result<(), ConfigError> {
    Regex::new(pattern).map_err(|error| ConfigError::new(error.to_string())).map(drop)
}

pub(super) fn check_variable(key: &str, value: &str) -> Result<(), String> {
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
