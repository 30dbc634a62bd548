//! `resume`: finishes an interrupted run.
//!
//! The same plan is made again from what `run.json` has, with variables and secrets resolved anew. Verdicts that stand and
//! whose artifacts are as they were stay; everything else runs again. Machines of the dead run are freed first. A run that had come
//! to its end, but not its reporters, is reported again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    cli,
    config::{self, ExitStatus, Surroundings},
    core::{
        config::Past,
        event::{ChainId, Event, Ms, Note, TestId},
    },
    executor::artifacts,
    report::{Console, Follower as _},
    store::{Execution, JournalReader, Ledger, Progress, Record, RunDir, RunFile, StateDir, What},
};

use super::{
    Error, Terminal, gc,
    prepare::{Prepared, prepare},
    run,
};

pub(super) fn resume(
    wanted: &cli::Resume,
    around: &Surroundings,
    terminal: &Terminal,
) -> Result<ExitStatus, Error> {
    let state = StateDir::from_environment().map_err(Error::State)?;
    let (directory, run_file) = RunDir::open(&wanted.run)?;
    let run_file = Arc::new(run_file);
    let mut progress = progress(&directory, &run_file)?;
    let open_tests = |progress: &Progress| {
        (0..run_file.tests.len()).filter(|&test| progress.past(test) != Past::Done).count()
    };
    terminal.log_to(&directory.log()).map_err(Error::State)?;
    let ledger_path = state.ledger(&run_file.run).map_err(Error::State)?;
    // Of a run that has ended, the summary is there without its configuration.
    let plan = config::plan_again(&run_file.origin, around);
    let secrets = plan.as_ref().map(|plan| plan.secrets.clone()).unwrap_or_default();
    terminal.mask(&secrets);
    let freed = gc::free_run(&ledger_path, wanted.libraries.clone(), &state, around, &secrets, terminal)?;
    progress.reopen_stopped();
    if progress.ended.is_some() && open_tests(&progress) == 0 && directory.is_complete() {
        let status = summary(&directory, &run_file, terminal)?;
        return Ok([status, freed].into_iter().collect());
    }
    if !directory.journal_is_whole() && !wanted.force {
        return Err(Error::Gaps(directory.path().to_owned()));
    }
    let mut plan = plan?;
    plan.libraries.files.splice(0..0, wanted.libraries.files.iter().cloned());
    let mut prepared = prepare(plan, &run_file.run, &state)?;
    check_unchanged(&prepared, &run_file, wanted.force)?;
    prepared.job.directory = directory.path().into();
    run::raise_descriptor_limit();
    let first = restore(&mut prepared, &progress);
    artifacts::remove_leftovers(&directory.artifacts()).map_err(Error::State)?;
    let ledger = Ledger::open(&ledger_path)?;
    let reopened = std::mem::take(&mut progress.reopened);
    let begin = run::Begin { directory, run_file, ledger, first, resumed: true, reopened };
    run::go(prepared, begin, &state, terminal)
}

fn progress(directory: &RunDir, run_file: &RunFile) -> Result<Progress, Error> {
    let unreadable = |error| Error::Journal { run: directory.path().to_owned(), error };
    // A host that died between the two had written run.json, and no journal yet.
    drop(directory.journal()?);
    let mut reader = JournalReader::open(&directory.journal_path(), 0).map_err(unreadable)?;
    let is_intact = |execution: &Execution| {
        let Some(path) = &execution.artifacts else { return true };
        artifacts::verify(&directory.path().join(path), execution.bytes, &execution.digest).unwrap_or(false)
    };
    Progress::read(&mut reader, run_file.tests.len(), is_intact).map_err(unreadable)
}

