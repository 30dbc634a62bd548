//! The environment of a test, from lowest to highest priority:
//!
//! 1. [`TestEnvironment::below`](super::spec::TestEnvironment::below),
//! 2. what scripts wrote into `TMT_PLAN_ENVIRONMENT_FILE` (sourced on the machine),
//! 3. the host's fixed variables,
//! 4. [`TestEnvironment::above`](super::spec::TestEnvironment::above).
//!
//! All of it travels on the driver's stdin, never in an argument list.

use std::fmt::Write as _;

use super::control;
use super::session::Place;
use super::spec::{Dialect, Framework, ResultRule, RunOrder, Site, TestSpec, Variables};
use crate::transport::quote;

/// The descriptor on which a test finds its control channel.
const CONTROL_FD: &str = "7";

/// How often a test was started again, and why.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) reboots: u32,
    pub(crate) restarts: u32,
}

/// Shell code that runs a test as command `id` of its slot's driver.
pub(crate) fn test_code(
    place: &Place,
    site: &Site,
    order: &RunOrder,
    counts: Counts,
    id: u64,
    data: u32,
) -> String {
    let test = &order.test;
    let flags = if test.tty { "ct" } else { "c" };
    let number = if site.dialect == Dialect::Tmt { data } else { 0 };
    let tree = place.tree(order.slot);
    let cwd = if test.cwd.is_empty() { tree } else { format!("{tree}/{}", test.cwd) };
    let mut above = fixed(place, site, order, counts, id, data);
    above.extend(test.environment.above.iter().cloned());
    code(
        &Command { id, flags, cwd: &cwd, metadata: &test.metadata, data: number, script: &test.script },
        &test.environment.below,
        &above,
    )
}

/// Shell code that runs a script of a check; `$state` is where it can leave something for the next one.
pub(crate) fn check_code(place: &Place, slot: u16, script: &str, id: u64) -> String {
    let state = vec![("state".to_owned(), format!("{}/run", place.slot(slot)))];
    code(&Command { id, flags: "", cwd: &place.tree(slot), metadata: "", data: 0, script }, &vec![], &state)
}

/// Shell code that runs a script of a phase in the root of the tree.
pub(crate) fn script_code(place: &Place, site: &Site, script: &str, id: u64) -> String {
    let mut above = common(place, 0);
    if site.dialect == Dialect::Tmt {
        above.push(("TMT_PLAN_DATA".into(), format!("{}/plan/data", place.directory)));
        above.push(("TMT_VERSION".into(), env!("CARGO_PKG_VERSION").into()));
    }
    code(
        &Command { id, flags: "", cwd: &place.tree(0), metadata: "", data: 0, script },
        &site.environment,
        &above,
    )
}

struct Command<'a> {
    id: u64,
    flags: &'a str,
    cwd: &'a str,
    metadata: &'a str,
    data: u32,
    script: &'a str,
}

fn code(command: &Command<'_>, below: &Variables, above: &Variables) -> String {
    let below: Vec<_> = below.iter().filter(|(name, value)| is_good(name, value)).collect();
    let above: Vec<_> = above.iter().filter(|(name, value)| is_good(name, value)).collect();
    // The shell drops NUL bytes anyway.
    let word = |text: &str| quote(&text.replace('\0', ""));
    let Command { id, flags, cwd, metadata, data, script } = command;
    let mut code = format!(
        "run {id} '{flags}' {} {} {data} {} {}",
        word(cwd),
        word(metadata),
        word(script),
        below.len()
    );
    for (name, value) in below.into_iter().chain(above) {
        let _ = write!(code, " {}", quote(&format!("{name}={value}")));
    }
    code
}

/// A name that `export` takes, and a value that an environment can hold.
fn is_good(name: &str, value: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !value.contains('\0')
}

/// Directory of one run on the machine; `data` in it is collected.
pub(crate) fn invocation(place: &Place, slot: u16, number: u32) -> String {
    format!("{}/data/{number}", place.slot(slot))
}

