//! Which reservations are under way, so that they can be given up from another thread.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use atex_plugin_api::{Error, ErrorKind, Result};

use crate::call::Call;

/// The reservations of one provisioner that are under way, by lease.
#[derive(Debug, Default)]
pub struct Reservations {
    calls: Mutex<HashMap<String, Call>>,
    ended: Condvar,
}

/// A reservation that is under way; it has ended when this is dropped.
#[derive(Debug)]
pub struct Reservation<'a> {
    of: &'a Reservations,
    lease: String,
}

impl Reservations {
    /// Notes that `call` reserves for `lease`; an error if another call already does.
    pub fn begin(&self, lease: &str, call: &Call) -> Result<Reservation<'_>> {
        let mut calls = self.calls();
        if calls.contains_key(lease) {
            let message = format!("lease {lease} is being reserved by another call");
            return Err(Error::new(ErrorKind::Busy, message));
        }
        calls.insert(lease.to_owned(), call.clone());
        Ok(Reservation { of: self, lease: lease.to_owned() })
    }

    /// Cancels the reservation for `lease`, if one is under way here, and waits for its end. An error if that takes longer
    /// than `limit`.
    pub fn stop(&self, lease: &str, limit: Duration) -> Result<()> {
        let calls = self.calls();
        if let Some(call) = calls.get(lease) {
            call.cancel();
        }
        let waited = self.ended.wait_timeout_while(calls, limit, |calls| calls.contains_key(lease));
        let result = waited.unwrap_or_else(PoisonError::into_inner).1;
        if result.timed_out() {
            return Err(Error::new(ErrorKind::Other, format!("the reservation for {lease} does not end")));
        }
        Ok(())
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.of.calls().remove(&self.lease);
        self.of.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use atex_plugin_api::host_side::Cancel;

    use super::*;
    use crate::testing::fake;

    #[test]
    fn stopping_one_waits_for_its_end() {
        let all = Reservations::default();
        let call = Call::new(&fake(Cancel::new()).1).unwrap();
        let reservation = all.begin("a1", &call).unwrap();
        assert_eq!(all.begin("a1", &call).unwrap_err().kind(), ErrorKind::Busy);
        assert!(all.stop("a1", Duration::ZERO).is_err(), "it is still there");
        thread::scope(|scope| {
            scope.spawn(move || {
                assert!(call.wait(Duration::from_hours(1)));
                drop(reservation);
            });
            all.stop("a1", Duration::from_hours(1)).unwrap();
        });
        assert!(all.calls().is_empty());
        all.stop("a1", Duration::ZERO).unwrap();
    }
}
