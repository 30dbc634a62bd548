//! Configuration values that must not be shown.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// Key of the schema that marks a secret. The host never prints, logs or stores the value of a field with it.
pub const SECRET_MARK: &str = "x-secret";

/// A text of the configuration that is never shown: `Debug` and `Display` hide it, and it cannot be serialized.
///
/// The configuration's schema marks the field, so the host keeps the value out of its logs and records too.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "writeOnly": true, SECRET_MARK: true})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_it() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!(secret.expose(), "hunter2");
        assert!(!format!("{secret} {secret:?} {secret:#?}").contains("hunter2"));
    }

    #[test]
    fn the_schema_marks_it() {
        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only its schema is looked at")]
        struct Config {
            token: Secret,
            other: Option<Secret>,
        }
        let schema = schemars::schema_for!(Config);
        for field in ["/properties/token", "/properties/other"] {
            assert_eq!(
                schema.as_value().pointer(&format!("{field}/{SECRET_MARK}")),
                Some(&true.into()),
                "{schema:?}"
            );
        }
    }
}
