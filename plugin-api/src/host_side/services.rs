//! Callbacks of plugins into the host.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RArc, RStr, RString};

use crate::abi::{RawHost, RawHost_TO, RawLevel};
use crate::convert::plain_level;
use crate::host::{Host, HostInfo, Level};

/// Longest log message or progress text that is taken from a plugin; the rest is cut off.
pub const MAX_LOG_BYTES: usize = 8 << 10;

/// What the host does for the plugins it calls. Called from any thread, at any time: also long after the call for which it
/// was made has ended. A panic in it is swallowed.
pub trait Services: Send + Sync + 'static {
    /// A line for the log; `fields` is a JSON object or empty.
    fn log(&self, level: Level, message: &str, fields: &str);
    /// What the call does just now.
    fn progress(&self, text: &str);
    /// Whether the call is to give up.
    fn cancelled(&self) -> bool;
    /// Waits for that, for `timeout` at most; says whether it is.
    fn wait_cancelled(&self, timeout: Duration) -> bool;
    /// Time left for the call; `None` if it has no deadline.
    fn remaining(&self) -> Option<Duration>;
    /// What the plugin is told of the host.
    fn info(&self) -> HostInfo;
}

/// The handle that plugins get.
pub fn host(services: Arc<dyn Services>) -> Host {
    Host::new(RawHost_TO::from_ptr(RArc::new(Callbacks(services)), TD_Opaque))
}

struct Callbacks(Arc<dyn Services>);

impl Callbacks {
    /// Nothing may unwind into a plugin. The panic was already told by the host's own hook.
    fn call<T>(&self, otherwise: T, call: impl FnOnce(&dyn Services) -> T) -> T {
        catch_unwind(AssertUnwindSafe(|| call(self.0.as_ref()))).unwrap_or(otherwise)
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_LOG_BYTES)]
}

impl RawHost for Callbacks {
    fn log(&self, level: RawLevel, message: RStr<'_>, fields: RStr<'_>) {
        let fields = if fields.len() <= MAX_LOG_BYTES { fields.as_str() } else { "" };
        self.call((), |host| host.log(plain_level(level), cut(message.as_str()), fields));
    }
    fn progress(&self, text: RStr<'_>) {
        self.call((), |host| host.progress(cut(text.as_str())));
    }
    fn cancelled(&self) -> bool {
        self.call(true, Services::cancelled)
    }
    fn wait_cancelled(&self, timeout_ms: u64) -> bool {
        self.call(true, |host| host.wait_cancelled(Duration::from_millis(timeout_ms)))
    }
    fn remaining_ms(&self) -> u64 {
        let ms = |left: Duration| u64::try_from(left.as_millis()).unwrap_or(u64::MAX - 1).min(u64::MAX - 1);
        self.call(0, |host| host.remaining().map_or(u64::MAX, ms))
    }
    fn info(&self) -> RString {
        self.call(RString::new(), |host| serde_json::to_string(&host.info()).unwrap_or_default().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;
    impl Services for Panics {
        fn log(&self, _: Level, _: &str, _: &str) {
            panic!("log");
        }
        fn progress(&self, _: &str) {
            panic!("progress");
        }
        fn cancelled(&self) -> bool {
            panic!("cancelled");
        }
        fn wait_cancelled(&self, _: Duration) -> bool {
            panic!("wait");
        }
        fn remaining(&self) -> Option<Duration> {
            panic!("remaining");
        }
        fn info(&self) -> HostInfo {
            panic!("info");
        }
    }

    #[test]
    fn a_host_that_panics_tells_its_plugins_to_stop() {
        let host = host(Arc::new(Panics));
        host.log(Level::Info, "x", &[("a", &1)]);
        host.progress("x");
        assert!(host.cancelled() && host.wait_cancelled(Duration::MAX));
        assert_eq!(host.remaining(), Some(Duration::ZERO));
        assert_eq!(host.facts(), HostInfo::default());
        assert!(host.state_dir().is_err());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(MAX_LOG_BYTES);
        assert_eq!(cut(&text).len(), MAX_LOG_BYTES);
        assert_eq!(cut(&text[..MAX_LOG_BYTES - 2]).len(), MAX_LOG_BYTES - 2);
        assert_eq!(cut(&format!("x{text}")).len(), MAX_LOG_BYTES - 1);
    }
}
