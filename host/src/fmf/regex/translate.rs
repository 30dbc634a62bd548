//! From python's pattern syntax to that of `fancy-regex`.

use std::collections::HashSet;
use std::iter::Peekable;
use std::str::Chars;

/// The pattern in the other syntax.
#[derive(Debug)]
pub(super) struct Translated {
    /// With `$` as the very end.
    pub(super) strict: String,
    /// With `$` also before a final newline; none if there is no `$`.
    pub(super) lenient: Option<String>,
}

/// Stands for a `$` until the whole pattern is read; no pattern can hold it, as it is escaped there.
const DOLLAR: char = '\0';

pub(super) fn translate(pattern: &str) -> Result<Translated, String> {
    let mut translator = Translator {
        rest: pattern.chars().peekable(),
        output: String::with_capacity(pattern.len() + 8),
        groups: 0,
        open: Vec::new(),
        names: HashSet::new(),
        last: Last::Nothing,
        flags: Flags::default(),
        outer: Vec::new(),
    };
    translator.global_flags(pattern);
    translator.run()?;
    let output = translator.output;
    if !output.contains(DOLLAR) {
        return Ok(Translated { strict: output, lenient: None });
    }
    Ok(Translated {
        strict: output.replace(DOLLAR, r"\z"),
        lenient: Some(output.replace(DOLLAR, r"(?=\n?\z)")),
    })
}

/// What a quantifier would apply to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The start of a branch, or an anchor.
    Nothing,
    Item,
    Quantifier,
}

/// The inline flags that change how the rest is read.
#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    verbose: bool,
    multiline: bool,
}

struct Translator<'a> {
    rest: Peekable<Chars<'a>>,
    output: String,
    /// Groups seen so far, and the numbers of those still open (zero for groups that do not capture).
    groups: usize,
    open: Vec<usize>,
    names: HashSet<String>,
    last: Last,
    flags: Flags,
    /// The flags outside each open group.
    outer: Vec<Flags>,
}

