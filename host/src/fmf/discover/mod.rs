//! From a loaded tree to the tests of one platform: everything the engine needs to know of them before a machine exists.
//!
//! A [`Discoverer`] holds a tree, and what was fetched along the way; [`Discoverer::discover`] is asked once per platform. Whatever is
//! wrong with plans, tests and libraries is found here and names the file and the key, before anything is reserved.
//!
//! On the machine, the plan's own tree is the root ([`Layer::to`] is empty). Sections whose tests have prefixed names, and
//! sections from elsewhere, have a directory of their own below it; libraries are in `libs/` of the tree that needs them.
//!
//! Where the dialects differ: names of sections (see [`plan`]), the environment of a test, `result`, `order` (tmt
//! only), and what filters and conditions know of keys that are not there (tmt has defaults for them).

pub(crate) mod error;
pub(crate) mod reader;
mod selection;
mod test;
#[cfg(test)]
mod tests;
pub(crate) mod trees;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

pub use self::error::{DiscoverError, Place};
pub use self::test::DiscoveredTest;
pub use super::plan::Step;
pub use crate::executor::spec::Layer;
pub use crate::text::printable;

use self::reader::Notes;
use self::selection::{LastWords, Narrowing, Patterns, is_runnable, passes};
use self::test::Raw;
use self::trees::Trees;
use super::filter::Filter;
use super::git::{Cache, shown};
use super::library::{Home, Libraries};
use super::plan::{self, DEFAULT_SCRIPT_DURATION, Origin, Plan, Reading, Section, Source};
use super::{Adjustment, Context, Map, Node, Order, Tree, Value, View, duration, git};
use crate::config::{AdjustRule, Dialect, PlanChoice, Selection};
use crate::executor::spec::{Framework, Packages, Phase, TestEnvironment, TestSpec, Variables};

/// Finds the tests of a tree. Used by several threads at a time if need be.
#[derive(Debug)]
pub struct Discoverer {
    tree: Arc<Tree>,
    trees: Trees,
}

/// What one platform wants.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Dimensions with their values.
    pub context: &'a IndexMap<String, Vec<String>>,
    pub dialect: Dialect,
    pub plans: &'a PlanChoice,
    /// Narrows what the plans select.
    pub selection: &'a Selection,
    /// Last words on metadata.
    pub adjust: &'a [AdjustRule],
    /// The run's own variables, above those of plan and test.
    pub environment: &'a Variables,
    /// Leave out what is not supported, with a warning.
    pub ignore_unsupported: bool,
}

/// The tests of one platform, by plan.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// At least one; exactly one without a name if the tree has no plan or none is wanted.
    pub plans: Vec<DiscoveredPlan>,
    /// One line each, none twice.
    pub warnings: Vec<String>,
}

/// A plan and its tests.
#[derive(Debug, Clone)]
pub struct DiscoveredPlan {
    /// None for all tests of the tree.
    pub name: Option<String>,
    /// The last file the plan's data came from.
    pub source: Option<Arc<Path>>,
    pub dialect: Dialect,
    /// From the plan's `environment-file` and `environment`.
    pub environment: Variables,
    /// [`Request::environment`]
    pub run_environment: Variables,
    /// In the order they are to be run; those that `when` rules out are gone. The same holds for the other steps.
    pub prepare: Vec<Phase>,
    pub finish: Vec<Phase>,
    /// For plugins of the same purpose, if the run does not name any.
    pub provision: Vec<Step>,
    pub report: Vec<Step>,
    /// In dialect tmt by `order` within each section, else in the order of the tree.
    pub tests: Vec<DiscoveredTest>,
    /// What is sent to each machine, in this order: a later layer is laid over an earlier one.
    pub layers: Vec<Layer>,
}

impl DiscoveredPlan {
    /// For prepare and finish scripts: the plan's, then the run's.
    pub fn site_environment(&self) -> Variables {
        joined([&self.environment, &self.run_environment])
    }

    /// The environment of a test by dialect, around the fixed variables of the host.
    pub fn environment_of(&self, test: &DiscoveredTest) -> TestEnvironment {
        match self.dialect {
            Dialect::Tmt => TestEnvironment {
                below: joined([&test.environment, &self.environment, &self.run_environment]),
                above: Variables::new(),
            },
            Dialect::Atex => TestEnvironment {
                below: self.environment.clone(),
                above: joined([&test.environment, &self.run_environment]),
            },
        }
    }

