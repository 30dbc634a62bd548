//! The claim on a machine: who uses it, told on the machine itself, so that hosts on different boxes agree.
//!
//! A claim is a file on the machine, named by its lease, with the mark and the time it was made for. Whoever wants the
//! machine first writes a claim and then looks for others; who finds a live one removes its own and goes away. Of two that
//! come at the same time at least one sees the other, so two never both have the machine; at worst none gets it and both try
//! again later. Nobody ever replaces a file of somebody else, and no two leases share a name, so no order of steps of any
//! number of hosts, dead or alive, can free a machine that is held.
//!
//! A claim ends by itself when its lifetime is over. Within one boot the machine's uptime decides (tests set clocks); after
//! a reboot, its clock. The directory lies in `/var/tmp`, as a claim must outlive a reboot by a test.

use atex_plugin_api::{Error, ErrorKind, Result};
use atex_plugin_process::quote;

/// The part that runs on the machine.
const SCRIPT: &str = include_str!("claim.sh");
/// What lines that are meant for us begin with: shells may print greetings.
const PREFIX: &str = "atex-claim: ";

/// A claim to be made, looked at or given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claim<'a> {
    /// Directory on the machine.
    pub directory: &'a str,
    /// Id of the lease.
    pub lease: &'a str,
    /// Its mark; needed only to make one.
    pub mark: &'a str,
    /// Who makes it, for people.
    pub holder: &'a str,
    /// Seconds.
    pub lifetime_s: u64,
}

/// What can be done with a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Make it, unless the machine is somebody else's.
    Claim,
    /// Make it again for a new lifetime, if it is still there.
    Renew,
    /// Look whether it is there.
    State,
    /// Give it up; it need not be there.
    Release,
    /// Let nobody have the machine any more, until somebody has mended it.
    Retire,
    /// Tell the marks of all claims.
    List,
}

/// What the machine answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    /// The claim is there.
    Claimed,
    /// It is not.
    Free,
    /// Somebody else's is.
    Busy(String),
    /// Nobody may have the machine; who retired it.
    Retired(String),
    /// Marks of all claims.
    Marks(Vec<String>),
}

impl Claim<'_> {
    /// The script that does it.
    pub(crate) fn script(&self, act: Act) -> String {
        let word = match act {
            Act::Claim => "claim",
            Act::Renew => "renew",
            Act::State => "state",
            Act::Release => "release",
            Act::Retire => "retire",
            Act::List => "list",
        };
        let line = |text: &str| quote(&text.replace(['\n', '\r'], " "));
        format!(
            "D={} L={} M={} H={} T={} W={word}\n{SCRIPT}",
            line(self.directory),
            line(self.lease),
            line(self.mark),
            line(self.holder),
            self.lifetime_s.min(10_000_000_000),
        )
    }
}

/// Reads what the script printed, between whatever else was printed.
pub(crate) fn read(output: &str) -> Result<Told> {
    let mut marks = Vec::new();
    for line in output.lines().filter_map(|line| line.strip_prefix(PREFIX)) {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("claimed", _) => return Ok(Told::Claimed),
            ("free", _) => return Ok(Told::Free),
            ("busy", by) => return Ok(Told::Busy(plain(by))),
            ("retired", by) => return Ok(Told::Retired(plain(by))),
            ("mark", mark) => marks.push(mark.to_owned()),
            ("end", _) => return Ok(Told::Marks(marks)),
            ("failed", why) => return Err(Error::new(ErrorKind::Other, why.to_owned())),
            _ => {}
        }
    }
    Err(Error::new(ErrorKind::Other, "the machine's shell did not answer; is its login shell usable?")
        .with_detail(output.chars().take(2000).collect::<String>()))
}

