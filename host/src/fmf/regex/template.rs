//! The replacement text of a substitution.

use std::collections::HashMap;

/// A parsed replacement: texts and references to groups.
#[derive(Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Number(usize),
    Name(String),
}

impl Template {
    /// A text without any reference.
    pub fn literal(text: &str) -> Self {
        Self(vec![Part::Text(text.to_owned())])
    }

    /// Parses `\1`, `\g<name>`, `\n` and their like; the error is a sentence.
    pub fn parse(source: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = source;
        while let Some(at) = rest.find('\\') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            match rest.bytes().next() {
                None => return Err("the replacement ends in a backslash".to_owned()),
                Some(b'g') => {
                    let group = rest[1..].strip_prefix('<').and_then(|rest| rest.split_once('>'));
                    let (name, after) = group.ok_or("`\\g` in the replacement takes a group: `\\g<1>`")?;
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(reference(name)?);
                    rest = after;
                }
                Some(b'0') => {
                    let digits = octal_digits(rest, 1, 2);
                    text.push(character_of(&rest[..=digits])?);
                    rest = &rest[digits + 1..];
                }
                Some(b'1'..=b'9') => {
                    if rest.as_bytes()[0] <= b'3' && octal_digits(rest, 0, 3) == 3 {
                        text.push(character_of(&rest[..3])?);
                        rest = &rest[3..];
                        continue;
                    }
                    let digits = rest.bytes().take(2).take_while(u8::is_ascii_digit).count();
                    parts.push(Part::Text(std::mem::take(&mut text)));
                    parts.push(Part::Number(rest[..digits].parse().unwrap_or(usize::MAX)));
                    rest = &rest[digits..];
                }
                Some(escape) => {
                    match escape {
                        b'a' => text.push('\u{7}'),
                        b'b' => text.push('\u{8}'),
                        b'f' => text.push('\u{c}'),
                        b'n' => text.push('\n'),
                        b'r' => text.push('\r'),
                        b't' => text.push('\t'),
                        b'v' => text.push('\u{b}'),
                        b'\\' => text.push('\\'),
                        letter if letter.is_ascii_alphabetic() => {
                            return Err(format!(
                                "`\\{}` in the replacement is no escape",
                                char::from(letter)
                            ));
                        }
                        // The backslash stays; what follows is read as text.
                        _ => {
                            text.push('\\');
                            continue;
                        }
                    }
                    rest = &rest[1..];
                }
            }
        }
        text.push_str(rest);
        parts.push(Part::Text(text));
        Ok(Self(parts))
    }

    /// Whether the pattern has the groups that are used.
    pub(super) fn check(&self, groups: usize, names: &HashMap<&str, usize>) -> Result<(), String> {
        for part in &self.0 {
            match part {
                Part::Number(number) if *number >= groups => {
                    return Err(format!(
                        "the replacement uses group {number}, which the pattern does not have"
                    ));
                }
                Part::Name(name) if !names.contains_key(name.as_str()) => {
                    return Err(format!(
                        "the replacement uses group {name:?}, which the pattern does not have"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Appends the replacement of one match; groups that took no part are empty.
    pub(super) fn expand(
        &self,
        captures: &fancy_regex::Captures<'_>,
        names: &HashMap<&str, usize>,
        output: &mut String,
    ) {
        for part in &self.0 {
            let group = match part {
                Part::Text(text) => {
                    output.push_str(text);
                    continue;
                }
                Part::Number(number) => captures.get(*number),
                Part::Name(name) => names.get(name.as_str()).and_then(|number| captures.get(*number)),
            };
            output.push_str(group.map_or("", |group| group.as_str()));
        }
    }
}

fn reference(name: &str) -> Result<Part, String> {
    let bad = || format!("`\\g<{}>` in the replacement names no group", name.escape_debug());
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return name.parse().map(Part::Number).map_err(|_| bad());
    }
    let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
    let continues = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if starts && continues { Ok(Part::Name(name.to_owned())) } else { Err(bad()) }
}

fn octal_digits(text: &str, from: usize, most: usize) -> usize {
    text.bytes().skip(from).take(most).take_while(|byte| matches!(byte, b'0'..=b'7')).count()
}

fn character_of(octal: &str) -> Result<char, String> {
    let code = u32::from_str_radix(octal, 8).ok().filter(|code| *code <= 0o377).and_then(char::from_u32);
    code.ok_or_else(|| format!("`\\{octal}` in the replacement is no character"))
}
