//! From text to tokens, by python's rules for one logical line.

use num_bigint::BigInt;

use super::super::value::Value;
use super::{Outcome, syntax, unsupported};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(Box<str>),
    /// A word that cannot be a name, or an operator.
    Symbol(&'static str),
    /// A number or a string (neighbouring strings are not joined yet).
    Literal(Value),
    End,
}

#[derive(Debug, Clone)]
pub(super) struct Spanned {
    pub(super) at: u32,
    pub(super) token: Token,
}

const WORDS: [&str; 13] =
    ["and", "or", "not", "in", "is", "if", "else", "for", "True", "False", "None", "lambda", "await"];
const OTHER_WORDS: [&str; 23] = [
    "as",
    "assert",
    "async",
    "break",
    "class",
    "continue",
    "def",
    "del",
    "elif",
    "except",
    "finally",
    "from",
    "global",
    "import",
    "nonlocal",
    "pass",
    "raise",
    "return",
    "try",
    "while",
    "with",
    "yield",
    "__debug__",
];
/// Longest first.
const OPERATORS: [&str; 37] = [
    "...", "**=", "//=", "<<=", ">>=", "==", "!=", "<=", ">=", "**", "//", "<<", ">>", ":=", "->", "+=",
    "-=", "*=", "/=", "|=", "&=", "(", ")", "[", "]", "{", "}", "<", ">", "+", "-", "*", "/", "%", ",", ":",
    ".",
];
const MORE_OPERATORS: [&str; 5] = ["&", "|", "^", "~", "="];

