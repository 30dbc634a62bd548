//! What only a plugin's schema knows of its configuration: which fields are secrets, and which are paths.
//!
//! That is known for sure only when the library is open. The plan is then told the schemas and makes up for it:
//!
//! - Marked secrets join those to be masked, and what of them was written out goes from every written form, that for run.json
//!   included. So this has to happen before run.json is written.
//! - Marked paths are made absolute, from the directory that the entry's relative paths start from.

use std::cell::Cell;

use atex_plugin_api::SECRET_MARK;
use atex_plugin_api::describe::Kind;
use serde_json::Value;

use super::expand::{REDACTED, is_only_references};
use super::path::{Path, Step};
use super::place::Place;
use super::plan::RunPlan;
use super::secret::{PluginUse, Secrets};
use super::surroundings::join;

/// Key of a schema that marks a path on this box.
pub const PATH_MARK: &str = "x-path";

/// How deep a schema is followed: schemas may refer to themselves, configurations are not that deep.
const MAX_DEPTH: usize = 32;
/// Steps through one schema: one that refers to itself in several ways would go on for ever.
const MAX_STEPS: u32 = 100_000;

impl RunPlan {
    /// The plan with what the plugins' schemas mark treated accordingly; `schema_of` tells the schema of a plugin's
    /// configuration.
    #[must_use]
    pub fn with_schemas(mut self, schema_of: impl Fn(Kind, &str) -> Option<Value>) -> Self {
        let secrets = self.secrets.clone();
        let mut taken_out = Vec::new();
        for (kind, plugin) in plugin_uses(&mut self) {
            if let Some(schema) = schema_of(kind, &plugin.plugin) {
                taken_out.extend(conceal(plugin, &schema, &secrets));
                anchor(plugin, &schema);
            }
        }
        for (place, path) in taken_out {
            let stored = match place {
                Place::Default => None,
                Place::Option { name, index } => {
                    self.origin.options.stored_keys(name, index).and_then(|keys| at(keys, &path))
                }
                Place::File { path: entry, .. } => at(&mut self.origin.configuration, &entry.join(&path)),
            };
            if let Some(stored) = stored {
                *stored = REDACTED.into();
            }
        }
        self
    }
}

impl PluginUse {
    /// The same for one use of a plugin that no plan has.
    #[must_use]
    pub fn with_schema(mut self, schema: &Value, secrets: &Secrets) -> Self {
        conceal(&mut self, schema, secrets);
        anchor(&mut self, schema);
        self
    }
}

fn plugin_uses(plan: &mut RunPlan) -> impl Iterator<Item = (Kind, &mut PluginUse)> {
    let pools = plan.pools.iter_mut().map(|pool| (Kind::Provisioner, &mut pool.provisioner));
    let policies = plan.policies.iter_mut().flatten().map(|policy| (Kind::Policy, policy));
    let reporters = plan.reporters.iter_mut().chain(&mut plan.old_results);
    pools.chain(policies).chain(reporters.map(|reporter| (Kind::Reporter, &mut reporter.plugin)))
}

/// Redacts one use of a plugin; what was taken out is told with its place.
fn conceal(plugin: &mut PluginUse, schema: &Value, secrets: &Secrets) -> Vec<(Place, Path)> {
    let resolved = Value::Object(plugin.expose().clone());
    let mut marked = Vec::new();
    let search = Search::new(schema, SECRET_MARK);
    search.find(schema, &resolved, &Path::default(), 0, &mut marked);
    let mut taken_out = Vec::new();
    for path in marked {
        match path.find(&resolved) {
            Some(Value::String(text)) => secrets.insert(text),
            Some(Value::Number(number)) => secrets.insert(&number.to_string()),
            _ => continue,
        }
        let mut written = Value::Object(plugin.written().clone());
        match at(&mut written, &path) {
            Some(Value::String(text)) if is_only_references(text) => continue,
            Some(value) => *value = REDACTED.into(),
            None => continue,
        }
        if let Value::Object(written) = written {
            plugin.set_written(written);
        }
        taken_out.push((plugin.place().clone(), path));
    }
    taken_out
}

