//! Several tests at once on one machine, and those that need more of it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use atex_tests::e2e::Place;

/// Three narrow tests run at once; when the first has ended, a wide one is next. Those behind it would fit beside the others.
const TREE: &str = r#"
duration: 2m
/a:
    test: until test -e "$STATE/b" -a -e "$STATE/c"; do sleep 0.01; done; touch "$STATE/over"
    extra-priority: 3
/b:
    test: touch "$STATE/b"; until test -e "$STATE/over"; do sleep 0.01; done; rm "$STATE/b"
    extra-priority: 2
/c:
    test: touch "$STATE/c"; until test -e "$STATE/over"; do sleep 0.01; done; rm "$STATE/c"
    extra-priority: 2
/wide:
    test: test ! -e "$STATE/b" -a ! -e "$STATE/c"
    extra-slots: all
    extra-priority: 1
/port/one:
    test: mkdir "$STATE/port"; rmdir "$STATE/port"
    exclusive: port
/port/two:
    test: mkdir "$STATE/port"; rmdir "$STATE/port"
    exclusive: port
/other:
    test: "true"
"#;

/// What runs on the one machine, by the journal: `+` begins and `-` ends.
fn story(place: &Place) -> Result<Vec<(char, String)>> {
    let run: serde_json::Value = serde_json::from_slice(&std::fs::read(place.run_dir().join("run.json"))?)?;
    let mut story = Vec::new();
    for record in place.journal()? {
        let sign = match record["what"].as_str() {
            Some("started") => '+',
            Some("finished") => '-',
            _ => continue,
        };
        let test = usize::try_from(record["test"].as_u64().context("a test")?)?;
        story.push((sign, run["tests"][test]["name"].as_str().unwrap_or_default().to_owned()));
    }
    Ok(story)
}

#[test]
fn a_machine_runs_empty_for_a_wide_test_and_keeps_rivals_apart() -> Result<()> {
    let place = Place::new(&[("s.fmf", TREE)])?;
    let state = place.path("shared");
    std::fs::create_dir(&state)?;
    let state_variable = format!("STATE={}", state.display());
    let args =
        ["--provisioner", "local,max=1", "--slots", "3", "--policy", "exclusive", "--policy", "priority"];
    let run_dir = place.run_dir().to_string_lossy().into_owned();
    let rest = ["--env", &state_variable, "--run-dir", &run_dir];
    let ran = place.run(args.iter().chain(&rest))?;
    ensure!(ran.code() == 0, "{}{}", ran.stdout, ran.stderr);

    let story = story(&place)?;
    let position = |sign, name: &str| {
        let name = format!("/s/{name}");
        story.iter().position(|(what, test)| (*what, test) == (sign, &name)).context("it did not run")
    };
    ensure!(position('+', "c")? < position('-', "a")?, "three at once: {story:?}");
    for behind in ["port/one", "port/two", "other"] {
        ensure!(position('-', "wide")? < position('+', behind)?, "in the way of the wide one: {story:?}");
    }
    let mut running = BTreeSet::new();
    for (sign, test) in &story {
        if *sign == '+' {
            running.insert(test.as_str());
        } else {
            running.remove(test.as_str());
        }
        let rivals = running.iter().filter(|test| test.contains("/port/")).count();
        ensure!(rivals < 2, "beside each other: {story:?}");
        ensure!(running.len() <= 3 && (running.len() == 1 || !running.contains("/s/wide")), "{story:?}");
    }
    Ok(())
}
