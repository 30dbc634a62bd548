//! A call of foreign code that is left behind when it takes too long.

use std::{fmt, io, sync::mpsc, thread, time::Duration};

/// Enough for plugins that talk to a server; those that need more make threads of their own.
pub(crate) const STACK_BYTES: usize = 1 << 20;

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// It was left behind; its thread may run for ever.
    Silent(Duration),
    Thread(io::Error),
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(limit) => write!(f, "no answer within {limit:?}"),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

/// Calls on a thread called `name`, and waits for `limit`.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    name: String,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, NoAnswer> {
    let (tell, told) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name(name)
        .stack_size(STACK_BYTES)
        .spawn(move || {
            let _too_late = tell.send(call());
        })
        .map_err(NoAnswer::Thread)?;
    told.recv_timeout(limit).map_err(|_| NoAnswer::Silent(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_never_returns_is_left_behind() {
        assert_eq!(within(Duration::MAX, "quick".into(), || 7).unwrap(), 7);
        let (_open, closed) = mpsc::channel::<()>();
        let stuck = within(Duration::from_millis(10), "stuck".into(), move || closed.recv());
        assert_eq!(stuck.unwrap_err().to_string(), "no answer within 10ms");
    }
}
