//! Reservations of Testing Farm as machines.
//!
//! A reservation is a request for a test that only keeps the guest. The lease's mark goes with it as a tag, and the request's id
//! is noted in the plugin's state directory, so that `list` finds it by either. The id is the machine's id; giving it back, or
//! giving it up at any time, is cancelling the request. The service ends it by itself when the pipeline's time is over.
//!
//! A request that may or may not have arrived (no answer to the POST) is looked for by its mark before another is made.

mod api;
mod config;
mod guest;
mod log;
mod records;
mod request;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use atex_plugin_api::{
    Capabilities, Error, ErrorKind, Held, Host, HostKeyCheck, Lease, Machine, Plugin, Provisioner, Result,
    SshTransport, Transport,
};
use atex_plugin_process::{Call, Gate, Mark, Reservations, require, unix_now};
use serde_json::Value;
use ureq::http::Method;

use api::{Answer, Api, passing};
use guest::Login;
use log::{Guest, Log};
use records::Records;
use request::{OPEN, id_of, is_id, mark_of, state_of};

pub use config::{Config, ReserveTest};

/// How long giving up a reservation may take after its call was cancelled.
const TIDY_LIMIT: Duration = Duration::from_mins(1);
/// Starts are spread: this many fit between two questions about one reservation.
const STARTS_PER_INTERVAL: u32 = 16;
/// Between attempts to log in.
const LOGIN_PAUSE: Duration = Duration::from_secs(10);

/// The provisioner `testingfarm`.
#[derive(Debug)]
pub struct TestingFarm {
    config: Config,
    api: Api,
    state_dir: PathBuf,
    records: Records,
    /// What is asked only once per run.
    who: Gate<Option<Who>>,
    known: Gate<Option<Known>>,
    /// When the next reservation may start.
    next_start: Mutex<Option<Instant>>,
    reservations: Reservations,
}

/// Whom the service takes us for.
#[derive(Debug, Clone)]
struct Who {
    ranch: String,
    token_id: Option<String>,
}

/// What is the same for all reservations of a run.
#[derive(Debug, Clone)]
struct Known {
    ingress: Vec<String>,
    key: PathBuf,
    public_key: String,
}

impl Plugin for TestingFarm {
    type Config = Config;
    const ABOUT: &'static str = "reservations of Testing Farm";

    fn new(config: Config, host: Host) -> Result<Self> {
        config.check()?;
        let token = config.token()?;
        for program in [config.ssh.as_deref().unwrap_or("ssh"), "ssh-keygen"] {
            require(program)?;
        }
        let state_dir = host.state_dir()?;
        Ok(Self {
            api: Api::new(&config.url, token, config.poll_interval.0),
            records: Records::new(&state_dir),
            state_dir,
            who: Gate::new(None),
            known: Gate::new(None),
            next_start: Mutex::new(None),
            reservations: Reservations::default(),
            config,
        })
    }
}

impl Provisioner for TestingFarm {
    const CAPABILITIES: Capabilities = Capabilities::LIST.and(Capabilities::EXPIRES).and(Capabilities::ALIVE);

    /// A request shows in the service's list as soon as it was accepted.
    const SETTLE: Duration = Duration::from_mins(10);

    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine> {
        let call = Call::new(host)?;
        let _reservation = self.reservations.begin(&lease.id, &call)?;
        let known = self.known(&call)?;
        self.wait_for_turn(&call)?;
        let begin = unix_now();
        let id = self.submit(lease, &known, &call)?;
        match self.until_kept(&id, &known, &call) {
            Ok(guest) => {
                Ok(self.machine(id, &guest, &known, begin.saturating_add(lease.timeout_s + lease.lifetime_s)))
            }
            Err(error) => {
                let error = error.context(format!("request {id}"));
                let cancelled = Call::tidying(host, TIDY_LIMIT).and_then(|call| self.cancel(&id, &call));
                let Err(left) = cancelled else { return Err(error) };
                host.warn(format!("request {id} may be left behind: {left}"));
                Err(error.uncertain())
            }
        }
    }

    fn release(&self, machine: &str, host: &Host) -> Result<()> {
        if !is_id(machine) {
            host.warn(format!("{machine:?} is no request of Testing Farm"));
            return Ok(());
        }
        self.cancel(machine, &Call::new(host)?)
    }

    fn abort(&self, lease: &str, host: &Host) -> Result<()> {
        let call = Call::new(host)?;
        self.reservations.stop(lease, call.remaining().unwrap_or(TIDY_LIMIT))?;
        let held = self.held(&|mark| mark.lease == lease, &call)?;
        held.iter().try_for_each(|held| self.cancel(&held.id, &call))
    }

