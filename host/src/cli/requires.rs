//! What `requires` prints: the packages that tests and prepare phases need, those of beakerlib libraries included.
//!
//! For people: the required ones, one per line, sorted, each once for all platforms.
//!
//! As JSON, an array with one object per platform: `{"platform": ..., "require": [...], "recommend": [...]}`, both sorted.

use std::collections::BTreeSet;
use std::io::{self, Write};

use serde_json::json;

use super::discover::{Platform, write_json};
use crate::fmf::discover::printable;

/// For people.
pub fn text(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let all: BTreeSet<String> = platforms.iter().flat_map(|(_, found)| found.packages().required).collect();
    all.iter().try_for_each(|package| writeln!(out, "{}", printable(package)))
}

/// For scripts.
pub fn json(out: &mut impl Write, platforms: &[Platform<'_>]) -> io::Result<()> {
    let packages = platforms.iter().map(|(platform, found)| {
        let packages = found.packages();
        json!({"platform": platform, "require": packages.required, "recommend": packages.recommended})
    });
    write_json(out, packages)
}

#[cfg(test)]
mod tests {
    use serde_json::Value as Json;

    use super::super::discover::tests::{discovered, written};
    use super::*;

    #[test]
    fn packages_are_sorted_and_come_once() {
        let one =
            discovered(&[("main.fmf", "test: t\n/a: {require: [b, a], recommend: c}\n/b: {require: a}\n")]);
        let two = discovered(&[
            ("t.fmf", "test: t\nrequire: [aa, b]"),
            ("plan.fmf", "discover: {}\nprepare: {how: install, package: z}\n"),
        ]);
        let platforms = [("one", &one), ("two", &two)];
        assert_eq!(written(|out| text(out, &platforms)), "a\naa\nb\nz\n");
        let shown: Json = serde_json::from_str(&written(|out| json(out, &platforms))).unwrap();
        let expected = json!([{"platform": "one", "require": ["a", "b"], "recommend": ["c"]},
            {"platform": "two", "require": ["aa", "b", "z"], "recommend": []}]);
        assert_eq!(shown, expected);
    }
}
