//! What all plugins have in common: a configuration and a way to be made from it.

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::host::Host;

/// Something that is made from a configuration: implemented by every provisioner, policy and reporter.
///
/// ```
/// use atex_plugin_api::{Host, Plugin, Result, Secret};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// /// Machines of the lab.
/// #[derive(Deserialize, JsonSchema)]
/// struct Config {
///     /// Where the lab's service listens.
///     url: String,
///     #[serde(default)]
///     token: Secret,
/// }
///
/// struct Lab(Config);
///
/// impl Plugin for Lab {
///     type Config = Config;
///     const ABOUT: &'static str = "machines of the lab";
///
///     fn new(config: Config, _host: Host) -> Result<Self> {
///         Ok(Self(config))
///     }
/// }
/// ```
pub trait Plugin: Sized + 'static {
    /// The plugin's own part of its entry in the configuration. Its schema, with the comments of its fields, is shown to
    /// users. A key that it does not have is an error, with or without `#[serde(deny_unknown_fields)]`. Plugins without
    /// options take [`NoConfig`].
    type Config: DeserializeOwned + JsonSchema;

    /// One line on what this plugin is for.
    const ABOUT: &'static str = "";

    /// Makes one use of the plugin. Called once for each entry of the configuration, on any thread; check the values here,
    /// do no work yet: the host makes all plugins before it starts anything, also when it only wants to know whether the
    /// configuration is right. Limit: 1 minute.
    ///
    /// `host` is for the whole life of the plugin.
    fn new(config: Self::Config, host: Host) -> Result<Self>;
}

/// The configuration of a plugin without options.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
pub struct NoConfig {}

/// Reads a configuration, refusing keys that `T` does not have.
///
/// # Errors
///
/// Kind [`Config`](crate::ErrorKind::Config): what is wrong with which key, and the nearest right one.
pub fn read_config<T: DeserializeOwned + JsonSchema>(json: &str) -> Result<T> {
    let text = if json.trim().is_empty() { "{}" } else { json };
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut source = serde_json::Deserializer::from_str(text);
    let tracked = serde_path_to_error::Deserializer::new(&mut source, &mut track);
    let config = serde_ignored::deserialize::<_, _, T>(tracked, |path| unknown.push(path.to_string()));
    let known = || known_keys(&schemars::schema_for!(T));
    let config = config.map_err(|error| explain(&track.path(), &error, &schemars::schema_for!(T)))?;
    match unknown.first() {
        None => Ok(config),
        // An `Option` on the way appears as a question mark.
        Some(path) => Err(Error::config(unknown_key(&path.replace("?.", ""), &known()))),
    }
}

/// serde_json names a line and a column of a text that no user has seen: the path of the key stands there instead.
fn explain(path: &serde_path_to_error::Path, error: &serde_json::Error, schema: &Schema) -> Error {
    if error.is_syntax() || error.is_eof() {
        return Error::config(format!("not a JSON text: {error}"));
    }
    let path = path.to_string();
    let full = error.to_string();
    let message = full.rfind(" at line ").map_or(full.as_str(), |end| &full[..end]);
    let unknown = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
    Error::config(match unknown {
        Some((key, _)) if path.is_empty() || path == "." => unknown_key(key, &known_keys(schema)),
        Some(_) => unknown_key(&path, &known_keys(schema)),
        None if path.is_empty() || path == "." => message.to_owned(),
        None if is_secret(&path, schema) => format!("`{path}`: not a text"),
        None => format!("`{path}`: {message}"),
    })
}

/// Whether a field of that name is secret anywhere in the schema.
fn is_secret(path: &str, schema: &Schema) -> bool {
    fn search(value: &serde_json::Value, key: &str) -> bool {
        match value {
            serde_json::Value::Object(map) => {
                map.get(key).is_some_and(|field| field.get(crate::secret::SECRET_MARK).is_some())
                    || map.values().any(|inner| search(inner, key))
            }
            serde_json::Value::Array(list) => list.iter().any(|inner| search(inner, key)),
            _ => false,
        }
    }
    search(schema.as_value(), path.rsplit('.').next().unwrap_or(path))
}

fn unknown_key(path: &str, known: &[String]) -> String {
    let key = path.rsplit('.').next().unwrap_or(path);
    let hint = match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "it takes none".to_owned(),
        None => format!("it takes {}", known.join(", ")),
    };
    format!("unknown key `{path}`, {hint}")
}

/// Names of all properties, wherever they stand in the schema, in its order.
fn known_keys(schema: &Schema) -> Vec<String> {
    fn collect(value: &serde_json::Value, keys: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (name, inner) in map {
                    if let (true, Some(properties)) = (name == "properties", inner.as_object()) {
                        keys.extend(
                            properties.keys().filter(|key| !keys.contains(key)).cloned().collect::<Vec<_>>(),
                        );
                    }
                    collect(inner, keys);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|inner| collect(inner, keys)),
            _ => {}
        }
    }
    let mut keys = Vec::new();
    collect(schema.as_value(), &mut keys);
    keys
}

/// The word that was probably meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    struct Inner {
        #[serde(default)]
        flavor: Option<String>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    struct Config {
        #[serde(default)]
        max_machines: u32,
        #[serde(default)]
        image: Option<Inner>,
        #[serde(default)]
        token: Secret,
    }

    #[derive(Debug, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Strict {
        host: String,
    }

    fn error<T: DeserializeOwned + JsonSchema + std::fmt::Debug>(json: &str) -> String {
        let error = read_config::<T>(json).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn right_ones_are_read() {
        let config: Config = read_config(r#"{"max-machines": 3, "image": {"flavor": "big"}}"#).unwrap();
        assert_eq!(config.max_machines, 3);
        assert_eq!(read_config::<NoConfig>("").unwrap(), NoConfig {});
        assert_eq!(read_config::<NoConfig>("{}").unwrap(), NoConfig {});
    }

    #[test]
    fn wrong_ones_say_what_would_be_right() {
        let table = [
            (r#"{"max-machine": 3}"#, "unknown key `max-machine`, did you mean `max-machines`?"),
            (r#"{"image": {"flavour": "big"}}"#, "unknown key `image.flavour`, did you mean `flavor`?"),
            (r#"{"zzz": 1}"#, "unknown key `zzz`, it takes max-machines, image, token, flavor"),
            (r#"{"max-machines": "many"}"#, "`max-machines`: invalid type: string \"many\", expected u32"),
            (r#"{"token": 4711}"#, "`token`: not a text"),
            (r#"{"max-machines": -1}"#, "`max-machines`: invalid value: integer `-1`, expected u32"),
        ];
        for (json, expected) in table {
            assert_eq!(error::<Config>(json), expected);
        }
        assert_eq!(error::<NoConfig>(r#"{"a": 1}"#), "unknown key `a`, it takes none");
        assert_eq!(error::<Strict>(r#"{"hots": "x"}"#), "unknown key `hots`, did you mean `host`?");
        assert_eq!(error::<Strict>("{}"), "missing field `host`");
        assert!(error::<Strict>("{").starts_with("not a JSON text"));
    }

    #[test]
    fn words_that_are_far_are_not_suggested() {
        assert_eq!(nearest("podmna", ["podman", "ssh"].into_iter()), Some("podman"));
        assert_eq!(nearest("x", ["podman", "ssh"].into_iter()), None);
    }
}
