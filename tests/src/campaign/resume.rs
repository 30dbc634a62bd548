//! SIGKILL, then `resume`, which may be killed as well, until the run comes to its end: each test has the verdict that it is
//! known to deserve, once, in the journal and in the reporter's results, with all its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
    process::ExitStatus,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    Extent,
    host::{Site, tree},
    kill::{End, Length, Moment, run_until},
    look_again, phase,
    provider::Provider,
    random::Random,
};

/// Tests of each of the four sorts.
const EACH: usize = 3;
/// Kills of one run at most.
const MOST_KILLS: u64 = 4;
/// Sessions of one run at most: one that goes on for ever makes no progress.
const MOST_SESSIONS: usize = 20;
const MEASURED: u32 = 3;

/// What came out.
#[derive(Debug, Default)]
pub struct Resumed {
    /// Runs, of which each was killed at least once.
    pub runs: usize,
    pub kills: usize,
    /// Times that a run went on.
    pub resumes: usize,
    /// Kills before there was a run to go on with: it was begun again.
    pub anew: usize,
    /// Kills while something was in that phase.
    pub phases: BTreeMap<&'static str, usize>,
    /// Verdicts that are as they should be.
    pub verdicts: usize,
    /// What should not have been: lost, doubled and wrong verdicts, machines.
    pub wrong: Vec<String>,
}

impl Resumed {
    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.kills += other.kills;
        self.resumes += other.resumes;
        self.anew += other.anew;
        for (phase, count) in other.phases {
            *self.phases.entry(phase).or_default() += count;
        }
        self.verdicts += other.verdicts;
        self.wrong.extend(other.wrong);
    }
}

impl fmt::Display for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phases: Vec<String> = phase::ALL
            .iter()
            .map(|phase| format!("{phase} {}", self.phases.get(phase).unwrap_or(&0)))
            .collect();
        writeln!(f, "  runs                           {}", self.runs)?;
        writeln!(f, "  kills                          {}", self.kills)?;
        writeln!(f, "    while                        {}", phases.join(", "))?;
        writeln!(f, "  resumed                        {}", self.resumes)?;
        writeln!(f, "  begun again                    {}", self.anew)?;
        writeln!(f, "  verdicts as they should be     {}", self.verdicts)?;
        write!(f, "  lost, doubled, wrong, left     {}", self.wrong.len())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\n    {wrong}"))
    }
}

/// A line of results: status, test, subtest, files.
type Line = (String, String, String, Vec<String>);

/// The tree, and the lines that it gives whatever happens to the host.
fn material() -> (String, BTreeSet<Line>) {
    let mut tree = vec![];
    let mut lines = BTreeSet::new();
    let mut expect = |status: &str, test: &str, subtest: &str, file: &str| {
        lines.insert((status.to_owned(), test.to_owned(), subtest.to_owned(), vec![file.to_owned()]));
    };
    for number in 0..EACH {
        let flag = format!("$FLAGS/flaky-{number}");
        tree.push(format!(
            "/pass-{number}:\n    test: sleep 0.05; echo pass-{number}\n\
             /fail-{number}:\n    test: echo fail-{number}; exit 3\n\
             /flaky-{number}:\n    test: 'echo flaky-{number}; [ -e {flag} ] || {{ touch {flag}; exit 1; }}'\n\
             /parts-{number}:\n    test: |\n        \
             say() {{ printf 'result %d\\n%s%s' ${{#1}} \"$1\" \"$2\" >&$ATEX_TEST_CONTROL; }}\n        \
             file() {{ echo \"\\\"files\\\":[{{\\\"name\\\":\\\"data\\\",\\\"length\\\":7}}]\"; }}\n        \
             say \"{{\\\"status\\\":\\\"pass\\\",\\\"name\\\":\\\"one\\\",$(file)}}\" parts-{number}\n        \
             sleep 0.05\n        \
             say \"{{\\\"status\\\":\\\"fail\\\",\\\"name\\\":\\\"two\\\",$(file)}}\" parts-{number}\n        \
             say \"{{\\\"status\\\":\\\"pass\\\",$(file)}}\" parts-{number}\n"
        ));
        expect("pass", &format!("/pass-{number}"), "", "output.txt");
        expect("fail", &format!("/fail-{number}"), "", "output.txt");
        expect("pass", &format!("/flaky-{number}"), "", "output.txt");
        for (status, part) in [("pass", "one"), ("fail", "two"), ("pass", "")] {
            expect(status, &format!("/parts-{number}"), part, "data");
        }
    }
    (tree.concat(), lines)
}

