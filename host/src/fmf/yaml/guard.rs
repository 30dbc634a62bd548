//! Calls into the YAML parser that may panic.
//!
//! The parser has assertions of its own, and a few malformed documents trip them where libyaml reports an error. Such a document is
//! refused like any other, and nothing is printed. The panic hook belongs to the whole process, so the one set here, once, only
//! holds its tongue for a thread that is inside a guarded call; everything else goes to the hook that was there before.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What `call` returns; nothing if it panics. Calls do not nest.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !INSIDE.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
    INSIDE.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(call));
    INSIDE.set(false);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing_and_the_thread_goes_on() {
        assert_eq!(guarded(|| 5), Some(5));
        assert_eq!(guarded::<u8>(|| panic!("inside")), None);
        assert!(!INSIDE.get());
        assert_eq!(guarded(|| 6), Some(6));
    }
}
