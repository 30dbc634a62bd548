//! What the documents say is what there is.

use std::fs;

use atex_tests::build::{plugin_crates, root};

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
    for document in
        ["README.md", "ARCHITECTURE.md", "docs/plugins.md", "docs/provisioners.md", "docs/leases.md"]
    {
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
fn every_bundled_provisioner_has_a_chapter() {
    let guide = read("docs/provisioners.md");
    for name in plugin_crates().unwrap().iter().filter_map(|name| name.strip_prefix("provisioner-")) {
        let chapter = guide.lines().any(|line| line.starts_with("## ") && line.contains(name));
        assert!(chapter, "docs/provisioners.md has no chapter on {name}");
    }
}

/// What a crate says of itself.
fn crate_documentation(name: &str) -> String {
    let code = read(&format!("plugins/{name}/src/lib.rs"));
    let lines = code.lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect()
}

/// The guide is made of the crates' own documentation; `ATEX_UPDATE_DOCS=1` makes it anew.
#[test]
fn the_guide_to_policies_and_reporters_is_that_of_their_crates() {
    let chapter = |name: &String| match name.split_once('-') {
        Some((kind @ ("policy" | "reporter"), short)) => {
            Some(format!("\n## {short} ({kind})\n\n{}", crate_documentation(name)))
        }
        _ => None,
    };
    let chapters: String = plugin_crates().unwrap().iter().filter_map(chapter).collect();
    let head = "# Policies and reporters\n\nThis page is made of the plugins' own documentation.\n";
    let guide = head.to_owned() + &chapters;
    let file = root().join("docs/policies.md");
    if std::env::var_os("ATEX_UPDATE_DOCS").is_some() {
        fs::write(&file, &guide).unwrap();
    }
    assert!(
        read("docs/policies.md") == guide,
        "docs/policies.md is not up to date: ATEX_UPDATE_DOCS=1 makes it anew"
    );
}
