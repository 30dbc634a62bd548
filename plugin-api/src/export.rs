//! What [`export_plugin!`](crate::export_plugin) expands to. Nothing here is for authors to use directly.

use abi_stable::std_types::{RResult, RStr, RString};

use crate::abi::{HostRef, PolicyBox, ProvisionerBox, RawError, ReporterBox};
use crate::adapter;
use crate::convert::raw_result;
use crate::describe::{Description, Kind, Provided};
use crate::error::{Error, ErrorKind, Result};
use crate::guard::guard;
use crate::host::Host;
use crate::plugin::{Plugin, nearest};
use crate::policy::Policy;
use crate::provisioner::Provisioner;
use crate::reporter::Reporter;

/// Version of this crate, as libraries tell it.
pub const API: &str = env!("CARGO_PKG_VERSION");

/// A library: the crate's name and version, and what it provides.
#[derive(Debug)]
pub struct Library {
    pub name: &'static str,
    pub version: &'static str,
    pub entries: &'static [Entry],
}

/// One plugin of a library.
#[derive(Debug)]
pub struct Entry {
    name: &'static str,
    describe: fn() -> Provided,
    make: Make,
}

/// How it is made. Function pointers, so that an entry is a constant.
#[derive(Debug)]
enum Make {
    Provisioner(Constructor<ProvisionerBox>),
    Policy(Constructor<PolicyBox>),
    Reporter(Constructor<ReporterBox>),
}

/// From the configuration as JSON.
type Constructor<T> = fn(&str, Host) -> Result<T>;

fn provided<P: Plugin>(kind: Kind) -> Provided {
    Provided {
        kind,
        about: P::ABOUT.to_owned(),
        schema: schemars::schema_for!(P::Config).to_value(),
        ..Provided::default()
    }
}

impl Entry {
    /// `provisioner "NAME" => TYPE`
    pub const fn provisioner<P: Provisioner>(name: &'static str) -> Self {
        fn describe<P: Provisioner>() -> Provided {
            Provided {
                capabilities: P::CAPABILITIES.names().into_iter().map(str::to_owned).collect(),
                settle_s: P::SETTLE.as_secs(),
                ..provided::<P>(Kind::Provisioner)
            }
        }
        Self { name, describe: describe::<P>, make: Make::Provisioner(adapter::provisioner::<P>) }
    }

    /// `policy "NAME" => TYPE`
    pub const fn policy<P: Policy + Plugin>(name: &'static str) -> Self {
        fn describe<P: Plugin>() -> Provided {
            provided::<P>(Kind::Policy)
        }
        Self { name, describe: describe::<P>, make: Make::Policy(adapter::policy::<P>) }
    }

    /// `reporter "NAME" => TYPE`
    pub const fn reporter<P: Reporter>(name: &'static str) -> Self {
        fn describe<P: Plugin>() -> Provided {
            provided::<P>(Kind::Reporter)
        }
        Self { name, describe: describe::<P>, make: Make::Reporter(adapter::reporter::<P>) }
    }
}

impl Library {
    /// The root's `describe`.
    pub fn describe(&self) -> RResult<RString, RawError> {
        raw_result(guard(|| Ok(serde_json::to_string(&self.description())?.into())))
    }

    /// The root's `provisioner`.
    pub fn provisioner(
        &self,
        name: RStr<'_>,
        config: RStr<'_>,
        host: HostRef,
    ) -> RResult<ProvisionerBox, RawError> {
        self.make(Kind::Provisioner, name, config, host, |make| match make {
            Make::Provisioner(make) => Some(*make),
            _ => None,
        })
    }

    /// The root's `policy`.
    pub fn policy(&self, name: RStr<'_>, config: RStr<'_>, host: HostRef) -> RResult<PolicyBox, RawError> {
        self.make(Kind::Policy, name, config, host, |make| match make {
            Make::Policy(make) => Some(*make),
            _ => None,
        })
    }

    /// The root's `reporter`.
    pub fn reporter(
        &self,
        name: RStr<'_>,
        config: RStr<'_>,
        host: HostRef,
    ) -> RResult<ReporterBox, RawError> {
        self.make(Kind::Reporter, name, config, host, |make| match make {
            Make::Reporter(make) => Some(*make),
            _ => None,
        })
    }

