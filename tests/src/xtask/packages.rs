//! System packages that building and testing need. As root on Debian they are installed, elsewhere they are named.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

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
    Need { package: "dropbear-bin", present: || in_path("dropbear") },
    Need { package: "iproute2", present: || in_path("ip") },
];

/// For virtual machines.
const MACHINES: &[Need] = &[
    Need { package: "libvirt-daemon", present: || in_path("libvirtd") },
    Need {
        package: "libvirt-daemon-driver-qemu",
        present: || Path::new(QEMU_DRIVER).exists() || !in_path("dpkg"),
    },
    Need { package: "libvirt-clients", present: || in_path("virsh") },
    Need { package: "qemu-system-x86", present: || in_path("qemu-system-x86_64") },
    // In the same command, or it is removed.
    Need { package: "qemu-utils", present: || in_path("qemu-img") },
    Need { package: "busybox-static", present: || in_path("busybox") },
];
const QEMU_DRIVER: &str = "/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so";
/// What the smallest kernel of the distribution is called.
const KERNEL: &str = "linux-image-cloud-amd64";

fn library(name: &str) -> bool {
    Command::new("pkg-config").args(["--exists", name]).status().is_ok_and(|status| status.success())
}

/// Makes sure that what is needed is there.
pub(super) fn ensure(all: bool) -> Result<()> {
    install(BUILD.iter().chain(if all { SLOW } else { &[] }))
}

/// What it takes to run virtual machines; says where a kernel for them was unpacked: below `scratch`, unless
/// `ATEX_TEST_KERNEL` names one.
pub(super) fn machines(scratch: &Path) -> Result<PathBuf> {
    install(MACHINES.iter())?;
    if let Some(kernel) = env::var_os("ATEX_TEST_KERNEL").filter(|kernel| !kernel.is_empty()) {
        return Ok(kernel.into());
    }
    let directory = scratch.join("test-kernel");
    if !directory.join("boot").is_dir() {
        fetch_kernel(&directory)
            .context("cannot fetch a kernel; ATEX_TEST_KERNEL may name an unpacked one")?;
    }
    Ok(directory)
}

/// Unpacked, not installed: nothing of this box is to boot it.
fn fetch_kernel(directory: &Path) -> Result<()> {
    let depends = Command::new("apt-cache").args(["depends", KERNEL]).output().context("apt-cache")?;
    let depends = String::from_utf8_lossy(&depends.stdout).into_owned();
    let mut names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let package = names.find(|name| name.starts_with("linux-image-")).context("no kernel package")?;
    eprintln!("fetching {package}");
    let fresh = tempfile::tempdir().context("cannot make a directory")?;
    run(Command::new("apt-get").args(["-qq", "download", package]).current_dir(fresh.path()))?;
    let file = fs::read_dir(fresh.path())?.next().context("nothing was downloaded")??.path();
    let unpacked = fresh.path().join("unpacked");
    run(Command::new("dpkg").arg("-x").args([&file, &unpacked]))?;
    fs::create_dir_all(directory)?;
    // The boot directory comes last: it says that all is there.
    for part in ["lib", "boot"] {
        run(Command::new("mv").arg(unpacked.join(part)).arg(directory))?;
    }
    Ok(())
}

fn install<'a>(needs: impl Iterator<Item = &'a Need>) -> Result<()> {
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
