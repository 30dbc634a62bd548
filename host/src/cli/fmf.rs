//! `atex-host fmf`: what FMF itself says about a tree, for scripts and for comparing with other implementations.
//!
//! Prints a list of nodes as JSON, each with `name`, `data` and `sources` (with `--tests` also `source_dir`), or the one
//! node that `--find` asks for, or null. A tree that cannot be read prints an object with `error` and `message`, and
//! the exit status is one. Values that JSON does not have are objects with one key: `$date`, `$datetime`, `$float`,
//! `$bytes`, `$map`, `$set`, `$tuple`; a key of the data that starts with a dollar has it doubled.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use crate::fmf::error::{AdjustProblem, Error as TreeError};
use crate::fmf::expression::{Condition, ConditionError};
use crate::fmf::regex::{self, Regex};
use crate::fmf::value::{Keys, write_string};
use crate::fmf::{Adjustment, Context, Filter, Map, Node, Order, Selection, Tree, Undecided, Value, View};

/// Show the nodes of an FMF tree as JSON
#[derive(Args, Clone, Debug, Default)]
#[command(disable_version_flag = true)]
pub struct FmfArgs {
    /// A directory in the tree; the whole tree is shown
    pub tree: PathBuf,
    /// A value of a dimension of the context; one with several values is given several times
    #[arg(long, value_name = "DIMENSION=VALUE")]
    pub context: Vec<String>,
    /// Only nodes that pass the filter
    #[arg(long)]
    pub filter: Vec<String>,
    /// Only nodes in whose name one of these regular expressions is found
    #[arg(long, value_name = "REGEX")]
    pub name: Vec<String>,
    /// Only nodes for which the expression is true
    #[arg(long, value_name = "EXPRESSION")]
    pub condition: Vec<String>,
    /// Only nodes that have the key
    #[arg(long)]
    pub key: Vec<String>,
    /// Only nodes with data from one of these files, relative to the tree's root
    #[arg(long, value_name = "FILE")]
    pub source: Vec<PathBuf>,
    /// No nodes in whose name this is found
    #[arg(long, value_name = "REGEX")]
    pub exclude: Vec<String>,
    /// Branches too, not only leaves
    #[arg(long)]
    pub whole: bool,
    /// Only enabled tests
    #[arg(long)]
    pub tests: bool,
    /// Select as the `discover` sections of this plan do
    #[arg(long)]
    pub plan: Option<String>,
    /// Do not adjust the tree
    #[arg(long)]
    pub no_adjust: bool,
    /// What to do with a rule that the context cannot decide: skip or raise
    #[arg(long, value_name = "MODE", default_value = "skip")]
    pub undecided: String,
    /// Compare values of the context without regard to case
    #[arg(long)]
    pub case_insensitive: bool,
    /// The key that holds the rules to adjust with
    #[arg(long, value_name = "KEY", default_value = "adjust")]
    pub adjust_key: String,
    /// Rules that adjust every node after its own ones
    #[arg(long, value_name = "JSON")]
    pub extra_adjust: Option<String>,
    /// Show the first node with this name
    #[arg(long, value_name = "NAME")]
    pub find: Option<String>,
    /// Show keys in the order of the tree
    #[arg(long)]
    pub keep_order: bool,
    /// Show nodes in the order they were found
    #[arg(long)]
    pub unsorted: bool,
    /// Indent the output
    #[arg(long)]
    pub pretty: bool,
    /// Accepted for scripts that give it; relative paths in trees are not followed, so it changes nothing
    #[arg(long, hide = true)]
    pub cwd: Option<PathBuf>,
}

/// Why there is nothing to show.
#[derive(Debug)]
struct Failure {
    class: &'static str,
    message: String,
}

