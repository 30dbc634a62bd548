//! Whatever the host waits for, an order gets through: each test makes something wait for ever, and then wants its end.
//!
//! Connections are taken for dead after an hour here, so that no time-out can be mistaken for obedience. Each test is
//! [alone](common::alone): afterwards the host has no descriptor and no temporary file left.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "all of it is tests"
)]

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use atex_host::executor::Handle;
use atex_host::executor::spec::{Action, Ended, MachineSpec, Order, Phase, Report, Site};
use atex_plugin_api::model::{HostKeyCheck, SshTransport, Transport};
use common::alone::{Alone, Switch, alone, ip, run_all};
use common::fixtures::{PORT, Setting, Sshd};
use common::proxy::{Badness, Proxy};
use common::{Machine, eventually, holds, site, spec, test, tree};

#[test]
fn every_wait() {
    run_all();
}

/// Nothing here gives up by itself.
fn for_ever(transport: SshTransport) -> MachineSpec {
    let hours = Duration::from_hours(3);
    MachineSpec { boot_time: hours, keepalive: hours, ..spec(Transport::Ssh(transport)) }
}

fn address(host: &str, port: u16) -> SshTransport {
    let mut transport = SshTransport::default();
    transport.host = host.into();
    transport.port = Some(port);
    transport.user = Some("root".into());
    transport.host_key_check = HostKeyCheck::Off;
    transport
}

/// A machine that is being connected to.
struct Connecting {
    handle: Handle,
    reports: Receiver<Report>,
}

impl Connecting {
    fn to(transport: SshTransport) -> Self {
        let (sender, reports) = channel();
        let handle = Handle::start(for_ever(transport), Box::new(move |report| drop(sender.send(report))));
        Self { handle: handle.unwrap(), reports }
    }

    /// Wants its end, and gets it.
    fn let_go(self, it: &mut Alone, order: Order) {
        it.strike();
        self.handle.send(order);
        match self.reports.recv_timeout(Duration::from_mins(1)).expect("the order got through") {
            Report::Lost { reason } => assert_eq!(reason, "let go of by the host"),
            other => panic!("{other:?}"),
        }
        it.known("let go");
        self.handle.join();
    }
}

