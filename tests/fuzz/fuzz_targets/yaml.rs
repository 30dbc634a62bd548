//! Any text is a document or an error; what is read can be written.

#![no_main]

use atex_host::fmf::value::Keys;
use atex_host::fmf::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match yaml::parse(text) {
        Ok(value) => {
            let mut typed = String::new();
            value.write_typed(&mut typed, Keys::AsIs);
            assert!(typed.is_ascii());
            let _ = value.to_string();
        }
        Err(error) => assert!(error.line > 0 && error.column > 0),
    }
});