    fn list(&self, owner: &str, host: &Host) -> Result<Vec<Held>> {
        self.held(&|mark| owner.is_empty() || mark.owner == owner, &Call::new(host)?)
    }

    fn alive(&self, machine: &str, host: &Host) -> Result<bool> {
        Ok(self.open(machine, &Call::new(host)?)?.is_some())
    }
}

impl TestingFarm {
    /// Asked by the first reservation, while others wait.
    fn known(&self, call: &Call) -> Result<Known> {
        let mut known = self.known.enter(call)?;
        if let Some(known) = known.as_ref() {
            return Ok(known.clone());
        }
        let ranch = self.who(call)?.ranch;
        self.check_compose(&ranch, call)?;
        let key = match &self.config.key {
            Some(key) => key.clone(),
            None => guest::own_key(&self.state_dir, call)?,
        };
        let public = config::with_pub(&key);
        let public_key = std::fs::read_to_string(&public)
            .map_err(|error| Error::config(format!("reading {}: {error}", public.display())))?;
        let ingress = self.ingress(&ranch, call)?;
        let new = Known { ingress, key, public_key };
        *known = Some(new.clone());
        Ok(new)
    }

    fn who(&self, call: &Call) -> Result<Who> {
        let mut who = self.who.enter(call)?;
        if let Some(who) = who.as_ref() {
            return Ok(who.clone());
        }
        call.host().progress("asking Testing Farm who we are");
        let told = self.api.ask(&Method::GET, "/v0.1/whoami", call)?.json("asking who we are")?;
        // Both become part of URLs.
        let word = |path: &str| {
            let text = told.pointer(path)?.as_str()?;
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-').then(|| text.to_owned())
        };
        let ranch = word("/token/ranch").unwrap_or_else(|| "public".to_owned());
        let new = Who { ranch, token_id: word("/token/id") };
        *who = Some(new.clone());
        Ok(new)
    }

    fn check_compose(&self, ranch: &str, call: &Call) -> Result<()> {
        let Some(compose) = self.config.compose.as_ref().filter(|_| !self.config.unlisted_compose) else {
            return Ok(());
        };
        let answer = self.api.ask(&Method::GET, &format!("/v0.2/composes/{ranch}"), call)?;
        let answer = answer.json("asking for composes")?;
        let listed = answer.get("composes").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = listed.filter_map(|one| one.get("name").unwrap_or(one).as_str()).collect();
        if names.contains(&compose.as_str()) {
            return Ok(());
        }
        let near = names.iter().min_by_key(|name| strsim::damerau_levenshtein(name, compose));
        let hint = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
        Err(Error::config(format!(
            "`compose`: ranch {ranch} does not list {compose:?}{hint} (unlisted-compose: true takes it all the same)"
        )))
    }

