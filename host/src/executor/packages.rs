//! Installing packages with the machine's own package manager: dnf, yum, apt, apk, zypper, rpm-ostree.
//!
//! One script does it all on the machine, so that it costs one round trip; what is there already is not asked for. The
//! names stand in the script as quoted words and are never evaluated.

use std::fmt::Write as _;

use super::spec::Packages;
use crate::transport::quote;

const SCRIPT: &str = include_str!("packages.sh");

/// A script that installs them; exit status 0 if everything required is there.
pub(crate) fn script(packages: &Packages) -> String {
    let mut script = SCRIPT.to_owned();
    let lists = [
        ("required", &packages.required),
        ("recommended", &packages.recommended),
        ("exclude", &packages.exclude),
        ("copr", &packages.copr),
        ("files", &packages.files),
    ];
    for (name, words) in lists {
        let _ = write!(script, "{name}=(");
        for word in words {
            let _ = write!(script, " {}", quote(word));
        }
        script.push_str(" )\n");
    }
    let flag = |yes: bool| if yes { "1" } else { "" };
    let _ = write!(script, "epel={} skip={}\nmain\n", flag(packages.epel), flag(packages.skip_missing));
    script
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    /// Runs the script where only a pretended package manager is; gives what was called, and the exit status.
    fn run(manager: &[(&str, &str)], packages: &Packages) -> (String, i32) {
        run_on(std::path::Path::new("/dev/null"), manager, packages)
    }

    fn run_on(system: &std::path::Path, manager: &[(&str, &str)], packages: &Packages) -> (String, i32) {
        let bin = tempfile::tempdir().unwrap();
        let calls = bin.path().join("calls");
        for (name, body) in manager {
            let path = bin.path().join(name);
            let text = format!("#!/bin/bash\necho \"{name} $*\" >>'{}'\n{body}\n", calls.display());
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let output = Command::new("/bin/bash")
            .args(["-e", "-o", "pipefail", "-c", &script(packages)])
            .env("PATH", bin.path())
            .env("PACKAGE_OS_RELEASE", system)
            .env("PACKAGE_LOCKS", bin.path())
            .output()
            .unwrap();
        (fs::read_to_string(calls).unwrap_or_default(), output.status.code().unwrap())
    }

    fn wanted(required: &[&str]) -> Packages {
        Packages { required: required.iter().map(|&name| name.to_owned()).collect(), ..Packages::default() }
    }

    #[test]
    fn only_the_missing_ones_are_installed() {
        let rpm = ("rpm", "[[ ${!#} == there ]]");
        let (calls, status) = run(&[rpm, ("dnf", "exit 0")], &wanted(&["there", "new", "it's; rm"]));
        assert_eq!(status, 0);
        let installs: Vec<_> = calls.lines().filter(|line| line.starts_with("dnf")).collect();
        assert_eq!(installs, ["dnf -y install -- new it's; rm"]);
        let (calls, status) = run(&[rpm, ("dnf", "exit 0")], &wanted(&["there"]));
        assert!(status == 0 && !calls.contains("dnf"), "{calls}");
    }

    #[test]
    fn machines_that_are_one_box_take_turns() {
        let flock =
            ["/usr/bin/flock", "/bin/flock"].into_iter().find(|path| std::path::Path::new(path).exists());
        for flock in [None, flock] {
            let bin = tempfile::tempdir().unwrap();
            let write = |name: &str, body: &str| {
                let path = bin.path().join(name);
                fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            };
            write("rpm", "exit 1");
            // Fails if another one is at work.
            let busy = bin.path().join("busy").display().to_string();
            write("dnf", &format!("set -C; : >'{busy}' || exit 1; read -rt 0.3 <> <(:); /bin/rm '{busy}'"));
            if let Some(flock) = flock {
                std::os::unix::fs::symlink(flock, bin.path().join("flock")).unwrap();
            }
            let start = || {
                let mut command = Command::new("/bin/bash");
                command.args(["-e", "-o", "pipefail", "-c", &script(&wanted(&["new"]))]);
                command.env("PATH", bin.path()).env("PACKAGE_LOCKS", bin.path()).spawn().unwrap()
            };
            for mut child in [start(), start(), start()] {
                assert!(child.wait().unwrap().success(), "{flock:?}");
            }
        }
    }

    #[test]
    fn each_manager_in_its_own_words() {
        type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
        let table: &[Row<'_>] = &[
            ("dnf", &[("rpm", "exit 1"), ("dnf", "")], "dnf -y install --exclude=x -- a"),
            ("yum", &[("rpm", "exit 1"), ("yum", "")], "yum -y install --exclude=x -- a"),
            ("zypper", &[("rpm", "exit 1"), ("zypper", "")], "zypper --non-interactive install -- a"),
            (
                "apt",
                &[("dpkg-query", "exit 1"), ("apt-get", "")],
                "apt-get -y --no-install-recommends install -- a x-",
            ),
            ("apk", &[("apk", "[[ $1 == add ]]")], "apk add -- a"),
            (
                "rpm-ostree",
                &[("rpm", "exit 1"), ("rpm-ostree", "")],
                "rpm-ostree install --idempotent --allow-inactive --apply-live -- a",
            ),
        ];
        for (name, manager, expected) in table {
            let mut packages = wanted(&["a"]);
            if !["zypper", "apk", "rpm-ostree"].contains(name) {
                packages.exclude = vec!["x".into()];
            }
            let (calls, status) = run(manager, &packages);
            assert!(status == 0 && calls.lines().any(|line| line == *expected), "{name}: {status}\n{calls}");
        }
    }

    #[test]
    fn the_systems_own_manager_is_taken() {
        let all = [
            ("rpm", "exit 1"),
            ("dpkg-query", "exit 1"),
            ("apk", "[[ $1 == add ]]"),
            ("dnf", ""),
            ("zypper", ""),
            ("apt-get", ""),
        ];
        let systems = [
            ("ID=debian", "apt-get"),
            ("ID=mint\nID_LIKE=\"ubuntu debian\"", "apt-get"),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", "zypper"),
            ("ID=alpine", "apk"),
            ("ID=fedora", "dnf"),
            ("", "dnf"),
        ];
        for (system, expected) in systems {
            let release = tempfile::NamedTempFile::new().unwrap();
            fs::write(release.path(), system).unwrap();
            let (calls, status) = run_on(release.path(), &all, &wanted(&["a"]));
            let install = calls.lines().find(|line| line.ends_with("-- a"));
            assert!(
                status == 0 && install.is_some_and(|line| line.starts_with(expected)),
                "{system}: {calls}"
            );
        }
    }

    #[test]
    fn required_fails_and_recommended_does_not() {
        let failing = [("rpm", "exit 1"), ("dnf", "[[ $* != *nope* ]]")];
        assert_ne!(run(&failing, &wanted(&["nope"])).1, 0);
        let mut packages = wanted(&["good"]);
        packages.recommended = vec!["nope".into(), "other".into()];
        let (calls, status) = run(&failing, &packages);
        assert_eq!(status, 0, "{calls}");
        assert!(calls.contains("-- other"), "one bad one does not keep the others out: {calls}");
        assert_ne!(run(&[], &wanted(&["a"])).1, 0, "no package manager at all");
    }

    #[test]
    fn nothing_is_needed_to_find_beakerlib_there() {
        let place = tempfile::tempdir().unwrap();
        let put = format!("BEAKERLIB='{}'\n", place.path().display());
        let status = |packages: &Packages| {
            let mut bash = Command::new("/bin/bash");
            bash.args(["-e", "-o", "pipefail", "-c", &format!("{put}{}", script(packages))]);
            let output = bash.env("PATH", place.path()).env("PACKAGE_LOCKS", place.path()).output().unwrap();
            (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
        };
        let (exit, said) = status(&wanted(&["beakerlib"]));
        assert!(
            exit == 1 && said.contains("no package manager") && said.contains("beakerlib"),
            "{exit} {said}"
        );
        fs::write(place.path().join("beakerlib.sh"), "").unwrap();
        assert_eq!(status(&wanted(&["beakerlib"])), (0, String::new()));
        assert_eq!(status(&wanted(&["beakerlib", "other"])).0, 1);
    }

    #[test]
    fn missing_ones_may_be_skipped() {
        let failing = [("rpm", "exit 1"), ("dnf", "[[ $* != *nope* ]]")];
        let mut packages = wanted(&["nope", "good"]);
        packages.skip_missing = true;
        let (calls, status) = run(&failing, &packages);
        assert!(status == 0 && calls.contains("-- good"), "{status}\n{calls}");
    }
}