impl Failure {
    fn value(message: impl Into<String>) -> Self {
        Self { class: "ValueError", message: message.into() }
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Self {
        Self { class: error.class(), message: error.to_string() }
    }
}

impl From<ConditionError> for Failure {
    fn from(error: ConditionError) -> Self {
        Self { class: error.class().unwrap_or("ValueError"), message: error.to_string() }
    }
}

impl From<regex::Error> for Failure {
    fn from(error: regex::Error) -> Self {
        TreeError::from(error).into()
    }
}

/// Runs the command; the result is its exit status. Only writing can fail.
///
/// What is shown is known completely before the first byte is written, and then written node by node: the text of a
/// large tree is larger than the tree.
pub fn run(args: &FmfArgs, out: &mut impl Write) -> io::Result<u8> {
    let keys = if args.keep_order { Keys::AsIs } else { Keys::Sorted };
    let mut printer = Printer { out, pretty: args.pretty, indent: Indent::default() };
    let status = match load(args) {
        Err(failure) => {
            printer.print(&failure_text(args, &failure))?;
            1
        }
        Ok(view) => match (&args.find, choose(args, &view)) {
            (Some(name), _) => {
                let text = view.find(name).map(|node| Item::node(node).text(keys));
                printer.print(text.as_deref().unwrap_or("null"))?;
                0
            }
            (None, Err(failure)) => {
                printer.print(&failure_text(args, &failure))?;
                1
            }
            (None, Ok(items)) => {
                items.print(keys, &mut printer)?;
                0
            }
        },
    };
    printer.print("\n")?;
    printer.out.flush()?;
    Ok(status)
}

/// Writes JSON, indented if so wanted.
struct Printer<'o, W> {
    out: &'o mut W,
    pretty: bool,
    indent: Indent,
}

impl<W: Write> Printer<'_, W> {
    fn print(&mut self, json: &str) -> io::Result<()> {
        if self.pretty {
            let text = self.indent.apply(json);
            self.out.write_all(text.as_bytes())
        } else {
            self.out.write_all(json.as_bytes())
        }
    }
}

/// The path of the tree is left out of messages, so that they are the same wherever it lies.
fn failure_text(args: &FmfArgs, failure: &Failure) -> String {
    let tree = std::path::absolute(&args.tree).unwrap_or_default();
    let tree = tree.to_string_lossy();
    let message =
        if tree.len() > 1 { failure.message.replace(&*tree, "<TREE>") } else { failure.message.clone() };
    let mut text = String::from("{\"error\": ");
    write_string(&mut text, failure.class);
    text.push_str(", \"message\": ");
    write_string(&mut text, &message);
    text.push('}');
    text
}

fn load(args: &FmfArgs) -> Result<View, Failure> {
    let tree = Arc::new(Tree::load(&args.tree)?);
    if args.no_adjust { Ok(tree.view()) } else { adjust(args, &tree) }
}

/// The nodes to show, unless one is asked for by its name.
fn choose<'v>(args: &FmfArgs, view: &'v View) -> Result<Items<'v>, Failure> {
    let mut items = Items::default();
    if args.find.is_none() {
        for section in sections(args, view)? {
            select(args, view, &section, &mut items)?;
        }
    }
    Ok(items)
}

fn adjust(args: &FmfArgs, tree: &Arc<Tree>) -> Result<View, Failure> {
    let mut context = Context::new();
    context.ignore_case(args.case_insensitive);
    for item in &args.context {
        let (dimension, value) = item.split_once('=').unwrap_or((item, ""));
        context.add(dimension, value);
    }
    let extra_rules = match &args.extra_adjust {
        None => Value::Null,
        Some(json) => {
            let json = serde_json::from_str::<serde_json::Value>(json);
            Value::from(&json.map_err(|error| Failure::value(format!("--extra-adjust: {error}")))?)
        }
    };
    let undecided = if args.undecided == "skip" { Undecided::Skip } else { Undecided::Fail };
    let adjustment = Adjustment { context: &context, key: &args.adjust_key, undecided, extra_rules };
    tree.adjust(&adjustment).map_err(|error| match error {
        // Another word is an error only when it comes to it.
        TreeError::Adjust { cause: AdjustProblem::Undecided { .. }, .. } if args.undecided != "raise" => {
            Failure {
                class: "GeneralError",
                message: format!("--undecided takes `skip` or `raise`, not {:?}", args.undecided),
            }
        }
        other => other.into(),
    })
}

/// One section of a plan's `discover`.
#[derive(Debug, Default)]
struct Section {
    prefix: String,
    names: Vec<String>,
    filters: Vec<String>,
    excludes: Vec<String>,
}