fn common(place: &Place, slot: u16) -> Variables {
    vec![
        ("TMT_TREE".into(), place.tree(slot)),
        ("TMT_PLAN_ENVIRONMENT_FILE".into(), format!("{}/plan/variables.env", place.directory)),
    ]
}

fn fixed(place: &Place, site: &Site, order: &RunOrder, counts: Counts, id: u64, data: u32) -> Variables {
    let test = &*order.test;
    let own = place.slot(order.slot);
    let mut all = common(place, order.slot);
    let mut add = |name: &str, value: String| all.push((name.to_owned(), value));
    add("ATEX_TEST_CONTROL", CONTROL_FD.into());
    add("ATEX_TEST_CONTROL_WORDS", control::WORDS.join(" "));
    add("TMT_TEST_NAME", test.name.clone());
    add("TMT_TEST_METADATA", format!("{own}/run/metadata-{id}.yaml"));
    add("TMT_REBOOT_COUNT", counts.reboots.to_string());
    add("TMT_TEST_RESTART_COUNT", counts.restarts.to_string());
    if !site.may_reboot {
        add("ATEX_MAY_REBOOT", "0".into());
    }
    if site.may_reset {
        add("ATEX_MAY_RESET", "1".into());
    }
    if site.slots > 1 {
        add("TMPDIR", format!("{own}/tmp"));
    }
    if site.dialect == Dialect::Tmt {
        let invocation = invocation(place, order.slot, data);
        add("TMT_TEST_DATA", format!("{invocation}/data"));
        add("TMT_TEST_SUBMITTED_FILES", format!("{invocation}/data/submitted-files.log"));
        add("TMT_PLAN_DATA", format!("{}/plan/data", place.directory));
        add("TMT_TEST_SERIAL_NUMBER", order.serial.to_string());
        add("TMT_SOURCE_DIR", format!("{}/plan/source", place.directory));
        add("TMT_TEST_INVOCATION_PATH", invocation);
        add("TMT_TEST_ITERATION_ID", format!("{}-{}", order.execution, counts.restarts));
        add("TMT_VERSION", env!("CARGO_PKG_VERSION").into());
    }
    // What the reporting helpers make of the test's own verdict.
    if test.framework == Framework::Beakerlib || test.result == ResultRule::Restraint {
        add("ATEX_REPORT_PARTS_ONLY", "1".into());
    }
    if test.framework == Framework::Beakerlib && site.dialect == Dialect::Atex {
        add("ATEX_REPORT_WARN_AS", "fail".into());
    }
    if test.framework == Framework::Beakerlib {
        beakerlib(test, order, &own, &place.directory, &mut add);
    }
    all
}

fn beakerlib(
    test: &TestSpec,
    order: &RunOrder,
    own: &str,
    directory: &str,
    add: &mut dyn FnMut(&str, String),
) {
    // The same over reboots: beakerlib goes on where it was.
    add("BEAKERLIB_DIR", format!("{own}/run/beakerlib-{}", order.execution));
    add("BEAKERLIB_COMMAND_REPORT_RESULT", format!("{directory}/bin/rhts-report-result"));
    add("BEAKERLIB_COMMAND_SUBMIT_LOG", format!("{directory}/bin/rhts-submit-log"));
    add("TESTID", order.execution.to_string());
    add("TEST", test.name.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_environment_can_hold_is_passed_on() {
        for (name, value, good) in [
            ("A", "", true),
            ("_a1", "x\ny", true),
            ("1A", "", false),
            ("A-B", "", false),
            ("", "", false),
            ("A", "\0", false),
        ] {
            assert_eq!(is_good(name, value), good, "{name:?}={value:?}");
        }
        let below = vec![("A".to_owned(), "1".to_owned()), ("A B".to_owned(), "2".to_owned())];
        let above = vec![("C".to_owned(), "it's".to_owned())];
        assert_eq!(
            code(
                &Command { id: 7, flags: "c", cwd: "/x", metadata: "m", data: 3, script: "true" },
                &below,
                &above
            ),
            r"run 7 'c' /x m 3 true 1 A=1 'C=it'\''s'"
        );
    }
}