/// Kills runs, resumes them, kills those, and looks at what came out.
pub fn resume(provider: &dyn Provider, extent: Extent) -> Result<Resumed> {
    let (main, lines) = material();
    let tree = tree(&[("main.fmf", &main)])?;
    let campaign = Campaign { provider, tree: tree.path(), lines, extent, next: AtomicUsize::new(0) };
    let length = campaign.measure()?;
    eprintln!(
        "an undisturbed run takes {:.2} s and writes {} records",
        length.time.as_secs_f64(),
        length.records
    );
    let all = Mutex::new(Resumed::default());
    thread::scope(|scope| {
        for worker in 0..extent.parallel {
            let (campaign, all) = (&campaign, &all);
            let work = move || {
                let mut resumed = Resumed::default();
                if let Err(error) = campaign.work(worker, length, &mut resumed) {
                    resumed.wrong.push(format!("worker {worker} gave up: {error:#}"));
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).add(resumed);
            };
            thread::Builder::new().name(format!("worker {worker}")).spawn_scoped(scope, work)?;
        }
        anyhow::Ok(())
    })?;
    let mut resumed = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    resumed.wrong.extend(provider.complaints());
    resumed.wrong.extend(provider.emptied()?.into_iter().map(|left| format!("left at the very end: {left}")));
    Ok(resumed)
}

struct Campaign<'a> {
    provider: &'a dyn Provider,
    tree: &'a Path,
    lines: BTreeSet<Line>,
    extent: Extent,
    /// Number of the next trial.
    next: AtomicUsize,
}

