//! [`Reporter`] behind [`RawReporter`].

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RResult, RStr, RString};

use super::{Guarded, from_json, to_json};
use crate::abi::{HostRef, RawError, RawEvent, RawReporter, RawReporter_TO, ReporterBox};
use crate::convert::raw_result;
use crate::error::Result;
use crate::guard::guard;
use crate::host::Host;
use crate::reporter::{Promised, Reporter};

struct Adapter<P>(Guarded<P>);

/// Makes one from its configuration.
pub(crate) fn reporter<P: Reporter>(config: &str, host: Host) -> Result<ReporterBox> {
    let adapter = Adapter(guard(|| Guarded::<P>::make(config, host))?);
    Ok(RawReporter_TO::from_ptr(RBox::new(adapter), TD_Opaque))
}

impl<P: Reporter> RawReporter for Adapter<P> {
    fn wants(&self) -> RResult<RString, RawError> {
        raw_result(guard(|| Ok(to_json("what the reporter wants", &self.0.plugin.wants())?.into())))
    }

    fn event(&mut self, event: RawEvent, json: RStr<'_>, host: HostRef) -> RResult<(), RawError> {
        raw_result(guard(|| {
            let (plugin, host) = (&mut self.0.plugin, &Host::new(host));
            let json = json.as_str();
            match event {
                RawEvent::RUN_STARTED => plugin.run_started(&from_json("run", json)?, host),
                RawEvent::PROMISED => plugin.promised(&from_json::<Vec<Promised>>("tests", json)?, host),
                RawEvent::MACHINE => plugin.machine(&from_json("machine event", json)?, host),
                RawEvent::TEST => plugin.test(&from_json("test event", json)?, host),
                RawEvent::FINISHED => plugin.finished(&from_json("execution", json)?, host),
                RawEvent::RUN_ENDED => plugin.run_ended(&from_json("end of the run", json)?, host),
                _ => Ok(()),
            }
        }))
    }
}
