//! What a run was about to do when it was killed, read from what it had written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

/// All phases, in order.
pub(crate) const ALL: [&str; 7] = ["start-up", "reserve", "setup", "tests", "between", "release", "end"];

/// The phases that machines of the run were in, and how many machines had been handed out.
pub(crate) fn at(ledgers: &Path, run: &Path) -> (BTreeSet<&'static str>, usize) {
    let leases = leases(ledgers);
    let journal = lines(&run.join("journal.jsonl"));
    let reserved = journal.iter().filter(|line| line["change"] == "reserved").count();
    let of =
        |state: &'static str| leases.iter().filter(move |(_, now)| *now == state).map(|(lease, _)| lease);
    let ready: BTreeSet<&str> = changes(&journal, "ready");
    let running = running(&journal);
    let mut phases = BTreeSet::new();
    if journal.iter().any(|line| line["what"] == "ended") {
        phases.insert("end");
    } else if leases.is_empty() {
        phases.insert(if reserved > 0 { "end" } else { "start-up" });
    }
    let reserving = of("intent").count() + of("uncertain").count();
    let held: Vec<&String> = of("held").collect();
    let is_busy = |lease: &&&String| running.contains(lease.as_str());
    let flags = [
        ("reserve", reserving > 0),
        ("setup", held.iter().any(|lease| !ready.contains(lease.as_str()))),
        ("tests", held.iter().any(|lease| is_busy(&lease))),
        ("between", held.iter().any(|lease| ready.contains(lease.as_str()) && !is_busy(&lease))),
        ("release", of("releasing").count() > 0),
    ];
    phases.extend(flags.into_iter().filter(|(_, yes)| *yes).map(|(phase, _)| phase));
    if phases.is_empty() {
        // All that was held is given back, and the last record is not written yet.
        phases.insert("end");
    }
    (phases, reserved)
}

/// The last word of the ledgers on each lease.
fn leases(ledgers: &Path) -> BTreeMap<String, String> {
    let mut leases = BTreeMap::new();
    for entry in fs::read_dir(ledgers).into_iter().flatten().flatten() {
        for line in lines(&entry.path()) {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            leases.insert(text("lease"), text("state"));
        }
    }
    leases
}

fn changes<'a>(journal: &'a [Value], change: &str) -> BTreeSet<&'a str> {
    journal.iter().filter(|line| line["change"] == change).filter_map(|line| line["lease"].as_str()).collect()
}

/// Leases on whose machine a test runs.
fn running(journal: &[Value]) -> BTreeSet<&str> {
    let names: BTreeMap<u64, &str> = journal
        .iter()
        .filter(|line| line["what"] == "machine")
        .filter_map(|line| Some((line["number"].as_u64()?, line["lease"].as_str()?)))
        .collect();
    let mut running = BTreeMap::new();
    for line in journal {
        let Some(execution) = line["execution"].as_u64() else { continue };
        match line["what"].as_str() {
            Some("started") => running.insert(execution, line["lease"].as_u64().unwrap_or_default()),
            Some("finished") => running.remove(&execution),
            _ => None,
        };
    }
    running.values().filter_map(|number| names.get(number).copied()).collect()
}

/// The records of a file, without a torn last one.
pub(crate) fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
