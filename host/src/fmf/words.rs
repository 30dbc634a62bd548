//! Text split as a shell does.

/// Splits like a POSIX shell does before it expands anything: at blanks, with quotes and backslashes; with `comments`, from
/// a `#` that begins a word to the end of its line nothing counts. An open quote is an error.
pub(crate) fn shell_words(text: &str, comments: bool) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '#' if comments && word.is_none() => {
                let _ = characters.by_ref().find(|c| *c == '\n');
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("a single quote is not closed"),
                    }
                }
            }
            '"' => double_quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => match characters.next() {
                Some('\n') => {}
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("it ends in a backslash"),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match characters.next() {
            Some('"') => return Ok(()),
            Some('\\') => match characters.next() {
                Some(c @ ('"' | '\\' | '$' | '`')) => word.push(c),
                Some('\n') => {}
                Some(c) => word.extend(['\\', c]),
                None => return Err("a double quote is not closed"),
            },
            Some(c) => word.push(c),
            None => return Err("a double quote is not closed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (text, words) in [
            ("a  b\n c", Ok(vec!["a", "b", "c"])),
            ("A='x y' B=\"p \\\"q\\\"\"", Ok(vec!["A=x y", "B=p \"q\""])),
            ("a\\ b ''", Ok(vec!["a b", ""])),
            ("a # no\nb#c", Ok(vec!["a", "b#c"])),
            ("\"a\\nb\"", Ok(vec!["a\\nb"])),
            ("'a", Err("a single quote is not closed")),
            ("\"a", Err("a double quote is not closed")),
            ("a\\", Err("it ends in a backslash")),
        ] {
            let words = words.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(shell_words(text, true), words, "{text}");
        }
        assert_eq!(shell_words("a # b", false).unwrap(), ["a", "#", "b"]);
    }
}
