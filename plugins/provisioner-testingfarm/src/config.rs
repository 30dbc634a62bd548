//! Options of the plugin.

use std::collections::BTreeMap;
use std::path::PathBuf;

use atex_plugin_api::{Error, Result, Secret};
use atex_plugin_process::Span;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The variable that holds the token if the configuration does not.
pub(crate) const TOKEN_VARIABLE: &str = "TESTING_FARM_API_TOKEN";

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Where the API is. Default: `https://api.dev.testing-farm.io`
    #[serde(default = "url")]
    pub url: String,
    /// The API token. Default: the environment variable TESTING_FARM_API_TOKEN.
    #[serde(default)]
    pub token: Option<Secret>,
    /// The compose to install, e.g. `Fedora-Rawhide`.
    #[serde(default)]
    pub compose: Option<String>,
    /// Take a compose that the service does not list.
    #[serde(default)]
    pub unlisted_compose: bool,
    /// Architecture. Default: the platform's, or x86_64.
    #[serde(default)]
    pub arch: Option<String>,
    /// The pool to take machines from. Default: the service decides.
    #[serde(default)]
    pub pool: Option<String>,
    /// Requirements on the hardware, as of tmt.
    #[serde(default)]
    pub hardware: Option<Map<String, Value>>,
    /// Kickstart options.
    #[serde(default)]
    pub kickstart: Option<Map<String, Value>>,
    /// Environment variables of the reservation's test.
    #[serde(default)]
    pub variables: BTreeMap<String, String>,
    /// The same, never shown.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Artifacts to install: a list of mappings with `type` and `id`.
    #[serde(default)]
    pub artifacts: Vec<Map<String, Value>>,
    /// More tags of the machine, e.g. for accounting.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Allow spot instances, which may be taken away at any time. Default: false.
    #[serde(default)]
    pub spot: bool,
    /// Skip the service's own preparation of the guest. Default: true.
    #[serde(default = "yes")]
    pub skip_guest_setup: bool,
    /// Addresses that may connect to the machine, as networks, e.g. `192.0.2.7/32`. Default: on the public ranch this box's own
    /// address as `address-url` tells it, elsewhere no rule.
    #[serde(default)]
    pub ingress: Vec<String>,
    /// A page that shows the address one comes from. Default: `https://ipv4.icanhazip.com`
    #[serde(default = "address_url")]
    pub address_url: String,
    /// Path of the private key to log in with; the public one lies beside it with `.pub`. Default: a key of the plugin's own.
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    pub key: Option<PathBuf>,
    /// A shell command for the guest once it can be logged in to, e.g. to remove what the service put there.
    #[serde(default)]
    pub clean_up: Option<String>,
    /// The test that keeps the machine. Default: the public one, /testing-farm/reserve.
    #[serde(default)]
    pub test: ReserveTest,
    /// Between two questions about one reservation; the service asks for no less than the default, 30s.
    #[serde(default = "interval")]
    pub poll_interval: Span,
    /// The ssh client that tries to log in, and ssh-keygen. Default: those in PATH.
    #[serde(default)]
    pub ssh: Option<String>,
}

/// The test that keeps a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ReserveTest {
    /// The git repository.
    pub url: String,
    /// Its branch, tag or commit.
    #[serde(rename = "ref")]
    pub git_ref: String,
    /// Directory of the metadata tree in it.
    pub path: String,
    /// Name of the plan.
    pub name: String,
}

impl Default for ReserveTest {
    fn default() -> Self {
        Self {
            url: "https://gitlab.com/testing-farm/tests".to_owned(),
            git_ref: "main".to_owned(),
            path: ".".to_owned(),
            name: "/testing-farm/reserve".to_owned(),
        }
    }
}

fn url() -> String {
    "https://api.dev.testing-farm.io".to_owned()
}
fn address_url() -> String {
    "https://ipv4.icanhazip.com".to_owned()
}
fn interval() -> Span {
    Span::seconds(30)
}
fn yes() -> bool {
    true
}

impl Config {
    /// Refuses what cannot work, as far as that can be seen without asking anybody.
    pub(crate) fn check(&self) -> Result<()> {
        for (key, url) in [("url", &self.url), ("address-url", &self.address_url)] {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(Error::config(format!("`{key}`: {url:?} is no URL; it begins with https://")));
            }
        }
        if self.poll_interval < Span::seconds(1) && !self.url.starts_with("http://127.") {
            return Err(Error::config("`poll-interval`: at least 1s; the service asks for 30s"));
        }
        if let Some(wrong) = self.ingress.iter().find(|net| !is_network(net)) {
            return Err(Error::config(format!("`ingress`: {wrong:?} is no network, e.g. 192.0.2.7/32")));
        }
        if self.secrets.keys().any(|key| self.variables.contains_key(key)) {
            return Err(Error::config("a name is in both `variables` and `secrets`: leave it in `secrets`"));
        }
        match &self.key {
            Some(key) if !with_pub(key).is_file() => Err(Error::config(format!(
                "`key`: there is no {}; ssh-keygen -y makes it",
                with_pub(key).display()
            ))),
            _ => Ok(()),
        }
    }

    /// The token, from wherever it is.
    pub(crate) fn token(&self) -> Result<Secret> {
        let given = self.token.clone().or_else(|| std::env::var(TOKEN_VARIABLE).ok().map(Secret::new));
        match given {
            Some(token) if !token.expose().trim().is_empty() => Ok(token),
            _ => Err(Error::config(format!(
                "no token: set `token` or the environment variable {TOKEN_VARIABLE}"
            ))),
        }
    }
}

/// The public key's file.
pub(crate) fn with_pub(key: &std::path::Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn is_network(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let limit = match address.parse() {
        Ok(std::net::IpAddr::V4(_)) => 32,
        Ok(std::net::IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= limit)
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::read_config;

    use super::*;

    #[test]
    fn wrong_ones_are_refused() {
        let table = [
            (r#"{"url": "api.example.com"}"#, "`url`"),
            (r#"{"ingress": ["192.0.2.7"]}"#, "is no network"),
            (r#"{"ingress": ["192.0.2.7/33"]}"#, "is no network"),
            (r#"{"key": "/no/such/key"}"#, "there is no /no/such/key.pub"),
            (r#"{"variables": {"A": "1"}, "secrets": {"A": "2"}}"#, "in both"),
            (r#"{"test": {"urll": ""}}"#, "did you mean `url`?"),
            (r#"{"poll-interval": 0}"#, "at least 1s"),
            (r#"{"composes": "x"}"#, "did you mean `compose`?"),
        ];
        for (json, expected) in table {
            let error = read_config::<Config>(json).and_then(|config| config.check()).unwrap_err();
            assert!(error.to_string().contains(expected), "{json}: {error}");
        }
        read_config::<Config>(r#"{"ingress": ["2001:db8::/32", "0.0.0.0/0"]}"#).unwrap().check().unwrap();
    }
}