    /// Networks that may connect: on the public ranch nobody may, unless told.
    fn ingress(&self, ranch: &str, call: &Call) -> Result<Vec<String>> {
        if !self.config.ingress.is_empty() || ranch != "public" {
            return Ok(self.config.ingress.clone());
        }
        let asked = self.until(call, || self.api.page(&self.config.address_url, None));
        let text = asked.map(|answer| String::from_utf8_lossy(&answer.body).trim().to_owned());
        if let Some(address) = text.as_ref().ok().and_then(|text| text.parse::<std::net::IpAddr>().ok()) {
            return Ok(vec![format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })]);
        }
        let message = format!("{} does not tell this box's address: set `ingress`", self.config.address_url);
        Err(text.err().unwrap_or_else(|| Error::config("its answer is no address")).context(message))
    }

    /// Asks until there is an answer that is no passing failure.
    fn until(&self, call: &Call, ask: impl Fn() -> Result<Answer>) -> Result<Answer> {
        let mut pause = self.api.first_pause();
        loop {
            match ask() {
                Ok(answer) if !passing(answer.status) => return Ok(answer),
                failed => pause = self.api.pause(failed, pause, call)?,
            }
        }
    }

    /// Many reservations that begin at once would ask at once ever after.
    fn wait_for_turn(&self, call: &Call) -> Result<()> {
        let now = Instant::now();
        let wait = {
            let mut next = self.next_start.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = next.unwrap_or(now).max(now);
            *next = turn.checked_add(self.config.poll_interval.0 / STARTS_PER_INTERVAL);
            turn.saturating_duration_since(now)
        };
        call.wait(wait);
        call.check()
    }

    /// Makes the request, once, and notes it.
    fn submit(&self, lease: &Lease, known: &Known, call: &Call) -> Result<String> {
        call.host().progress("requesting a guest");
        let mark = lease.mark();
        if let Some(id) = self.noted(&mark, call)? {
            return Ok(id);
        }
        let body = request::body(&self.config, lease, &known.public_key, &known.ingress);
        let mut pause = self.api.first_pause();
        let id = loop {
            match self.api.once(&Method::POST, "/v0.1/requests", Some(&body)) {
                Ok(answer) if !passing(answer.status) => {
                    if !answer.is_success() {
                        return Err(answer.refused("requesting a guest"));
                    }
                    // It was accepted: whatever cannot be read of the answer, a guest may come of it.
                    let told = answer.json("requesting a guest").map_err(Error::uncertain)?;
                    break id_of(&told).map(str::to_owned).ok_or_else(|| {
                        Error::new(ErrorKind::Other, "the service's answer to the request has no id")
                            .uncertain()
                    })?;
                }
                Err(error) if error.kind() != ErrorKind::Unreachable => return Err(error),
                failed => pause = self.retry(failed, &mark, pause, call)?,
            }
            // It may have arrived although no answer came back.
            let held = self.held(&|found| found.lease == lease.id, call)?;
            if let Some(held) = held.into_iter().next() {
                break held.id;
            }
        };
        if let Err(error) = self.records.add(&id, &mark) {
            call.host().warn(format!("request {id} is known to the service only: {error}"));
        }
        Ok(id)
    }

    /// When the call ends while it is not known whether a request arrived, one is looked for to cancel it.
    fn retry(&self, failed: Result<Answer>, mark: &str, pause: Duration, call: &Call) -> Result<Duration> {
        self.api.pause(failed, pause, call).map_err(|error| {
            let host = call.host();
            let done = Call::tidying(host, TIDY_LIMIT).and_then(|call| {
                let wanted = |found: &Mark<'_>| Mark::parse(mark).is_some_and(|mark| mark == *found);
                self.held(&wanted, &call)?.iter().try_for_each(|held| self.cancel(&held.id, &call))
            });
            let Err(left) = done else { return error };
            host.warn(format!("a request with tag {mark} may be left behind: {left}"));
            error.uncertain()
        })
    }

    /// The request that this box made for the mark, if it is still open: the call was repeated.
    fn noted(&self, mark: &str, call: &Call) -> Result<Option<String>> {
        let noted = self.records.all().into_iter().find(|(_, noted)| noted == mark);
        let Some((id, _)) = noted else { return Ok(None) };
        Ok(self.open(&id, call)?.map(|_| id))
    }

    /// Until the guest is kept for us and lets us in.
    fn until_kept(&self, id: &str, known: &Known, call: &Call) -> Result<Guest> {
        let mut log = Log::default();
        let guest = loop {
            if call.wait(self.config.poll_interval.0) {
                return Err(Error::new(ErrorKind::Cancelled, format!("given up: {}", log.progress())));
            }
            let request = self.still_open(id, call)?;
            let state = state_of(&request);
            call.host().progress(format!("{state}: {}", log.progress()));
            let artifacts = request.pointer("/run/artifacts").and_then(Value::as_str);
            if let Some(artifacts) = artifacts.filter(|_| state == "running") {
                self.read_on(artifacts, &mut log, call);
            }
            if let Some(guest) = log.kept_guest() {
                break guest.clone();
            }
        };
        let ssh = self.config.ssh.as_deref().unwrap_or("ssh");
        let login = Login { ssh, key: &known.key, guest: &guest };
        self.until_let_in(id, &login, call)?;
        if let Some(command) = &self.config.clean_up {
            login.clean_up(command, call)?;
        }
        Ok(guest)
    }

    fn until_let_in(&self, id: &str, login: &Login<'_>, call: &Call) -> Result<()> {
        let mut asked = Instant::now();
        while let Some(reason) = login.refused(call)? {
            call.host().progress(format!("trying to log in: {reason}"));
            if call.wait(LOGIN_PAUSE.min(self.config.poll_interval.0)) {
                let message = format!("could not log in to {}: {reason}", login.guest.host);
                return Err(Error::new(ErrorKind::Cancelled, message));
            }
            if asked.elapsed() >= self.config.poll_interval.0 {
                self.still_open(id, call)?;
                asked = Instant::now();
            }
        }
        Ok(())
    }

    fn still_open(&self, id: &str, call: &Call) -> Result<Value> {
        let request = self.request(id, call)?.ok_or_else(|| ended("gone", &Value::Null))?;
        let state = state_of(&request);
        if OPEN.contains(&state) { Ok(request) } else { Err(ended(state, &request)) }
    }

    /// A log that cannot be read now is read the next time.
    fn read_on(&self, artifacts: &str, log: &mut Log, call: &Call) {
        let url = format!("{}/pipeline.log", artifacts.trim_end_matches('/'));
        match self.api.page(&url, Some(log.offset())) {
            Ok(answer) => log.take(answer.status, &answer.body),
            Err(error) => call.host().debug(error.to_string()),
        }
    }

    /// `None`: there is no such request.
    fn request(&self, id: &str, call: &Call) -> Result<Option<Value>> {
        let answer = self.api.ask(&Method::GET, &format!("/v0.1/requests/{id}"), call)?;
        if answer.status == 404 { Ok(None) } else { answer.json("asking for the request").map(Some) }
    }

    /// The request, if it holds something or will.
    fn open(&self, id: &str, call: &Call) -> Result<Option<Value>> {
        if !is_id(id) {
            return Ok(None);
        }
        Ok(self.request(id, call)?.filter(|request| OPEN.contains(&state_of(request))))
    }

    /// Cancels a request, and sees to it that the service has taken note.
    fn cancel(&self, id: &str, call: &Call) -> Result<()> {
        let answer = self.api.ask(&Method::DELETE, &format!("/v0.1/requests/{id}"), call)?;
        let accepted = (200..300).contains(&answer.status) || answer.status == 404;
        // Another status may say that it has ended already.
        if !accepted && self.open(id, call)?.is_some() {
            return Err(answer.refused(&format!("cancelling request {id}")));
        }
        self.records.remove(id);
        Ok(())
    }

    fn held(&self, wanted: &dyn Fn(&Mark<'_>) -> bool, call: &Call) -> Result<Vec<Held>> {
        // Only our own requests: the list of all is long.
        let token = self.who(call)?.token_id.map(|id| format!("&token_id={id}")).unwrap_or_default();
        let is_wanted = |text: &str| Mark::parse(text).is_some_and(|mark| wanted(&mark));
        let mut found = BTreeMap::new();
        for state in OPEN {
            let path = format!("/v0.1/requests?state={state}{token}");
            let answer = self.api.ask(&Method::GET, &path, call)?;
            // No request in that state.
            let requests =
                if answer.status == 404 { Value::Null } else { answer.json("listing requests")? };
            for request in requests.as_array().into_iter().flatten() {
                if let (Some(id), Some(mark)) =
                    (id_of(request), mark_of(request).filter(|mark| is_wanted(mark)))
                {
                    found.insert(id.to_owned(), mark.to_owned());
                }
            }
        }
        for (id, mark) in self.records.all().into_iter().filter(|(_, mark)| is_wanted(mark)) {
            if found.contains_key(&id) {
                continue;
            }
            if self.open(&id, call)?.is_some() {
                found.insert(id, mark);
            } else {
                self.records.remove(&id);
            }
        }
        Ok(found.into_iter().map(|(id, mark)| Held::new(id, mark)).collect())
    }

    fn machine(&self, id: String, guest: &Guest, known: &Known, expires: u64) -> Machine {
        let mut transport = SshTransport::new(&guest.host);
        transport.user = Some(guest.user.clone());
        transport.keys = vec![known.key.display().to_string()];
        transport.host_key_check = HostKeyCheck::Off;
        let mut machine = Machine::new(id, Transport::Ssh(transport));
        machine.disposable = true;
        machine.expires = Some(expires);
        if let Some(compose) = &self.config.compose {
            machine.facts.insert("compose".to_owned(), compose.clone());
        }
        machine
    }
}

/// An error for a request that ended before its guest was kept.
fn ended(state: &str, request: &Value) -> Error {
    let summary =
        ["/result/summary", "/notes/0/message"].iter().find_map(|path| request.pointer(path)?.as_str());
    let reason =
        summary.map(|text| format!(": {}", text.lines().next().unwrap_or_default())).unwrap_or_default();
    let artifacts = request.pointer("/run/artifacts").and_then(Value::as_str);
    let place = artifacts.map(|url| format!(" (see {url})")).unwrap_or_default();
    Error::new(
        ErrorKind::Other,
        format!("it ended in state {state:?} before a machine was ready{reason}{place}"),
    )
}

atex_plugin_api::export_plugin! {
    provisioner "testingfarm" => TestingFarm,
}