    fn description(&self) -> Description {
        let provides =
            self.entries.iter().map(|entry| Provided { name: entry.name.to_owned(), ..(entry.describe)() });
        Description {
            library: self.name.to_owned(),
            version: self.version.to_owned(),
            api: API.to_owned(),
            provides: provides.collect(),
        }
    }

    fn make<T>(
        &self,
        kind: Kind,
        name: RStr<'_>,
        config: RStr<'_>,
        host: HostRef,
        of_kind: impl Fn(&Make) -> Option<Constructor<T>>,
    ) -> RResult<T, RawError> {
        let name = name.as_str();
        let found = self.entries.iter().find(|entry| entry.name == name && of_kind(&entry.make).is_some());
        raw_result(if let Some(make) = found.and_then(|entry| of_kind(&entry.make)) {
            guard(|| make(config.as_str(), Host::new(host)))
        } else {
            let others = self.entries.iter().filter(|entry| of_kind(&entry.make).is_some());
            Err(no_such(kind, name, nearest(name, others.map(|entry| entry.name))))
        })
    }
}

fn no_such(kind: Kind, name: &str, near: Option<&str>) -> Error {
    let hint = near.map_or_else(String::new, |near| format!(", did you mean {near:?}?"));
    Error::new(ErrorKind::Unsupported, format!("this library has no {kind} {name:?}{hint}"))
}

/// Makes a library of plugins out of a crate with `crate-type = ["cdylib"]`: once per crate, anywhere in it.
///
/// Each line names a kind (`provisioner`, `policy` or `reporter`), the name users write, and the type.
///
/// ```
/// # use atex_plugin_api::{Host, NoConfig, Plugin, Result, reporter::{Finished, Reporter}};
/// # struct Mine;
/// # impl Plugin for Mine {
/// #     type Config = NoConfig;
/// #     fn new(_: NoConfig, _: Host) -> Result<Self> { Ok(Self) }
/// # }
/// # impl Reporter for Mine {
/// #     fn finished(&mut self, _: &Finished, _: &Host) -> Result<()> { Ok(()) }
/// # }
/// atex_plugin_api::export_plugin! {
///     reporter "mine" => Mine,
/// }
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($($kind:ident $name:literal => $plugin:ty),+ $(,)?) => {
        #[cfg(not(panic = "unwind"))]
        compile_error!("plugins for atex-host must be built with panic = \"unwind\"");

        #[doc(hidden)]
        #[allow(unsafe_code, clippy::allow_attributes, non_upper_case_globals)]
        const _: () = {
            use $crate::__abi_stable as __sabi;
            use __sabi::library::{CheckTypeLayout, LibHeader, RootModuleResult};
            use __sabi::std_types::{RResult, RStr, RString};
            use $crate::abi::{HostRef, PluginRoot, PluginRoot_Ref, PolicyBox, ProvisionerBox, RawError, ReporterBox};

            static LIBRARY: $crate::export::Library = $crate::export::Library {
                name: env!("CARGO_PKG_NAME"),
                version: env!("CARGO_PKG_VERSION"),
                entries: &[$($crate::export::Entry::$kind::<$plugin>($name)),+],
            };
            extern "C" fn describe() -> RResult<RString, RawError> {
                LIBRARY.describe()
            }
            extern "C" fn provisioner(n: RStr<'_>, c: RStr<'_>, h: HostRef) -> RResult<ProvisionerBox, RawError> {
                LIBRARY.provisioner(n, c, h)
            }
            extern "C" fn policy(n: RStr<'_>, c: RStr<'_>, h: HostRef) -> RResult<PolicyBox, RawError> {
                LIBRARY.policy(n, c, h)
            }
            extern "C" fn reporter(n: RStr<'_>, c: RStr<'_>, h: HostRef) -> RResult<ReporterBox, RawError> {
                LIBRARY.reporter(n, c, h)
            }
            extern "C" fn root() -> RootModuleResult {
                fn make() -> PluginRoot_Ref {
                    use __sabi::prefix_type::PrefixTypeTrait as _;
                    PluginRoot { describe, provisioner, policy, reporter }.leak_into_prefix()
                }
                __sabi::library::__call_root_module_loader(make)
            }
            // The symbol that the host looks for. SAFETY: `root` makes a `PluginRoot_Ref`.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static ROOT: LibHeader =
                unsafe { LibHeader::from_constructor::<PluginRoot_Ref>(root, CheckTypeLayout::Yes) };
        };
    };
}