/// Somebody's words, of a length that is good to read.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::thread;

    use super::*;

    fn act(shell: &[&str], directory: &Path, lease: &str, act: Act) -> Told {
        let mark = format!("me's@lab/run $1/{lease}");
        let directory = directory.to_str().unwrap();
        let claim = Claim { directory, lease, mark: &mark, holder: "box", lifetime_s: 60 };
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-s")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(claim.script(act).as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        read(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }

    fn shells() -> Vec<Vec<&'static str>> {
        let all = [vec!["sh"], vec!["bash"], vec!["busybox", "sh"]];
        let there = |shell: &Vec<&str>| Command::new(shell[0]).arg("--help").output().is_ok();
        all.into_iter().filter(there).collect()
    }

    #[test]
    fn a_claim_is_made_seen_and_given_up() {
        for shell in shells() {
            let root = tempfile::tempdir().unwrap();
            let directory = &root.path().join("with blank/claims");
            let act = |lease, what| act(&shell, directory, lease, what);
            assert_eq!(act("a1", Act::Renew), Told::Free);
            for _ in 0..2 {
                assert_eq!(act("a1", Act::Claim), Told::Claimed, "{shell:?}");
            }
            assert_eq!(act("a2", Act::Claim), Told::Busy("me's@lab/run $1/a1 (box)".into()));
            assert_eq!((act("a1", Act::State), act("a2", Act::State)), (Told::Claimed, Told::Free));
            assert_eq!((act("a1", Act::Renew), act("a2", Act::Renew)), (Told::Claimed, Told::Free));
            assert_eq!(act("", Act::List), Told::Marks(vec!["me's@lab/run $1/a1".into()]));
            for _ in 0..2 {
                assert_eq!(act("a1", Act::Release), Told::Free);
            }
            assert_eq!(act("", Act::List), Told::Marks(vec![]));
            assert!(!directory.exists(), "nothing is left");
        }
    }

    #[test]
    fn a_retired_machine_is_nobodys_until_somebody_mends_it() {
        for shell in shells() {
            let root = tempfile::tempdir().unwrap();
            let directory = &root.path().join("claims");
            let act = |lease, what| act(&shell, directory, lease, what);
            assert_eq!(act("a1", Act::Claim), Told::Claimed);
            assert_eq!(act("a1", Act::Retire), Told::Retired("me's@lab/run $1/a1 (box)".into()));
            assert_eq!(act("a1", Act::Release), Told::Free);
            for lease in ["a1", "a2"] {
                assert!(matches!(act(lease, Act::Claim), Told::Retired(_)), "{shell:?}");
            }
            assert_eq!(act("", Act::List), Told::Marks(vec![]), "it is no claim");
            std::fs::remove_file(directory.join("retired")).unwrap();
            assert_eq!(act("a2", Act::Claim), Told::Claimed);
        }
    }

    /// Runs `lines` as somebody else's claim, and says whether it counts.
    fn counts(shell: &[&str], lines: &str) -> bool {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a0"), lines).unwrap();
        match act(shell, root.path(), "a1", Act::Claim) {
            Told::Claimed => false,
            Told::Busy(_) => true,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_live_claims_count() {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let boot = boot.trim();
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let up = uptime.split('.').next().unwrap();
        let time = atex_plugin_process::unix_now();
        let table = [
            (format!("mark=x\nboot={boot}\nup={up}\ntime=5\nlife=1000\n"), true, "a clock that was set"),
            (format!("mark=x\nboot={boot}\nup=1\ntime={time}\nlife=1\n"), false, "over by uptime"),
            (format!("mark=x\nboot=other\nup=1\ntime={time}\nlife=1000\n"), true, "before a reboot"),
            (format!("mark=x\nboot=other\nup={up}\ntime=5\nlife=1000\n"), false, "before a reboot, and over"),
            (String::new(), false, "empty"),
            ("mark=x\nboot=other\nup=$(reboot)\ntime=1\nlife=99999999999\n".to_owned(), false, "nonsense"),
            (
                format!("mark=x\nboot={boot}\nup=99999999999999999999\ntime=1\nlife=1\n"),
                false,
                "too long a number",
            ),
            (format!("mark=x\nboot={boot}\nup=08\ntime=1\nlife=1\n"), false, "octal"),
        ];
        for shell in shells() {
            for (lines, expected, what) in &table {
                assert_eq!(counts(&shell, lines), *expected, "{what} in {shell:?}");
            }
        }
    }

    #[test]
    fn two_never_have_it() {
        let root = tempfile::tempdir().unwrap();
        let (directory, winners) = (root.path().join("claims"), std::sync::atomic::AtomicU32::new(0));
        for _ in 0..4 {
            thread::scope(|scope| {
                for lease in ["a1", "a2", "a3", "a4"] {
                    let (directory, winners) = (&directory, &winners);
                    scope.spawn(move || {
                        if act(&["sh"], directory, lease, Act::Claim) == Told::Claimed {
                            let before = winners.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert_eq!(before, 0, "two at a time");
                            assert_eq!(act(&["sh"], directory, lease, Act::State), Told::Claimed);
                            winners.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            assert_eq!(act(&["sh"], directory, lease, Act::Release), Told::Free);
                        }
                    });
                }
            });
        }
        assert!(!directory.exists(), "nothing is left");
    }

    #[test]
    fn a_link_in_the_place_of_the_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("claims");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        let claim =
            Claim { directory: link.to_str().unwrap(), lease: "a1", mark: "", holder: "", lifetime_s: 1 };
        let output = Command::new("sh").args(["-c", &claim.script(Act::Claim)]).output().unwrap();
        let error = read(&String::from_utf8(output.stdout).unwrap()).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }

    #[test]
    fn greetings_are_overlooked_and_silence_is_not() {
        assert_eq!(read("Welcome!\natex-claim: busy x\x1b[2J\n").unwrap(), Told::Busy("x[2J".into()));
        assert!(read("atex-claim: mark a\n").is_err(), "a list that was cut off is none");
        assert!(read("This account is not available.\n").unwrap_err().to_string().contains("login shell"));
    }
}
