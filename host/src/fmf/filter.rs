//! Filters: `tag: Tier1, Tier2 & component: bash | /core`.
//!
//! A filter is a disjunction of clauses, a clause a conjunction of literals. A literal with a colon compares the values
//! of a key, one without looks for a pattern in the node's name. Values separated by commas are alternatives; a value
//! that starts with a dash must not be there. A key that the node does not have makes the whole filter fail, even
//! when another clause holds: nothing is skipped, as in the reference implementation.

use std::sync::OnceLock;

use super::regex::{self, Regex};
use super::value::{Map, Value};

/// How a filter compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    pub case_sensitive: bool,
    /// Values are regular expressions for the whole text, names are searched; otherwise both have to be equal.
    pub regex: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { case_sensitive: true, regex: true }
    }
}

/// What a filter says about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Match,
    NoMatch,
    /// The node lacks this key, or (none) a name to look at.
    Missing(Option<String>),
}

/// A parsed filter.
#[derive(Debug)]
pub struct Filter {
    options: Options,
    /// None for the empty filter, which everything passes.
    clauses: Option<Vec<Clause>>,
}

#[derive(Debug, Default)]
struct Clause {
    names: Vec<Pattern>,
    /// Keys in the order they came first, each with all of its literals.
    keys: Vec<(String, Vec<Literal>)>,
}

/// The alternatives of a literal.
#[derive(Debug)]
struct Literal(Vec<Atom>);

#[derive(Debug)]
struct Atom {
    negative: bool,
    pattern: Pattern,
}

impl Filter {
    /// Parses with the options that selecting uses.
    pub fn new(text: &str) -> Self {
        Self::with_options(text, Options::default())
    }

    pub fn with_options(text: &str, options: Options) -> Self {
        if text.is_empty() {
            return Self { options, clauses: None };
        }
        let lowered = if options.case_sensitive { String::new() } else { text.to_lowercase() };
        let text = if options.case_sensitive { text } else { &lowered };
        let clauses = split_unescaped(text, '|').iter().map(|clause| Clause::new(clause)).collect();
        Self { options, clauses: Some(clauses) }
    }

    /// The keys it looks at, some perhaps several times.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let clauses = self.clauses.iter().flatten();
        clauses.flat_map(|clause| clause.keys.iter().map(|(key, _)| key.as_str()))
    }

    /// What the filter says about a node with this name and data. Only a bad pattern is an error, and only when it
    /// comes into play.
    pub fn check(&self, name: Option<&str>, data: &Map) -> Result<Verdict, regex::Error> {
        let Some(clauses) = &self.clauses else { return Ok(Verdict::Match) };
        let mut any = false;
        for clause in clauses {
            match clause.check(self.options, name, data)? {
                Verdict::Match => any = true,
                Verdict::NoMatch => {}
                missing @ Verdict::Missing(_) => return Ok(missing),
            }
        }
        Ok(if any { Verdict::Match } else { Verdict::NoMatch })
    }
}

impl Clause {
    fn new(text: &str) -> Self {
        let mut clause = Self::default();
        for literal in split_unescaped(text, '&') {
            match split_literal(&literal) {
                None => clause.names.push(Pattern::new(literal)),
                Some((key, values)) => {
                    let literal = Literal::new(values);
                    match clause.keys.iter_mut().find(|(known, _)| known == key) {
                        Some((_, literals)) => literals.push(literal),
                        None => clause.keys.push((key.to_owned(), vec![literal])),
                    }
                }
            }
        }
        clause
    }

    fn check(&self, options: Options, name: Option<&str>, data: &Map) -> Result<Verdict, regex::Error> {
        for pattern in &self.names {
            let Some(name) = name else { return Ok(Verdict::Missing(None)) };
            if !pattern.is_in(name, options.regex)? {
                return Ok(Verdict::NoMatch);
            }
        }
        let mut all = true;
        for (key, literals) in &self.keys {
            let Some(texts) = texts(data, key, options.case_sensitive) else {
                return Ok(Verdict::Missing(Some(key.clone())));
            };
            for literal in literals {
                all &= literal.check(&texts, options.regex)?;
            }
        }
        Ok(if all { Verdict::Match } else { Verdict::NoMatch })
    }
}

impl Literal {
    fn new(values: &str) -> Self {
        let atom = |value: &str| match value.strip_prefix('-') {
            Some(pattern) => Atom { negative: true, pattern: Pattern::new(pattern.to_owned()) },
            None => Atom { negative: false, pattern: Pattern::new(value.to_owned()) },
        };
        Self(split_at_commas(values).into_iter().map(atom).collect())
    }

