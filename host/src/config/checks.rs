//! Which names a configuration may give: they become parts of paths, marks on machines and columns of reports.

use super::suggest;

/// Bytes of a name.
const LONGEST: usize = 128;

/// A plugin's name is part of a file name: `libatex_provisioner_NAME.so`.
pub(crate) fn plugin(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if name.is_empty() || name.len() > LONGEST || !name.chars().all(plain) || name.starts_with(['-', '_']) {
        return Err(format!("{name:?} cannot be a plugin's name: those are of a-z, 0-9, - and _"));
    }
    Ok(())
}

/// The name of a pool or of a use of a plugin; it may become a file name.
pub(crate) fn pool(name: &str) -> Result<(), String> {
    if name.starts_with('.') || name.contains('/') {
        return Err(format!("the name {name:?} may not begin with a dot or have a slash in it"));
    }
    printable(name)
}

/// The name of a platform: free text on one line. `:` is kept for platforms with several plans.
pub(crate) fn platform(name: &str) -> Result<(), String> {
    if name.contains(':') {
        return Err(format!(
            "the name {name:?} may have no colon in it: NAME:PLAN is what platforms with several plans are called"
        ));
    }
    printable(name)
}

/// An owner is the first part of a lease's mark `owner/run/lease`.
pub(crate) fn owner(name: &str) -> Result<(), String> {
    if name.contains('/') || name.contains(char::is_whitespace) {
        return Err(format!("the owner {name:?} may have no slash and no space in it"));
    }
    printable(name)
}

fn printable(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the name is empty".to_owned());
    }
    if name.len() > LONGEST {
        return Err(format!(
            "the name {:?}... is longer than {LONGEST} bytes",
            name.chars().take(20).collect::<String>()
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(format!("the name {name:?} has a control character in it"));
    }
    Ok(())
}

/// `what` called `name` does not exist among `known`.
pub(crate) fn no_such(what: &str, name: &str, known: &[&str]) -> (String, Option<String>) {
    (format!("there is no {what} {name:?}"), suggest::help(name, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(plugin("testing-farm_2").is_ok());
        for name in ["", "A", "a/b", "../x", "-a", "a b", "é"] {
            assert!(plugin(name).is_err(), "{name}");
        }
        assert!(pool("Lab 1 (big)").is_ok());
        for name in ["", ".", "..", ".x", "a/b", "a\nb", "\u{1b}[31m"] {
            assert!(pool(name).is_err(), "{name}");
        }
        assert!(platform("rhel-9.6@x86_64").is_ok() && platform("a/b").is_ok());
        assert!(platform("a:b").is_err() && platform("a\0").is_err());
        assert!(owner("nightly@lab").is_ok());
        assert!(owner("a/b").is_err() && owner("a b").is_err() && owner(&"x".repeat(129)).is_err());
    }
}
