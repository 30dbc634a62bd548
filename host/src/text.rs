//! Text from elsewhere, made fit for a terminal.

use std::borrow::Cow;

/// `text` with control characters as escapes (`\n`, `\u{1b}`): whoever named it, it moves no cursor and ends no line. Characters
/// that change the direction of writing, or that nobody sees, count as control characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_hostile(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

fn is_hostile(c: char) -> bool {
    let is_invisible = matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    );
    is_invisible || c.is_control()
}

/// `1 test`, `2 tests`.
pub(crate) fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|number| counted(number, "test")), ["0 tests", "1 test", "2 tests"]);
    }

    #[test]
    fn what_moves_the_cursor_is_escaped() {
        assert!(matches!(printable("/plain/ünïcode 名前"), Cow::Borrowed(_)));
        assert_eq!(printable("a\nb\u{1b}[2Jc\u{202e}d"), r"a\nb\u{1b}[2Jc\u{202e}d");
    }
}
