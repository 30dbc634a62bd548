//! System packages that building and testing need. As root on Debian they are installed, elsewhere they are named.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::build::{in_path, run};

/// How to see that something is there, and the Debian package that brings it.
struct Need {
    package: &'static str,
    present: fn() -> bool,
}

const BUILD: &[Need] = &[
    Need { package: "gcc", present: || in_path("cc") },
    Need { package: "pkg-config", present: || in_path("pkg-config") },
    Need { package: "libssl-dev", present: || library("openssl") },
    Need { package: "zlib1g-dev", present: || library("zlib") },
    Need { package: "git", present: || in_path("git") },
    Need { package: "openssh-client", present: || in_path("ssh-keygen") },
    Need { package: "openssh-server", present: || in_path("sshd") },
];

const SLOW: &[Need] = &[
    Need { package: "podman", present: || in_path("podman") },
    Need { package: "runc", present: || in_path("runc") },
    Need { package: "busybox-static", present: || in_path("busybox") },
    Need { package: "iproute2", present: || in_path("ip") },
];

fn library(name: &str) -> bool {
    Command::new("pkg-config").args(["--exists", name]).status().is_ok_and(|status| status.success())
}

/// Makes sure that what is needed is there.
pub(super) fn ensure(all: bool) -> Result<()> {
    let needs = BUILD.iter().chain(if all { SLOW } else { &[] });
    let missing: Vec<_> = needs.filter(|need| !(need.present)()).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !in_path("apt-get") || !is_root() {
        bail!("missing system packages; their Debian names: {list} (as root: apt-get install {list})");
    }
    eprintln!("installing {list}");
    let apt = |args: &[&str]| {
        run(Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(std::process::Stdio::null()))
    };
    apt(&["-qq", "update"]).context("cannot refresh the package lists")?;
    let mut install = vec!["-qq", "-y", "--no-install-recommends", "install"];
    install.extend(&missing);
    apt(&install).with_context(|| format!("cannot install {list}"))
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
