//! Environment variables of plans and tests: `environment`, `environment-file`.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::super::discover::error::DiscoverError;
use super::super::discover::reader::{Keys, Notes, plain};
use super::super::value::{Map, Value};
use super::super::words::shell_words;
use super::super::yaml;
use crate::executor::spec::Variables;

/// Largest environment file.
const MAX_FILE: u64 = 1 << 20;

/// `environment`: a mapping or a list of mappings; values are turned into the text a shell would expect.
pub(crate) fn environment(keys: &mut Keys<'_>) -> Result<Variables, DiscoverError> {
    let mut variables = Variables::new();
    for (_, map) in keys.mappings("environment")? {
        add_map(&mut variables, map).map_err(|problem| keys.error("environment", problem))?;
    }
    Ok(variables)
}

/// `environment-file`: files below `root`, as a shell would source them, or YAML mappings.
pub(crate) fn environment_files(
    keys: &mut Keys<'_>,
    root: &Path,
    notes: &mut Notes,
) -> Result<Variables, DiscoverError> {
    let mut variables = Variables::new();
    for name in keys.texts("environment-file")? {
        if name.contains("://") {
            notes.unsupported(
                keys.place(),
                keys.key("environment-file"),
                "an environment file from the network",
            )?;
            continue;
        }
        let added = read_file(root, &name).and_then(|text| add_file(&mut variables, &name, &text));
        added.map_err(|problem| keys.error("environment-file", format!("names {name:?}: {problem}")))?;
    }
    Ok(variables)
}

/// Sets a variable, in its old place if it has one.
pub(crate) fn set(variables: &mut Variables, name: &str, value: String) {
    match variables.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => *old = value,
        None => variables.push((name.to_owned(), value)),
    }
}

fn add_map(variables: &mut Variables, map: &Map) -> Result<(), String> {
    for (name, value) in map {
        let name = name.to_string();
        let text = match value {
            Value::Null => Some(String::new()),
            value => plain(value),
        };
        let text = text.ok_or_else(|| format!("gives {name} a {}, not a text", value.type_name()))?;
        add(variables, &name, text)?;
    }
    Ok(())
}

fn add(variables: &mut Variables, name: &str, value: String) -> Result<(), String> {
    let good = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) || !name.chars().all(good) {
        return Err(format!("has {name:?}, which no shell takes for the name of a variable"));
    }
    if value.contains('\0') {
        return Err(format!("gives {name} a value with a null character"));
    }
    set(variables, name, value);
    Ok(())
}

/// The file may not lie outside the tree, whatever links lead there: what is in it travels to machines.
fn read_file(root: &Path, name: &str) -> Result<String, String> {
    let path = root.join(name.trim_start_matches('/'));
    let real = path.canonicalize().map_err(|cause| cause.to_string())?;
    let inside = root.canonicalize().is_ok_and(|root| real.starts_with(root));
    if !inside {
        return Err("it is outside the tree".to_owned());
    }
    if !real.is_file() {
        return Err("it is no file".to_owned());
    }
    let file = File::open(&real).map_err(|cause| cause.to_string())?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|cause| cause.to_string())?;
    if text.len() as u64 > MAX_FILE { Err("it is larger than 1 MiB".to_owned()) } else { Ok(text) }
}

fn add_file(variables: &mut Variables, name: &str, text: &str) -> Result<(), String> {
    let is_yaml =
        Path::new(name).extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if is_yaml {
        return match yaml::parse(text).map_err(|cause| cause.to_string())? {
            Value::Null => Ok(()),
            Value::Map(map) => add_map(variables, &map),
            _ => Err("it holds no mapping".to_owned()),
        };
    }
    for word in shell_words(text, true)? {
        match word.split_once('=') {
            Some((name, value)) => add(variables, name, value.to_owned())?,
            None if word == "export" => {}
            None => return Err(format!("it has {word:?}, which is no NAME=VALUE")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::discover::error::Place;
    use super::*;

    fn read(yaml_text: &str, root: &Path) -> Result<Variables, String> {
        let value = yaml::parse(yaml_text).unwrap();
        let place = Place { file: None, node: "/p".into() };
        let mut keys = Keys::new(&place, "", value.as_map().unwrap());
        let mut notes = Notes::new(false);
        let mut all = environment_files(&mut keys, root, &mut notes).map_err(|error| error.to_string())?;
        for (name, value) in environment(&mut keys).map_err(|error| error.to_string())? {
            set(&mut all, &name, value);
        }
        Ok(all)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn values_become_what_a_shell_expects() {
        let text = "environment: {A: x, B: true, C: 1, D: 1.50, E: , F: 2024-01-02, G: 'a b'}";
        let expected = [
            ("A", "x"),
            ("B", "true"),
            ("C", "1"),
            ("D", "1.5"),
            ("E", ""),
            ("F", "2024-01-02"),
            ("G", "a b"),
        ];
        assert_eq!(read(text, Path::new("/")).unwrap(), pairs(&expected));
        let text = "environment: [{A: 1, B: 2}, {A: 3}]";
        assert_eq!(read(text, Path::new("/")).unwrap(), pairs(&[("A", "3"), ("B", "2")]));
    }

    #[test]
    fn what_is_no_variable_is_an_error_that_names_it() {
        for (text, problem) in [
            ("environment: {1A: x}", "\"1A\""),
            ("environment: {A-B: x}", "\"A-B\""),
            ("environment: {A: [1]}", "gives A a list"),
            ("environment: x", "has to be a mapping"),
            ("environment: {A: \"\\0\"}", "null character"),
        ] {
            let error = read(text, Path::new("/")).unwrap_err();
            assert!(error.contains(problem) && error.contains("`environment`"), "{text}: {error}");
        }
    }

    #[test]
    fn files_are_read_as_a_shell_would_and_lose_to_the_plan() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("env"), "# c\nA=1 B='x y'\nexport C=\"q\"\n\nD=\n").unwrap();
        std::fs::write(tree.path().join("env.yaml"), "B: z\nE: true\n").unwrap();
        let text = "environment-file: [env, env.yaml]\nenvironment: {A: 2}";
        let expected = [("A", "2"), ("B", "z"), ("C", "q"), ("D", ""), ("E", "true")];
        assert_eq!(read(text, tree.path()).unwrap(), pairs(&expected));
    }

    #[test]
    fn files_outside_the_tree_or_of_another_kind_are_refused() {
        let tree = tempfile::tempdir().unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), tree.path().join("link")).unwrap();
        std::fs::write(tree.path().join("bad"), "A B").unwrap();
        std::fs::write(tree.path().join("open"), "A='x").unwrap();
        for (name, problem) in [
            ("link", "outside the tree"),
            ("../x", "No such file"),
            ("missing", "No such file"),
            (".", "no file"),
            ("bad", "no NAME=VALUE"),
            ("open", "quote is not closed"),
            ("https://x/y", "not supported"),
        ] {
            let error = read(&format!("environment-file: {name}"), tree.path()).unwrap_err();
            assert!(error.contains(problem), "{name}: {error}");
        }
    }
}
