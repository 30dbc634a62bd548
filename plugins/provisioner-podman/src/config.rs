//! Options of the plugin, and the command line of `podman run` that follows from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atex_plugin_api::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

/// What keeps a container alive: a shell as its first process reaps what tests leave behind.
const IDLE: [&str; 3] = ["sh", "-c", "sleep 2000000000 & wait"];
/// What a container with systemd begins with.
const INIT: [&str; 1] = ["/sbin/init"];

/// Options of the plugin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// The image to run, e.g. `registry.fedoraproject.org/fedora:42`. This or `containerfile`.
    #[serde(default)]
    pub image: Option<String>,
    /// A Containerfile to build the image from, once per run.
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    pub containerfile: Option<PathBuf>,
    /// The directory that the build sees. Default: the Containerfile's.
    #[serde(default)]
    #[schemars(extend("x-path" = true))]
    pub context: Option<PathBuf>,
    /// Values of the Containerfile's ARGs.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// When the image (of a build: its base) is pulled, once per run. Default: missing.
    #[serde(default)]
    pub pull: Pull,
    /// Run systemd as the first process, and wait until it is up. The image must have it.
    #[serde(default)]
    pub systemd: bool,
    /// The first process, which must run for as long as the machine is used. Default: an idle shell, or /sbin/init with
    /// `systemd`.
    #[serde(default)]
    pub command: Vec<String>,
    /// The user that commands run as. Default: the image's.
    #[serde(default)]
    pub user: Option<String>,
    /// Give the container all privileges of the user that podman runs as.
    #[serde(default)]
    pub privileged: bool,
    /// Capabilities to add, e.g. `SYS_PTRACE`.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// Capabilities to drop.
    #[serde(default)]
    pub cap_drop: Vec<String>,
    /// Devices of the box to pass through, e.g. `/dev/kvm`.
    #[serde(default)]
    pub devices: Vec<String>,
    /// Limits as `NAME=SOFT:HARD`, e.g. `nofile=4096:8192`.
    #[serde(default)]
    pub ulimits: Vec<String>,
    /// Networks to join, e.g. `none`, `host`, or names. Default: podman's.
    #[serde(default)]
    pub networks: Vec<String>,
    /// Volumes as `FROM:TO[:OPTIONS]`.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// Environment variables of the container.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Most memory, e.g. `4g`.
    #[serde(default)]
    pub memory: Option<String>,
    /// Most processors, e.g. 1.5.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// More arguments of `podman run`.
    #[serde(default)]
    pub extra_args: Vec<String>,
    /// Arguments of every podman command, before its name, e.g. `--remote`.
    #[serde(default)]
    pub global_args: Vec<String>,
    /// The podman to use. Default: the one in PATH.
    #[serde(default = "podman")]
    pub program: String,
}

fn podman() -> String {
    "podman".to_owned()
}

/// When an image is pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Pull {
    /// When it is not there.
    #[default]
    Missing,
    /// Once per run; without the registry there are no machines.
    Always,
    /// Once per run, if the registry has a newer one and can be reached.
    Newer,
    /// Not at all.
    Never,
}

impl Pull {
    /// podman's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Always => "always",
            Self::Newer => "newer",
            Self::Never => "never",
        }
    }
}

/// Where the image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A name.
    Image(&'a str),
    /// A build: its file and its context.
    Build(&'a Path, &'a Path),
}

impl Config {
    /// Refuses what cannot work.
    pub fn check(&self) -> Result<()> {
        self.source()?;
        if let Source::Build(file, _) = self.source()?
            && !file.is_file()
        {
            return Err(Error::config(format!("`containerfile`: there is no file {}", file.display())));
        }
        if let Some(wrong) = self.ulimits.iter().find(|limit| !limit.contains('=')) {
            return Err(Error::config(format!(
                "`ulimits`: {wrong:?} is not NAME=SOFT:HARD, e.g. nofile=4096:8192"
            )));
        }
        if let Some(wrong) = self.volumes.iter().find(|volume| !volume.contains('/')) {
            return Err(Error::config(format!(
                "`volumes`: {wrong:?} is not FROM:TO, e.g. /srv/data:/data:ro"
            )));
        }
        if self.cpus.is_some_and(|cpus| !cpus.is_finite() || cpus <= 0.0) {
            return Err(Error::config("`cpus`: not a number above 0"));
        }
        Ok(())
    }

