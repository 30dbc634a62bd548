//! Provisioners: they supply machines and take them back.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::model::{Held, Lease, Machine};
use crate::plugin::Plugin;

/// What a provisioner can do, a set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Capabilities(u64);

impl Capabilities {
    /// Nothing beyond `reserve` and `release`.
    pub const NONE: Self = Self(0);
    /// [`Provisioner::list`] finds what is held: the host can clean up after itself, even after it was killed.
    pub const LIST: Self = Self(1);
    /// Each lease ends by itself: the provider ends it after [`Lease::lifetime_s`], or nothing but this process knows of it.
    pub const EXPIRES: Self = Self(1 << 1);
    /// [`Provisioner::renew`] works.
    pub const RENEW: Self = Self(1 << 2);
    /// [`Provisioner::reboot`] works.
    pub const REBOOT: Self = Self(1 << 3);
    /// [`Provisioner::alive`] really asks the provider.
    pub const ALIVE: Self = Self(1 << 4);

    const NAMES: [(Self, &'static str); 5] = [
        (Self::LIST, "list"),
        (Self::EXPIRES, "expires"),
        (Self::RENEW, "renew"),
        (Self::REBOOT, "reboot"),
        (Self::ALIVE, "alive"),
    ];

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The words by which a library's description names them.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(bit, _)| self.has(*bit)).map(|(_, name)| *name).collect()
    }

    /// The set of these words; unknown ones are ignored.
    pub fn from_names<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Self {
        names.into_iter().fold(Self::NONE, |set, name| {
            let bit = Self::NAMES.iter().find(|(_, word)| *word == name.as_ref());
            bit.map_or(set, |(bit, _)| set.and(*bit))
        })
    }
}

/// Supplies machines.
///
/// # Threads and repetition
///
/// All methods may be called from any thread, and several at the same time; each call has a thread of its own for as long
/// as it takes. Every method may be called twice with the same arguments, also by another host process after this one died:
/// `release` and `abort` of something that is not there succeed.
///
/// # Deadlines
///
/// [`Host::cancelled`] of the handle that comes with a call tells when to give up. A call that does not end by then is left
/// alone; the host assumes that it may still hold something, and looks with [`list`](Self::list).
pub trait Provisioner: Plugin + Send + Sync {
    /// What can work beyond reserving and releasing. It is the same for every configuration: a method that a particular one does
    /// not allow answers [`Error::unsupported`], and the host takes that for "cannot". A provisioner without [`Capabilities::LIST`] should have
    /// [`Capabilities::EXPIRES`]: otherwise nothing can clean up after a host that was killed.
    const CAPABILITIES: Capabilities = Capabilities::LIST;

    /// How long after `reserve` was cut off the provider may still come up with the machine. The host takes a lease for gone
    /// only after `list` has shown nothing for that long.
    const SETTLE: Duration = Duration::from_mins(10);

    /// Gets a machine, ready to be connected to, or fails. Name or tag what you create with [`Lease::mark`], or write the
    /// mark down in [`Host::state_dir`], before it can be lost.
    ///
    /// Takes as long as needed, [`Lease::timeout_s`] at most. Between questions to the provider pause with
    /// [`Host::wait_cancelled`]. When it fails nothing is left behind; if that cannot be made sure, the error is
    /// [uncertain](Error::uncertain). [`ErrorKind::Busy`](crate::ErrorKind::Busy) says that nothing is free just now.
    fn reserve(&self, lease: &Lease, host: &Host) -> Result<Machine>;

    /// Gives a machine back, by [`Machine::id`] or [`Held::id`]. Returns when the provider has confirmed that it is gone.
    /// [`HostInfo::spoilt`](crate::host::HostInfo::spoilt) of the call says whether the machine is fit for another test, as far
    /// as the host knows. Limit: 5 minutes, if the configuration does not say otherwise; then it is called again.
    fn release(&self, machine: &str, host: &Host) -> Result<()>;

    /// Everything held for `owner`, with its mark, also by other runs and other hosts; an empty `owner` means anybody.
    /// A part of the pool that cannot be asked is told as [unknown](Held::unknown); an incomplete list that looks whole would
    /// make the host forget machines. Limit: 1 minute. Not called without [`Capabilities::LIST`].
    fn list(&self, _owner: &str, _host: &Host) -> Result<Vec<Held>> {
        Err(Error::unsupported("this provisioner cannot list"))
    }

    /// Gives up the reservation of the lease with this id, on another thread than the one where `reserve` blocks. That
    /// call's handle is cancelled as well, so a `reserve` that looks at it needs nothing here. Limit: 1 minute.
    fn abort(&self, _lease: &str, _host: &Host) -> Result<()> {
        Ok(())
    }

    /// Whether the provider still has the machine. An error means "cannot tell". Asked when a machine was lost, before it is
    /// given back, and every few minutes while one is away to reboot: one that is gone is not waited for. Limit: 1 minute.
    fn alive(&self, _machine: &str, _host: &Host) -> Result<bool> {
        Err(Error::unsupported("this provisioner cannot tell whether a machine is there"))
    }

    /// Asks to keep the machine for `lifetime` from now; says when it will end, in seconds of Unix time, or `None` if it
    /// will not. Called well before [`Machine::expires`], and again if it failed and may be tried again; when it cannot be
    /// renewed the machine is given back in time. Limit: 1 minute.
    fn renew(&self, _machine: &str, _lifetime: Duration, _host: &Host) -> Result<Option<u64>> {
        Err(Error::unsupported("this provisioner cannot renew a lease"))
    }

    /// Resets the machine the hard way, as by its power button, because a test asked for that, or wants a reboot that the
    /// machine cannot do by itself (a container). What was written to its file systems should stay. Returns when the reset was carried out; the host waits for
    /// the system to come up by itself. Limit: 5 minutes.
    fn reboot(&self, _machine: &str, _host: &Host) -> Result<()> {
        Err(Error::unsupported("this provisioner cannot reset a machine"))
    }

    /// How many machines can be held at a time; `None` if that is not known. Asked once, before the first reservation; it
    /// is a hint, `reserve` may fail all the same. Limit: 1 minute.
    fn capacity(&self, _host: &Host) -> Result<Option<u64>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_bits_are_the_same() {
        let all = Capabilities::NAMES.iter().fold(Capabilities::NONE, |set, (bit, _)| set.and(*bit));
        assert_eq!(all.names(), ["list", "expires", "renew", "reboot", "alive"]);
        assert_eq!(Capabilities::from_names(all.names()), all);
        assert_eq!(Capabilities::from_names(["list", "of-tomorrow"]), Capabilities::LIST);
        assert!(all.has(Capabilities::RENEW.and(Capabilities::LIST)));
        assert!(!Capabilities::LIST.has(all));
    }
}
