//! Any condition is true, false or an error: the first line is the condition, the rest a document.

#![no_main]

use atex_host::fmf::expression::Condition;
use atex_host::fmf::yaml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (condition, document) = text.split_once('\n').unwrap_or((text, "tag: [a, b]\nn: 1\nenv: {A: 1.5}\n"));
    let Ok(document) = yaml::parse(document) else { return };
    let Some(data) = document.as_map() else { return };
    if let Ok(condition) = Condition::parse(condition) {
        let _ = condition.holds(data);
    }
});
