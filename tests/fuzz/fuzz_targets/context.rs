//! Any rule is decided, in any context: the first line is the rule, the others are `dimension=value`.

#![no_main]

use atex_host::fmf::context::{Context, Rule};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut lines = text.split('\n');
    let rule = lines.next().unwrap_or_default();
    let mut context = Context::new();
    for (dimension, value) in lines.filter_map(|line| line.split_once('=')) {
        context.add(dimension, value);
    }
    if let Ok(rule) = Rule::parse(rule) {
        let _ = context.decide(&rule);
        context.ignore_case(true);
        let _ = context.decide(&rule);
    }
    let _ = Context::parse(text);
});