    /// What an executor needs to run a test of this plan.
    pub fn spec(&self, test: &DiscoveredTest) -> TestSpec {
        TestSpec {
            name: test.name.to_string(),
            cwd: test.cwd.clone(),
            script: test.script.to_string(),
            tty: test.tty,
            duration: test.duration,
            environment: self.environment_of(test),
            // Values have no shape that YAML cannot hold.
            metadata: serde_yaml::to_string(&test.metadata()).unwrap_or_default(),
            framework: test.framework,
            result: test.result,
            restart: test.restart.clone(),
            checks: test.checks.clone(),
            packages: Packages::clone(&test.packages),
        }
    }
}

/// The equal value that is known already, or `value`, known from now on.
fn shared(known: &mut HashSet<Arc<Variables>>, value: Arc<Variables>) -> Arc<Variables> {
    if let Some(known) = known.get(&value) {
        return known.clone();
    }
    known.insert(value.clone());
    value
}

/// Later ones win.
fn joined<const N: usize>(parts: [&Variables; N]) -> Variables {
    let mut all: IndexMap<&str, &str> = IndexMap::new();
    for (name, value) in parts.into_iter().flatten() {
        all.insert(name, value);
    }
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

impl Discoverer {
    /// What other trees are needed is fetched into `cache`.
    pub fn new(tree: Arc<Tree>, cache: Cache) -> Self {
        let trees = Trees::new(cache, &tree);
        Self { tree, trees }
    }

    /// The tests of one platform. Runs git if plans or tests name repositories; else only the tree's own files are read.
    pub fn discover(&self, request: &Request<'_>) -> Result<Discovered, DiscoverError> {
        let mut context = Context::new();
        context.ignore_case(request.dialect == Dialect::Tmt);
        for (dimension, values) in request.context {
            for value in values {
                context.add(dimension.as_str(), value);
            }
        }
        let mut search = Search {
            discoverer: self,
            request,
            view: self.tree.adjust(&Adjustment::new(&context))?,
            narrowing: Narrowing::new(request.selection)?,
            last_words: LastWords::new(request.adjust, &context)?,
            notes: Notes::new(request.ignore_unsupported),
            found: 0,
            environments: HashSet::new(),
            context,
        };
        let plans = search.plans()?;
        let found = match plans.as_slice() {
            [] => vec![search.without_plan()?],
            plans => plans.iter().map(|plan| search.plan(plan)).collect::<Result<_, _>>()?,
        };
        Ok(Discovered { plans: found, warnings: search.notes.into_warnings() })
    }
}

/// Tests of all plans of one request: sections and plans may each have those of a whole tree.
const MAX_TESTS: usize = 1_000_000;

/// One request being answered.
struct Search<'a> {
    discoverer: &'a Discoverer,
    request: &'a Request<'a>,
    context: Context,
    /// The tree as the platform sees it.
    view: View,
    narrowing: Narrowing,
    last_words: LastWords,
    notes: Notes,
    /// Tests so far.
    found: usize,
    /// Environments of tests so far: most tests have the one they inherited.
    environments: HashSet<Arc<Variables>>,
}

/// Where the files of a section are, here and on the machine.
struct Base {
    directory: PathBuf,
    /// See [`Layer::to`].
    to: String,
    /// The root of the metadata, relative to `directory`.
    inner: String,
    /// None for the plan's own tree.
    tree: Option<Arc<Tree>>,
}

impl Base {
    /// The root of the metadata on the machine.
    fn root(&self) -> String {
        let parts = [self.to.as_str(), self.inner.as_str()].into_iter().filter(|part| !part.is_empty());
        parts.collect::<Vec<_>>().join("/")
    }
}

