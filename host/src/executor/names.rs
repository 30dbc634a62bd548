//! Names that become paths: the one place where they are made harmless.
//!
//! There are two kinds, with different needs:
//!
//! - Names of platforms and tests are ours. Below `artifacts/` they are *encoded*: two names never share a path, and a path
//!   tells its name to a human reader ([`platform_component`], [`test_directory`]).
//! - Names of results and files come from a machine. They are *cleaned* ([`clean`]): what remains is a relative path that
//!   stays inside any directory it is joined to, and that no terminal takes for a command. Cleaning may make two names one.
//!
//! Neither looks at a file system; that nothing follows a symbolic link is up to [`artifacts`](super::artifacts).

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::text::hex;

/// Bytes of one component of a path. File systems take 255; the rest is for suffixes such as ` (1)` and `.zst`.
pub const MAX_COMPONENT: usize = 240;
/// Bytes of a whole name, below the 4096 that a path may have, with room for a run directory before it.
pub const MAX_NAME: usize = 1024;
/// Components of a name that came from a machine.
const MAX_DEPTH: usize = 32;
/// Hexadecimal digits of the digest that stands for what was cut off.
const DIGEST_DIGITS: usize = 16;

/// The name of a platform as one component of a path.
pub fn platform_component(platform: &str) -> String {
    encode(platform)
}

/// The directory of a test below its platform's: the components of its name, each encoded. Empty for the test `/`.
pub fn test_directory(test: &str) -> PathBuf {
    let relative = test.strip_prefix('/').unwrap_or(test);
    if relative.is_empty() {
        return PathBuf::new();
    }
    let mut directory = PathBuf::new();
    let mut length = 0;
    for (start, component) in components(relative) {
        let encoded = encode(component);
        length += encoded.len() + 1;
        if length > MAX_NAME {
            directory.push(format!("%~{}", digest(relative.get(start..).unwrap_or(relative))));
            break;
        }
        directory.push(encoded);
    }
    directory
}

/// The directory of one execution of a test below the test's; never the component of a test's name, which has no leading `=`.
pub fn execution_component(execution: u64) -> String {
    format!("={execution}")
}

/// A relative path made of a name from a machine: control characters are `_`; leading and doubled `/`, `.` and `..`
/// are gone; what is too long or too deep is cut and ends in a digest. Never empty: what has nothing left is `_`.
pub fn clean(name: &str) -> String {
    let mut cleaned = String::new();
    for (depth, (start, component)) in
        components(name).filter(|(_, part)| !matches!(*part, "" | "." | "..")).enumerate()
    {
        let component = clean_component(component);
        if depth >= MAX_DEPTH || cleaned.len() + 1 + component.len() > MAX_NAME {
            cleaned.push_str("/~");
            cleaned.push_str(&digest(name.get(start..).unwrap_or(name)));
            break;
        }
        if depth > 0 {
            cleaned.push('/');
        }
        cleaned.push_str(&component);
    }
    if cleaned.is_empty() { "_".to_owned() } else { cleaned }
}

/// One line of printable text: control characters are `_`, and it is cut at `limit` bytes.
pub fn clean_text(text: &str, limit: usize) -> String {
    without_controls(cut_at(text, limit)).into_owned()
}

fn clean_component(component: &str) -> Cow<'_, str> {
    let plain = without_controls(component);
    if plain.len() <= MAX_COMPONENT {
        return plain;
    }
    let kept = cut_at(&plain, MAX_COMPONENT - DIGEST_DIGITS - 1);
    Cow::Owned(format!("{kept}~{}", digest(component)))
}

