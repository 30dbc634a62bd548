//! A server that behaves like Testing Farm, as far as its clients can see: states that go on with each question, a log that
//! grows, lists by state and token, and faults on demand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use serde_json::{Value, json};

pub(crate) const TOKEN: &str = "s3cret-token";
const LOG: &str = "[12:00:00] [+] request accepted\n\
    [12:00:01] [+] [9b1f] Guest is ready: ArtemisGuest(9b1f, root@192.0.2.7, arch=x86_64)\n\
    [12:00:02] [+] [9b1f] starting tests execution\n";

/// What goes wrong with the next question that fits.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    /// Beginning of `METHOD PATH`.
    pub(crate) question: &'static str,
    pub(crate) how: How,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum How {
    /// This status, and nothing is done.
    Status(u16),
    /// Done, but the connection breaks before the answer.
    NoAnswer,
    /// Not done, and the connection breaks.
    NoConnection,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) body: Value,
    pub(crate) state: &'static str,
    /// How often it was asked for.
    asked: usize,
    /// How often the log was.
    read: usize,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) requests: BTreeMap<String, Request>,
    pub(crate) faults: Vec<Fault>,
    /// Every question, `METHOD PATH`.
    pub(crate) questions: Vec<String>,
    /// Stay in this state, and with what summary end.
    pub(crate) stuck: Option<&'static str>,
    pub(crate) hide_tags: bool,
}

/// The server; it lives as long as the test's process.
#[derive(Debug, Clone)]
pub(crate) struct Farm {
    state: Arc<Mutex<State>>,
    pub(crate) url: String,
}

impl Farm {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let farm = Self { state: Arc::default(), url };
        let server = farm.clone();
        let serve = move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::Builder::new().spawn(move || server.connection(stream)).unwrap();
            }
        };
        thread::Builder::new().spawn(serve).unwrap();
        farm
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn fails(&self, question: &'static str, how: How) {
        self.state().faults.push(Fault { question, how });
    }

    /// States of all requests.
    pub(crate) fn states(&self) -> Vec<&'static str> {
        self.state().requests.values().map(|request| request.state).collect()
    }

    fn connection(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut headers) = (String::new(), BTreeMap::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            let Some((key, value)) = header.trim().split_once(": ") else { break };
            headers.insert(key.to_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question = line.rsplit_once(' ').unwrap().0.to_owned();
        if let Some((status, answer)) = self.answer(&question, &headers, &body) {
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all(&[head.as_bytes(), &answer].concat());
        }
    }

    /// `None`: the connection breaks.
    fn answer(
        &self,
        question: &str,
        headers: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Option<(u16, Vec<u8>)> {
        let mut state = self.state();
        state.questions.push(question.to_owned());
        let fault = state.faults.iter().position(|fault| question.starts_with(fault.question));
        match fault.map(|index| state.faults.remove(index).how) {
            Some(How::Status(status)) => return Some((status, b"{\"message\": \"on purpose\"}".to_vec())),
            Some(How::NoConnection) => return None,
            Some(How::NoAnswer) => {
                state.act(&self.url, question, headers, body);
                return None;
            }
            None => {}
        }
        Some(state.act(&self.url, question, headers, body))
    }
}

impl State {
    fn act(
        &mut self,
        url: &str,
        question: &str,
        headers: &BTreeMap<String, String>,
        body: &[u8],
    ) -> (u16, Vec<u8>) {
        let (method, path) = question.split_once(' ').unwrap();
        let authorized =
            headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
        if let Some(id) = path.strip_prefix("/artifacts/").and_then(|rest| rest.strip_suffix("/pipeline.log"))
        {
            assert!(!headers.contains_key("authorization"), "the token does not go to other places");
            return self.log(id, headers);
        }
        if path == "/address" {
            assert!(!headers.contains_key("authorization"), "the token does not go to other places");
            return (200, b"203.0.113.9\n".to_vec());
        }
        if !authorized {
            return (401, b"{\"message\": \"Not authorized\"}".to_vec());
        }
        let (status, answer) = match (method, path.split_once('?').unwrap_or((path, ""))) {
            ("GET", ("/v0.1/whoami", _)) => {
                (200, json!({"token": {"ranch": "public", "id": "token-1"}, "user": {"id": "user-1"}}))
            }
            ("GET", ("/v0.2/composes/public", _)) => {
                (200, json!({"composes": [{"name": "Fedora-42"}, {"name": "Fedora-Rawhide"}]}))
            }
            ("POST", ("/v0.1/requests", _)) => self.create(body),
            ("GET", ("/v0.1/requests", query)) => (200, self.list(query)),
            ("GET", (path, _)) => self.show(path.rsplit('/').next().unwrap(), url),
            ("DELETE", (path, _)) => self.delete(path.rsplit('/').next().unwrap()),
            _ => (405, json!({"message": "no such method"})),
        };
        (status, answer.to_string().into_bytes())
    }

    fn create(&mut self, body: &[u8]) -> (u16, Value) {
        let id = format!("00000000-0000-4000-8000-{:012x}", self.requests.len() + 1);
        let body = serde_json::from_slice(body).unwrap();
        self.requests.insert(id.clone(), Request { body, state: "new", asked: 0, read: 0 });
        (200, json!({"id": id, "state": "new"}))
    }

    fn list(&self, query: &str) -> Value {
        let wanted: BTreeMap<_, _> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        assert_eq!(wanted.get("token_id"), Some(&"token-1"), "only our own requests");
        let fits = self.requests.iter().filter(|(_, request)| wanted.get("state") == Some(&request.state));
        fits.map(|(id, request)| {
            let environments =
                if self.hide_tags { Value::Null } else { request.body["environments"].clone() };
            json!({"id": id, "state": request.state, "environments_requested": environments})
        })
        .collect()
    }

    fn show(&mut self, id: &str, url: &str) -> (u16, Value) {
        let stuck = self.stuck;
        let Some(request) = self.requests.get_mut(id) else {
            return (404, json!({"message": "no such request"}));
        };
        request.asked += 1;
        if matches!(request.state, "new" | "queued" | "running") {
            let next = ["new", "queued", "running"].get(request.asked).unwrap_or(&"running");
            request.state = stuck.unwrap_or(next);
        }
        let summary = (request.state == "error").then_some("no provisioner has such a machine");
        let run = json!({"artifacts": format!("{url}/artifacts/{id}")});
        (200, json!({"id": id, "state": request.state, "run": run, "result": {"summary": summary}}))
    }

    fn delete(&mut self, id: &str) -> (u16, Value) {
        match self.requests.get_mut(id) {
            None => (404, json!({"message": "no such request"})),
            Some(request) if request.state == "canceled" => (409, json!({"message": "already canceled"})),
            Some(request) => {
                request.state = "canceled";
                (200, json!({"id": id, "state": "cancel-requested"}))
            }
        }
    }

    /// Appears late, and grows by some bytes each time it is read.
    fn log(&mut self, id: &str, headers: &BTreeMap<String, String>) -> (u16, Vec<u8>) {
        let request = self.requests.get_mut(id).unwrap();
        request.read += 1;
        let there = match request.read {
            1 => return (404, b"no such key".to_vec()),
            2 => return (403, b"denied".to_vec()),
            count => LOG.len().min((count - 2) * 75),
        };
        let from = headers["range"].trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
        match LOG.as_bytes().get(from..there) {
            Some(new) if !new.is_empty() => (206, new.to_vec()),
            _ => (416, Vec::new()),
        }
    }
}
