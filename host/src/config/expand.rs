//! `${VAR}` in the values of a configuration, and which values are secret.
//!
//! Expansion happens in strings that are parsed already: what a variable holds can never change the structure around it.
//! Keys are not expanded.
//!
//! | written | means |
//! |---|---|
//! | `${VAR}` | the variable; an error if it is not set |
//! | `${VAR:-text}` | the variable, or `text` if it is not set or empty |
//! | `${secret:VAR}` | the variable, whose value is never shown or stored |
//! | `$${` | the characters `${` |
//! | `${redacted:}` | in run.json only: a secret that was written out and therefore not stored |
//!
//! Secret are also all values below a key that is named like one ([`is_secret_key`]). What comes of variables alone keeps
//! its written form, so that `gc` and `resume` can resolve it again; what was written out becomes `${redacted:}`.

use serde_json::{Map, Value};

use super::error::ConfigError;
use super::path::Path;
use super::secret::{Secrets, escape};

/// Written in place of a secret that stood in the configuration itself.
pub(crate) const REDACTED: &str = "${redacted:}";

/// Bytes that all expanded strings of a document may have together.
const MAX_EXPANDED: usize = 16 << 20;

/// Values of variables; `None` if unset.
pub(crate) type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A value in both forms, of the same shape.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forms {
    /// For showing and storing.
    pub(crate) written: Value,
    /// With variables expanded and secrets in it.
    pub(crate) resolved: Value,
}

/// Expands all strings of `value`; secrets found are added to `secrets`.
pub(crate) fn expand(value: &Value, lookup: Lookup<'_>, secrets: &Secrets) -> Result<Forms, ConfigError> {
    let mut walk = Walk { lookup: Some(lookup), secrets, left: MAX_EXPANDED };
    walk.value(value, &Path::default(), false)
}

/// The forms of a value that means itself, `${` included: what was given on the command line.
pub(crate) fn literal(value: &Value, secrets: &Secrets) -> Result<Forms, ConfigError> {
    let mut walk = Walk { lookup: None, secrets, left: MAX_EXPANDED };
    walk.value(value, &Path::default(), false)
}

/// Whether a string has anything in it that [`expand`] would replace.
pub(crate) fn has_reference(text: &str) -> bool {
    let mut pieces = Pieces { rest: text };
    std::iter::from_fn(|| pieces.next_piece()).any(|piece| !matches!(piece, Ok(Piece::Text(_))))
}

/// Whether all of a written form comes from variables, so that nothing of the value stands in it.
pub(crate) fn is_only_references(text: &str) -> bool {
    let mut pieces = Pieces { rest: text };
    std::iter::from_fn(|| pieces.next_piece()).all(|piece| match piece {
        Ok(Piece::Variable { default, .. }) => default.is_none_or(str::is_empty),
        Ok(Piece::Secret(_) | Piece::Redacted) => true,
        Ok(Piece::Text(_)) | Err(_) => false,
    })
}

/// Whether a key says that its value is secret: `token`, `api-token`, `PASSWORD`, `secrets`, `key-data`, ...
pub(crate) fn is_secret_key(key: &str) -> bool {
    const LAST_WORDS: [&str; 8] =
        ["token", "tokens", "password", "passwords", "passwd", "passphrase", "secret", "secrets"];
    const ENDINGS: [&str; 4] = ["key-data", "secret-key", "access-key", "api-key"];
    let key = key.to_ascii_lowercase().replace(['_', '.', ' '], "-");
    let last = key.rsplit('-').next().unwrap_or_default();
    LAST_WORDS.contains(&last)
        || ENDINGS.iter().any(|ending| key == *ending || key.ends_with(&format!("-{ending}")))
}