/// Splits the whole text; the last token is [`Token::End`].
pub(super) fn tokenize(text: &str) -> Outcome<Vec<Spanned>> {
    // `eval` takes blanks before an expression, but not line ends.
    let mut lexer = Lexer { text, at: text.len() - text.trim_start_matches([' ', '\t']).len(), open: 0 };
    let mut tokens = Vec::new();
    loop {
        let spanned = lexer.next()?;
        let end = spanned.token == Token::End;
        tokens.push(spanned);
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
    /// Open brackets: inside them, line ends are blanks.
    open: u32,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn position(&self) -> u32 {
        self.at as u32
    }

    fn next(&mut self) -> Outcome<Spanned> {
        self.skip_blanks();
        let at = self.position();
        let token = match self.peek() {
            None => Token::End,
            Some('\n' | '\r') => self.end_of_line()?,
            Some(c) if c.is_ascii_digit() || self.is_point_before_digit() => self.number()?,
            Some('\'' | '"') => self.string("")?,
            Some(c) if is_name_start(c) => self.word()?,
            Some(_) => self.operator()?,
        };
        Ok(Spanned { at, token })
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let skipped = if rest.starts_with('#') {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("\\\n") {
                2
            } else {
                let blank = |c: char| {
                    matches!(c, ' ' | '\t' | '\u{c}') || (self.open > 0 && matches!(c, '\n' | '\r'))
                };
                rest.len() - rest.trim_start_matches(blank).len()
            };
            if skipped == 0 {
                return;
            }
            self.at += skipped;
        }
    }

    /// After the end of the line nothing may follow but blanks and comments.
    fn end_of_line(&mut self) -> Outcome<Token> {
        self.open += 1;
        self.skip_blanks();
        if self.rest().is_empty() {
            Ok(Token::End)
        } else {
            syntax(self.position(), "only one line is allowed")
        }
    }

    fn is_point_before_digit(&self) -> bool {
        let mut characters = self.rest().chars();
        characters.next() == Some('.') && characters.next().is_some_and(|c| c.is_ascii_digit())
    }

    fn word(&mut self) -> Outcome<Token> {
        let rest = self.rest();
        let end = rest.find(|c| !is_name_part(c)).unwrap_or(rest.len());
        let word = &rest[..end];
        if rest[end..].starts_with(['\'', '"']) && is_string_prefix(word) {
            self.at += end;
            return self.string(&word.to_ascii_lowercase());
        }
        if OTHER_WORDS.contains(&word) {
            return syntax(self.position(), format!("`{word}` cannot stand here"));
        }
        self.at += end;
        Ok(WORDS
            .iter()
            .find(|known| **known == word)
            .map_or_else(|| Token::Name(word.into()), |word| Token::Symbol(word)))
    }

    fn operator(&mut self) -> Outcome<Token> {
        let rest = self.rest();
        let Some(operator) =
            OPERATORS.iter().chain(&MORE_OPERATORS).find(|operator| rest.starts_with(**operator))
        else {
            let character = self.peek().unwrap_or_default();
            return syntax(self.position(), format!("{character:?} cannot stand here"));
        };
        match *operator {
            "(" | "[" | "{" => self.open += 1,
            ")" | "]" | "}" => self.open = self.open.saturating_sub(1),
            _ => {}
        }
        self.at += operator.len();
        Ok(Token::Symbol(operator))
    }

    fn number(&mut self) -> Outcome<Token> {
        let at = self.position();
        let rest = self.rest();
        for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
            if rest.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(prefix)) {
                self.at += 2;
                let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                let plain = strip_underscores(digits.strip_prefix('_').unwrap_or(digits));
                let number = plain.and_then(|digits| BigInt::parse_bytes(digits.as_bytes(), radix));
                return number
                    .map_or_else(|| syntax(at, "invalid number"), |n| Ok(Token::Literal(Value::integer(n))));
            }
        }
        let whole = self.take_while(|c| c.is_ascii_digit() || c == '_');
        let fraction = self.rest().starts_with('.');
        if fraction {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit() || c == '_');
        }
        let exponent = self.exponent();
        if self.peek().is_some_and(|c| matches!(c, 'j' | 'J')) {
            return unsupported(at, "a complex number");
        }
        let text = &self.text[at as usize..self.at];
        let value = if fraction || exponent { float(text) } else { integer(whole) };
        value.map_or_else(|| syntax(at, "invalid number"), |value| Ok(Token::Literal(value)))
    }

    fn exponent(&mut self) -> bool {
        let rest = self.rest();
        if !rest.starts_with(['e', 'E']) {
            return false;
        }
        let digits = rest[1..].strip_prefix(['+', '-']).unwrap_or(&rest[1..]);
        if !digits.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        self.at += rest.len() - digits.len();
        self.take_while(|c| c.is_ascii_digit() || c == '_');
        true
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// A string from its opening quote on; `prefix` in lower case has been read.
    fn string(&mut self, prefix: &str) -> Outcome<Token> {
        let at = self.position();
        if prefix.contains('f') {
            return unsupported(at, "an f-string");
        }
        if prefix.contains('b') {
            return unsupported(at, "a string of bytes");
        }
        let rest = self.rest();
        let single = &rest[..1];
        let triple = rest.get(..3).filter(|start| *start == single.repeat(3));
        let quote = triple.unwrap_or(single);
        self.at += quote.len();
        let mut text = String::new();
        loop {
            let rest = self.rest();
            if rest.starts_with(quote) {
                self.at += quote.len();
                return Ok(Token::Literal(Value::from(text)));
            }
            match self.peek() {
                None => return syntax(at, "the string does not end"),
                Some('\n') if triple.is_none() => return syntax(at, "the string does not end on its line"),
                Some('\\') if prefix.contains('r') => {
                    // A raw string keeps the backslash, and what it guards.
                    let guarded = rest[1..].chars().next().map_or(0, char::len_utf8);
                    text.push_str(&rest[..=guarded]);
                    self.at += 1 + guarded;
                }
                Some('\\') => self.escape(&mut text)?,
                Some(c) => {
                    text.push(c);
                    self.at += c.len_utf8();
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Outcome<()> {
        let at = self.position();
        self.at += 1;
        let Some(letter) = self.peek() else { return syntax(at, "the string does not end") };
        self.at += letter.len_utf8();
        let character = match letter {
            '\n' => return Ok(()),
            '\\' | '\'' | '"' => letter,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'x' => self.code(at, 2)?,
            'u' => self.code(at, 4)?,
            'U' => self.code(at, 8)?,
            'N' => return unsupported(at, "a character by its name"),
            '0'..='7' => {
                let rest = &self.text[self.at - 1..];
                let length = rest.bytes().take(3).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                self.at += length - 1;
                let code = u32::from_str_radix(&rest[..length], 8).unwrap_or(0);
                char::from_u32(code).unwrap_or_default()
            }
            other => {
                text.push('\\');
                other
            }
        };
        text.push(character);
        Ok(())
    }

    fn code(&mut self, at: u32, digits: usize) -> Outcome<char> {
        let code = self.rest().get(..digits).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(code) = code.and_then(|code| u32::from_str_radix(code, 16).ok()) else {
            return syntax(at, "the escape needs more digits");
        };
        self.at += digits;
        match char::from_u32(code) {
            Some(character) => Ok(character),
            None if code <= 0xffff => unsupported(at, "half of a character"),
            None => syntax(at, "there is no such character"),
        }
    }
}

fn is_name_start(c: char) -> bool {
    c == '_' || c.is_alphabetic()
}

fn is_name_part(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

fn is_string_prefix(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    matches!(lower.as_str(), "r" | "u" | "b" | "f" | "br" | "rb" | "fr" | "rf")
}

/// The digits alone; none if an underscore does not stand between two of them.
fn strip_underscores(text: &str) -> Option<String> {
    let good = !text.is_empty() && !text.starts_with('_') && !text.ends_with('_') && !text.contains("__");
    good.then(|| text.replace('_', ""))
}

fn integer(text: &str) -> Option<Value> {
    let digits = strip_underscores(text)?;
    let zeros = digits.bytes().all(|byte| byte == b'0');
    if digits.starts_with('0') && !zeros {
        return None;
    }
    digits.parse::<BigInt>().ok().map(Value::integer)
}

fn float(text: &str) -> Option<Value> {
    let mut plain = String::new();
    for part in text.split_inclusive(['.', 'e', 'E', '+', '-']) {
        let digits = part.trim_end_matches(['.', 'e', 'E', '+', '-']);
        if !digits.is_empty() {
            plain.push_str(&strip_underscores(digits)?);
        }
        plain.push_str(&part[digits.len()..]);
    }
    plain.parse().ok().map(Value::Float)
}