impl Translator<'_> {
    /// Flags for the whole pattern, which only its start can set.
    fn global_flags(&mut self, pattern: &str) {
        let Some((flags, _)) = pattern.strip_prefix("(?").and_then(|rest| rest.split_once(')')) else {
            return;
        };
        if !flags.is_empty() && flags.bytes().all(|flag| b"aiLmsux".contains(&flag)) {
            self.flags = Flags { verbose: flags.contains('x'), multiline: flags.contains('m') };
        }
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(character) = self.rest.next() {
            match character {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open_group()?,
                ')' => self.close_group()?,
                '|' => self.push_as("|", Last::Nothing),
                '^' => self.push_as("^", Last::Nothing),
                '$' if self.flags.multiline => self.push_as("(?m:$)", Last::Nothing),
                '$' => {
                    self.output.push(DOLLAR);
                    self.last = Last::Nothing;
                }
                '*' | '+' | '?' => self.quantifier(&character.to_string())?,
                '{' => match self.bounds() {
                    Some(bounds) => self.quantifier(&bounds)?,
                    None => self.literal('{'),
                },
                '.' => self.push_as(".", Last::Item),
                '#' if self.flags.verbose => while self.rest.next().is_some_and(|c| c != '\n') {},
                blank if self.flags.verbose && blank.is_ascii_whitespace() => {}
                other => self.literal(other),
            }
        }
        if self.open.is_empty() { Ok(()) } else { Err("a `(` without its `)`".to_owned()) }
    }

    fn push_as(&mut self, text: &str, last: Last) {
        self.output.push_str(text);
        self.last = last;
    }

    fn literal(&mut self, character: char) {
        push_literal(&mut self.output, character);
        self.last = Last::Item;
    }

    fn quantifier(&mut self, text: &str) -> Result<(), String> {
        match self.last {
            Last::Nothing => return Err(format!("nothing to repeat before `{text}`")),
            Last::Quantifier => return Err(format!("`{text}` repeats what is repeated already")),
            Last::Item => {}
        }
        self.output.push_str(text);
        // Lazy and possessive forms.
        if let Some(mode) = self.rest.next_if(|c| matches!(c, '?' | '+')) {
            self.output.push(mode);
        }
        self.last = Last::Quantifier;
        Ok(())
    }

    /// `{m}`, `{m,}`, `{,n}` or `{m,n}` after its brace; otherwise the brace is a literal and nothing is consumed.
    fn bounds(&mut self) -> Option<String> {
        let mut ahead = self.rest.clone();
        let digits = |ahead: &mut Peekable<Chars<'_>>| -> String {
            std::iter::from_fn(|| ahead.next_if(char::is_ascii_digit)).collect()
        };
        let least = digits(&mut ahead);
        let most = ahead.next_if_eq(&',').map(|_| digits(&mut ahead));
        ahead.next_if_eq(&'}')?;
        let bounds = match (least.as_str(), most.as_deref()) {
            ("", None) => return None,
            (least, None) => format!("{{{least}}}"),
            ("", Some(most)) => format!("{{0,{most}}}"),
            (least, Some(most)) => format!("{{{least},{most}}}"),
        };
        self.rest = ahead;
        Some(bounds)
    }

    fn open_group(&mut self) -> Result<(), String> {
        self.outer.push(self.flags);
        self.last = Last::Nothing;
        if self.rest.next_if_eq(&'?').is_none() {
            self.groups += 1;
            self.open.push(self.groups);
            self.output.push('(');
            return Ok(());
        }
        match self.rest.next() {
            Some('P') => self.named_group(),
            Some('#') => {
                self.outer.pop();
                if self.rest.any(|c| c == ')') { Ok(()) } else { Err("a comment without its `)`".to_owned()) }
            }
            Some('<') => match self.rest.next() {
                Some(kind @ ('=' | '!')) => {
                    self.plain_group(&format!("(?<{kind}"));
                    Ok(())
                }
                _ => Err("`(?<` is no group: look-behind is `(?<=` or `(?<!`, a name `(?P<`".to_owned()),
            },
            Some(kind @ (':' | '=' | '!' | '>')) => {
                self.plain_group(&format!("(?{kind}"));
                Ok(())
            }
            Some('(') => Err("conditional groups are not supported".to_owned()),
            Some(flag) => self.flag_group(flag),
            None => Err("`(?` at the end".to_owned()),
        }
    }

    fn plain_group(&mut self, opening: &str) {
        self.open.push(0);
        self.output.push_str(opening);
    }

    fn named_group(&mut self) -> Result<(), String> {
        let kind = self.rest.next();
        let end = if kind == Some('<') { '>' } else { ')' };
        let name: String = std::iter::from_fn(|| self.rest.next_if(|c| *c != end)).collect();
        let starts = name.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if self.rest.next().is_none() || !starts || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
            return Err(format!("{name:?} is no name for a group"));
        }
        match kind {
            Some('<') => {
                if !self.names.insert(name.clone()) {
                    return Err(format!("two groups have the name {name:?}"));
                }
                self.groups += 1;
                self.open.push(self.groups);
                self.output.extend(["(?P<", &name, ">"]);
            }
            Some('=') => {
                self.outer.pop();
                if !self.names.contains(&name) {
                    return Err(format!("no group has the name {name:?}"));
                }
                self.push_as(&format!("(?P={name})"), Last::Item);
            }
            _ => return Err("`(?P` takes `<name>` or `=name`".to_owned()),
        }
        Ok(())
    }

    /// `(?i)` at the start, or `(?i-s:..)` anywhere.
    fn flag_group(&mut self, first: char) -> Result<(), String> {
        let at_start = self.output.is_empty();
        let mut flags = String::from(first);
        flags.extend(std::iter::from_fn(|| self.rest.next_if(|c| c.is_ascii_alphabetic() || *c == '-')));
        let (on, off) = flags.split_once('-').unwrap_or((&flags, ""));
        if !on.chars().chain(off.chars()).all(|flag| "aimsux".contains(flag))
            || (flags.contains('-') && off.is_empty())
        {
            return Err(format!("the flags {flags:?} are not known"));
        }
        let mut kept: String = on.chars().filter(|flag| "ims".contains(*flag)).collect();
        let dropped: String = off.chars().filter(|flag| "ims".contains(*flag)).collect();
        if on.contains('a') {
            return Err("the flag `a` is not supported".to_owned());
        }
        if !dropped.is_empty() {
            kept.push('-');
            kept.push_str(&dropped);
        }
        match self.rest.next() {
            Some(')') if at_start => {
                self.outer.pop();
                if !kept.is_empty() {
                    self.output.extend(["(?", &kept, ")"]);
                }
                Ok(())
            }
            Some(':') => {
                self.flags.verbose = (self.flags.verbose || on.contains('x')) && !off.contains('x');
                self.flags.multiline = (self.flags.multiline || on.contains('m')) && !off.contains('m');
                self.plain_group(&format!("(?{kept}:"));
                Ok(())
            }
            _ => Err("flags for the whole pattern belong at its start".to_owned()),
        }
    }

    fn close_group(&mut self) -> Result<(), String> {
        let (Some(_), Some(flags)) = (self.open.pop(), self.outer.pop()) else {
            return Err("a `)` without its `(`".to_owned());
        };
        self.flags = flags;
        self.push_as(")", Last::Item);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        let Some(character) = self.rest.next() else { return Err("a backslash at the end".to_owned()) };
        match character {
            'A' | 'b' | 'B' => self.push_as(&format!("\\{character}"), Last::Nothing),
            'Z' => self.push_as(r"\z", Last::Nothing),
            'd' | 'D' | 'w' | 'W' => self.push_as(&format!("\\{character}"), Last::Item),
            's' => self.push_as(r"[\s\x1c-\x1f]", Last::Item),
            'S' => self.push_as(r"[^\s\x1c-\x1f]", Last::Item),
            '1'..='9' if !self.is_octal(character) => self.back_reference(character)?,
            other => {
                let code = self.character_escape(other)?;
                self.literal(code);
            }
        }
        Ok(())
    }

    /// Three octal digits are a character, not a group.
    fn is_octal(&self, first: char) -> bool {
        let mut ahead = self.rest.clone();
        let mut octal = || ahead.next().is_some_and(|c| c.is_digit(8));
        first <= '3' && octal() && octal()
    }

    fn back_reference(&mut self, first: char) -> Result<(), String> {
        let mut digits = String::from(first);
        digits.extend(self.rest.next_if(char::is_ascii_digit));
        let group: usize = digits.parse().unwrap_or(usize::MAX);
        if group > self.groups {
            return Err(format!("`\\{digits}` refers to a group that is not there"));
        }
        if self.open.contains(&group) {
            return Err(format!("`\\{digits}` refers to a group that is still open"));
        }
        // The group around it keeps a digit that follows out of the number.
        self.push_as(&format!("(?:\\{group})"), Last::Item);
        Ok(())
    }

    /// The character that an escape stands for.
    fn character_escape(&mut self, escape: char) -> Result<char, String> {
        let (digits, radix) = match escape {
            'a' => return Ok('\u{7}'),
            'f' => return Ok('\u{c}'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\u{b}'),
            'x' => (self.digits(2, 16), 16),
            'u' => (self.digits(4, 16), 16),
            'U' => (self.digits(8, 16), 16),
            '0' => (Some(format!("0{}", self.up_to_two_octal())), 8),
            '1'..='7' => (Some(format!("{escape}{}", self.up_to_two_octal())), 8),
            letter if letter.is_ascii_alphanumeric() => return Err(format!("`\\{letter}` is no escape")),
            other => return Ok(other),
        };
        let code =
            digits.and_then(|digits| u32::from_str_radix(&digits, radix).ok()).and_then(char::from_u32);
        code.ok_or_else(|| format!("`\\{escape}` is not followed by the digits of a character"))
    }

    fn digits(&mut self, count: usize, radix: u32) -> Option<String> {
        let digits: String =
            std::iter::from_fn(|| self.rest.next_if(|c| c.is_digit(radix))).take(count).collect();
        (digits.len() == count).then_some(digits)
    }

    fn up_to_two_octal(&mut self) -> String {
        std::iter::from_fn(|| self.rest.next_if(|c| c.is_digit(8))).take(2).collect()
    }

    /// A set of characters after its bracket.
    fn class(&mut self) -> Result<(), String> {
        self.output.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.output.push('^');
        }
        let mut first = true;
        loop {
            let low = match self.class_item(first)? {
                ClassItem::End => break,
                ClassItem::Group(group) => {
                    self.output.push_str(group);
                    None
                }
                ClassItem::Character(character) => Some(character),
            };
            first = false;
            self.range(low)?;
        }
        self.output.push(']');
        self.last = Last::Item;
        Ok(())
    }

    /// Finishes an item that may be the lower end of a range.
    fn range(&mut self, low: Option<char>) -> Result<(), String> {
        let mut ahead = self.rest.clone();
        let is_range = ahead.next() == Some('-') && ahead.peek().is_some_and(|c| *c != ']');
        let Some(low) = low else {
            return if is_range { Err("a class like `\\d` cannot start a range".to_owned()) } else { Ok(()) };
        };
        push_literal(&mut self.output, low);
        if is_range {
            self.rest.next();
            let ClassItem::Character(high) = self.class_item(true)? else {
                return Err("a class like `\\d` cannot end a range".to_owned());
            };
            if high < low {
                return Err(format!("the range `{low}-{high}` is empty"));
            }
            self.output.push('-');
            push_literal(&mut self.output, high);
        }
        Ok(())
    }

    fn class_item(&mut self, first: bool) -> Result<ClassItem, String> {
        match self.rest.next() {
            None => Err("a `[` without its `]`".to_owned()),
            Some(']') if !first => Ok(ClassItem::End),
            Some('\\') => match self.rest.next() {
                None => Err("a `[` without its `]`".to_owned()),
                Some('d') => Ok(ClassItem::Group(r"\d")),
                Some('D') => Ok(ClassItem::Group(r"\D")),
                Some('w') => Ok(ClassItem::Group(r"\w")),
                Some('W') => Ok(ClassItem::Group(r"\W")),
                Some('s') => Ok(ClassItem::Group(r"\s\x1c-\x1f")),
                Some('S') => Ok(ClassItem::Group(r"\S")),
                Some('b') => Ok(ClassItem::Character('\u{8}')),
                Some(escape) => self.character_escape(escape).map(ClassItem::Character),
            },
            Some(character) => Ok(ClassItem::Character(character)),
        }
    }
}

#[derive(Debug)]
enum ClassItem {
    End,
    Group(&'static str),
    Character(char),
}

/// A character that stands for itself, in a class as well as outside.
fn push_literal(output: &mut String, character: char) {
    if character.is_control() {
        output.extend(character.escape_unicode());
        return;
    }
    // Not every sign may be escaped: `\<` is the start of a word in the other syntax.
    if r"\.+*?()|[]{}^$#&-~".contains(character) {
        output.push('\\');
    }
    output.push(character);
}