impl Search<'_> {
    fn own_root(&self) -> &Path {
        self.discoverer.tree.root()
    }

    fn plans(&mut self) -> Result<Vec<Plan>, DiscoverError> {
        let root = self.discoverer.tree.root();
        let reading = Reading { dialect: self.request.dialect, context: &self.context, root };
        let nodes = plan::choose(&self.view, self.request.plans)?;
        nodes.into_iter().map(|node| Plan::read(node, &reading, &mut self.notes)).collect()
    }

    /// All tests of the tree, as if a plan without a word asked for them.
    fn without_plan(&mut self) -> Result<DiscoveredPlan, DiscoverError> {
        let plan = Plan::of_everything(self.own_root());
        let found = self.plan(&plan)?;
        Ok(DiscoveredPlan { name: None, source: None, ..found })
    }

    fn plan(&mut self, plan: &Plan) -> Result<DiscoveredPlan, DiscoverError> {
        let root = self.own_root().to_owned();
        let mut layers = vec![Layer { from: root, to: String::new() }];
        let mut libraries = Libraries::new(&self.discoverer.trees);
        let mut tests = Vec::new();
        for section in &plan.sections {
            let base = self.base(plan, section, &layers)?;
            if !base.to.is_empty() {
                layers.push(Layer { from: base.directory.clone(), to: base.to.clone() });
            }
            let mut found = self.section(plan, section, &base, &mut libraries)?;
            if self.request.dialect == Dialect::Tmt {
                found.sort_by_key(|test| test.order);
            }
            if tests.is_empty() {
                // Mostly there is one section: its tests need not be copied.
                tests = found;
            } else {
                tests.append(&mut found);
            }
        }
        layers.append(&mut libraries.layers);
        refuse_same_names(&tests)?;
        Ok(DiscoveredPlan {
            name: Some(plan.place.node.to_string()),
            source: plan.place.file.clone(),
            dialect: self.request.dialect,
            environment: plan.environment.clone(),
            run_environment: self.request.environment.clone(),
            prepare: plan.prepare.clone(),
            finish: plan.finish.clone(),
            provision: plan.provision.clone(),
            report: plan.report.clone(),
            tests,
            layers,
        })
    }

    fn base(&mut self, plan: &Plan, section: &Section, layers: &[Layer]) -> Result<Base, DiscoverError> {
        let (directory, inner) = self.origin(plan, section)?;
        let own = directory == self.own_root() && inner.is_empty();
        let to = if own && !section.prefixed { String::new() } else { self.free_directory(section, layers) };
        let tree = if own || matches!(section.source, Source::Shell(_)) {
            None
        } else {
            let root = directory.join(&inner);
            let tree = self.discoverer.trees.load(&root)?;
            let problem =
                || format!("names {}, which is no tree: it has no directory `.fmf`", root.display());
            Some(tree.ok_or_else(|| wrong(plan, section, "path", problem()))?)
        };
        Ok(Base { directory, to, inner, tree })
    }

    /// The directory with the section's files, and the root of its metadata in it.
    fn origin(&mut self, plan: &Plan, section: &Section) -> Result<(PathBuf, String), DiscoverError> {
        let root = self.own_root().to_owned();
        let Origin { url, reference, path } = &section.origin;
        if section.origin.is_local() {
            return Ok((root, String::new()));
        }
        if let (None, None, Some(path)) = (url, reference, path) {
            let directory = super::normalize(&root.join(path));
            // A tree elsewhere is one because somebody made it one; any other directory is nobody's to send to machines.
            if matches!(section.source, Source::Shell(_)) && !directory.starts_with(&root) {
                return Err(wrong(plan, section, "path", "leads out of the tree".to_owned()));
            }
            return Ok((directory, String::new()));
        }
        let mut inner = path.as_deref().unwrap_or("").trim_matches('/').to_owned();
        let url = if let Some(url) = url {
            url.clone()
        } else {
            let top = git::toplevel(&root);
            let top = top.ok_or_else(|| {
                wrong(plan, section, "ref", "needs `url`: the tree is in no git repository")
            })?;
            if let (true, Ok(below)) = (inner.is_empty(), root.strip_prefix(&top)) {
                inner = below.to_string_lossy().into_owned();
            }
            top.to_string_lossy().into_owned()
        };
        let checkout = self.discoverer.trees.fetch(&url, reference.as_deref()).map_err(|cause| {
            let key = format!("{}.url", section.key);
            DiscoverError::Git { place: plan.place.clone(), key, cause: Box::new(cause) }
        })?;
        if let Some(reason) = &checkout.stale {
            self.notes.warn(format!("{}: the cached copy of {} is used: {reason}", plan.place, shown(&url)));
        }
        let inside = super::normalize(&checkout.directory.join(&inner));
        match inside.strip_prefix(&checkout.directory) {
            Ok(below) => Ok((checkout.directory.clone(), below.to_string_lossy().into_owned())),
            Err(_) => {
                Err(wrong(plan, section, "path", format!("is {inner:?}, which is outside the repository")))
            }
        }
    }

    /// A name for the section's directory that nothing else has.
    fn free_directory(&self, section: &Section, layers: &[Layer]) -> String {
        let mut to = section.name.clone();
        let top = |path: &str| path.split('/').next().unwrap_or("").to_owned();
        while self.own_root().join(top(&to)).symlink_metadata().is_ok()
            || layers.iter().any(|layer| layer.to == to)
        {
            to = format!("_{to}");
        }
        to
    }

    /// The tests of a section.
    fn section(
        &mut self,
        plan: &Plan,
        section: &Section,
        base: &Base,
        libraries: &mut Libraries<'_>,
    ) -> Result<Vec<DiscoveredTest>, DiscoverError> {
        let metadata_root = base.directory.join(&base.inner);
        let home = Home { directory: &base.directory, to: &base.to, root: &metadata_root };
        let mut tests = Vec::new();
        match &section.source {
            Source::Shell(list) => {
                for raw in shell_tests(plan, section, base, list)? {
                    tests.extend(self.test(raw, &home, libraries)?);
                }
            }
            Source::Fmf { test, filter, exclude, adjust } => {
                let view = self.section_view(plan, base, adjust)?;
                let names = Patterns::new("`test` of a plan", test)?;
                let excludes = Patterns::new("`exclude` of a plan", exclude)?;
                let filters: Vec<Filter> = filter.iter().map(|text| Filter::new(text)).collect();
                let wanted = Wanted { names, excludes, filters };
                let root: Arc<str> = base.root().into();
                for node in view.climb(Order::Sorted) {
                    if wanted.takes(node, self.request.dialect)? {
                        let raw = fmf_test(plan, section, &root, node)?;
                        tests.extend(self.test(raw, &home, libraries)?);
                    }
                }
            }
        }
        Ok(tests)
    }

    /// The test, if the run wants it.
    fn test(
        &mut self,
        mut raw: Raw,
        home: &Home<'_>,
        libraries: &mut Libraries<'_>,
    ) -> Result<Option<DiscoveredTest>, DiscoverError> {
        raw.data = self.last_words.apply(&raw.place, &raw.name, raw.data)?;
        let wanted =
            is_runnable(&raw.data) && self.narrowing.takes(&raw.name, &raw.data, self.request.dialect)?;
        if !wanted {
            return Ok(None);
        }
        self.found += 1;
        if self.found > MAX_TESTS {
            return Err(DiscoverError::TooManyTests { limit: MAX_TESTS });
        }
        let place = raw.place.clone();
        let (mut test, needs) = raw.read(self.request.dialect, &mut self.notes)?;
        test.environment = shared(&mut self.environments, test.environment);
        test.packages = libraries.resolve(&place, home, needs, &mut self.notes)?;
        Ok(Some(test))
    }

    /// The section's tree under the platform's context and the plan's.
    fn section_view(&self, plan: &Plan, base: &Base, rules: &Value) -> Result<View, DiscoverError> {
        if base.tree.is_none() && plan.context.is_empty() && rules.is_null() {
            return Ok(self.view.clone());
        }
        let tree = base.tree.as_ref().unwrap_or(&self.discoverer.tree);
        let context = plan::merged_context(&self.context, &plan.context);
        let mut adjustment = Adjustment::new(&context);
        adjustment.extra_rules = rules.clone();
        Ok(tree.adjust(&adjustment)?)
    }
}

