//! Logging in to a guest: the key, and whether the guest knows it yet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use atex_plugin_api::{ErrorKind, Result};
use atex_plugin_process::{Call, Program, last_lines};

use crate::config::with_pub;
use crate::log::Guest;

/// How long one attempt to log in may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(30);
/// How long the clean-up of a guest may take.
const CLEAN_UP_LIMIT: Duration = Duration::from_mins(10);

/// A key of the plugin's own: made once per state directory, also if several hosts want it at the same time.
pub(crate) fn own_key(state_dir: &Path, call: &Call) -> Result<PathBuf> {
    let key = state_dir.join("key");
    if with_pub(&key).is_file() && key.is_file() {
        return Ok(key);
    }
    let draft = state_dir.join(format!("key-{}", std::process::id()));
    let _ = (std::fs::remove_file(&draft), std::fs::remove_file(with_pub(&draft)));
    let program =
        Program::new(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "atex-host", "-f"]).arg(&draft);
    program.check(call).map_err(|error| error.context("making a key"))?;
    // Of several the first wins; the public half comes last, so a pair that is there is whole.
    let _ = std::fs::hard_link(&draft, &key);
    let public = Program::new(["ssh-keygen", "-y", "-f"]).arg(&key).check(call)?;
    std::fs::write(with_pub(&draft), format!("{public}\n"))?;
    std::fs::rename(with_pub(&draft), with_pub(&key))?;
    std::fs::remove_file(&draft)?;
    Ok(key)
}

/// A guest, and how to get there.
pub(crate) struct Login<'a> {
    pub(crate) ssh: &'a str,
    pub(crate) key: &'a Path,
    pub(crate) guest: &'a Guest,
}

impl Login<'_> {
    /// Tries once; `Some` tells why the guest does not let us in yet. Its test has to put the key there first.
    pub(crate) fn refused(&self, call: &Call) -> Result<Option<String>> {
        match self.command("true").limit(ATTEMPT_LIMIT).grace(Duration::ZERO).run(call) {
            Ok(output) if output.status.success() => Ok(None),
            Ok(output) => Ok(Some(last_lines(&output.stderr, 1))),
            Err(error) if matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Config) => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }

    /// Runs the user's command there.
    pub(crate) fn clean_up(&self, command: &str, call: &Call) -> Result<()> {
        call.host().progress("cleaning up the guest");
        let done = self.command(command).limit(CLEAN_UP_LIMIT).check(call);
        done.map(drop).map_err(|error| error.context(format!("`clean-up` on {}", self.guest.host)))
    }

    fn command(&self, command: &str) -> Program {
        Program::new([self.ssh, "-T", "-oBatchMode=yes", "-oConnectTimeout=10", "-oLogLevel=ERROR"])
            // Addresses are used again for other guests, with other keys.
            .args([
                "-oStrictHostKeyChecking=no",
                "-oUserKnownHostsFile=/dev/null",
                "-oIdentitiesOnly=yes",
                "-i",
            ])
            .arg(self.key)
            .args(["-l", &self.guest.user, "--", &self.guest.host, command])
    }
}
