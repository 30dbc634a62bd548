//! tmt's `check`: what is looked at around a test, besides the test.
//!
//! A check has a mark that is set before the test, and a question that is asked afterwards; both are shell code. The answer
//! is a result of its own, `check/HOW`, with what was found as its file. By its rule it may decide about the test as well.
//! There are `dmesg`, `avc`, `coredump` and `journal`; others are refused when tests are discovered.

use std::fmt::Write as _;

use super::spec::{Check, CheckRule};
use crate::transport::quote;

/// Exit statuses of a question.
const PASS: i32 = 0;
const FAIL: i32 = 1;
const SKIP: i32 = 3;

/// What makes a kernel log or journal suspicious, unless the check has patterns of its own.
const PATTERNS: [&str; 2] = ["Call Trace:", "[[:space:]]segfault[[:space:]]"];

/// Says what is asked for and not there.
pub(crate) fn unsupported(checks: &[Check]) -> Option<String> {
    let bad = checks.iter().find(|check| question(check).is_none())?;
    Some(format!("`check: {}` is not supported (supported: dmesg, avc, coredump, journal)", bad.how))
}

/// Sets all marks, in the directory `$state`.
pub(crate) fn before(checks: &[Check]) -> String {
    let mut script = String::from("printf '%(%s)T' -1 >\"$state/since\"\n");
    // As ausearch(8) reads dates in this locale: with two digits for the year, and nothing else.
    script.push_str("LC_ALL=C date '+%m/%d/%y %H:%M:%S' >\"$state/since-date\"\n");
    if checks.iter().any(|check| check.how == "dmesg") {
        script.push_str("dmesg 2>/dev/null | tail -n 1 >\"$state/dmesg-mark\" || true\n");
    }
    script
}

/// Asks; prints what was found.
pub(crate) fn after(check: &Check) -> String {
    question(check).unwrap_or_default()
}

fn question(check: &Check) -> Option<String> {
    let script = match check.how.as_str() {
        // From the mark on; all of it if the mark is not there any more, after a reboot for example.
        "dmesg" => format!(
            "command -v dmesg >/dev/null || {{ echo 'no dmesg(1) on this machine'; exit 2; }}\n\
             all=$(dmesg 2>&1) || {{ echo \"$all\"; exit 2; }}\n\
             mark=$(<\"$state/dmesg-mark\")\n\
             [[ $mark && $all == *\"$mark\"* ]] && all=${{all##*\"$mark\"}}\n\
             printf '%s\\n' \"$all\"\n{}",
            search(check)
        ),
        "journal" => format!(
            "command -v journalctl >/dev/null || {{ echo 'no journalctl(1) on this machine'; exit 2; }}\n\
             all=$(journalctl --no-pager -q --since \"@$(<\"$state/since\")\" 2>&1) || {{ echo \"$all\"; exit 2; }}\n\
             printf '%s\\n' \"$all\"\n{}",
            search(check)
        ),
        "avc" => "[[ -e ${CHECK_SELINUX:-/sys/fs/selinux}/enforce ]] || { echo 'SELinux is not enabled'; exit 3; }\n\
             command -v ausearch >/dev/null || { echo 'no ausearch(8) on this machine'; exit 2; }\n\
             read -r day time <\"$state/since-date\"\n\
             all=$(LC_ALL=C ausearch -i --input-logs -m AVC,USER_AVC,SELINUX_ERR -ts \"$day\" \"$time\" 2>&1)\n\
             got=$?\n\
             printf '%s\\n' \"$all\"\n\
             [[ $all == *'<no matches>'* ]] && exit 0\n\
             (( got == 0 )) && exit 1\n\
             exit 2\n"
            .to_owned(),
        "coredump" => "command -v coredumpctl >/dev/null || { echo 'no coredumpctl(1) on this machine'; exit 2; }\n\
             all=$(coredumpctl list --no-pager --no-legend --since \"@$(<\"$state/since\")\" 2>&1)\n\
             got=$?\n\
             [[ $all == *'No coredumps found'* ]] && exit 0\n\
             printf '%s\\n' \"$all\"\n\
             (( got )) && exit 2\n\
             [[ ! $all ]]\n"
            .to_owned(),
        _ => return None,
    };
    Some(format!("set +e +o pipefail\n{script}"))
}

/// Code that fails if `$all` has one of the patterns.
fn search(check: &Check) -> String {
    let mut script = String::from("! grep -qE");
    let patterns: Vec<&str> = match check.failure_patterns.as_slice() {
        [] => PATTERNS.to_vec(),
        own => own.iter().map(String::as_str).collect(),
    };
    for pattern in patterns {
        let _ = write!(script, " -e {}", quote(pattern));
    }
    script.push_str(" <<<\"$all\"\n");
    script
}