/// What a section selects.
struct Wanted {
    names: Patterns,
    excludes: Patterns,
    filters: Vec<Filter>,
}

impl Wanted {
    fn takes(&self, node: Node<'_>, dialect: Dialect) -> Result<bool, DiscoverError> {
        let (name, data) = (node.name(), node.data());
        if !node.is_selected() || !data.contains_key("test") {
            return Ok(false);
        }
        if !self.names.is_empty() && !self.names.found_in(name)? || self.excludes.found_in(name)? {
            return Ok(false);
        }
        let bad = |cause| DiscoverError::Regex { option: "`filter` of a plan", cause };
        passes(&self.filters, name, data, dialect).map_err(bad)
    }
}

fn wrong(plan: &Plan, section: &Section, key: &str, problem: impl Into<String>) -> DiscoverError {
    let key = format!("{}.{key}", section.key);
    DiscoverError::Key { place: plan.place.clone(), key, problem: problem.into() }
}

/// A test that is a node of a tree; `root` is that of the tree on the machine.
fn fmf_test(plan: &Plan, section: &Section, root: &Arc<str>, node: Node<'_>) -> Result<Raw, DiscoverError> {
    let name = node.shared_name();
    let full = if section.prefixed { format!("/{}{name}", section.name).into() } else { name.clone() };
    let place = Place::of(node);
    let Some(directory) = node.directory() else {
        let problem = "has no directory: its data comes from no file of its own".to_owned();
        return Err(DiscoverError::Key { place, key: "test".into(), problem });
    };
    Ok(Raw {
        name: full,
        node: name,
        place,
        data: node.shared_data(),
        directory: directory.to_owned(),
        root: root.clone(),
        default_duration: duration::DEFAULT,
        default_framework: plan.framework,
    })
}