impl Campaign<'_> {
    fn site(&self, owner: String, worker: usize) -> Result<Site> {
        let site = Site::new(owner, worker, self.tree, self.provider)?;
        fs::create_dir(site.path("flags"))?;
        Ok(site)
    }

    fn begin(&self, site: &Site) -> Result<std::process::Command> {
        let mut command = site.run(self.provider)?;
        command.args(["--reruns", "1", "--env"]).arg(format!("FLAGS={}", site.path("flags").display()));
        Ok(command)
    }

    fn measure(&self) -> Result<Length> {
        let mut length = Length { time: Duration::MAX, records: 1 };
        for number in 0..MEASURED {
            let mut site = self.site(format!("measure-{number}@campaign"), 0)?;
            let (begun, records) = (Instant::now(), site.records()?);
            let End::ByItself(status, count) = run_until(&mut self.begin(&site)?, Moment::Never, &records)?
            else {
                bail!("a run that nobody disturbed was killed");
            };
            length.time = length.time.min(begun.elapsed());
            length.records = length.records.max(count);
            let problems = self.problems(&site, status)?;
            if !problems.is_empty() {
                bail!("a run that nobody disturbed: {}; see {}", problems.join("; "), site.keep());
            }
        }
        Ok(length)
    }

    fn work(&self, worker: usize, length: Length, resumed: &mut Resumed) -> Result<()> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.extent.trials {
                return Ok(());
            }
            if number > 0 && number.is_multiple_of(50) {
                eprintln!("{number} of {}", self.extent.trials);
            }
            let mut random = Random::new(self.extent.seed, number as u64);
            let mut site = self.site(format!("r{number}@campaign"), worker)?;
            resumed.runs += 1;
            let status = self.trial(&site, length, &mut random, resumed)?;
            let problems = match status {
                Some(status) => self.problems(&site, status)?,
                None => vec![format!("{MOST_SESSIONS} sessions were not enough")],
            };
            resumed.verdicts += if problems.is_empty() { 4 * EACH } else { 0 };
            let place = if problems.is_empty() { String::new() } else { site.keep() };
            resumed
                .wrong
                .extend(problems.into_iter().map(|what| format!("run {number}: {what}; see {place}")));
        }
    }

    /// Kills and resumes a run until it comes to its end.
    fn trial(
        &self,
        site: &Site,
        length: Length,
        random: &mut Random,
        resumed: &mut Resumed,
    ) -> Result<Option<ExitStatus>> {
        let (mut kills, wanted) = (0, 1 + random.below(MOST_KILLS));
        for _ in 0..MOST_SESSIONS {
            let has_begun = site.run_dir().join("run.json").exists();
            let mut command = if has_begun { site.resume()? } else { self.begin(site)? };
            if kills > 0 {
                *if has_begun { &mut resumed.resumes } else { &mut resumed.anew } += 1;
            }
            // What is left takes as much less time.
            let moment = if kills < wanted { length.draw(random) } else { Moment::Never };
            match run_until(&mut command, moment, &site.records()?)? {
                End::ByItself(status, _) => return Ok(Some(status)),
                End::Killed => {
                    kills += 1;
                    resumed.kills += 1;
                    for phase in phase::at(&site.ledgers(), &site.run_dir()).0 {
                        *resumed.phases.entry(phase).or_default() += 1;
                    }
                }
            }
        }
        Ok(None)
    }

    /// What is not as it should be after the run's end.
    fn problems(&self, site: &Site, status: ExitStatus) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        match status.code() {
            Some(1) => {}
            // A reservation was cut off: it may come up with a machine until the settle time is over.
            Some(5) => {
                look_again(self.provider.settle() + Duration::from_secs(1));
                for _ in 0..10 {
                    if site.gc()?.status()?.success() {
                        break;
                    }
                    look_again(Duration::from_millis(200));
                }
            }
            _ => problems.push(format!("the run ended with {status}")),
        }
        let left = self.provider.left(site.worker, &site.owner)?.machines;
        problems.extend(left.into_iter().map(|left| format!("left: {left}")));
        self.check_results(&site.run_dir(), &mut problems);
        check_verdicts(&site.run_dir(), &mut problems);
        Ok(problems)
    }

    fn check_results(&self, run: &Path, problems: &mut Vec<String>) {
        let mut seen: BTreeMap<Line, usize> = BTreeMap::new();
        for line in phase::lines(&run.join("results.jsonl")) {
            let text = |at: usize| line[at].as_str().unwrap_or_default().to_owned();
            let names = line[4].as_array().into_iter().flatten();
            let files: Vec<String> = names.map(|name| name.as_str().unwrap_or_default().to_owned()).collect();
            for file in &files {
                let path =
                    run.join("files/default").join(text(2).trim_start_matches('/')).join(text(3)).join(file);
                let content = fs::read_to_string(&path).unwrap_or_default();
                if content.trim() != text(2).trim_start_matches('/') {
                    problems.push(format!("{} holds {content:?}", path.display()));
                }
            }
            *seen.entry((text(1), text(2), text(3), files)).or_default() += 1;
        }
        for line in self.lines.iter().filter(|line| !seen.contains_key(line)) {
            problems.push(format!("not in the results: {line:?}"));
        }
        for (line, count) in seen {
            if count != 1 || !self.lines.contains(&line) {
                problems.push(format!("{count} times in the results: {line:?}"));
            }
        }
    }
}

/// One verdict for each test, in the journal.
fn check_verdicts(run: &Path, problems: &mut Vec<String>) {
    let file = fs::read(run.join("run.json")).unwrap_or_default();
    let tests = serde_json::from_slice::<Value>(&file).unwrap_or_default();
    let count = tests["tests"].as_array().map_or(0, Vec::len);
    if count != 4 * EACH {
        problems.push(format!("the run has {count} tests"));
    }
    let mut verdicts: BTreeMap<u64, usize> = (0..count as u64).map(|test| (test, 0)).collect();
    for record in phase::lines(&run.join("journal.jsonl")) {
        if record["what"] == "verdict" {
            *verdicts.entry(record["test"].as_u64().unwrap_or(u64::MAX)).or_default() += 1;
        }
    }
    for (test, count) in verdicts.into_iter().filter(|(_, count)| *count != 1) {
        problems.push(format!("test {test} has {count} verdicts in the journal"));
    }
}
