//! A library's root: whether it fits this host, and what it can make.
//!
//! `abi_stable`'s own loading is not used: it keeps one library per type of root, whatever path it is asked for, and its
//! comparison of layouts goes one way only, so that every older plugin is refused. Here the versions are compared first,
//! for a readable refusal, then the older layout against the newer one.

use std::cmp::Ordering;
use std::ffi::c_void;
use std::fmt;
use std::str::FromStr;

use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::check_layout_compatibility;
use abi_stable::library::{AbiHeaderRef, LibHeader, LibraryError};
use abi_stable::type_layout::TypeLayout;

use super::{PolicyHandle, ProvisionerHandle, ReporterHandle, parse};
use crate::abi::PluginRoot_Ref;
use crate::convert::plain_result;
use crate::describe::Description;
use crate::error::Result;
use crate::host::Host;

/// Name of the symbol that [`export_plugin!`](crate::export_plugin) exports.
pub const ENTRY_SYMBOL: &str = "_1as_0lib_1header_0root_bmodule_bloader";

/// The check of layouts recurses deeply: about 20 KiB per level without optimization.
const CHECK_STACK_BYTES: usize = 32 << 20;

/// A version of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Different: incompatible.
    pub major: u32,
    /// Before 1.0, different: incompatible.
    pub minor: u32,
    /// Always compatible.
    pub patch: u32,
}

impl Version {
    /// The version of this crate.
    pub fn ours() -> Self {
        let number = |text: &str| text.parse().unwrap_or(0);
        Self {
            major: number(env!("CARGO_PKG_VERSION_MAJOR")),
            minor: number(env!("CARGO_PKG_VERSION_MINOR")),
            patch: number(env!("CARGO_PKG_VERSION_PATCH")),
        }
    }

    /// Whether a library and a host of these two versions work together, whichever is newer.
    pub fn compatible(self, other: Self) -> bool {
        self.major == other.major && (self.major > 0 || self.minor == other.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers = text.split(['-', '+']).next().unwrap_or(text);
        let mut parts = numbers.splitn(3, '.').map(u32::from_str);
        let mut next = || parts.next().unwrap_or(Ok(0));
        Ok(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

/// Why a library cannot be used by this host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its `abi_stable` is another.
    #[error(
        "it was built with abi_stable {plugin}, this host has {host}: rebuild it against atex-plugin-api {}",
        Version::ours()
    )]
    Foundation {
        /// Versions of the foundation, not of this crate.
        plugin: String,
        /// Ours.
        host: String,
    },
    /// Its version of this crate is out of range.
    #[error(
        "it was built for atex-plugin-api {plugin}, this host has {host}, which is incompatible: rebuild it"
    )]
    Version {
        /// Of the library.
        plugin: Version,
        /// Ours.
        host: Version,
    },
    /// The versions fit, the layouts do not.
    #[error("it was built with a changed atex-plugin-api {plugin}: {difference}")]
    Layout {
        /// Of the library.
        plugin: Version,
        /// The first difference.
        difference: String,
    },
    /// Its start-up failed.
    #[error("it does not start: {0}")]
    Start(String),
}

/// A library that fits, ready to make plugins. Usable from any thread, for ever: libraries are never unloaded.
#[derive(Clone, Copy)]
pub struct Root {
    raw: PluginRoot_Ref,
    api: Version,
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").field("api", &self.api).finish_non_exhaustive()
    }
}

