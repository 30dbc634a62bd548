//! What the documents say is what there is.

use std::fs;

use atex_tests::build::root;

/// Empty for a file that is not there: it then lacks whatever is looked for.
fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_default()
}

#[test]
fn the_readme_has_the_minimal_plugin_as_it_is_built() {
    let readme = read("README.md");
    let example = read("plugin-api/examples/fixed.rs");
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README.md: copy plugin-api/examples/fixed.rs into it"
    );
}

#[test]
fn files_that_documents_point_to_exist() {
    for document in ["README.md", "ARCHITECTURE.md", "docs/plugins.md", "docs/provisioners.md"] {
        let text = read(document);
        let directory = root().join(document);
        let directory = directory.parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if !link.contains("://") && !link.starts_with('#') {
                let file = link.split('#').next().unwrap();
                assert!(directory.join(file).exists(), "{document} points to {link}");
            }
        }
    }
}

#[test]
fn every_bundled_plugin_is_in_the_guide() {
    let guides = read("docs/provisioners.md") + &read("docs/plugins.md") + &read("docs/configuration.md");
    for name in atex_tests::build::plugin_crates().unwrap() {
        let (_, name) = name.split_once('-').unwrap();
        assert!(guides.contains(&format!("`{name}`")), "{name} is in no guide below docs/");
    }
}