fn both_orders() -> [Order; 2] {
    [Order::HandBack, Order::Abandon]
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_server_that_never_speaks() {
    alone("cancel: a server that never speaks", |it| {
        for order in both_orders() {
            let (listener, port) = listener();
            let connecting = Connecting::to(address("127.0.0.1", port));
            let _connection = listener.accept().unwrap();
            connecting.let_go(it, order);
        }
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_server_that_stops_in_the_middle_of_the_exchange_of_keys() {
    alone("cancel: a server that stops in the middle of a packet", |it| {
        for order in both_orders() {
            let (listener, port) = listener();
            let connecting = Connecting::to(address("127.0.0.1", port));
            let (mut connection, _) = listener.accept().unwrap();
            connection.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\0\0\x04\xfc\x08\x14only a part").unwrap();
            // The client's version and the beginning of its own keys.
            let mut some = [0; 100];
            connection.read_exact(&mut some).unwrap();
            connecting.let_go(it, order);
        }
    });
}

/// Connections that were begun and not answered, in the network of a process.
fn unanswered(process: &str) -> usize {
    let table = fs::read_to_string(format!("/proc/{process}/net/tcp")).unwrap_or_default();
    table.lines().filter(|line| line.split_whitespace().nth(3) == Some("02")).count()
}

#[test]
#[ignore = "run alone by every_wait"]
fn an_address_that_nobody_answers_for() {
    alone("cancel: an address that drops everything", |it| {
        let _switch = Switch::new();
        for order in both_orders() {
            let connecting = Connecting::to(address(Switch::NOBODY, 22));
            eventually(|| holds(unanswered("self") == 1, "no connection was begun"));
            connecting.let_go(it, order);
        }
    });
}

/// Lets a file be what another one is, for the processes of this test.
fn bind(from: &Path, over: &str) {
    let mounted = Command::new("mount").arg("--bind").arg(from).arg(over).status().unwrap();
    assert!(mounted.success());
}

fn unbind(over: &str) {
    assert!(Command::new("umount").arg(over).status().unwrap().success());
}

/// Puts a script in the place of the ssh program.
fn pretend_ssh(directory: &Path, script: &str) {
    let program = directory.join("ssh");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    bind(&program, "/usr/bin/ssh");
}

fn running(part: &str) -> usize {
    let all = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).contains(part)).count()
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_configuration_that_takes_for_ever() {
    alone("cancel: `ssh -G` hangs", |it| {
        let directory = tempfile::tempdir().unwrap();
        pretend_ssh(directory.path(), "exec sleep 1017.5");
        for order in both_orders() {
            let connecting = Connecting::to(address("somewhere", 22));
            eventually(|| holds(running("sleep\u{0}1017.5") == 1, "ssh was not asked"));
            connecting.let_go(it, order);
            assert_eq!(running("sleep\u{0}1017.5"), 0);
        }
        unbind("/usr/bin/ssh");
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_name_server_that_does_not_answer() {
    alone("cancel: a name server that does not answer", |it| {
        let directory = tempfile::tempdir().unwrap();
        pretend_ssh(directory.path(), "exit 0");
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).unwrap();
        let configuration = directory.path().join("resolv.conf");
        fs::write(&configuration, "nameserver 127.0.0.1\noptions timeout:30 attempts:5\n").unwrap();
        bind(&configuration, "/etc/resolv.conf");
        for order in both_orders() {
            let connecting = Connecting::to(address("machine.example.org.", 22));
            let (mut query, mut asked) = ([0; 512], vec![]);
            asked.push(server.recv_from(&mut query).unwrap());
            connecting.let_go(it, order);
            answer_all(&server, query, &asked);
        }
        unbind("/etc/resolv.conf");
        unbind("/usr/bin/ssh");
    });
}

/// "There is no such name", until nobody asks any more: the look-up that was left behind ends.
fn answer_all(server: &UdpSocket, mut query: [u8; 512], asked: &[(usize, SocketAddr)]) {
    let say_no = |query: &mut [u8], to: SocketAddr| {
        query[2..4].copy_from_slice(&[0x81, 0x83]);
        let _ = server.send_to(query, to);
    };
    for &(length, from) in asked {
        say_no(&mut query[..length], from);
    }
    server.set_nonblocking(true).unwrap();
    eventually(|| {
        while let Ok((length, from)) = server.recv_from(&mut query) {
            say_no(&mut query[..length], from);
        }
        let threads = fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok);
        let names = threads.filter_map(|entry| fs::read_to_string(entry.path().join("comm")).ok());
        holds(!names.into_iter().any(|name| name.trim() == "resolver"), "a look-up lives on")
    });
    server.set_nonblocking(false).unwrap();
}

#[test]
#[ignore = "run alone by every_wait"]
fn an_agent_that_does_not_answer() {
    alone("cancel: an agent that does not answer", |it| {
        let sshd = Sshd::start(&[]).expect("an sshd");
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("agent");
        pretend_ssh(directory.path(), &format!("echo identityagent {}", socket.display()));
        let agent = UnixListener::bind(&socket).unwrap();
        for order in both_orders() {
            let connecting = Connecting::to(address(&sshd.address, PORT));
            let (mut connection, _) = agent.accept().unwrap();
            // "What keys do you have?"
            let mut question = [0; 5];
            connection.read_exact(&mut question).unwrap();
            assert_eq!(question, [0, 0, 0, 1, 11]);
            connecting.let_go(it, order);
        }
        unbind("/usr/bin/ssh");
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_jump_host_that_reaches_nobody() {
    alone("cancel: a jump host that reaches nobody", |it| {
        let switch = Switch::new();
        let setting = Setting { network: true, ..Setting::default() };
        let mut near = Sshd::with(setting, &[]).expect("an sshd");
        switch.plug(&mut near, 2);
        let init = near.init().to_string();
        let neighbour =
            format!("neigh replace {} lladdr 02:00:00:00:00:99 dev eth0 nud permanent", Switch::NOBODY);
        let mut inside = Command::new("nsenter");
        inside.args(["-n", "-t", &init, "ip"]).args(neighbour.split(' '));
        assert!(inside.status().unwrap().success());
        for order in both_orders() {
            let mut transport = near.transport();
            transport.jump = vec![format!("root@{}:{PORT}", near.address)];
            (transport.host, transport.port) = (Switch::NOBODY.into(), Some(22));
            let connecting = Connecting::to(transport);
            eventually(|| holds(unanswered(&init) > 0, "the jump host does not try"));
            connecting.let_go(it, order);
        }
    });
}

/// Whether a part of the large file is there.
fn arrives(sshd: &Sshd) -> bool {
    let files = sshd.work_directories().into_iter().map(|path| path.join("s0/tree/large"));
    files.map(fs::metadata).any(|file| file.is_ok_and(|it| it.len() > 0))
}

fn freeze(sshd: &Sshd) -> Vec<String> {
    let all = sshd.everything();
    Sshd::signal(&all, "-STOP");
    all
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_machine_that_dies_during_an_upload() {
    alone("cancel: machine frozen during an upload", |it| {
        let sshd = Sshd::start(&[]).expect("an sshd");
        let tree = tree();
        let large = fs::File::create(tree.path().join("large")).unwrap();
        large.set_len(4 << 30).unwrap();
        let mut machine = Machine::connect(for_ever(sshd.transport()));
        machine.send(Order::Setup(Arc::new(site(tree.path()))));
        eventually(|| holds(arrives(&sshd), "nothing arrives"));
        let all = freeze(&sshd);
        it.strike();
        machine.send(Order::HandBack);
        assert!(matches!(machine.report(), Report::SetupFailed { .. }));
        assert!(matches!(machine.report(), Report::Lost { .. }));
        it.known("setup failed, machine lost");
        drop(machine);
        Sshd::signal(&all, "-CONT");
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn an_upload_over_a_slow_link() {
    alone("cancel: an upload over a slow link", |it| {
        let sshd = Sshd::start(&[]).expect("an sshd");
        let badness = Badness { rate: 1 << 20, ..Badness::default() };
        let proxy = Proxy::start(format!("{}:{PORT}", sshd.address).parse().unwrap(), badness);
        let mut transport = sshd.transport();
        (transport.host, transport.port) = ("127.0.0.1".into(), Some(proxy.port));
        let tree = tree();
        fs::File::create(tree.path().join("large")).unwrap().set_len(4 << 30).unwrap();
        let mut machine = Machine::connect(for_ever(transport));
        machine.send(Order::Setup(Arc::new(site(tree.path()))));
        eventually(|| holds(arrives(&sshd), "nothing arrives"));
        it.strike();
        machine.send(Order::HandBack);
        // The machine is good, and what is on its way does not keep it from hearing so.
        assert!(matches!(machine.report(), Report::SetupFailed { .. }));
        let last = machine.report();
        assert!(matches!(&last, Report::HandedBack { problems } if problems.is_empty()), "{last:?}");
        it.known("setup failed, handed back");
        drop(machine);
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_machine_that_dies_during_hand_back() {
    alone("cancel: machine frozen while handed back", |it| {
        let sshd = Sshd::start(&[]).expect("an sshd");
        let tree = tree();
        let finish =
            Phase { name: "slow".into(), action: Action::Shell { scripts: vec!["sleep 1018.5".into()] } };
        let mut machine = Machine::connect(for_ever(sshd.transport()));
        machine.set_up(Site { finish: vec![finish], ..site(tree.path()) }).unwrap();
        machine.send(Order::HandBack);
        eventually(|| holds(sshd.processes("sleep\u{0}1018.5").len() == 1, "the phase does not run"));
        let all = freeze(&sshd);
        it.strike();
        machine.send(Order::Abandon);
        assert!(matches!(machine.report(), Report::Lost { .. }));
        it.known("machine lost");
        drop(machine);
        Sshd::signal(&all, "-CONT");
        it.gone(&sshd);
    });
}

#[test]
#[ignore = "run alone by every_wait"]
fn a_machine_that_does_not_come_back() {
    alone("cancel: a machine that does not come back", |it| {
        let switch = Switch::new();
        let setting = Setting { network: true, ..Setting::default() };
        let mut sshd = Sshd::with(setting, &[]).expect("an sshd");
        switch.plug(&mut sshd, 2);
        let tree = tree();
        let mut machine = Machine::connect(for_ever(sshd.transport()));
        machine.set_up(site(tree.path())).unwrap();
        let script = "echo disconnect >&$ATEX_TEST_CONTROL; trap '' PIPE; \
             while echo noop >&$ATEX_TEST_CONTROL; do :; done 2>/dev/null; touch /var/tmp/said; sleep 1019.5";
        let mut leaver = test(script);
        leaver.duration = Duration::from_hours(3);
        let (execution, _) = machine.start(leaver, 0);
        let said = format!("/proc/{}/root/var/tmp/said", sshd.init());
        eventually(|| holds(Path::new(&said).exists(), "the test does not announce its reboot"));
        switch.cut(2);
        ip("neigh replace 10.9.0.2 lladdr 02:00:00:00:00:98 dev sw nud permanent");
        sshd.power_off();
        // The host is in the middle of connecting, or was quick and waits for the test to end there: either is for ever.
        it.strike();
        machine.send(Order::Cancel { execution });
        assert_eq!(machine.finished().ended, Ended::Cancelled);
        it.known("infra, cancelled");
        assert!(matches!(machine.report(), Report::Lost { .. }));
    });
}