/// The sections of the plan; without one, a section that asks for nothing.
fn sections(args: &FmfArgs, view: &View) -> Result<Vec<Section>, Failure> {
    let Some(name) = &args.plan else { return Ok(vec![Section::default()]) };
    let plan = view.find(name).ok_or_else(|| Failure::value(format!("there is no plan {name}")))?;
    if plan.get("test").is_some() {
        return Err(Failure::value(format!("{name} is a test, not a plan")));
    }
    if plan.has_children() {
        let children: Vec<&str> = plan.children().map(|(name, _)| name).collect();
        return Err(Failure::value(format!("{name} is several plans: {}", children.join(", "))));
    }
    let mut sections = Vec::new();
    for section in plan.get("discover").map_or(&[][..], Value::items) {
        let section =
            section.as_map().ok_or_else(|| Failure::value("a section of `discover` has to be a mapping"))?;
        if section.get("how").is_none_or(|how| how.as_str() == Some("fmf")) {
            sections.push(Section::new(section)?);
        }
    }
    if sections.is_empty() {
        return Err(Failure::value(format!("the plan {name} has no section of `discover` with `how: fmf`")));
    }
    Ok(sections)
}

impl Section {
    fn new(data: &Map) -> Result<Self, Failure> {
        if data.contains_key("url") {
            return Err(Failure::value(
                "a section of `discover` with `url` cannot be shown without fetching",
            ));
        }
        let texts = |key: &str| {
            let items = data.get(key).map_or(&[][..], Value::items);
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| {
                Failure::value(format!("`{key}` in `discover` takes a string or a list of strings"))
            })
        };
        Ok(Self {
            prefix: data.get("name").filter(|name| name.is_true()).map(Value::to_string).unwrap_or_default(),
            names: texts("test")?,
            filters: texts("filter")?,
            excludes: texts("exclude")?,
        })
    }
}

fn select<'v>(
    args: &FmfArgs,
    view: &'v View,
    section: &Section,
    items: &mut Items<'v>,
) -> Result<(), Failure> {
    let order = if args.unsorted { Order::AsFound } else { Order::Sorted };
    let mut selection = Selection::new().whole(args.whole).order(order);
    for key in &args.key {
        selection = selection.key(key);
    }
    for name in section.names.iter().chain(&args.name) {
        selection = selection.name(name);
    }
    for filter in section.filters.iter().chain(&args.filter) {
        selection = selection.filter(Filter::new(filter));
    }
    for source in &args.source {
        selection = selection.source(crate::fmf::normalize(&view.tree().root().join(source)));
    }
    let excludes: Vec<Regex> = args
        .exclude
        .iter()
        .chain(&section.excludes)
        .map(|pattern| Regex::new(pattern))
        .collect::<Result<_, _>>()?;
    let conditions: Vec<Condition> =
        args.condition.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
    for node in view.prune(&selection) {
        let node = node?;
        if !meets(&conditions, node)? || any_found(&excludes, node.name())? {
            continue;
        }
        if !args.tests {
            items.add(Item::node(node));
        } else if is_test(node.data()) {
            let item = Item::test(node, &section.prefix)?;
            if args.plan.is_some() { items.replace(item) } else { items.add(item) }
        }
    }
    Ok(())
}

fn any_found(patterns: &[Regex], text: &str) -> Result<bool, regex::Error> {
    patterns.iter().try_fold(false, |found, pattern| Ok(found || pattern.search(text)?))
}

/// No condition is skipped, so that a bad one shows wherever it stands.
fn meets(conditions: &[Condition], node: Node<'_>) -> Result<bool, ConditionError> {
    conditions.iter().try_fold(true, |all, condition| Ok(all & condition.holds(node.data())?))
}

/// Whether a node is a test that can be run.
fn is_test(data: &Map) -> bool {
    let is_true = |key| data.get(key).is_some_and(Value::is_true);
    data.contains_key("test")
        && data.get("enabled").is_none_or(Value::is_true)
        && !is_true("manual")
        && !is_true("story")
}

/// A node to show.
#[derive(Debug)]
struct Item<'v> {
    name: String,
    node: Node<'v>,
    directory: Option<String>,
}