/// The status of a check's own result, and that of the test if the check decides about it.
pub(crate) fn judge(rule: CheckRule, exit: i32) -> (&'static str, Option<&'static str>) {
    let status = match exit {
        PASS => "pass",
        FAIL => "fail",
        SKIP => "skip",
        _ => "error",
    };
    match (rule, status) {
        (CheckRule::Info, _) => ("info", None),
        (_, "skip") => ("skip", None),
        (_, "error") => ("error", Some("error")),
        (CheckRule::Respect, "pass") | (CheckRule::Xfail, "fail") => ("pass", None),
        (CheckRule::Respect | CheckRule::Xfail, _) => ("fail", Some("fail")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    fn check(how: &str) -> Check {
        Check { how: how.into(), result: CheckRule::Respect, failure_patterns: vec![] }
    }

    /// Marks, then lets a pretended program say something else, then asks.
    fn ask(check: &Check, program: &str, first: &str, then: &str) -> (i32, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(program);
        let say = |body: &str| {
            fs::write(&path, format!("#!/bin/bash\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let run = |script: &str| {
            let all = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
            let mut command = Command::new("bash");
            command
                .args(["-e", "-o", "pipefail", "-c", script])
                .env("state", directory.path())
                .env("CHECK_SELINUX", directory.path())
                .env("PATH", all);
            command.output().unwrap()
        };
        fs::write(directory.path().join("enforce"), "1").unwrap();
        say(first);
        assert!(run(&before(std::slice::from_ref(check))).status.success());
        say(then);
        let output = run(&after(check));
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn dmesg_looks_at_what_is_new() {
        let old = "echo 'Call Trace: old'; echo '[1] last line'";
        let (exit, said) = ask(&check("dmesg"), "dmesg", old, &format!("{old}; echo harmless"));
        assert_eq!((exit, said.trim()), (PASS, "harmless"));
        assert_eq!(ask(&check("dmesg"), "dmesg", old, &format!("{old}; echo 'x segfault y'")).0, FAIL);
        assert_eq!(ask(&check("dmesg"), "dmesg", old, "echo 'Call Trace: after a reboot'").0, FAIL);
        assert_eq!(ask(&check("dmesg"), "dmesg", old, "echo not permitted >&2; exit 1").0, 2);
        let own = Check { failure_patterns: vec!["it's (bad|worse)".into()], ..check("dmesg") };
        assert_eq!(ask(&own, "dmesg", "", "echo \"now it's worse\"").0, FAIL);
        assert_eq!(ask(&own, "dmesg", "", "echo Call Trace:").0, PASS);
    }

    #[test]
    fn journal_and_coredumps() {
        assert_eq!(ask(&check("journal"), "journalctl", "", "echo fine").0, PASS);
        assert_eq!(
            ask(&check("journal"), "journalctl", "", "[[ $* == *--since\\ @1* ]] && echo Call Trace:").0,
            FAIL
        );
        let none = "echo 'No coredumps found.' >&2; exit 1";
        assert_eq!(ask(&check("coredump"), "coredumpctl", "", none).0, PASS);
        let (exit, said) = ask(&check("coredump"), "coredumpctl", "", "echo 'Mon 1 2 SIGSEGV /bin/x'");
        assert_eq!((exit, said.trim()), (FAIL, "Mon 1 2 SIGSEGV /bin/x"));
        assert_eq!(ask(&check("coredump"), "coredumpctl", "", "echo broken; exit 1").0, 2);
    }

    #[test]
    fn messages_of_selinux() {
        let dated = "[[ $* == *' -ts '[0-9][0-9]/[0-9][0-9]/[0-9][0-9]' '[0-9]* ]] || exit 1";
        let avc = check("avc");
        let none = format!("{dated}; echo '<no matches>' >&2; exit 1");
        assert_eq!(ask(&avc, "ausearch", "", &none).0, PASS);
        let (exit, said) = ask(&avc, "ausearch", "", &format!("{dated}; echo 'avc:  denied'"));
        assert_eq!((exit, said.trim()), (FAIL, "avc:  denied"));
        assert_eq!(ask(&avc, "ausearch", "", "echo 'Error opening log' >&2; exit 1").0, 2);
    }

    #[test]
    fn what_is_not_there_is_named() {
        assert_eq!(unsupported(&[check("dmesg"), check("avc")]), None);
        assert!(unsupported(&[check("dmesg"), check("watchdog")]).unwrap().contains("`check: watchdog`"));
    }

    #[test]
    fn rules() {
        let table = [
            (CheckRule::Respect, 0, ("pass", None)),
            (CheckRule::Respect, 1, ("fail", Some("fail"))),
            (CheckRule::Respect, 2, ("error", Some("error"))),
            (CheckRule::Respect, 3, ("skip", None)),
            (CheckRule::Respect, 137, ("error", Some("error"))),
            (CheckRule::Xfail, 0, ("fail", Some("fail"))),
            (CheckRule::Xfail, 1, ("pass", None)),
            (CheckRule::Info, 1, ("info", None)),
            (CheckRule::Info, 2, ("info", None)),
        ];
        for (rule, exit, expected) in table {
            assert_eq!(judge(rule, exit), expected, "{rule:?} {exit}");
        }
    }
}