    /// Any alternative suffices; those after it are not looked at.
    fn check(&self, texts: &[String], regex: bool) -> Result<bool, regex::Error> {
        for atom in &self.0 {
            let mut found = false;
            for text in texts {
                if atom.pattern.is_whole(text, regex)? {
                    found = true;
                    break;
                }
            }
            if found != atom.negative {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A pattern that is compiled when it is needed first.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    search: OnceLock<Result<Regex, regex::Error>>,
    whole: OnceLock<Result<Regex, regex::Error>>,
}

impl Pattern {
    pub(super) fn new(text: String) -> Self {
        Self { text, search: OnceLock::new(), whole: OnceLock::new() }
    }

    /// Whether it is found in `text`, or equal to it.
    pub(super) fn is_in(&self, text: &str, regex: bool) -> Result<bool, regex::Error> {
        if !regex {
            return Ok(self.text == text);
        }
        self.search.get_or_init(|| Regex::new(&self.text)).as_ref().map_err(Clone::clone)?.search(text)
    }

    /// Whether it matches all of `text`, or is equal to it.
    fn is_whole(&self, text: &str, regex: bool) -> Result<bool, regex::Error> {
        if !regex {
            return Ok(self.text == text);
        }
        self.whole
            .get_or_init(|| Regex::anchored(&self.text))
            .as_ref()
            .map_err(Clone::clone)?
            .match_start(text)
    }
}

/// The values of a key as texts.
fn texts(data: &Map, key: &str, case_sensitive: bool) -> Option<Vec<String>> {
    let value = if case_sensitive {
        data.get(key)?
    } else {
        // The last of the keys that differ only in case.
        data.iter().filter(|(known, _)| known.to_string().to_lowercase() == key).last()?.1
    };
    let text = |value: &Value| {
        let text = value.to_string();
        if case_sensitive { text } else { text.to_lowercase() }
    };
    Some(match value {
        Value::List(items) => items.iter().map(text).collect(),
        other => vec![text(other)],
    })
}

/// Blanks as python's `\s` sees them.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{1c}'..='\u{1f}')
}

/// The parts between separators that have no backslash before them, without the blanks around the separators, and
/// with the backslashes before the other separators gone.
fn split_unescaped(text: &str, separator: char) -> Vec<String> {
    let escaped = format!("\\{separator}");
    let mut parts = Vec::new();
    let mut rest = text;
    let mut from = 0;
    while let Some(at) = rest[from..].find(separator).map(|at| at + from) {
        if rest[..at].ends_with('\\') {
            from = at + separator.len_utf8();
            continue;
        }
        parts.push(rest[..at].trim_end_matches(is_blank).replace(&escaped, &separator.to_string()));
        rest = rest[at + separator.len_utf8()..].trim_start_matches(is_blank);
        from = 0;
    }
    parts.push(rest.replace(&escaped, &separator.to_string()));
    parts
}

fn split_at_commas(text: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = text.split(',').collect();
    let last = parts.len() - 1;
    for (index, part) in parts.iter_mut().enumerate() {
        if index > 0 {
            *part = part.trim_start_matches(is_blank);
        }
        if index < last {
            *part = part.trim_end_matches(is_blank);
        }
    }
    parts
}

/// The key and the values of a literal; none if it is about the name. Values are one line.
fn split_literal(literal: &str) -> Option<(&str, &str)> {
    let (key, values) = literal.split_once(':')?;
    let values = values.trim_start_matches(is_blank);
    let values = values.strip_suffix('\n').unwrap_or(values);
    (!values.contains('\n')).then_some((key, values))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(filter: &str, data: &str) -> Verdict {
        let data = crate::fmf::yaml::parse(data).unwrap();
        Filter::new(filter).check(Some("/core/smoke"), data.as_map().unwrap()).unwrap()
    }

    #[test]
    fn separators_can_be_escaped() {
        assert_eq!(split_unescaped(r"a \| b | c\&d |  e", '|'), [r"a | b", r"c\&d", "e"]);
        assert_eq!(split_unescaped("", '&'), [""]);
        assert_eq!(split_at_commas(" a , b,"), [" a", "b", ""]);
    }

    #[test]
    fn literals_are_about_keys_or_names() {
        assert_eq!(split_literal("tag: x"), Some(("tag", "x")));
        assert_eq!(split_literal("tag:a:b\n"), Some(("tag", "a:b")));
        assert_eq!(split_literal("tag:a\nb"), None);
        assert_eq!(split_literal("/core"), None);
    }

    #[test]
    fn nothing_is_skipped_on_the_way_to_a_missing_key() {
        assert_eq!(check("tag: a | nokey: x", "tag: a"), Verdict::Missing(Some("nokey".to_owned())));
        assert_eq!(check("/net & nokey: x | tag: a", "tag: a"), Verdict::Match);
    }

    #[test]
    fn values_are_compared_as_python_writes_them() {
        for (filter, verdict) in [
            ("on:True", Verdict::Match),
            ("on:true", Verdict::NoMatch),
            ("none:None & n:1.5", Verdict::Match),
            ("tag:-c", Verdict::Match),
            ("tag:-a", Verdict::NoMatch),
            ("tag:-a,b", Verdict::Match),
            ("empty:-x", Verdict::Match),
            ("empty:", Verdict::NoMatch),
        ] {
            assert_eq!(
                check(filter, "{on: true, none: null, n: 1.5, tag: [a, b], empty: []}"),
                verdict,
                "{filter}"
            );
        }
    }

    #[test]
    fn bad_patterns_are_errors_when_they_are_used() {
        let data = crate::fmf::yaml::parse("tag: a").unwrap();
        let check = |filter: &str| Filter::new(filter).check(Some("/a"), data.as_map().unwrap());
        assert!(check("tag: (").is_err());
        assert_eq!(check("nokey: ("), Ok(Verdict::Missing(Some("nokey".to_owned()))));
    }
}