struct Walk<'a> {
    /// `None`: strings mean themselves.
    lookup: Option<Lookup<'a>>,
    secrets: &'a Secrets,
    /// Bytes that may still come of expansion.
    left: usize,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, path: &Path, secret: bool) -> Result<Forms, ConfigError> {
        match value {
            Value::String(text) => self.string(text, secret).map_err(|error| error.at(path.clone())),
            Value::Number(number) if secret => {
                self.secrets.insert(&number.to_string());
                Ok(Forms { written: REDACTED.into(), resolved: value.clone() })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                Ok(Forms { written: value.clone(), resolved: value.clone() })
            }
            Value::Array(list) => self.list(list, path, secret),
            Value::Object(map) => self.map(map, path, secret),
        }
    }

    fn list(&mut self, list: &[Value], path: &Path, secret: bool) -> Result<Forms, ConfigError> {
        let items = list.iter().enumerate().map(|(index, item)| self.value(item, &path.index(index), secret));
        let forms = items.collect::<Result<Vec<_>, _>>()?;
        let (written, resolved) = forms.into_iter().map(|item| (item.written, item.resolved)).unzip();
        Ok(Forms { written: Value::Array(written), resolved: Value::Array(resolved) })
    }

    fn map(&mut self, map: &Map<String, Value>, path: &Path, secret: bool) -> Result<Forms, ConfigError> {
        let (mut written, mut resolved) = (Map::new(), Map::new());
        for (key, value) in map {
            let forms = self.value(value, &path.key(key), secret || is_secret_key(key))?;
            written.insert(key.clone(), forms.written);
            resolved.insert(key.clone(), forms.resolved);
        }
        Ok(Forms { written: Value::Object(written), resolved: Value::Object(resolved) })
    }

    fn string(&mut self, text: &str, secret: bool) -> Result<Forms, ConfigError> {
        let expanded = match self.lookup {
            Some(lookup) => substitute(text, lookup, self.secrets)?,
            None => Substituted { text: text.to_owned(), written_out: true },
        };
        self.left = self.left.checked_sub(expanded.text.len()).ok_or_else(|| {
            ConfigError::new(format!("variables expand to more than {} MiB", MAX_EXPANDED >> 20))
        })?;
        if secret && !expanded.text.is_empty() {
            self.secrets.insert(&expanded.text);
        }
        let written = match self.lookup {
            _ if secret && expanded.written_out && !expanded.text.is_empty() => REDACTED.to_owned(),
            Some(_) => text.to_owned(),
            None => escape(text).into_owned(),
        };
        Ok(Forms { written: written.into(), resolved: expanded.text.into() })
    }
}

/// A string after expansion.
struct Substituted {
    text: String,
    /// Part of it stood in the configuration itself.
    written_out: bool,
}

fn substitute(text: &str, lookup: Lookup<'_>, secrets: &Secrets) -> Result<Substituted, ConfigError> {
    let mut pieces = Pieces { rest: text };
    let mut out = Substituted { text: String::new(), written_out: false };
    while let Some(piece) = pieces.next_piece() {
        match piece? {
            Piece::Text(literal) => {
                out.text.push_str(literal);
                out.written_out = true;
            }
            Piece::Variable { name, default: Some(default) } => {
                let set = lookup(name).filter(|value| !value.is_empty());
                out.text.push_str(set.as_deref().unwrap_or(default));
                out.written_out |= !default.is_empty();
            }
            Piece::Variable { name, default: None } => {
                out.text.push_str(&lookup(name).ok_or_else(|| unset(name, false))?);
            }
            Piece::Secret(name) => {
                let value = lookup(name).ok_or_else(|| unset(name, true))?;
                secrets.insert(&value);
                out.text.push_str(&value);
            }
            Piece::Redacted => return Err(not_stored()),
        }
    }
    Ok(out)
}

fn unset(name: &str, secret: bool) -> ConfigError {
    let error = ConfigError::new(format!("the environment variable `{name}` is not set"));
    if secret {
        error.help("set it to the secret")
    } else {
        error.help(format!("set it, or give a default as in `${{{name}:-text}}`"))
    }
}

fn not_stored() -> ConfigError {
    ConfigError::new("this secret was written out in the configuration and is not stored with the run")
        .help("put it back where it stood in the file, or refer to a variable with `${secret:VAR}`")
}

/// A part of a string.
enum Piece<'a> {
    Text(&'a str),
    Variable { name: &'a str, default: Option<&'a str> },
    Secret(&'a str),
    Redacted,
}

/// Takes a string apart, left to right.
struct Pieces<'a> {
    rest: &'a str,
}

impl<'a> Pieces<'a> {
    fn next_piece(&mut self) -> Option<Result<Piece<'a>, ConfigError>> {
        if self.rest.is_empty() {
            return None;
        }
        if let Some(after) = self.rest.strip_prefix("$${") {
            let literal = self.rest.get(1..3).unwrap_or_default();
            self.rest = after;
            return Some(Ok(Piece::Text(literal)));
        }
        if let Some(after) = self.rest.strip_prefix("${") {
            return Some(self.reference(after));
        }
        let end = self.rest.find("${").unwrap_or(self.rest.len());
        // The dollar of `$${` belongs to what follows.
        let end = if end > 1 && self.rest[..end].ends_with('$') { end - 1 } else { end };
        let (literal, rest) = self.rest.split_at(end.max(1).min(self.rest.len()));
        self.rest = rest;
        Some(Ok(Piece::Text(literal)))
    }

    fn reference(&mut self, after: &'a str) -> Result<Piece<'a>, ConfigError> {
        let Some((body, rest)) = after.split_once('}') else {
            self.rest = "";
            return Err(
                ConfigError::new("`${` without `}`").help("write `$${` for the characters themselves")
            );
        };
        self.rest = rest;
        if body == "redacted:" {
            return Ok(Piece::Redacted);
        }
        let (name, default) = match body.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (body, None),
        };
        match name.strip_prefix("secret:") {
            Some(name) if is_variable(name) && default.is_none() => Ok(Piece::Secret(name)),
            None if is_variable(name) && !default.is_some_and(|text| text.contains("${")) => {
                Ok(Piece::Variable { name, default })
            }
            _ => Err(ConfigError::new(format!("`${{{body}}}` is not understood")).help(
                "known are `${VAR}`, `${VAR:-text}` and `${secret:VAR}`; write `$${` for the characters themselves",
            )),
        }
    }
}