impl<'v> Item<'v> {
    fn node(node: Node<'v>) -> Self {
        Self { name: node.name().to_owned(), node, directory: None }
    }

    fn test(node: Node<'v>, prefix: &str) -> Result<Self, Failure> {
        let directory = node
            .directory()
            .ok_or_else(|| Failure::value(format!("{} has no file, so no directory", node.name())))?;
        let directory =
            Path::new(prefix).join(if directory == Path::new("") { Path::new(".") } else { directory });
        let directory = crate::fmf::normalize(&directory);
        let directory = if directory == Path::new("") { ".".into() } else { directory.to_string_lossy() };
        let name =
            if prefix.is_empty() { node.name().to_owned() } else { format!("/{prefix}{}", node.name()) };
        Ok(Self { name, node, directory: Some(directory.into_owned()) })
    }

    fn text(&self, keys: Keys) -> String {
        let mut data = String::new();
        self.node.data().write_typed(&mut data, keys);
        let root = self.node.root_directory();
        let sources: Vec<Value> = self
            .node
            .sources()
            .map(|source| Value::from(&*source.strip_prefix(root).unwrap_or(source).to_string_lossy()))
            .collect();
        let (mut name, mut files) = (String::new(), String::new());
        write_string(&mut name, &self.name);
        Value::list(sources).write_typed(&mut files, keys);
        let directory = self.directory.as_ref().map_or_else(String::new, |directory| {
            let mut text = String::from(", \"source_dir\": ");
            write_string(&mut text, directory);
            text
        });
        match keys {
            Keys::Sorted => {
                // `source_dir` sorts before `sources`.
                let directory =
                    directory.strip_prefix(", ").map(|text| format!("{text}, ")).unwrap_or_default();
                format!("{{\"data\": {data}, \"name\": {name}, {directory}\"sources\": {files}}}")
            }
            Keys::AsIs => format!("{{\"name\": {name}, \"data\": {data}, \"sources\": {files}{directory}}}"),
        }
    }
}

/// Nodes to show, in order.
#[derive(Debug, Default)]
struct Items<'v> {
    items: Vec<Item<'v>>,
    by_name: HashMap<String, usize>,
}

impl<'v> Items<'v> {
    fn add(&mut self, item: Item<'v>) {
        self.items.push(item);
    }

    /// A test that two sections select under one name is shown once.
    fn replace(&mut self, item: Item<'v>) {
        if let Some(at) = self.by_name.get(&item.name) {
            self.items[*at] = item;
        } else {
            self.by_name.insert(item.name.clone(), self.items.len());
            self.items.push(item);
        }
    }

    fn print(&self, keys: Keys, printer: &mut Printer<'_, impl Write>) -> io::Result<()> {
        printer.print("[")?;
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                printer.print(", ")?;
            }
            printer.print(&item.text(keys))?;
        }
        printer.print("]")
    }
}

/// Puts each value of JSON on a line of its own; the text may come in pieces that end between two tokens.
#[derive(Debug, Default)]
struct Indent {
    depth: usize,
    /// Whether a list or mapping was just opened.
    opened: bool,
    /// Whether the blank after a comma is still to come.
    separated: bool,
}

impl Indent {
    fn apply(&mut self, json: &str) -> String {
        let mut output = String::with_capacity(json.len() * 2);
        let (mut quoted, mut escaped) = (false, false);
        for character in json.chars() {
            if quoted {
                quoted = escaped || character != '"';
                escaped = character == '\\' && !escaped;
                output.push(character);
                continue;
            }
            if std::mem::take(&mut self.separated) && character == ' ' {
                continue;
            }
            let closes = matches!(character, ']' | '}');
            self.depth -= usize::from(closes && self.depth > 0);
            // An empty list or mapping stays on its line.
            if std::mem::take(&mut self.opened) != closes {
                new_line(&mut output, self.depth);
            }
            output.push(character);
            quoted = character == '"';
            self.opened = matches!(character, '[' | '{');
            self.depth += usize::from(self.opened);
            self.separated = character == ',';
            if self.separated {
                new_line(&mut output, self.depth);
            }
        }
        output
    }
}

fn new_line(output: &mut String, depth: usize) {
    output.push('\n');
    output.extend(std::iter::repeat_n(' ', depth));
}