/// Makes marked paths absolute.
fn anchor(plugin: &mut PluginUse, schema: &Value) {
    let mut resolved = Value::Object(plugin.expose().clone());
    let mut marked = Vec::new();
    let search = Search::new(schema, PATH_MARK);
    search.find(schema, &resolved, &Path::default(), 0, &mut marked);
    for path in marked {
        if let Some(Value::String(text)) = at(&mut resolved, &path)
            && !text.is_empty()
        {
            *text = join(&plugin.base, text.as_ref()).to_string_lossy().into_owned();
        }
    }
    if let Value::Object(resolved) = resolved {
        plugin.set_resolved(resolved);
    }
}

/// Looks for what a schema marks.
struct Search<'a> {
    /// What references point into.
    root: &'a Value,
    mark: &'a str,
    /// Steps that may still be taken.
    left: Cell<u32>,
}

impl<'a> Search<'a> {
    fn new(root: &'a Value, mark: &'a str) -> Self {
        Self { root, mark, left: Cell::new(MAX_STEPS) }
    }

    /// The paths of all scalars of `value` that `schema`, a part of the root, marks.
    fn find(&self, schema: &Value, value: &Value, path: &Path, depth: usize, found: &mut Vec<Path>) {
        if depth > MAX_DEPTH || self.left.get() == 0 {
            return;
        }
        self.left.set(self.left.get() - 1);
        if schema.get(self.mark).is_some_and(|mark| mark != &Value::Bool(false)) {
            return scalars(value, path, found);
        }
        let mut follow =
            |schema: &Value, value: &Value, path: &Path| self.find(schema, value, path, depth + 1, found);
        let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
        if let Some(target) = reference.and_then(|pointer| self.root.pointer(pointer)) {
            follow(target, value, path);
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            for branch in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                follow(branch, value, path);
            }
        }
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    let known = schema.get("properties").and_then(|properties| properties.get(key));
                    if let Some(schema) = known.or_else(|| schema.get("additionalProperties")) {
                        follow(schema, value, &path.key(key));
                    }
                }
            }
            Value::Array(list) => {
                if let Some(schema) = schema.get("items") {
                    list.iter()
                        .enumerate()
                        .for_each(|(index, item)| follow(schema, item, &path.index(index)));
                }
            }
            _ => {}
        }
    }
}

/// The paths of all scalars in `value`.
fn scalars(value: &Value, path: &Path, found: &mut Vec<Path>) {
    match value {
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, item)| scalars(item, &path.index(index), found));
        }
        Value::Object(map) => map.iter().for_each(|(key, item)| scalars(item, &path.key(key), found)),
        _ => found.push(path.clone()),
    }
}

/// The value at `path`, to change it.
fn at<'a>(root: &'a mut Value, path: &Path) -> Option<&'a mut Value> {
    path.steps().iter().try_fold(root, |value, step| match step {
        Step::Key(key) => value.get_mut(key.as_str()),
        Step::Index(index) => value.get_mut(*index),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn marks_are_found_through_references_lists_and_choices() {
        let schema = json!({
            "properties": {
                "token": {"anyOf": [{"$ref": "#/$defs/Secret"}, {"type": "null"}]},
                "hosts": {"items": {"$ref": "#/$defs/Host"}},
                "by-name": {"additionalProperties": {"x-secret": true}},
                "plain": {"x-secret": false},
                "again": {"$ref": "#"},
            },
            "$defs": {
                "Secret": {"type": "string", "x-secret": true},
                "Host": {"properties": {"key": {"x-secret": true}, "name": {"type": "string"}}},
            },
        });
        let value = json!({
            "token": "a", "hosts": [{"name": "b", "key": "c"}, {"key": ["d"]}], "by-name": {"e": 5}, "plain": "f",
            "again": {"token": "g"}, "unknown": "h",
        });
        let mut found = Vec::new();
        Search::new(&schema, SECRET_MARK).find(&schema, &value, &Path::default(), 0, &mut found);
        let mut shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        shown.sort();
        assert_eq!(shown, ["again.token", "by-name.e", "hosts[0].key", "hosts[1].key[0]", "token"]);
    }

    #[test]
    fn schemas_that_refer_to_themselves_end() {
        let schema = json!({"$ref": "#"});
        let search = Search::new(&schema, SECRET_MARK);
        search.find(&schema, &json!("x"), &Path::default(), 0, &mut Vec::new());
        // Many ways at each level: depth alone would not end it in time.
        let schema = json!({"anyOf": vec![json!({"$ref": "#"}); 20]});
        Search::new(&schema, SECRET_MARK).find(&schema, &json!("x"), &Path::default(), 0, &mut Vec::new());
    }
}
