//! The driver of a compliance suite as configuration and one policy (`plugin-api/examples/compliance`), over machines of this box.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use atex_tests::{
    build::root,
    e2e::{Finished, Place, finish, json_lines},
};
use serde_json::Value;

const PLATFORMS: [&str; 3] = ["rhel-10@x86_64", "rhel-8@x86_64", "rhel-9@x86_64"];
const TESTS: usize = 9;

/// The example as a user has it: its directory, with the policy's library beside the configuration.
fn example() -> Result<Place> {
    let place = Place::new(&[])?;
    copy(&root().join("plugin-api/examples/compliance"), &place.path("example"))?;
    fs::copy(place.plugin("test-same-snapshot"), place.path("example/libsame_snapshot.so"))?;
    Ok(place)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

fn run(place: &Place, args: &[&str]) -> Result<Finished> {
    let (tree, config) = (place.path("example/tree"), place.path("example/atex.yaml"));
    let run_dir = place.run_dir();
    let first: Vec<PathBuf> =
        ["run".into(), tree, "--config".into(), config, "--run-dir".into(), run_dir].into();
    let args = first.into_iter().chain(args.iter().map(PathBuf::from));
    let mut command = place.command(args);
    command.env("CONTENT", place.path("content"));
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
}

/// Platform and name of each test that each machine ran, machine by machine, in the order of their starts.
fn schedule(place: &Place) -> Result<Vec<Vec<(String, String)>>> {
    let run: Value = serde_json::from_slice(&fs::read(place.run_dir().join("run.json"))?)?;
    let mut machines: BTreeMap<u64, Vec<(String, String)>> = BTreeMap::new();
    for record in place.journal()?.iter().filter(|record| record["what"] == "started") {
        let test = &run["tests"][usize::try_from(record["test"].as_u64().context("a test")?)?];
        let platform = &run["platforms"][usize::try_from(test["platform"].as_u64().context("a platform")?)?];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ran = (text(&platform["name"]), text(&test["name"]));
        machines.entry(record["lease"].as_u64().context("a lease")?).or_default().push(ran);
    }
    Ok(machines.into_values().collect())
}

#[test]
fn one_machine_runs_the_suite_in_the_order_of_the_driver() -> Result<()> {
    let place = example()?;
    let config = fs::read_to_string(place.path("example/atex.yaml"))?;
    // One at a time, nothing in reserve: the order is then that of the policies alone.
    place
        .write("example/atex.yaml", &config.replace("max: 12", "max: 1").replace("spares: 2", "spares: 0"))?;
    let ran = run(&place, &["--platform", PLATFORMS[2]])?;
    ensure!(ran.code() == 1, "{}{}", ran.stdout, ran.stderr);
    let names: Vec<Vec<String>> = schedule(&place)?
        .into_iter()
        .map(|machine| machine.into_iter().map(|(_platform, test)| test).collect())
        .collect();
    let expected: [&[&str]; 5] = [
        // Destructive tests have a fresh machine each.
        &["/destroy/bootloader"],
        &["/destroy/partitions"],
        &[
            "/static/rules",
            "/vm/uefi/scan",
            // The VM is there: more than the higher priority of others.
            "/vm/uefi/remediate",
            // Exit status 2 costs neither machine nor rerun.
            "/static/links",
            "/vm/plain/scan",
            "/vm/plain/remediate",
            "/accident",
        ],
        // Any other status does: again, on other machines.
        &["/accident"],
        &["/accident"],
    ];
    ensure!(names == expected, "{names:#?}");
    Ok(())
}

#[test]
fn the_suite_runs_on_three_platforms() -> Result<()> {
    let place = example()?;
    let config = fs::read_to_string(place.path("example/atex.yaml"))?;
    place.write("example/atex.yaml", &config.replace("statistics: 10m", "statistics: 0.001"))?;
    let ran = run(&place, &[])?;
    ensure!(ran.code() == 1, "exit status {}: {}{}", ran.code(), ran.stdout, ran.stderr);
    ensure!(place.verdicts()? == [1; TESTS * PLATFORMS.len()], "{:?}", place.verdicts());

    for machine in schedule(&place)? {
        let platforms = machine.iter().filter(|(platform, _)| *platform != machine[0].0).count();
        let destructive = machine.iter().filter(|(_, test)| test.starts_with("/destroy")).count();
        ensure!(destructive == 0 || machine.len() == 1, "not alone on a fresh machine: {machine:?}");
        let accident = machine.iter().position(|(_, test)| test == "/accident");
        ensure!(accident.is_none_or(|at| at + 1 == machine.len()), "used after an accident: {machine:?}");
        // All platforms' machines come from one pool: one that is not needed any more may serve another.
        ensure!(platforms == 0 || destructive == 0, "{machine:?}");
    }

    let results = |file: PathBuf| -> Result<BTreeMap<String, Vec<(String, String)>>> {
        let mut by_platform: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for line in json_lines(&file)? {
            let text = |at: usize| line[at].as_str().unwrap_or_default().to_owned();
            by_platform.entry(text(0)).or_default().push((text(2), text(1)));
        }
        for results in by_platform.values_mut() {
            results.sort();
        }
        Ok(by_platform)
    };
    let last = results(place.run_dir().join("results.jsonl"))?;
    let old = results(place.path("example/old/results.jsonl"))?;
    ensure!(last.keys().eq(PLATFORMS) && old.keys().eq(PLATFORMS), "{last:?}\n{old:?}");
    for platform in PLATFORMS {
        let failed: Vec<&str> = last[platform]
            .iter()
            .filter(|(_, status)| status != "pass")
            .map(|(test, _)| test.as_str())
            .collect();
        ensure!(last[platform].len() == TESTS && failed == ["/accident", "/static/links"], "{last:?}");
        let repeated: Vec<&str> = old[platform].iter().map(|(test, _)| test.as_str()).collect();
        ensure!(repeated == ["/accident", "/accident (1)"], "{old:?}");
    }
    ensure!(fs::read_to_string(place.path("content/VERSION"))? == "1.2.3\n", "the content was not sent");
    ensure!(
        ran.stderr.contains(&format!(" of {} tests in ", TESTS * PLATFORMS.len())),
        "no statistics: {}",
        ran.stderr
    );
    Ok(())
}
