//! Regular expressions with python's syntax and meaning.
//!
//! FMF promises `re`, so a pattern is translated for `fancy-regex` (look-around, back references; plain patterns run on
//! the linear engine underneath): what python takes literally is escaped, what python refuses is refused here, `\Z`
//! and `$` mean what they mean there, and substitution treats empty matches and `\1`, `\g<name>` the same way.
//!
//! Not the same: classes like `\w` follow the Unicode tables of the regex crate; `\N{..}` and conditional groups are
//! refused; the search of one text is limited in steps, and ends in an error instead of going on for hours.

mod template;
mod translate;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

pub use self::template::Template;

/// Why a pattern cannot be used, or a search did not end.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("regular expression {pattern:?}: {problem}")]
pub struct Error {
    pub pattern: String,
    pub problem: String,
}

/// A compiled pattern.
#[derive(Debug)]
pub struct Regex {
    pattern: String,
    /// `$` as the end of the text; right unless the text ends in a newline.
    strict: fancy_regex::Regex,
    /// `$` also before one newline at the end; none if the pattern has no `$`.
    lenient: Option<fancy_regex::Regex>,
}

impl Regex {
    pub fn new(pattern: &str) -> Result<Self, Error> {
        let error = |problem: String| Error { pattern: pattern.to_owned(), problem };
        let translated = translate::translate(pattern).map_err(error)?;
        let compile = |text: &str| {
            let built = fancy_regex::RegexBuilder::new(text).delegate_size_limit(4 << 20).build();
            built.map_err(|cause| {
                error(cause.to_string().lines().last().unwrap_or_default().trim().to_owned())
            })
        };
        let strict = compile(&translated.strict)?;
        let lenient = translated.lenient.map(|text| compile(&text)).transpose()?;
        Ok(Self { pattern: pattern.to_owned(), strict, lenient })
    }

    /// The pattern for a match of the whole text as filters have it: `^pattern$`, without a group around it.
    pub fn anchored(pattern: &str) -> Result<Self, Error> {
        Self::new(&format!("^{pattern}$"))
    }

    /// `re.search`: whether the pattern is anywhere in `text`.
    pub fn search(&self, text: &str) -> Result<bool, Error> {
        self.engine(text).is_match(text).map_err(|cause| self.error(&cause))
    }

    /// `re.match`: whether the pattern is at the start of `text`.
    pub fn match_start(&self, text: &str) -> Result<bool, Error> {
        let found = self.engine(text).find(text).map_err(|cause| self.error(&cause))?;
        Ok(found.is_some_and(|found| found.start() == 0))
    }

    /// `re.sub`: `text` with every match replaced; `limit` bytes at most.
    pub fn replace<'t>(
        &self,
        text: &'t str,
        template: &Template,
        limit: usize,
    ) -> Result<Cow<'t, str>, Error> {
        let engine = self.engine(text);
        let names: HashMap<&str, usize> =
            engine.capture_names().enumerate().filter_map(|(index, name)| Some((name?, index))).collect();
        template.check(engine.captures_len(), &names).map_err(|problem| self.problem(problem))?;
        let mut output = String::new();
        // Everything before `copied` is in the output; the next search starts at `from`.
        let (mut copied, mut from) = (0, 0);
        while let Some(captures) = engine.captures_from_pos(text, from).map_err(|cause| self.error(&cause))? {
            let Some(found) = captures.get(0) else { break };
            output.push_str(&text[copied..found.start()]);
            template.expand(&captures, &names, &mut output);
            if output.len() > limit {
                return Err(self.problem(format!("the replacement is longer than {limit} bytes")));
            }
            copied = found.end();
            from = found.end();
            if found.start() == found.end() {
                // An empty match here was just replaced.
                match text[from..].chars().next() {
                    Some(character) => from += character.len_utf8(),
                    None => break,
                }
            }
        }
        if copied == 0 && output.is_empty() {
            return Ok(Cow::Borrowed(text));
        }
        output.push_str(&text[copied..]);
        Ok(Cow::Owned(output))
    }

    fn engine(&self, text: &str) -> &fancy_regex::Regex {
        match &self.lenient {
            Some(lenient) if text.ends_with('\n') => lenient,
            _ => &self.strict,
        }
    }

    fn problem(&self, problem: String) -> Error {
        Error { pattern: self.pattern.clone(), problem }
    }

    fn error(&self, cause: &fancy_regex::Error) -> Error {
        self.problem(cause.to_string())
    }
}

