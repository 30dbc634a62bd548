//! SIGKILL, then `gc`.

use std::{
    collections::VecDeque,
    path::Path,
    process::ExitStatus,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{
    Extent,
    figures::Figures,
    host::{Site, tree},
    kill::{End, Length, Moment, run_until},
    look_again, phase,
    provider::Provider,
    random::Random,
};

/// What is run. Something waits in it, so that machines are busy when the host dies.
const TREE: &str = "
/quick:
    test: 'true'
/fails:
    test: 'false'
/waits:
    test: sleep 0.2
/waits-too:
    test: sleep 0.2
";

/// Runs that are measured.
const MEASURED: u32 = 3;
/// `gc` of what it could not decide at first is tried so often, after the settle time.
const MORE_TRIES: u32 = 20;
/// How long work directories and processes may take to end by themselves.
const TRACES_END: Duration = Duration::from_mins(1);
/// A kill that comes too late is tried again so often.
const MAX_DRAWS: u32 = 50;

/// Kills hosts, has `gc` clean up, and asks the provider what is left. Returns the figures; what is wrong is in them.
pub fn crash(provider: &dyn Provider, extent: Extent) -> Result<Figures> {
    let tree = tree(&[("main.fmf", TREE)])?;
    let length = measure(provider, tree.path())?;
    eprintln!(
        "an undisturbed run takes {:.2} s and writes {} records",
        length.time.as_secs_f64(),
        length.records
    );
    let campaign = Campaign { provider, tree: tree.path(), length, extent, next: AtomicUsize::new(0) };
    let all = Mutex::new(Figures::default());
    thread::scope(|scope| {
        for worker in 0..extent.parallel {
            let (campaign, all) = (&campaign, &all);
            let work = move || {
                let mut figures = Figures::default();
                if let Err(error) = campaign.work(worker, &mut figures) {
                    figures.wrong.push(format!("worker {worker} gave up: {error:#}"));
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).add(figures);
            };
            thread::Builder::new().name(format!("worker {worker}")).spawn_scoped(scope, work)?;
        }
        anyhow::Ok(())
    })?;
    let mut figures = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    figures.wrong.extend(provider.complaints());
    if extent.follow_up {
        let left = provider.emptied()?;
        figures.wrong.extend(left.into_iter().map(|left| format!("left at the very end: {left}")));
    }
    Ok(figures)
}

/// The shortest of some runs that nobody disturbs, and the most records of one.
fn measure(provider: &dyn Provider, tree: &Path) -> Result<Length> {
    let mut length = Length { time: Duration::MAX, records: 1 };
    for number in 0..MEASURED {
        let site = Site::new(format!("measure-{number}@campaign"), 0, tree, provider)?;
        let (begun, records) = (Instant::now(), site.records()?);
        match run_until(&mut site.run(provider)?, Moment::Never, &records)? {
            End::ByItself(status, count) if matches!(status.code(), Some(1 | 5)) => {
                length.time = length.time.min(begun.elapsed());
                length.records = length.records.max(count);
            }
            other => {
                let said = std::fs::read_to_string(site.path("said")).unwrap_or_default();
                bail!("a run that nobody disturbed came to {other:?} instead of exit status 1:\n{said}");
            }
        }
    }
    Ok(length)
}

struct Campaign<'a> {
    provider: &'a dyn Provider,
    tree: &'a Path,
    length: Length,
    extent: Extent,
    /// Number of the next trial.
    next: AtomicUsize,
}

/// A trial whose first `gc` could not tell yet.
struct Undecided {
    site: Site,
    due: Instant,
}

