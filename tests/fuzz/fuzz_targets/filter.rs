//! Any filter says something about any data: the first line is the filter, the rest a document.

#![no_main]

use atex_host::fmf::filter::{Filter, Options};
use atex_host::fmf::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (filter, document) = text.split_once('\n').unwrap_or((text, "tag: [a, b]\ncomponent: bash\n"));
    let Ok(document) = yaml::parse(document) else { return };
    let Some(data) = document.as_map() else { return };
    for case_sensitive in [true, false] {
        for regex in [true, false] {
            let filter = Filter::with_options(filter, Options { case_sensitive, regex });
            let _ = filter.check(Some("/tests/one"), data);
            let _ = filter.check(None, data);
        }
    }
});