/// Whether `name` can be the name of an environment variable in a shell.
pub(crate) fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "HOME" => Some("/home/me".into()),
            "EMPTY" => Some(String::new()),
            "TOKEN" => Some("hunter2".into()),
            "YAML" => Some("[a, ${HOME}]".into()),
            _ => None,
        }
    }

    fn expanded(value: &Value) -> Result<Forms, String> {
        expand(value, &lookup, &Secrets::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_are_replaced_in_strings_only() {
        let table = [
            ("${HOME}/x", "/home/me/x"),
            ("a${EMPTY}b", "ab"),
            ("${EMPTY:-d}${NONE:-e:-f}", "de:-f"),
            ("${NONE:-}", ""),
            ("${YAML}", "[a, ${HOME}]"),
            ("$${HOME}", "${HOME}"),
            ("$$${HOME}", "$${HOME}"),
            ("a$${HOME}${HOME}", "a${HOME}/home/me"),
            ("$HOME $$ $ {} }", "$HOME $$ $ {} }"),
            ("é$${é", "é${é"),
            ("", ""),
        ];
        for (text, want) in table {
            assert_eq!(
                expanded(&json!(text)),
                Ok(Forms { written: json!(text), resolved: json!(want) }),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_name_the_place_and_the_way_out() {
        let table = [
            (
                "${NONE}",
                "a[0]: the environment variable `NONE` is not set; set it, or give a default as in `${NONE:-text}`",
            ),
            ("${secret:NONE}", "a[0]: the environment variable `NONE` is not set; set it to the secret"),
            ("x${HOME", "a[0]: `${` without `}`; write `$${` for the characters themselves"),
        ];
        for (text, want) in table {
            assert_eq!(expanded(&json!({"a": [text]})), Err(want.to_owned()));
        }
        for text in ["${}", "${a-b}", "${1A}", "${secret:A:-b}", "${other:A}", "${A:-${B}}"] {
            assert!(expanded(&json!(text)).unwrap_err().contains("is not understood"), "{text}");
        }
        assert!(expanded(&json!(REDACTED)).unwrap_err().contains("not stored"));
    }

    #[test]
    fn secrets_are_kept_out_of_the_written_form() {
        let secrets = Secrets::default();
        let value = json!({
            "auth": "Bearer ${secret:TOKEN}", "password": "literal", "api_token": "${HOME}", "PIN_SECRET": 123_456,
            "token": "x${HOME}", "secrets": {"a": ["deep"]}, "token-url": "http://x", "password2": true, "key-data": "",
        });
        let forms = expand(&value, &lookup, &secrets).unwrap();
        let written = json!({
            "auth": "Bearer ${secret:TOKEN}", "password": REDACTED, "api_token": "${HOME}", "PIN_SECRET": REDACTED,
            "token": REDACTED, "secrets": {"a": [REDACTED]}, "token-url": "http://x", "password2": true, "key-data": "",
        });
        assert_eq!(forms.written, written);
        assert_eq!(forms.resolved["auth"], "Bearer hunter2");
        assert_eq!(forms.resolved["PIN_SECRET"], 123_456);
        assert_eq!(secrets.mask("hunter2 literal /home/me 123456 deep"), "*** *** *** *** ***");
    }

    #[test]
    fn command_line_values_mean_themselves() {
        let secrets = Secrets::default();
        let forms = literal(&json!({"a": "${HOME}", "token": "abcd"}), &secrets).unwrap();
        assert_eq!(forms.resolved, json!({"a": "${HOME}", "token": "abcd"}));
        assert_eq!(forms.written, json!({"a": "$${HOME}", "token": REDACTED}));
    }

    #[test]
    fn expansion_is_bounded() {
        let big = |_: &str| Some("x".repeat(1 << 20));
        let value = Value::Array(vec![json!("${A}"); 17]);
        let error = expand(&value, &big, &Secrets::default()).unwrap_err();
        assert_eq!(error.to_string(), "[16]: variables expand to more than 16 MiB");
    }

    proptest! {
        #[test]
        fn no_text_panics_and_escaping_protects(text in "[${}:a-zA\\-é]{0,30}") {
            let _ = expanded(&json!(&text));
            let escaped = escape(&text).into_owned();
            prop_assert!(!has_reference(&escaped));
            prop_assert_eq!(expanded(&json!(escaped)).unwrap().resolved, json!(text));
        }
    }
}
