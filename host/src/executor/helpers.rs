//! Programs for tests, placed in `bin` of the work directory, which is first in `PATH`; never in `/usr`.

use std::fmt::Write as _;

use crate::transport::quote;

const SCRIPT: &str = include_str!("helpers.sh");

/// Names under which tests know them.
const NAMES: &[&str] = &[
    "tmt-report-result",
    "rhts-report-result",
    "rstrnt-report-result",
    "tmt-file-submit",
    "rhts-submit-log",
    "rstrnt-report-log",
    "tmt-reboot",
    "rhts-reboot",
    "rstrnt-reboot",
    "tmt-abort",
    "rhts-abort",
    "rstrnt-abort",
];

/// Shell code for the driver that writes them below `directory`. One process in all: chmod.
pub(super) fn install(directory: &str) -> String {
    let bin = quote(&format!("{directory}/bin"));
    let mut code =
        format!("cd {bin} || exit 1\nprintf %s {} >.helpers || exit 1\nfor name in", quote(SCRIPT));
    for name in NAMES {
        let _ = write!(code, " {name}");
    }
    code.push_str(
        "; do printf '#!%s\\n. \"${BASH_SOURCE%%/*}/.helpers\"\\n' \"$BASH\" >\"$name\"; done\nchmod 755 *-* || exit 1\n",
    );
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_valid_and_every_name_is_known() {
        let check = std::process::Command::new("bash").args(["-n", "-c", SCRIPT]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        for name in NAMES {
            let known = SCRIPT
                .lines()
                .filter(|line| line.contains(") "))
                .any(|line| line.split(')').next().unwrap_or("").split('|').any(|word| word.trim() == *name));
            assert!(known, "{name}");
        }
    }
}
