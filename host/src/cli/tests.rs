//! Whole command lines, and what they come to.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{PlanChoice, PoolChoice};

/// An empty directory as the working directory.
fn around(directory: &tempfile::TempDir) -> Surroundings {
    Surroundings {
        directory: directory.path().to_owned(),
        variables: BTreeMap::new(),
        owner: "me@box".into(),
        seed: 7,
    }
}

fn parsed(words: &[&str]) -> Result<Invocation, UsageError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("tree")).unwrap();
    parse(words, &around(&directory))
}

fn run(words: &[&str]) -> RunPlan {
    match parsed(words).unwrap().command {
        Command::Run(plan) => *plan,
        other => panic!("{other:?}"),
    }
}

fn error(words: &[&str]) -> String {
    let error = parsed(words).unwrap_err();
    assert_eq!(error.status(), ExitStatus::WrongUse);
    error.to_string()
}

fn printed(words: &[&str]) -> String {
    match parsed(words).unwrap().command {
        Command::Print(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_sound() {
    texts::command().debug_assert();
}

#[test]
fn run_may_be_left_out() {
    for words in [
        &["tree", "--provisioner", "local"][..],
        &["run", "--provisioner", "local", "tree"],
        &["-q", "--provisioner=local", "tree"],
    ] {
        let plan = run(words);
        assert!(plan.tree.ends_with("tree"), "{words:?}");
        assert_eq!(plan.platforms[0].pools, PoolChoice::Listed(vec![0]));
    }
    assert_eq!(run(&[]).platforms[0].pools, PoolChoice::Unspecified);
}

#[test]
fn options_of_a_run() {
    let plan = run(&[
        "tree",
        "--plugin",
        "./a.so",
        "--plugin",
        "b.so",
        "--provisioner",
        "ssh,hosts=[a,b],max=4",
        "--provisioner",
        "{use: local}",
        "--policy",
        "priority",
        "--reporter",
        "yaml",
        "--no-plan",
        "--test",
        "a",
        "--test",
        "b",
        "--exclude",
        "c",
        "--filter",
        "tier: 1",
        "--condition",
        "tier == 1",
        "--context",
        "distro=fedora-42",
        "--context",
        "arch=x86_64",
        "--env",
        "A=1",
        "--env",
        "B=",
        "--dialect",
        "atex",
        "--reruns",
        "2",
        "--slots",
        "3",
        "--max-machines",
        "4",
        "--max-fail",
        "5",
        "--seed",
        "6",
        "--time-limit",
        "7h",
        "--spares",
        "8",
        "--rerun-failed",
        "old",
        "--run-dir",
        "new",
        "--dry-run",
        "--allow-local",
        "--allow-empty",
        "--ignore-unsupported",
        "--trust-tree",
        "--strict",
    ]);
    assert_eq!(plan.pools.len(), 2);
    assert_eq!((plan.pools[0].max.unwrap().get(), plan.pools[0].slots.get()), (4, 3));
    assert_eq!(plan.platforms[0].name, "fedora-42@x86_64");
    assert_eq!(plan.platforms[0].plans, PlanChoice::NoPlan);
    assert_eq!(plan.selection.test, ["a", "b"]);
    assert_eq!((plan.seed, plan.spares, plan.limits.time.as_secs()), (6, 8, 7 * 3600));
    assert_eq!(plan.limits.max_fail.unwrap().get(), 5);
    assert!(
        plan.dry_run && plan.allow.local && plan.allow.empty && plan.allow.unsupported && plan.allow.strict
    );
    assert_eq!(plan.libraries.files.len(), 2);
    assert!(plan.rerun_failed.unwrap().ends_with("old"));
}

#[test]
fn other_commands() {
    let command = |words: &[&str]| parsed(words).unwrap().command;
    assert!(
        matches!(command(&["discover", "tree", "--test", "x"]), Command::Discover(plan) if plan.selection.test == ["x"])
    );
    assert!(matches!(command(&["show"]), Command::Show(_)));
    assert!(matches!(command(&["requires", "tree"]), Command::Requires(_)));
    assert!(
        matches!(command(&["simulate", "tree", "--machines", "1,2,4", "--deadline", "2h", "--synthetic", "100"]),
        Command::Simulate(it) if it.machines.len() == 3 && it.deadline.is_some() && it.synthetic.is_some())
    );
    assert!(
        matches!(command(&["resume", "dir", "--plugin", "x.so"]), Command::Resume(it) if it.run.is_absolute())
    );
    assert!(
        matches!(command(&["gc", "a", "b", "--force"]), Command::Gc(it) if it.runs.len() == 2 && it.force && it.plan.is_none())
    );
    assert!(
        matches!(command(&["report", "dir", "--reporter", "jsonl,path=x"]), Command::Report(it) if it.reporters.len() == 1)
    );
    assert!(matches!(command(&["history", "--test", "x"]), Command::History(it) if it.tests == ["x"]));
    assert!(matches!(command(&["plugins", "list"]), Command::PluginsList(_)));
    assert!(
        matches!(command(&["plugins", "check", "x.so"]), Command::PluginsCheck(file) if file.is_absolute())
    );
    assert!(
        matches!(command(&["plugins", "new", "mine", "--kind", "policy"]), Command::PluginsNew(it) if it.kind == NewPlugin::Policy)
    );
    assert!(matches!(command(&["fmf", "tree", "--name", "x", "--tests"]), Command::Fmf(args) if args.tests));
}

#[test]
fn gc_of_an_owner_reads_the_pools() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x.yaml"), "owner: nightly@lab\nprovisioners: {lab: {use: ssh}}\n")
        .unwrap();
    let gc = |words: &[&str]| match parse(words, &around(&directory)).unwrap().command {
        Command::Gc(gc) => gc.plan.unwrap(),
        other => panic!("{other:?}"),
    };
    let plan = gc(&["gc", "--owner", "other@lab", "--config", "x.yaml"]);
    assert_eq!((plan.owner.as_str(), plan.pools.len()), ("other@lab", 1));
    assert_eq!(gc(&["gc", "--config", "x.yaml"]).owner, "nightly@lab");
}

#[test]
fn output_options_go_anywhere() {
    let output = |words: &[&str]| parsed(words).unwrap().output;
    let front = output(&["--format", "json", "-vv", "--color=never", "discover"]);
    let back = output(&["discover", "--format", "json", "-v", "-v", "--color", "never"]);
    assert_eq!(front, back);
    assert_eq!((front.format, front.color, front.verbosity), (Format::Json, Color::Never, 2));
    assert_eq!(output(&["-qq", "tree"]).verbosity, -2);
    assert!(output(&["--log-file", "x.log"]).log_file.unwrap().is_absolute());
}

#[test]
fn no_color_is_asked_only_where_nothing_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let color = |no_color: &str, words: &[&str]| {
        let mut around = around(&directory);
        around.variables.insert("NO_COLOR".into(), no_color.into());
        parse(words, &around).unwrap().output.color
    };
    assert_eq!(color("1", &["discover"]), Color::Never);
    assert_eq!(color("", &["discover"]), Color::Terminals);
    assert_eq!(color("1", &["discover", "--color", "always"]), Color::Always);
    assert!(
        Color::Terminals.enabled(true) && !Color::Terminals.enabled(false) && Color::Always.enabled(false)
    );
}

#[test]
fn wrong_use_is_one_good_line() {
    let table: [(&[&str], &str); 21] = [
        (&["--spares", "-1"], "--spares <N>: -1 is not in 0..=4294967295"),
        (
            &["--seed", "99999999999999999999"],
            "--seed <N>: expected a smaller number, found \"99999999999999999999\"",
        ),
        (&["--slotz", "2"], "unexpected argument '--slotz' found; a similar argument exists: '--slots'"),
        (&["tree", "tree2"], "unexpected argument 'tree2' found"),
        (&["discovr"], "there is neither a command nor a directory \"discovr\"; did you mean `discover`?"),
        (&["--strict", "gc"], "`gc` is a command and comes first; a tree of that name is `./gc`"),
        (&["nowhere"], "cannot read the tree nowhere: No such file or directory (os error 2)"),
        (&["--slots", "0"], "--slots <N>: expected a whole number from 1, found \"0\""),
        (&["--slots", "many"], "--slots <N>: expected a whole number, found \"many\""),
        (&["--slots"], "a value is required for '--slots <N>' but none was supplied"),
        (&["--format", "xml"], "invalid value 'xml' for '--format <FORMAT>' [possible values: human, json]"),
        (&["--time-limit", "soon"], "--time-limit <T>: the duration \"soon\" needs a number where 's' is"),
        (
            &["--provisioner", "max=4"],
            "--provisioner <SPEC>: \"max=4\" stands where the plugin's name belongs; write NAME,max=4",
        ),
        (&["--env", "A"], "--env <K=V>: expected NAME=VALUE"),
        (&["--env", "A B=secret"], "--env <K=V>: \"A B\" is no name; expected NAME=VALUE"),
        (&["--plan", "x", "--no-plan"], "the argument '--plan <RE>' cannot be used with '--no-plan'"),
        (
            &["--fail-fast", "--max-fail", "2"],
            "the argument '--fail-fast' cannot be used with '--max-fail <N>'",
        ),
        (&["resume"], "the following required arguments were not provided: <RUN_DIR>"),
        (&["report", "x"], "the following required arguments were not provided: --reporter <SPEC>"),
        (&["gc", "--owner", "x"], "the following required arguments were not provided: --config <FILE>"),
        (&["plugins", "new", "A"], "\"A\" cannot be a plugin's name: those are of a-z, 0-9, - and _"),
    ];
    for (words, want) in table {
        assert_eq!(error(words), want, "{words:?}");
    }
    assert!(error(&["plugins", "chek"]).contains("a similar subcommand exists: 'check'"));
    assert!(!error(&["plugins"]).contains('\n'));
}

#[test]
fn help_and_version_are_texts() {
    let help = printed(&["--help"]);
    for word in ["discover", "--provisioner <SPEC>", "--reruns", "Usage: atex-host [run] [TREE]"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert!(printed(&["gc", "--help"]).contains("--owner"));
    assert_eq!(printed(&["--version"]), format!("atex-host {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn generated_texts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("discover") && script.contains("rerun-failed"), "{shell}");
    }
    let page = printed(&["man"]);
    for word in ["EXIT STATUS", "a machine may still be held", "ATEX_PLUGIN_PATH", "provisioner"] {
        assert!(page.contains(word), "{word}");
    }
    assert!(printed(&["man", "gc"]).contains("owner"));
    assert_eq!(error(&["man", "discovr"]), "there is no command \"discovr\"; did you mean `discover`?");
    let schema: serde_json::Value = serde_json::from_str(&printed(&["schema"])).unwrap();
    assert_eq!(schema["title"], "atex.yaml");
}

#[test]
fn the_manual_knows_every_command_and_option() {
    let manual = include_str!("../../../docs/cli.md");
    let command = texts::command();
    // `fmf` has its own page.
    for command in command.get_subcommands().filter(|command| command.get_name() != "fmf") {
        let name = command.get_name();
        assert!(
            manual.contains(&format!("`{name}")) || manual.contains(&format!("`completions SHELL`, `{name}")),
            "{name}"
        );
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(manual.contains(&format!("--{option}")), "{name} --{option}");
        }
    }
    for status in ExitStatus::ALL {
        assert!(manual.contains(&format!("| {} | {}", status.code(), &status.meaning()[..12])), "{status:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_command_line_panics(words in prop::collection::vec(prop::sample::select(vec![
        "run", "gc", "discover", "tree", "--format", "json", "-v", "-q", "--", "-", "", "--slots", "2", "--provisioner", "a,b=[", "ssh,hosts=[a,b]",
        "--env", "A=1", "--context", "x", "plugins", "list", "--platform", "--config", "--help", "é", "--test", "(",
    ]), 0..6)) {
        if let Err(error) = parsed(&words) {
            let line = error.to_string();
            prop_assert!(!line.is_empty() && !line.contains('\n'), "{:?}: {}", words, line);
        }
    }
}
