//! Which names tests have in a report: repeated ones and clashes with places of subtests get a number.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Component, Path, PathBuf};

use crate::files::Listing;

/// Remembers which tests were reported and which places they use, by hash: a million tests are some hundred MiB at most.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// How often a test was reported.
    seen: HashMap<u64, u32>,
    /// Places of tests.
    places: HashSet<u64>,
    /// Places of tests, and what leads to them.
    tests: HashSet<u64>,
    /// Everything below places of tests.
    contents: HashSet<u64>,
    /// The files among it.
    files: HashSet<u64>,
}

impl Names {
    /// How often the test was reported before; from now on once more.
    pub(crate) fn count(&mut self, platform: &str, test: &str) -> u32 {
        let times = self.seen.entry(hash(&(platform, test))).or_default();
        *times += 1;
        *times - 1
    }

    /// A report of this test failed and left nothing.
    pub(crate) fn uncount(&mut self, platform: &str, test: &str) {
        if let Some(times) = self.seen.get_mut(&hash(&(platform, test))) {
            *times = times.saturating_sub(1);
        }
    }

    /// The name under which the test's files have a place of their own, and that place, relative: the name itself, or with
    /// the first number that makes it so. The number stands where the clash is, which is the end of the name, unless a file
    /// of another test is in the way there.
    pub(crate) fn place(&mut self, platform: &str, name: &str, listing: &Listing) -> (String, PathBuf) {
        let (mut place, mut out) = (relative(platform), String::new());
        let last = name.split('/').filter(|part| is_normal(part)).count();
        let mut seen = 0;
        for (index, part) in name.split('/').enumerate() {
            out.push_str(if index == 0 { "" } else { "/" });
            if !is_normal(part) {
                out.push_str(part);
                continue;
            }
            seen += 1;
            let part = self.free_part(&place, part, (seen == last).then_some(listing));
            place.push(&part);
            out.push_str(&part);
        }
        self.take(&place, listing);
        (out, place)
    }

    /// `part` with the first number that is free in `parent`. There are finitely many places in use, so there is one.
    fn free_part(&self, parent: &Path, part: &str, listing: Option<&Listing>) -> String {
        let free = |part: &String| {
            let place = parent.join(part);
            match listing {
                Some(listing) => self.is_free(&place, listing),
                None => !self.files.contains(&hash(&place)),
            }
        };
        (0..=u32::MAX).map(|number| numbered(part, number)).find(free).unwrap_or_else(|| part.to_owned())
    }

    fn is_free(&self, place: &Path, listing: &Listing) -> bool {
        let used = self.places.contains(&hash(place)) || self.contents.contains(&hash(place));
        !used && listing.all().all(|path| !self.tests.contains(&hash(&place.join(path))))
    }

    fn take(&mut self, place: &Path, listing: &Listing) {
        self.places.insert(hash(place));
        self.tests.extend(place.ancestors().map(hash));
        self.contents.extend(listing.all().map(|path| hash(&place.join(path))));
        self.files.extend(listing.files.iter().map(|path| hash(&place.join(path))));
    }
}

fn is_normal(part: &str) -> bool {
    !matches!(part, "" | "." | "..")
}

/// `name (1)`; 0 is the name itself.
pub(crate) fn numbered(name: &str, number: u32) -> String {
    if number == 0 { name.to_owned() } else { format!("{name} ({number})") }
}

/// A name as a relative path that leads nowhere else.
fn relative(name: &str) -> PathBuf {
    Path::new(name).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// The same in every process: the names of a report do not depend on chance.
fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(directories: &[&str], files: &[&str]) -> Listing {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect();
        Listing { directories: paths(directories), files: paths(files), others: vec![] }
    }

    fn place(names: &mut Names, test: &str, directories: &[&str]) -> (String, String) {
        let (name, place) = names.place("p", test, &listing(directories, &["log"]));
        (name, place.display().to_string())
    }

    #[test]
    fn tests_below_tests_are_no_clash() {
        for order in [["/a", "/a/b"], ["/a/b", "/a"]] {
            let mut names = Names::default();
            for test in order {
                assert_eq!(place(&mut names, test, &["sub"]), (test.to_owned(), format!("p{test}")));
            }
        }
    }

    #[test]
    fn a_subtest_and_a_test_of_the_same_place_clash() {
        let mut names = Names::default();
        place(&mut names, "/a", &["b", "b/c"]);
        assert_eq!(place(&mut names, "/a/b", &[]), ("/a/b (1)".into(), "p/a/b (1)".into()));
        assert_eq!(place(&mut names, "/a/b", &[]), ("/a/b (2)".into(), "p/a/b (2)".into()));
        // In a directory of a subtest there is room for a test.
        assert_eq!(place(&mut names, "/a/b/c/d", &[]).0, "/a/b/c/d");
    }

    #[test]
    fn a_file_in_the_way_is_passed() {
        let mut names = Names::default();
        names.place("p", "/a", &listing(&["b"], &["b/c"]));
        assert_eq!(place(&mut names, "/a/b/c", &[]).0, "/a/b/c (1)");
        assert_eq!(place(&mut names, "/a/b/c/d/e", &[]).0, "/a/b/c (1)/d/e");
    }

    #[test]
    fn the_other_way_round_as_well() {
        let mut names = Names::default();
        place(&mut names, "/a/b", &[]);
        assert_eq!(place(&mut names, "/a", &["b"]), ("/a (1)".into(), "p/a (1)".into()));
        assert_eq!(place(&mut names, "/a", &["x"]).0, "/a");
        assert_eq!(place(&mut names, "/a (1)", &[]).0, "/a (1) (1)");
        let (name, path) = names.place("other", "/a", &listing(&["b"], &[]));
        assert_eq!((name.as_str(), path), ("/a", PathBuf::from("other/a")));
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(relative("/a/../../etc/./x//y"), PathBuf::from("a/etc/x/y"));
        let (name, place) = Names::default().place("p/../..", "/a/../../etc/./x//y", &listing(&[], &[]));
        assert_eq!((name.as_str(), place), ("/a/../../etc/./x//y", PathBuf::from("p/a/etc/x/y")));
    }

    #[test]
    fn repeated_tests_are_counted_per_platform() {
        let mut names = Names::default();
        assert_eq!([names.count("p", "/a"), names.count("p", "/a"), names.count("q", "/a")], [0, 1, 0]);
        names.uncount("p", "/a");
        assert_eq!(names.count("p", "/a"), 1);
        assert_eq!(numbered("/a", 2), "/a (2)");
    }
}
