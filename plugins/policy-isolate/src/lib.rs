//! Policy `isolate`: a fresh machine for every test. No machine is used for a second one.
//!
//! ```yaml
//! policies:
//!   - {use: isolate}
//! ```

use atex_plugin_api::policy::{Class, VETO};
use atex_plugin_api::prelude::*;

/// The policy.
#[derive(Debug)]
pub struct Isolate;

impl Plugin for Isolate {
    type Config = NoConfig;
    const ABOUT: &'static str = "a fresh machine for every test";

    fn new(_config: NoConfig, _host: Host) -> Result<Self> {
        Ok(Self)
    }
}

impl Policy for Isolate {
    fn wants(&self) -> Wants {
        Wants::new().prefer().judge()
    }

    /// With several slots a machine that runs one test would get another.
    fn prefer(&self, view: &View<'_>, _window: &[Class], out: &mut Vec<Prefer>) -> Result<()> {
        if view.ran > 0 || !view.running.is_empty() {
            out.push(Prefer::Class(0, VETO));
        }
        Ok(())
    }

    fn judge(&self, _run: &Run<'_>) -> Result<Judgement> {
        Ok(Judgement::spoilt(true))
    }
}

atex_plugin_api::export_plugin!(policy "isolate" => Isolate);

#[cfg(test)]
mod tests {
    use atex_plugin_api::testkit::{self, FakeHost};

    use super::*;

    #[test]
    fn one_test_per_machine() {
        let wish = |ran, running: &[u32]| {
            let mut view = View::new(0);
            (view.ran, view.running) = (ran, running);
            let mut out = vec![];
            Isolate.prefer(&view, &[], &mut out).unwrap();
            out
        };
        assert_eq!(wish(0, &[]), []);
        assert_eq!(wish(1, &[]), [Prefer::Class(0, VETO)]);
        assert_eq!(wish(0, &[7]), [Prefer::Class(0, VETO)]);
    }

    #[test]
    fn it_keeps_the_rules() {
        let make = || testkit::policy::<Isolate>("{}", &FakeHost::new().handle()).unwrap();
        assert_eq!(testkit::check_policy(make, &["/a", "/b"], |_, _| String::new(), |_| String::new()), []);
    }
}
