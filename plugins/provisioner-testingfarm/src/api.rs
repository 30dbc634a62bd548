//! The API over HTTP: one question at a time, and asking again for as long as the call allows.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use atex_plugin_api::{Error, ErrorKind, Level, Result, Secret};
use atex_plugin_process::Call;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{RootCerts, TlsConfig, TlsProvider};

/// How long one question may take. A call that is cancelled meanwhile ends when it has been answered, or after this.
const QUESTION_LIMIT: Duration = Duration::from_secs(20);
/// Most bytes of an answer.
const ANSWER_LIMIT: u64 = 32 << 20;
/// Pauses between attempts.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// Asks the service.
#[derive(Debug)]
pub(crate) struct Api {
    agent: Agent,
    url: String,
    token: Secret,
    /// The first pause after a failure; it doubles with each.
    first_pause: Duration,
}

/// A status and a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    retry_after: Option<Duration>,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, if the status says that all is well.
    pub(crate) fn json(&self, what: &str) -> Result<Value> {
        if !self.is_success() {
            return Err(self.refused(what));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let message = format!("{what}: the service's answer is no JSON: {error}");
            Error::new(ErrorKind::Unreachable, message).with_detail(self.text())
        })
    }

    /// What a status of 4xx means.
    pub(crate) fn refused(&self, what: &str) -> Error {
        let kind = match self.status {
            401 | 403 => ErrorKind::Denied,
            400 | 404 | 422 => ErrorKind::Config,
            _ => ErrorKind::Other,
        };
        let hint = if kind == ErrorKind::Denied { "; is the token valid?" } else { "" };
        let message = format!("{what}: the service says {} {}{hint}", self.status, self.message());
        Error::new(kind, message).with_detail(self.text())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).chars().take(4000).collect()
    }

    /// The reason in the body, which comes in several shapes.
    fn message(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let found =
            ["message", "detail", "error"].iter().find_map(|key| json.get(key)).map(|value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
        found.unwrap_or_else(|| self.text()).lines().next().unwrap_or_default().chars().take(300).collect()
    }
}

impl Api {
    pub(crate) fn new(url: &str, token: Secret, first_pause: Duration) -> Self {
        // The box's own certificates: an internal ranch has its own authority.
        let tls = TlsConfig::builder()
            .provider(TlsProvider::NativeTls)
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(QUESTION_LIMIT))
            .tls_config(tls)
            .user_agent(concat!("atex-host/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            agent,
            url: url.trim_end_matches('/').to_owned(),
            token,
            first_pause: first_pause.min(SHORTEST),
        }
    }

    /// Asks until the answer is one: what may pass by itself (no connection, 408, 429, 5xx) is tried again for as long as the
    /// call allows.
    pub(crate) fn ask(&self, method: &Method, path: &str, call: &Call) -> Result<Answer> {
        let mut pause = self.first_pause;
        loop {
            match self.once(method, path, None) {
                Ok(answer) if !passing(answer.status) => return Ok(answer),
                Err(error) if error.kind() != ErrorKind::Unreachable => return Err(error),
                failed => pause = self.pause(failed, pause, call)?,
            }
        }
    }

    /// Waits before the next attempt; says how long to wait before the one after it. An error if the call ends first.
    pub(crate) fn pause(&self, failed: Result<Answer>, pause: Duration, call: &Call) -> Result<Duration> {
        let (error, asked_for) = match failed {
            Ok(answer) => (answer.refused("asking the service"), answer.retry_after),
            Err(error) => (error, None),
        };
        // Once is enough to warn of an outage that may last for hours.
        let level = if pause <= self.first_pause { Level::Warn } else { Level::Debug };
        call.host().log(level, format!("trying again: {error}"), &[]);
        let wait = asked_for.unwrap_or_else(|| jitter(pause)).min(LONGEST);
        if call.wait(wait) {
            return Err(Error::new(
                ErrorKind::Cancelled,
                format!("given up while the service did not answer: {error}"),
            ));
        }
        Ok(pause.saturating_mul(2).min(LONGEST))
    }

    /// The pause before the second attempt.
    pub(crate) fn first_pause(&self) -> Duration {
        self.first_pause
    }

    /// Asks once.
    pub(crate) fn once(&self, method: &Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let url = format!("{}{path}", self.url);
        let token = format!("Bearer {}", self.token.expose());
        self.send(method, &url, &[("Authorization", &token)], body)
    }

    /// Reads a page that is none of the API's, without the token. `from`: offset of the first byte that is wanted.
    pub(crate) fn page(&self, url: &str, from: Option<u64>) -> Result<Answer> {
        match from {
            Some(from) => self.send(&Method::GET, url, &[("Range", &format!("bytes={from}-"))], None),
            None => self.send(&Method::GET, url, &[], None),
        }
    }

    fn send(
        &self,
        method: &Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let place = || format!("{method} {url}");
        let mut request = Request::builder().method(method).uri(url);
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let sent = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(|error| unusable(&place(), &error))?)
            }
            None => self.agent.run(request.body(()).map_err(|error| unusable(&place(), &error))?),
        };
        let unreachable = |error: ureq::Error| Error::with_source(ErrorKind::Unreachable, place(), &error);
        let mut answer = sent.map_err(unreachable)?;
        let retry_after =
            answer.headers().get("Retry-After").and_then(|value| value.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec().map_err(unreachable)?;
        Ok(Answer { status, body, retry_after: retry_after.map(Duration::from_secs) })
    }
}

/// A URL that is none, or a token that cannot be sent.
fn unusable(place: &str, error: &ureq::http::Error) -> Error {
    Error::config(format!("{place}: {error}"))
}

/// Whether a status may be another one later.
pub(crate) fn passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500..=599)
}

/// Between half and all of `pause`, so that many who failed at once do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let half = pause / 2;
    let random = RandomState::new().hash_one(0_u8) % 1024;
    half + half.saturating_mul(u32::try_from(random).unwrap_or(0)) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_kinds_and_reasons() {
        let answer = |status, body: &str| Answer { status, body: body.into(), retry_after: None };
        let table = [
            (answer(401, r#"{"message": "who?"}"#), ErrorKind::Denied, "401 who?; is the token valid?"),
            (
                answer(400, r#"{"detail": {"arch": "unknown"}}"#),
                ErrorKind::Config,
                r#"400 {"arch":"unknown"}"#,
            ),
            (answer(418, "teapot\nmore"), ErrorKind::Other, "418 teapot"),
        ];
        for (answer, kind, text) in table {
            let error = answer.json("x").unwrap_err();
            assert!(error.kind() == kind && error.to_string().ends_with(text), "{error}");
        }
        assert!(answer(200, "<html>").json("x").unwrap_err().to_string().contains("no JSON"));
        assert_eq!(answer(204, "3").json("x").unwrap(), 3);
    }

    #[test]
    fn pauses_are_spread_and_bounded() {
        for _ in 0..100 {
            let pause = jitter(LONGEST);
            assert!(pause >= LONGEST / 2 && pause <= LONGEST);
        }
    }
}