impl Campaign<'_> {
    fn work(&self, worker: usize, figures: &mut Figures) -> Result<()> {
        let mut undecided: VecDeque<Undecided> = VecDeque::new();
        loop {
            while let Some(trial) = undecided.pop_front_if(|trial| trial.due <= Instant::now()) {
                self.settle(trial.site, figures)?;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.extent.trials {
                break;
            }
            if number > 0 && number.is_multiple_of(100) {
                eprintln!("{number} of {}", self.extent.trials);
            }
            self.trial(number, worker, &mut undecided, figures)?;
        }
        for trial in undecided.into_iter().filter(|_| self.extent.follow_up) {
            look_again(trial.due.saturating_duration_since(Instant::now()));
            self.settle(trial.site, figures)?;
        }
        Ok(())
    }

    /// One host, killed. Those of which it could not be told at once whether they hold anything go to `undecided`.
    fn trial(
        &self,
        number: usize,
        worker: usize,
        undecided: &mut VecDeque<Undecided>,
        figures: &mut Figures,
    ) -> Result<()> {
        let mut random = Random::new(self.extent.seed, number as u64);
        for draw in 0..MAX_DRAWS {
            let owner = format!("t{number}-{draw}@campaign");
            let site = Site::new(owner, worker, self.tree, self.provider)?;
            let moment = self.length.draw(&mut random);
            let end = run_until(&mut site.run(self.provider)?, moment, &site.records()?)?;
            match end {
                End::Killed => {
                    undecided.extend(self.collect(site, figures).with_context(|| format!("trial {number}"))?);
                    return Ok(());
                }
                End::ByItself(status, _) => undecided.extend(self.unharmed(site, status, figures)?),
            }
        }
        bail!("trial {number}: no host could be killed in time")
    }

    /// A host that came to its end before its moment came. Either it holds nothing or it says that it may.
    fn unharmed(&self, site: Site, status: ExitStatus, figures: &mut Figures) -> Result<Option<Undecided>> {
        figures.unharmed += 1;
        match status.code() {
            Some(1) => self.finish(site, figures).map(|()| None),
            Some(5) => Ok(Some(self.undecided(site))),
            _ => {
                self.complain(site, figures, &format!("a host ended by itself with {status}"));
                Ok(None)
            }
        }
    }

    fn undecided(&self, site: Site) -> Undecided {
        Undecided { site, due: Instant::now() + self.provider.settle() + Duration::from_secs(1) }
    }

    fn collect(&self, site: Site, figures: &mut Figures) -> Result<Option<Undecided>> {
        figures.trials += 1;
        let (phases, reserved) = phase::at(&site.ledgers(), &site.run_dir());
        for phase in phases {
            *figures.phases.entry(phase).or_default() += 1;
        }
        figures.reserved += reserved;
        figures.left[0] += self.provider.left(site.worker, &site.owner)?.machines.len();
        let begun = Instant::now();
        let status = site.gc()?.status()?;
        figures.gc.push(begun.elapsed());
        let left = self.provider.left(site.worker, &site.owner)?.machines;
        figures.left[1] += left.len();
        match status.code() {
            Some(0) => self.finish(site, figures).map(|()| None),
            Some(5) => {
                figures.undecided += 1;
                Ok(Some(self.undecided(site)))
            }
            _ => {
                self.complain(site, figures, &format!("gc ended with {status}"));
                Ok(None)
            }
        }
    }

    /// `gc` again, now that the time is over after which nothing can come up any more.
    fn settle(&self, site: Site, figures: &mut Figures) -> Result<()> {
        for _ in 0..MORE_TRIES {
            match site.gc()?.status()?.code() {
                Some(0) => return self.finish(site, figures),
                // The provider refused to answer.
                Some(5) => look_again(Duration::from_millis(200)),
                code => {
                    self.complain(site, figures, &format!("a later gc ended with {code:?}"));
                    return Ok(());
                }
            }
        }
        self.complain(site, figures, "gc never came to an end");
        Ok(())
    }

    /// `gc` says that nothing is held any more: that must be true.
    fn finish(&self, site: Site, figures: &mut Figures) -> Result<()> {
        let left = self.provider.left(site.worker, &site.owner)?;
        figures.left[2] += left.machines.len();
        if !left.machines.is_empty() {
            self.complain(site, figures, &format!("left after gc: {}", left.machines.join(", ")));
            return Ok(());
        }
        if std::fs::read_dir(site.ledgers())?.next().is_some() {
            self.complain(site, figures, "a ledger stayed although nothing is held");
            return Ok(());
        }
        let (mut traces, deadline) = (left.traces, Instant::now() + TRACES_END);
        while !traces.is_empty() {
            if Instant::now() > deadline {
                self.complain(site, figures, &format!("traces that stay: {}", traces.join(", ")));
                return Ok(());
            }
            look_again(Duration::from_millis(50));
            traces = self.provider.left(site.worker, &site.owner)?.traces;
        }
        Ok(())
    }

    fn complain(&self, mut site: Site, figures: &mut Figures, what: &str) {
        let owner = site.owner.clone();
        figures.wrong.push(format!("{} {owner}: {what}; see {}", self.provider.name(), site.keep()));
    }
}