/// Compiled patterns, each compiled once.
#[derive(Debug, Default)]
pub struct Cache(HashMap<String, Arc<Regex>>);

impl Cache {
    /// More patterns than are in use at a time; then the cache starts again. Each may take up to eight megabytes.
    const CAPACITY: usize = 64;

    pub fn get(&mut self, pattern: &str) -> Result<Arc<Regex>, Error> {
        if let Some(known) = self.0.get(pattern) {
            return Ok(known.clone());
        }
        let new = Arc::new(Regex::new(pattern)?);
        if self.0.len() >= Self::CAPACITY {
            self.0.clear();
        }
        self.0.insert(pattern.to_owned(), new.clone());
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(pattern: &str, template: &str, text: &str) -> Result<String, String> {
        let template = Template::parse(template)?;
        let regex = Regex::new(pattern).map_err(|error| error.problem)?;
        regex.replace(text, &template, 1000).map(Cow::into_owned).map_err(|error| error.problem)
    }

    #[test]
    fn substitution_is_that_of_python() {
        for (pattern, template, text, expected) in [
            ("x*", "-", "abxd", "-a-b--d-"),
            ("(a)(?P<n>b);", r"\2\g<n>-\1", "ab;c", "bb-ac"),
            ("b", "", "abc", "ac"),
            ("$", "!", "a\n", "a!\n!"),
            ("^", ">", "é", ">é"),
            ("(x)|b", r"[\1]", "abx", "a[][x]"),
            ("b", r"\n\\\.", "abc", "a\n\\\\.c"),
            ("b", r"\g<0>\0", "abc", "ab\0c"),
        ] {
            assert_eq!(sub(pattern, template, text).as_deref(), Ok(expected), "{pattern} {template} {text}");
        }
    }

    #[test]
    fn substitution_reports_bad_templates_and_long_results() {
        for (pattern, template) in
            [("b", r"\1"), ("b", r"\q"), ("b", r"\g<x>"), ("b", r"\g<"), ("b", r"\g<1a>"), ("b", "\\")]
        {
            assert!(sub(pattern, template, "abc").is_err(), "{pattern} {template}");
        }
        assert!(sub("", &"x".repeat(300), "abcd").unwrap_err().contains("longer"));
    }

    #[test]
    fn syntax_is_that_of_python() {
        for (pattern, text, expected) in [
            ("a{", "a{", true),
            ("x{,2}y", "xxy", true),
            ("{}", "{}", true),
            ("[]a]", "]", true),
            ("[[a]", "[", true),
            ("[a&&b]", "&", true),
            ("[+--]$", "-", true),
            ("[~~]", "~", true),
            (r"a\Z", "a", true),
            (r"a\Z", "a\n", false),
            ("a$", "a\n", true),
            ("a$", "a\n\n", false),
            ("(?i)A", "a", true),
            ("(?P<x>a)(?P=x)", "aa", true),
            (r"(a)\1", "aa", true),
            (r"\x41\u0042\101", "ABA", true),
            ("(?#no)a", "a", true),
            ("(?x) a # comment\n b", "ab", true),
            ("(?<=a)b", "ab", true),
            ("(?m)^b$", "a\nb\n", true),
            (r"[\d-]+", "1-2", true),
            (r"\#\-\ \/", "#- /", true),
            ("a|*", "", true),
        ] {
            match Regex::new(pattern) {
                Ok(regex) => assert_eq!(regex.search(text), Ok(expected), "{pattern} {text}"),
                Err(_) => assert_eq!(pattern, "a|*"),
            }
        }
    }

    #[test]
    fn what_python_refuses_is_refused() {
        for pattern in [
            "*",
            "a**",
            "a{2}{3}",
            "(",
            ")",
            "[a",
            r"\q",
            r"\z",
            "^*",
            "(?P<1>a)",
            "[b-a]",
            r"a\",
            "(?P<x>a)(?P<x>b)",
            r"(a)\2",
        ] {
            assert!(Regex::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn hopeless_searches_end() {
        let regex = Regex::new(r"(x+x+)+\1y").unwrap();
        assert!(regex.search(&"x".repeat(60)).is_err());
    }
}
