//! `cargo xtask test`: one command that says whether a change is good.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{demo, headline, install, packages, selftest};
use crate::build::{self, Profile, cargo, in_path, root, target_dir};

/// `machines`: with those tests that start virtual machines without the help of the processor, which takes some minutes.
pub(super) fn test(all: bool, machines: bool) -> Result<()> {
    headline("system packages");
    packages::ensure(all)?;
    let kernel = if machines { packages::machines(&target_dir()?)? } else { PathBuf::new() };
    let kernel = kernel.to_string_lossy();

    headline("formatting");
    step(&["fmt", "--all", "--check"], &[])?;
    headline("lints");
    step(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"], &[])?;
    headline("documentation");
    let strict = [("RUSTDOCFLAGS", "-D warnings")];
    step(&["doc", "--no-deps", "--quiet", "-p", "atex-plugin-api", "--all-features"], &strict)?;
    // Of the rest, the authors are the readers: private items are linked to.
    let internal = ["--workspace", "--exclude", "atex-plugin-api", "--document-private-items"];
    let strict = [("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links")];
    step(&[&["doc", "--no-deps", "--quiet"][..], &internal].concat(), &strict)?;
    headline("build");
    let built = build::build(Profile::Dev)?;
    let built = built.directory.to_string_lossy();
    headline("tests");
    let tier = if all { "1" } else { "" };
    let mut env = vec![("ATEX_TEST_ALL", tier), (build::BUILT, &*built)];
    if machines {
        env.push(("ATEX_TEST_KERNEL", &*kernel));
    }
    if in_path("cargo-nextest") {
        let shown = ["--status-level=slow", "--final-status-level=flaky"];
        step(&[&["nextest", "run", "--workspace", "--no-fail-fast"][..], &shown].concat(), &env)?;
    } else {
        step(&["test", "--workspace", "--quiet", "--no-fail-fast", "--lib", "--bins", "--tests"], &env)?;
    }
    headline("examples in the documentation");
    step(&["test", "--workspace", "--quiet", "--doc"], &[])?;
    headline("demo");
    demo::demo(None)?;
    if all {
        headline("the project's own FMF tree");
        selftest::selftest()?;
        headline("plugins of other versions");
        let versions = ["test", "-q", "-p", "atex-host", "--test", "plugin_loading", "--", "--ignored"];
        step(&versions, &[])?;
        headline("packaging");
        install::package_plugin_api()?;
    }
    headline("all good");
    Ok(())
}

fn step(args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    build::run(Command::new(cargo()).args(args).envs(env.iter().copied()).current_dir(root()))
}
