//! Any duration is a length of time or an error.

#![no_main]

use atex_host::fmf::duration;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(length) = duration::parse(text, duration::DEFAULT) {
        assert!(length <= duration::MAX);
    }
    let _ = duration::single(text);
});
