//! One use of a plugin, and what the host does for it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atex_plugin_api::describe::Kind;
use atex_plugin_api::host::HostInfo;
use atex_plugin_api::host_side::{Cancel, Services, host};
use atex_plugin_api::{Host, Level};

use super::error::{CallError, PluginError};
use crate::config::Secrets;

/// One use of a plugin: the same plugin can be used several times, under different names.
///
/// What it says goes through here, and here secrets are taken out of it: errors, log and progress end up in files.
#[derive(Clone)]
pub struct Instance {
    kind: Kind,
    name: String,
    state_dir: PathBuf,
    secrets: Secrets,
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

impl Instance {
    /// Makes its private directory below `state_dir`.
    pub fn new(kind: Kind, name: &str, state_dir: &Path) -> Result<Self, PluginError> {
        let directory = state_dir.join("plugins").join(directory_name(kind, name));
        let error = |reason: String| PluginError::StateDir {
            kind,
            name: name.to_owned(),
            path: directory.clone(),
            reason,
        };
        if directory.to_str().is_none() {
            return Err(error("its path is not UTF-8".to_owned()));
        }
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&directory).map_err(|cause| error(cause.to_string()))?;
        let state_dir = directory.canonicalize().map_err(|cause| error(cause.to_string()))?;
        Ok(Self { kind, name: name.to_owned(), state_dir, secrets: Secrets::default() })
    }

    /// The same, with secrets that are kept out of whatever it says.
    #[must_use]
    pub fn masking(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    /// Provisioner, policy or reporter.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Name of this use: of the pool, or the plugin's own.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The plugin's private directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    pub(super) fn error(&self, what: impl Into<String>, error: atex_plugin_api::Error) -> CallError {
        let error = self.masked(error);
        if !error.detail().is_empty() {
            let (kind, name, detail) = (self.kind.word(), self.name.as_str(), self.printable(error.detail()));
            tracing::debug!(target: "plugin", kind, name, "{error}: {detail}");
        }
        CallError { kind: self.kind, name: self.name.clone(), what: what.into(), error }
    }

    /// What it said of a failure.
    pub(super) fn masked(&self, error: atex_plugin_api::Error) -> atex_plugin_api::Error {
        error.map_texts(|text| self.secrets.mask(text).into_owned())
    }
}

impl Instance {
    /// What plugins say may come from a provider or a machine: nothing in it steers a terminal, or tells a secret.
    fn printable(&self, text: &str) -> String {
        let plain = |c: char| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c };
        self.secrets.mask(text).chars().map(plain).collect()
    }
}

/// Bytes that could mean something to a file system are percent-encoded.
fn directory_name(kind: Kind, name: &str) -> String {
    let mut safe = format!("{kind}-");
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'@' => safe.push(byte.into()),
            _ => safe = format!("{safe}%{byte:02x}"),
        }
    }
    safe
}

type Listener = Arc<dyn Fn(&str) + Send + Sync>;

/// What goes with one call: how to end it, and who wants to know how it gets on.
#[derive(Clone, Default)]
pub struct Call {
    cancel: Cancel,
    progress: Option<Listener>,
    spoilt: bool,
}

impl Call {
    /// A call that `cancel` ends.
    pub fn new(cancel: Cancel) -> Self {
        Self { cancel, progress: None, spoilt: false }
    }

    /// A call that is to end within `limit`.
    pub fn within(limit: Duration) -> Self {
        Self::new(Cancel::after(limit))
    }

    /// Tells `listener` what the plugin says it is doing. It is called from the plugin's threads and must not block.
    #[must_use]
    pub fn on_progress(mut self, listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(listener));
        self
    }

    /// A `release` of a machine that is, or is not, known to be in no state for another test.
    #[must_use]
    pub fn spoilt(mut self, spoilt: bool) -> Self {
        self.spoilt = spoilt;
        self
    }

    /// The token that ends it.
    pub fn cancel(&self) -> &Cancel {
        &self.cancel
    }

    pub(super) fn host(&self, instance: &Arc<Instance>) -> Host {
        host(Arc::new(Callbacks { instance: Arc::clone(instance), call: self.clone() }))
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("cancel", &self.cancel).finish_non_exhaustive()
    }
}