impl Root {
    /// Checks the library behind `entry` and starts it.
    ///
    /// # Safety
    ///
    /// `entry` must be the address of the symbol [`ENTRY_SYMBOL`] of a library that is never unloaded.
    #[expect(unsafe_code, reason = "a symbol has no type of its own")]
    pub unsafe fn from_entry(entry: *const c_void) -> Result<Self, Refused> {
        if entry.is_null() {
            return Err(Refused::Start("its entry is empty".to_owned()));
        }
        // SAFETY: the caller promises that a header is there, for ever; `AbiHeaderRef` is a transparent pointer to it. Its
        // first field is a fixed text, which is compared before anything else is looked at.
        let header = unsafe { std::mem::transmute::<*const c_void, AbiHeaderRef>(entry) };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("plugin check".to_owned())
                .stack_size(CHECK_STACK_BYTES)
                .spawn_scoped(scope, || Self::check(header))
                .map_err(|error| Refused::Start(format!("no thread to check it on: {error}")))?
                .join()
                .unwrap_or_else(|_| Err(Refused::Start("the check of its layout panicked".to_owned())))
        })
    }

    fn check(header: AbiHeaderRef) -> Result<Self, Refused> {
        if !header.is_valid() {
            let ours = abi_stable::library::AbiHeader::VALUE;
            return Err(Refused::Foundation {
                plugin: format!("{}.{}", header.abi_major, header.abi_minor),
                host: format!("{}.{}", ours.abi_major, ours.abi_minor),
            });
        }
        let header = header.upgrade().map_err(|error| start(&error))?;
        let version = header.version_strings();
        let api = Version::from_str(version.version.as_str()).map_err(|_| {
            Refused::Start(format!("its version {:?} is no version", version.version.as_str()))
        })?;
        let host = Version::ours();
        if !api.compatible(host) {
            return Err(Refused::Version { plugin: api, host });
        }
        let layout = header.layout().ok_or_else(|| Refused::Start("it tells no layout".to_owned()))?;
        check_layouts(layout, api, <PluginRoot_Ref as StableAbi>::LAYOUT, host)
            .map_err(|difference| Refused::Layout { plugin: api, difference })?;
        Ok(Self { raw: start_root(header)?, api })
    }

    /// The version of this crate that the library was built with.
    pub fn api(&self) -> Version {
        self.api
    }

    /// What the library provides.
    pub fn describe(&self) -> Result<Description> {
        parse("its description", &plain_result(self.raw.describe()())?)
    }

    /// Makes a provisioner; `config` is a JSON object.
    pub fn provisioner(&self, name: &str, config: &str, host: &Host) -> Result<ProvisionerHandle> {
        let made = plain_result(self.raw.provisioner()(name.into(), config.into(), host.raw()))?;
        Ok(ProvisionerHandle::new(made))
    }

    /// Makes a policy; `config` is a JSON object.
    pub fn policy(&self, name: &str, config: &str, host: &Host) -> Result<PolicyHandle> {
        PolicyHandle::new(plain_result(self.raw.policy()(name.into(), config.into(), host.raw()))?)
    }

    /// Makes a reporter; `config` is a JSON object.
    pub fn reporter(&self, name: &str, config: &str, host: &Host) -> Result<ReporterHandle> {
        ReporterHandle::new(plain_result(self.raw.reporter()(name.into(), config.into(), host.raw()))?)
    }
}

#[expect(unsafe_code, reason = "the layouts were compared by us, not by abi_stable")]
fn start_root(header: &'static LibHeader) -> Result<PluginRoot_Ref, Refused> {
    // SAFETY: `check_layouts` has found the library's root to be a `PluginRoot_Ref`, up to appended fields, which are
    // looked up at run time.
    unsafe { header.init_root_module_with_unchecked_layout::<PluginRoot_Ref>() }
        .map_err(|error| start(&error))
}

fn start(error: &LibraryError) -> Refused {
    Refused::Start(first_line(&error.to_string()))
}

/// The checker wants the second layout to have at least what the first one has: so the older comes first. Two of the same
/// version must have the same.
fn check_layouts(
    plugin: &'static TypeLayout,
    plugin_version: Version,
    host: &'static TypeLayout,
    host_version: Version,
) -> Result<(), String> {
    let (older, newer) = match plugin_version.cmp(&host_version) {
        Ordering::Less => (plugin, host),
        Ordering::Equal | Ordering::Greater => (host, plugin),
    };
    check_layout_compatibility(older, newer).map_err(|error| difference(&error.to_string()))
}

/// The checker's report has hundreds of lines: the first error and its type are enough to know whom to ask.
fn difference(report: &str) -> String {
    let error = report
        .lines()
        .skip_while(|line| !line.trim_start().starts_with("Error:"))
        .map(str::trim)
        .find(|line| !line.is_empty() && *line != "Error:");
    let ty = report.lines().map(str::trim).find_map(|line| line.strip_prefix("type:"));
    match (ty, error) {
        (Some(ty), Some(error)) => format!("{} ({})", error.trim_start_matches("Error:").trim(), ty.trim()),
        (_, Some(error)) => error.to_owned(),
        _ => first_line(report),
    }
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_symbol_is_that_of_abi_stable() {
        let name = abi_stable::library::ROOT_MODULE_LOADER_NAME_WITH_NUL;
        assert_eq!(name.trim_end_matches('\0'), ENTRY_SYMBOL);
    }

    #[test]
    fn versions_are_compatible_within_a_range() {
        let table = [
            ("0.1.0", "0.1.9", true),
            ("0.1.9", "0.1.0", true),
            ("0.1.0", "0.2.0", false),
            ("1.0.0", "1.7.2", true),
            ("1.7.2", "1.0.0", true),
            ("1.0.0", "2.0.0", false),
            ("0.1.0", "1.1.0", false),
            ("1.2.3-rc.1", "1.2.3+local", true),
        ];
        for (a, b, expected) in table {
            let (a, b): (Version, Version) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.compatible(b), expected, "{a} {b}");
            assert_eq!(b.compatible(a), expected, "{b} {a}");
        }
        assert!("new".parse::<Version>().is_err());
        assert_eq!(Version::ours().to_string(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn an_empty_entry_is_refused() {
        #[expect(unsafe_code, reason = "a null pointer is explicitly looked for")]
        // SAFETY: never dereferenced.
        let refused = unsafe { Root::from_entry(std::ptr::null()) };
        assert!(matches!(refused, Err(Refused::Start(_))));
    }
}