    /// Where the image comes from: one place, and only one.
    pub fn source(&self) -> Result<Source<'_>> {
        match (&self.image, &self.containerfile) {
            (Some(image), None) if !image.is_empty() && !image.starts_with('-') => {
                if self.context.is_some() || !self.build_args.is_empty() {
                    Err(Error::config("`context` and `build-args` go with `containerfile`, not with `image`"))
                } else {
                    Ok(Source::Image(image))
                }
            }
            (Some(image), None) => Err(Error::config(format!("`image`: {image:?} is no name of an image"))),
            (None, Some(file)) => {
                Ok(Source::Build(file, self.context.as_deref().unwrap_or_else(|| directory(file))))
            }
            (Some(_), Some(_)) => Err(Error::config("`image` and `containerfile`: give one of them")),
            (None, None) => {
                Err(Error::config("give an `image`, e.g. image=registry.fedoraproject.org/fedora:42"))
            }
        }
    }

    /// Arguments of `podman run` that come from the options.
    pub fn run_args(&self) -> Vec<String> {
        let mut args = vec![format!("--systemd={}", if self.systemd { "always" } else { "false" })];
        args.push(format!("--entrypoint={}", serde_json::json!(self.first_process())));
        if self.privileged {
            args.push("--privileged".to_owned());
        }
        let lists = [
            ("cap-add", &self.cap_add),
            ("cap-drop", &self.cap_drop),
            ("device", &self.devices),
            ("ulimit", &self.ulimits),
            ("network", &self.networks),
            ("volume", &self.volumes),
        ];
        for (option, values) in lists {
            args.extend(values.iter().map(|value| format!("--{option}={value}")));
        }
        args.extend(self.env.iter().map(|(key, value)| format!("--env={key}={value}")));
        args.extend(self.memory.iter().map(|memory| format!("--memory={memory}")));
        args.extend(self.cpus.iter().map(|cpus| format!("--cpus={cpus}")));
        args.extend(self.extra_args.iter().cloned());
        args
    }

    fn first_process(&self) -> Vec<&str> {
        if !self.command.is_empty() {
            self.command.iter().map(String::as_str).collect()
        } else if self.systemd {
            INIT.to_vec()
        } else {
            IDLE.to_vec()
        }
    }
}

fn directory(file: &Path) -> &Path {
    file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use atex_plugin_api::read_config;

    use super::*;

    fn config(json: &str) -> Result<Config> {
        read_config::<Config>(json).and_then(|config| config.check().map(|()| config))
    }

    #[test]
    fn wrong_ones_are_refused() {
        let table = [
            ("{}", "give an `image`"),
            (r#"{"image": "a", "containerfile": "b"}"#, "give one of them"),
            (r#"{"image": "a", "context": "b"}"#, "go with `containerfile`"),
            (r#"{"image": "--rm"}"#, "is no name of an image"),
            (r#"{"containerfile": "/no/such/Containerfile"}"#, "there is no file"),
            (r#"{"image": "a", "pull": "sometimes"}"#, "`pull`: unknown variant `sometimes`"),
            (r#"{"image": "a", "ulimits": ["nofile"]}"#, "is not NAME=SOFT:HARD"),
            (r#"{"image": "a", "volumes": ["data"]}"#, "is not FROM:TO"),
            (r#"{"image": "a", "cpus": 0}"#, "not a number above 0"),
            (r#"{"image": "a", "ulimit": []}"#, "did you mean `ulimits`?"),
        ];
        for (json, expected) in table {
            let error = config(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn a_build_sees_the_directory_of_its_file() {
        let table = [("Containerfile", "."), ("./a/Containerfile", "./a"), ("/Containerfile", "/")];
        for (file, expected) in table {
            assert_eq!(directory(Path::new(file)), Path::new(expected));
        }
    }

    #[test]
    fn options_become_arguments() {
        let config = config(
            r#"{"image": "a", "systemd": true, "privileged": true, "cap-add": ["A", "B"], "ulimits": ["core=0:0"],
                "networks": ["none"], "volumes": ["/a:/b:ro"], "env": {"K": "v w"}, "memory": "1g", "cpus": 1.5,
                "devices": ["/dev/kvm"], "cap-drop": ["C"], "extra-args": ["--hostname=x"]}"#,
        );
        assert_eq!(
            config.unwrap().run_args().join("\n"),
            "--systemd=always\n--entrypoint=[\"/sbin/init\"]\n--privileged\n--cap-add=A\n--cap-add=B\n--cap-drop=C\n\
             --device=/dev/kvm\n--ulimit=core=0:0\n--network=none\n--volume=/a:/b:ro\n--env=K=v w\n--memory=1g\n\
             --cpus=1.5\n--hostname=x"
        );
    }
}
