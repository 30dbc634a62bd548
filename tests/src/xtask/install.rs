//! `cargo xtask install`: program, plugins, manual pages, completions and the crate for plugin authors.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::packages;
use crate::build::{self, Profile, cargo, plugin_crates, root, target_dir};

pub(super) fn install(prefix: &Path) -> Result<()> {
    packages::ensure(false)?;
    let built = build::build(Profile::Release)?;
    let bin = prefix.join("bin");
    put(&built.host(), &bin.join("atex-host"))?;
    for name in plugin_crates()? {
        let library = built.plugin(&name);
        let file = library.file_name().context("a plugin without a file name")?;
        put(&library, &prefix.join("lib/atex-host/plugins").join(file))?;
    }
    put(&package_plugin_api()?, &prefix.join("share/atex-host/atex-plugin-api.crate"))?;
    put(&root().join("COPYING.txt"), &prefix.join("share/doc/atex-host/COPYING.txt"))?;
    put(&root().join("README.md"), &prefix.join("share/doc/atex-host/README.md"))?;
    let host = bin.join("atex-host");
    write_output(&host, &["man"], &prefix.join("share/man/man1/atex-host.1"))?;
    for (shell, file) in [
        ("bash", "share/bash-completion/completions/atex-host"),
        ("zsh", "share/zsh/site-functions/_atex-host"),
        ("fish", "share/fish/vendor_completions.d/atex-host.fish"),
    ] {
        write_output(&host, &["completions", shell], &prefix.join(file))?;
    }
    eprintln!("installed {}", host.display());
    Ok(())
}

/// Makes the crate that plugin authors build against, and checks that it builds by itself.
pub(super) fn package_plugin_api() -> Result<PathBuf> {
    let mut command = Command::new(cargo());
    command.args(["package", "-p", "atex-plugin-api", "--allow-dirty", "--quiet"]).current_dir(root());
    build::run(&mut command)?;
    let package = target_dir()?.join("package");
    let version = env!("CARGO_PKG_VERSION");
    let file = package.join(format!("atex-plugin-api-{version}.crate"));
    ensure!(file.is_file(), "cargo package left no {}", file.display());
    Ok(file)
}

/// Copies a file into place by rename, so that a running program is never written to.
fn put(from: &Path, to: &Path) -> Result<()> {
    let parent = to.parent().context("a target without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let partial = to.with_extension("partial");
    fs::copy(from, &partial)
        .and_then(|_| fs::rename(&partial, to))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn write_output(program: &Path, args: &[&str], to: &Path) -> Result<()> {
    let parent = to.parent().context("a target without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let file = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
    build::run(Command::new(program).args(args).stdout(file))
}
