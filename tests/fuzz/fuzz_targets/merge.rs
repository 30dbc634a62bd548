//! Any document is a tree, or an error; any tree can be adjusted, or not.

#![no_main]

use std::sync::Arc;

use atex_host::fmf::{Adjustment, Context, Order, Tree, yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(document) = yaml::parse(text) else { return };
    let Some(data) = document.as_map() else { return };
    let Ok(tree) = Tree::from_data(data) else { return };
    let mut context = Context::new();
    context.add("distro", "fedora-40");
    let tree = Arc::new(tree);
    if let Ok(view) = tree.adjust(&Adjustment::new(&context)) {
        for node in view.climb(Order::Sorted) {
            assert!(node.name().starts_with('/'));
            let _ = format!("{:?}", node.data());
        }
    }
});
