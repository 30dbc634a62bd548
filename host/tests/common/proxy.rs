//! A stretch of bad network in user space: what goes through is late and slow, or does not go through at first.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How bad the network is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Badness {
    /// Each way.
    pub delay: Duration,
    /// Bytes a second, each way; 0: as many as there are.
    pub rate: u32,
    /// So many connections are accepted and closed at once, as a server does that is not ready.
    pub not_ready: u32,
}

/// Listens on a port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(to: SocketAddr, badness: Badness) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let over = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&over);
        let body = move || serve(&listener, to, badness, &seen);
        let thread = std::thread::Builder::new().name("proxy".into()).spawn(body).unwrap();
        Self { port, over, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        let _ = self.thread.take().unwrap().join();
    }
}

fn serve(listener: &TcpListener, to: SocketAddr, mut badness: Badness, over: &AtomicBool) {
    std::thread::scope(|scope| {
        for near in listener.incoming().map(Result::unwrap) {
            if over.load(Ordering::Acquire) {
                break;
            }
            if badness.not_ready > 0 {
                badness.not_ready -= 1;
                continue;
            }
            let Ok(far) = TcpStream::connect(to) else { continue };
            for (from, to) in [(&near, &far), (&far, &near)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                scope.spawn(move || carry(from, to, badness));
            }
        }
    });
}

/// One way, until either side ends.
fn carry(mut from: TcpStream, mut to: TcpStream, badness: Badness) {
    let (sender, pieces) = sync_channel::<(Instant, Vec<u8>)>(64);
    std::thread::scope(move |scope| {
        scope.spawn(move || {
            let idle: (Sender<()>, Receiver<()>) = channel();
            for (due, piece) in pieces {
                let _ = idle.1.recv_timeout(due.saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
        let (mut buffer, mut free) = ([0; 4096], Instant::now());
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if badness.rate > 0 {
                free = free.max(Instant::now())
                    + Duration::from_secs(1) * u32::try_from(n).unwrap() / badness.rate;
            }
            if sender.send((free.max(Instant::now()) + badness.delay, buffer[..n].to_vec())).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Read);
        drop(sender);
    });
}