/// Tests that are written out in the plan.
fn shell_tests(
    plan: &Plan,
    section: &Section,
    base: &Base,
    tests: &[Map],
) -> Result<Vec<Raw>, DiscoverError> {
    let mut raws = Vec::new();
    for (index, test) in tests.iter().enumerate() {
        let key = format!("tests[{index}].name");
        let name = test.get("name").filter(|name| !name.is_null()).map(ToString::to_string);
        let name = name.ok_or_else(|| wrong(plan, section, &key, "is missing"))?;
        if name.trim_matches('/').is_empty() || name.chars().any(char::is_control) {
            return Err(wrong(plan, section, &key, format!("is {name:?}, which is no name")));
        }
        if test.get("test").is_none_or(Value::is_null) {
            return Err(wrong(plan, section, &format!("tests[{index}].test"), "is missing"));
        }
        let node: Arc<str> = format!("/{}", name.trim_start_matches('/')).into();
        let full = if section.prefixed { format!("/{}{node}", section.name).into() } else { node.clone() };
        let mut data = test.clone();
        data.remove("name");
        // Directories are given from the root.
        if let Some(Value::Str(path)) = data.get("path") {
            let from_root = format!("/{}", path.trim_start_matches('/'));
            data.insert("path", Value::from(from_root));
        }
        let place =
            Place { file: plan.place.file.clone(), node: format!("{} {node}", plan.place.node).into() };
        raws.push(Raw {
            name: full,
            node,
            place,
            data: Arc::new(data),
            directory: PathBuf::new(),
            root: base.root().into(),
            default_duration: DEFAULT_SCRIPT_DURATION,
            default_framework: plan.framework,
        });
    }
    Ok(raws)
}

/// Results are kept by name.
fn refuse_same_names(tests: &[DiscoveredTest]) -> Result<(), DiscoverError> {
    let mut known: HashMap<&str, &DiscoveredTest> = HashMap::with_capacity(tests.len());
    for test in tests {
        if let Some(first) = known.insert(&test.name, test) {
            let place = |test: &DiscoveredTest| Place { file: test.source.clone(), node: test.node.clone() };
            return Err(DiscoverError::SameName {
                name: test.name.to_string(),
                first: place(first),
                second: place(test),
            });
        }
    }
    Ok(())
}

impl Plan {
    /// The plan of a run without one.
    fn of_everything(root: &Path) -> Self {
        let source =
            Source::Fmf { test: Vec::new(), filter: Vec::new(), exclude: Vec::new(), adjust: Value::Null };
        let section = Section {
            name: "default-0".into(),
            prefixed: false,
            origin: Origin::default(),
            source,
            key: "discover".into(),
        };
        Self {
            place: Place { file: Some(root.into()), node: "/".into() },
            environment: Variables::new(),
            context: Vec::new(),
            sections: vec![section],
            prepare: Vec::new(),
            finish: Vec::new(),
            provision: Vec::new(),
            report: Vec::new(),
            framework: Framework::Shell,
        }
    }
}

impl Discovered {
    /// All packages that the tests of all plans need, each once, sorted; those of prepare phases too.
    pub fn packages(&self) -> Packages {
        let mut all = Packages::default();
        for plan in &self.plans {
            for phase in &plan.prepare {
                if let crate::executor::spec::Action::Install(packages) = &phase.action {
                    all.required.extend_from_slice(&packages.required);
                    all.recommended.extend_from_slice(&packages.recommended);
                }
            }
            for test in &plan.tests {
                all.required.extend_from_slice(&test.packages.required);
                all.recommended.extend_from_slice(&test.packages.recommended);
            }
        }
        for names in [&mut all.required, &mut all.recommended] {
            names.sort_unstable();
            names.dedup();
        }
        let required = &all.required;
        all.recommended.retain(|name| required.binary_search(name).is_err());
        all
    }
}