struct Callbacks {
    instance: Arc<Instance>,
    call: Call,
}

impl Services for Callbacks {
    fn log(&self, level: Level, message: &str, fields: &str) {
        let (kind, name, message) =
            (self.instance.kind.word(), self.instance.name.as_str(), self.instance.printable(message));
        let fields = &*self.instance.secrets.mask(fields);
        match level {
            Level::Error => tracing::error!(target: "plugin", kind, name, fields, "{message}"),
            Level::Warn => tracing::warn!(target: "plugin", kind, name, fields, "{message}"),
            Level::Info => tracing::info!(target: "plugin", kind, name, fields, "{message}"),
            Level::Debug => tracing::debug!(target: "plugin", kind, name, fields, "{message}"),
            Level::Trace => tracing::trace!(target: "plugin", kind, name, fields, "{message}"),
        }
    }
    fn progress(&self, text: &str) {
        let text = self.instance.printable(text);
        if let Some(listener) = &self.call.progress {
            return listener(&text);
        }
        let (kind, name) = (self.instance.kind.word(), self.instance.name.as_str());
        tracing::info!(target: "plugin", kind, name, "{text}");
    }
    fn cancelled(&self) -> bool {
        self.call.cancel.cancelled()
    }
    fn wait_cancelled(&self, timeout: Duration) -> bool {
        self.call.cancel.wait(timeout)
    }
    fn remaining(&self) -> Option<Duration> {
        self.call.cancel.remaining()
    }
    fn info(&self) -> HostInfo {
        let mut info = HostInfo::default();
        concat!("atex-host ", env!("CARGO_PKG_VERSION")).clone_into(&mut info.program);
        info.name.clone_from(&self.instance.name);
        info.state_dir.clone_from(&self.instance.state_dir);
        info.spoilt = self.call.spoilt;
        info
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_safe_directories() {
        for (name, expected) in [
            ("lab", "provisioner-lab"),
            ("nightly@lab.2", "provisioner-nightly@lab.2"),
            ("../../etc", "provisioner-..%2f..%2fetc"),
            ("ä%", "provisioner-%c3%a4%25"),
        ] {
            assert_eq!(directory_name(Kind::Provisioner, name), expected);
        }
    }

    #[test]
    fn the_state_directory_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let state = tempfile::tempdir().unwrap();
        let instance = Instance::new(Kind::Reporter, "a/b", state.path()).unwrap();
        assert_eq!(instance.state_dir().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let again = Instance::new(Kind::Reporter, "a/b", state.path()).unwrap();
        assert_eq!(again.state_dir(), instance.state_dir());
        let host = Call::default().host(&Arc::new(instance.clone()));
        assert_eq!(host.state_dir().unwrap(), instance.state_dir());
        assert_eq!(host.facts().name, "a/b");
    }

    #[test]
    fn progress_reaches_its_listener_without_escapes() {
        let state = tempfile::tempdir().unwrap();
        let secrets = Secrets::default();
        secrets.insert("hunter2");
        let instance = Instance::new(Kind::Provisioner, "p", state.path()).unwrap().masking(secrets);
        let error = atex_plugin_api::Error::config("with hunter2").context("no").with_detail("hunter2");
        let error = instance.error("do it", error);
        assert!(error.to_string().contains("no: with ***") && error.error.detail() == "***", "{error}");
        let instance = Arc::new(instance);
        let (tell, told) = std::sync::mpsc::channel();
        let call = Call::default().on_progress(move |text| tell.send(text.to_owned()).unwrap());
        call.host(&instance).progress("half\x1b[2J hunter2");
        assert_eq!(told.recv().unwrap(), "half\u{fffd}[2J ***");
    }

    #[test]
    fn cancelling_the_call_cancels_the_host_handle() {
        let state = tempfile::tempdir().unwrap();
        let instance = Arc::new(Instance::new(Kind::Provisioner, "p", state.path()).unwrap());
        let call = Call::default();
        let host = call.host(&instance);
        assert!(!host.cancelled() && host.remaining().is_none());
        call.cancel().cancel();
        assert!(host.wait_cancelled(Duration::MAX) && host.check_cancelled().is_err());
    }
}
