//! The image: pulled or built once, and then known by its id.

use atex_plugin_api::{Error, ErrorKind, Result};
use atex_plugin_process::{Call, Program};

use crate::Podman;
use crate::config::{Pull, Source};

impl Podman {
    /// Id of the image. The first call pulls or builds it while the others wait; if it is cancelled, the next one does.
    pub(crate) fn image(&self, call: &Call) -> Result<String> {
        let mut known = self.image.enter(call)?;
        if let Some(id) = known.as_ref() {
            return Ok(id.clone());
        }
        let id = match self.config.source()? {
            Source::Image(name) => self.pulled(name, call)?,
            Source::Build(..) => {
                call.host().progress("building the image");
                self.build()?.check(call).map_err(|error| error.context("building the image"))?
            }
        };
        // A build tells more than the id if it is not quiet enough.
        let id = id.lines().last().unwrap_or_default().trim().to_owned();
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b':') {
            return Err(Error::new(ErrorKind::Other, format!("podman told {id:?} for the id of the image")));
        }
        *known = Some(id.clone());
        Ok(id)
    }

    fn pulled(&self, name: &str, call: &Call) -> Result<String> {
        let local = self.podman(["image", "inspect", "--format={{.Id}}", name]);
        let there = local.run(call)?;
        let pull = || {
            call.host().progress(format!("pulling {name}"));
            let pulled = self.podman(["pull", "--quiet", name]).check(call);
            pulled.map_err(|error| error.context(format!("pulling {name}")))
        };
        match (self.config.pull, there.status.success()) {
            (Pull::Missing | Pull::Never, true) => return Ok(there.text()),
            (Pull::Never, false) => {
                let message =
                    format!("there is no image {name:?} on this box and pull=never; try pull=missing");
                return Err(Error::config(message).with_detail(there.stderr));
            }
            (Pull::Always, _) | (Pull::Missing | Pull::Newer, false) => {
                pull()?;
            }
            (Pull::Newer, true) => match pull() {
                Err(error) if error.kind() != ErrorKind::Cancelled => {
                    call.host().warn(format!("using the image that is here: {error}"));
                }
                pulled => drop(pulled?),
            },
        }
        local.check(call)
    }

    fn build(&self) -> Result<Program> {
        let Source::Build(file, context) = self.config.source()? else {
            return Err(Error::config("no `containerfile` is given"));
        };
        let mut program = self
            .podman(["build", "--quiet"])
            .arg(format!("--pull={}", self.config.pull.word()))
            .arg(format!("--tag={}", tag(&self.pool)))
            .arg("--file")
            .arg(file);
        for (key, value) in &self.config.build_args {
            program = program.arg(format!("--build-arg={key}={value}"));
        }
        Ok(program.arg("--").arg(context))
    }
}

/// A name, so that a build replaces the one before instead of leaving it behind without one.
fn tag(pool: &str) -> String {
    let fits = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = pool.chars().map(fits).collect();
    let name = name.trim_matches('-');
    format!("localhost/atex-host/{}", if name.is_empty() { "podman" } else { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pool_has_a_name_that_podman_takes() {
        let table = [("podman", "podman"), ("Lab 2/x", "lab-2-x"), ("", "podman"), ("ä", "podman")];
        for (pool, expected) in table {
            assert_eq!(tag(pool), format!("localhost/atex-host/{expected}"));
        }
    }
}