/// Nothing is left to do: the run's own words once more, and its exit status.
fn summary(directory: &RunDir, run_file: &Arc<RunFile>, terminal: &Terminal) -> Result<ExitStatus, Error> {
    let unreadable = |error| Error::Journal { run: directory.path().to_owned(), error };
    let mut reader = JournalReader::open(&directory.journal_path(), 0).map_err(unreadable)?;
    let bar = terminal.bar().clone();
    let mut console =
        Console::new(run::style(terminal), Arc::clone(run_file), directory.path().to_owned(), bar);
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().map_err(unreadable)? {
        records.push(record);
    }
    let mut status = ExitStatus::Passed;
    for record in last_words(&records) {
        if let What::Ended(ended) = &record.what {
            status = ExitStatus::ALL.into_iter().find(|one| one.code() == ended.exit).unwrap_or(status);
        }
        if let Err(problem) = console.record(record) {
            tracing::error!("{problem}");
        }
    }
    Ok(status)
}

/// Of several sessions: each test's last verdict, and the last end.
fn last_words(records: &[Record]) -> impl Iterator<Item = &Record> {
    let mut last: HashMap<TestId, usize> = HashMap::new();
    for (number, record) in records.iter().enumerate() {
        if let What::Verdict { test, .. } = record.what {
            last.insert(test, number);
        }
    }
    let counts = move |(number, record): &(usize, &Record)| match record.what {
        What::Verdict { test, .. } => last.get(&test) == Some(number),
        What::Ended(_) => number + 1 == records.len(),
        _ => true,
    };
    records.iter().enumerate().filter(counts).map(|(_, record)| record)
}

/// Results of one run are of one tree, one configuration, one set of plugins.
fn check_unchanged(prepared: &Prepared, run_file: &RunFile, force: bool) -> Result<(), Error> {
    let mut changes = Vec::new();
    if prepared.digest != run_file.digest {
        changes.push(format!("the tree {}", run_file.tree.display()));
    }
    if config::configuration_changed(&run_file.origin) {
        changes.push("the configuration file".to_owned());
    }
    let before: BTreeMap<_, _> =
        run_file.plugins.iter().map(|plugin| ((&plugin.kind, &plugin.name), &plugin.sha256)).collect();
    for plugin in &prepared.plugins {
        if before.get(&(&plugin.kind, &plugin.name)).is_none_or(|sha256| **sha256 != plugin.sha256) {
            changes.push(format!("the {} `{}`", plugin.kind, plugin.name));
        }
    }
    if prepared.promises() != run_file.tests {
        // Not a matter of --force: verdicts are kept by the numbers of the tests.
        return Err(Error::OtherTests);
    }
    match changes.as_slice() {
        [] => Ok(()),
        _ if force => {
            tracing::warn!("changed since the run began: {}", changes.join(", "));
            Ok(())
        }
        _ => Err(Error::Changed(changes.join(", "))),
    }
}

/// Tells coordinator and policies where the run had got to.
fn restore(prepared: &mut Prepared, progress: &Progress) -> Vec<Event> {
    for (number, plan) in prepared.job.plans.iter_mut().enumerate() {
        plan.past = progress.past(number);
    }
    prepared.job.config.resume = progress.resume();
    prepared.kept = (0..prepared.job.tests.len())
        .filter_map(|test| {
            let verdict = progress.verdict(test)?;
            Some((verdict.clone(), progress.execution(verdict).map(Execution::class)))
        })
        .collect();
    let mut first = Vec::new();
    for (number, registered) in std::mem::take(&mut prepared.registered).into_iter().enumerate() {
        let of_chain = |(chain, now, note): &'_ (ChainId, Ms, Note)| {
            (usize::from(*chain) == number).then(|| (*now, note.clone()))
        };
        let notes: Vec<(Ms, Note)> = progress.notes.iter().filter_map(of_chain).collect();
        let Some(chain) = prepared.job.chains.get_mut(number) else { continue };
        let commands = chain.replay(registered, notes.iter().map(|(now, note)| (*now, note)));
        if !commands.is_empty() {
            first.push(Event::Commands { chain: number as ChainId, commands });
        }
    }
    first
}
