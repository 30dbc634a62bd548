//! What `show` prints: the final metadata of the tests.
//!
//! For people: one YAML document per test, its final name first; with several platforms and plans a comment `# PLATFORM: PLAN`
//! at the top of each document. Invisible characters are shown as escapes, so a document with such is no YAML to read again.
//!
//! As JSON, an array with one object per test: `{"platform": ..., "plan": ..., "name": ..., "directory": ..., "metadata": {...}}`; `plan`
//! is null for all tests of a tree. Fields may be added.

use std::io::{self, Write};

use serde_json::json;

use super::discover::{Platform, plans, title, write_json};
use crate::fmf::discover::printable;

/// For people.
pub fn text(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let several = plans(platforms).count() > 1;
    for (platform, plan) in plans(platforms) {
        for test in &plan.tests {
            writeln!(out, "---")?;
            if several {
                writeln!(out, "# {}", title(platform, plan))?;
            }
            let document = serde_yaml::to_string(&test.metadata()).map_err(io::Error::other)?;
            document.lines().try_for_each(|line| writeln!(out, "{}", shown(line)))?;
        }
    }
    Ok(())
}

/// YAML escapes what moves the cursor, but not what is invisible or turns the direction of writing.
fn shown(line: &str) -> String {
    line.split('\t').map(printable).collect::<Vec<_>>().join("\t")
}

/// For scripts.
pub fn json(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let tests = plans(platforms).flat_map(|(platform, plan)| {
        plan.tests.iter().map(move |test| {
            json!({
                "platform": platform,
                "plan": plan.name,
                "name": &*test.name,
                "directory": test.cwd,
                "metadata": test.metadata().to_json(),
            })
        })
    });
    write_json(out, tests)
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::discover::tests::{discovered, written};
    use super::*;

    #[test]
    fn documents_have_the_final_metadata() {
        let found = discovered(&[(
            "main.fmf",
            "test: t\n/a: {tag: [x], n: 1.0}\n/b: {adjust: {k: v}, s: \"\\e[1m\"}\n",
        )]);
        let shown = written(|out| text(out, &[("default", &found)]));
        let expected =
            "---\nname: /a\ntest: t\ntag:\n- x\nn: 1.0\n---\nname: /b\ntest: t\ns: \"\\e[1m\"\nk: v\n";
        assert_eq!(shown, expected);
        let titled = written(|out| text(out, &[("one", &found), ("two", &found)]));
        assert!(
            titled.starts_with("---\n# one\nname: /a\n") && titled.contains("---\n# two\nname: /b\n"),
            "{titled}"
        );
    }

    #[test]
    fn nothing_is_hidden_from_people() {
        let found = discovered(&[("main.fmf", "/a\u{202e}:\n  test: |\n    x\n    \ty\n")]);
        let expected = "---\nname: /a\\u{202e}\ntest: \"x\\n\\ty\\n\"\n";
        assert_eq!(written(|out| text(out, &[("default", &found)])), expected);
    }

    #[test]
    fn json_has_the_shape_that_is_documented() {
        let found = discovered(&[("d/t.fmf", "test: t\nm: {k: [1, null]}")]);
        let shown: Json = serde_json::from_str(&written(|out| json(out, &[("default", &found)]))).unwrap();
        let expected = json!([{"platform": "default", "plan": null, "name": "/d/t", "directory": "d",
            "metadata": {"name": "/d/t", "test": "t", "m": {"k": [1, null]}}}]);
        assert_eq!(shown, expected);
    }
}
