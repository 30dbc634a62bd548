//! The one funnel for calls into an author's code: a panic becomes an [`Error`] that tells where it happened.
//!
//! Every plugin library has a standard library of its own, hence a panic hook of its own. The hook set here only records
//! panics of guarded calls; all others go to the hook that was there before.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use crate::error::{Error, ErrorKind, Result};

thread_local! {
    /// Guarded calls that this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `call`; its panic is an error of kind [`ErrorKind::Panic`].
pub(crate) fn guard<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    install_hook();
    let entered = Depth::enter();
    let outcome = catch_unwind(AssertUnwindSafe(call));
    drop(entered);
    outcome.unwrap_or_else(|payload| Err(panic_error(payload)))
}

/// Runs `drop`; its panic is swallowed after `report` was told of it.
pub(crate) fn guard_drop(drop: impl FnOnce(), report: impl FnOnce(&Error)) {
    if let Err(error) = guard(|| {
        drop();
        Ok(())
    }) {
        // The report calls the host, which guards itself, through code of ours: still, nothing may escape from a destructor.
        let _ = guard(|| {
            report(&error);
            Ok(())
        });
    }
}

struct Depth;

impl Depth {
    fn enter() -> Self {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get() + 1));
        Self
    }
}

impl Drop for Depth {
    fn drop(&mut self) {
        let _ = DEPTH.try_with(|depth| depth.set(depth.get().saturating_sub(1)));
    }
}

fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.try_with(Cell::get).unwrap_or(0) > 0 { record(info) } else { before(info) }
        }));
    });
}

fn record(info: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let mut text = format!("{info}\nin thread {:?}", thread.name().unwrap_or("without a name"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text = format!("{text}\n{backtrace}");
    }
    let _ = LAST_PANIC.try_with(|last| *last.borrow_mut() = Some(text));
}

fn panic_error(payload: Box<dyn Any + Send>) -> Error {
    let message = payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is no text".to_owned());
    // The payload is the author's: its destructor may panic as well.
    std::mem::forget(payload);
    let detail = LAST_PANIC.try_with(|last| last.borrow_mut().take()).ok().flatten().unwrap_or_default();
    Error::new(ErrorKind::Panic, format!("panicked: {message}")).with_detail(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("from a destructor");
        }
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_place() {
        let error = guard::<()>(|| panic!("no such luck: {}", 7)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Panic);
        assert_eq!(error.to_string(), "panicked: no such luck: 7");
        assert!(error.detail().contains("guard.rs"), "{}", error.detail());
    }

    #[test]
    fn a_payload_whose_destructor_panics_is_harmless() {
        let error = guard::<()>(|| std::panic::panic_any(PanicsOnDrop)).unwrap_err();
        assert_eq!(error.to_string(), "panicked: a value that is no text");
    }

    #[test]
    fn a_panic_in_a_destructor_is_reported() {
        let mut told = None;
        guard_drop(|| drop(PanicsOnDrop), |error| told = Some(error.to_string()));
        assert_eq!(told.as_deref(), Some("panicked: from a destructor"));
    }

    #[test]
    fn guards_nest() {
        let outer = guard(|| {
            assert!(guard::<()>(|| panic!("inner")).is_err());
            assert_eq!(DEPTH.with(Cell::get), 1);
            Ok(5)
        });
        assert_eq!(outer, Ok(5));
        assert_eq!(DEPTH.with(Cell::get), 0);
    }
}