fn without_controls(text: &str) -> Cow<'_, str> {
    if text.contains(char::is_control) {
        Cow::Owned(text.replace(char::is_control, "_"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Parts between slashes, each with the byte at which it starts.
fn components(name: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut start = 0;
    name.split('/').map(move |component| {
        let at = start;
        start += component.len() + 1;
        (at, component)
    })
}

/// One component, reversible as long as it is not cut: unsafe characters are `%XX` per byte. A lone `%` is the empty
/// component, `%~` and digits are what was cut off.
fn encode(component: &str) -> String {
    if component.is_empty() {
        return "%".to_owned();
    }
    let mut encoded = String::with_capacity(component.len());
    for (position, character) in component.char_indices() {
        if is_safe(character) && !is_marked(component, position, character) {
            encoded.push(character);
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                // Writing into a string cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    if encoded.len() <= MAX_COMPONENT {
        return encoded;
    }
    let mut kept = cut_at(&encoded, MAX_COMPONENT - DIGEST_DIGITS - 2);
    // Not in the middle of an escape.
    if let Some(at) = kept.rfind('%').filter(|at| kept.len() - at < 3) {
        kept = kept.get(..at).unwrap_or(kept);
    }
    format!("{kept}%~{}", digest(component))
}

/// What every file system, shell and archive takes; `%` is ours.
fn is_safe(character: char) -> bool {
    !character.is_control() && !matches!(character, '%' | '/' | '\\' | '"' | '<' | '>' | '|' | '*' | '?')
}

/// A leading `=` marks executions; `.` and `..` are directories of their own.
fn is_marked(component: &str, position: usize, character: char) -> bool {
    position == 0 && (character == '=' || matches!(component, "." | ".."))
}

fn cut_at(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

fn digest(text: &str) -> String {
    let mut digits = hex(&Sha256::digest(text.as_bytes()));
    digits.truncate(DIGEST_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn encoded_names_keep_apart() {
        let table = [
            ("/a/b", "a/b"),
            ("/", ""),
            ("/a//b", "a/%/b"),
            ("/=1/x", "%3D1/x"),
            ("/a=1", "a=1"),
            ("/../..", "%2E./%2E."),
            ("/./...", "%2E/..."),
            ("/50%", "50%25"),
            ("/tab\there", "tab%09here"),
            ("/esc\u{1b}[2J\u{9b}", "esc%1B[2J%C2%9B"),
            ("/řeka (1)", "řeka (1)"),
            ("/a*?b\\", "a%2A%3Fb%5C"),
        ];
        for (name, path) in table {
            assert_eq!(test_directory(name), Path::new(path), "{name:?}");
        }
        assert_eq!(platform_component("rhel-9@x86_64:/plans/all"), "rhel-9@x86_64:%2Fplans%2Fall");
        assert_eq!(execution_component(7), "=7");
    }

    #[test]
    fn long_names_are_cut_and_stay_different() {
        let (one, other) = (format!("/{}1", "x".repeat(300)), format!("/{}2", "x".repeat(300)));
        assert_ne!(test_directory(&one), test_directory(&other));
        let escapes = encode(&"\u{1}".repeat(300));
        assert!(escapes.len() <= MAX_COMPONENT, "{escapes}");
        let (kept, rest) = escapes.split_once("%~").unwrap();
        assert!(kept.len() % 3 == 0 && kept.starts_with("%01") && rest.len() == DIGEST_DIGITS, "{escapes}");
        let deep = [format!("{}1", "/ab".repeat(1000)), format!("{}2", "/ab".repeat(1000))];
        let paths = deep.map(|name| test_directory(&name));
        assert_ne!(paths[0], paths[1]);
        assert!(paths[0].as_os_str().len() < MAX_NAME + 32);
    }

    #[test]
    fn cleaned_names_stay_inside() {
        let table = [
            ("a/b", "a/b"),
            ("/etc/passwd", "etc/passwd"),
            ("../../x", "x"),
            ("a/./b/../c", "a/b/c"),
            ("", "_"),
            ("/", "_"),
            ("..", "_"),
            ("a\0b\n", "a_b_"),
            ("\u{9b}31m", "_31m"),
            ("...", "..."),
            ("a//b/", "a/b"),
            ("=1", "=1"),
        ];
        for (name, path) in table {
            assert_eq!(clean(name), path, "{name:?}");
        }
        assert_ne!(clean(&format!("{}1", "é".repeat(200))), clean(&format!("{}2", "é".repeat(200))));
        assert_eq!(clean_text("a\u{1b}é", 3), "a_");
    }

    fn is_plain(path: &str) -> bool {
        let parts = || Path::new(path).components();
        parts().all(|part| matches!(part, Component::Normal(name) if name.len() <= MAX_COMPONENT))
            && parts().count() == path.split('/').count()
            && path.len() <= MAX_NAME + 1 + DIGEST_DIGITS + 1
            && !path.contains(char::is_control)
    }

    proptest! {
        #[test]
        fn clean_is_a_plain_path_and_a_fixed_point(name in "([./=a\\x00é]|[a-z]{90}){0,60}") {
            let cleaned = clean(&name);
            prop_assert!(is_plain(&cleaned), "{:?}", cleaned);
            if name.len() < 200 {
                prop_assert_eq!(clean(&cleaned), cleaned);
            }
        }

        #[test]
        fn encoding_keeps_different_names_apart(a in "[/=.%~2Ea]{0,8}", b in "[/=.%~2Ea]{0,8}") {
            let (a, b) = (format!("/{a}"), format!("/{b}"));
            prop_assert_eq!(a == b, test_directory(&a) == test_directory(&b));
        }

        #[test]
        fn encoded_names_are_plain_paths(name in "(/|=|\\.|%|[a-z]{90}|\\PC){0,60}") {
            let path = test_directory(&format!("/{name}"));
            prop_assert!(path.as_os_str().is_empty() || is_plain(path.to_str().unwrap()), "{:?}", path);
            prop_assert!(path.iter().all(|part| !part.to_str().unwrap().starts_with('=')));
        }
    }
}
