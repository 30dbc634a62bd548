//! "Did you mean": the likeliest of the words that would have been right.

/// Similarity (Jaro-Winkler) from which on a word is worth suggesting.
const LIKELY: f64 = 0.8;

/// Words longer than this are not compared: nobody mistypes them, and comparing takes quadratic time.
const LONGEST: usize = 64;

/// The word among `known` that looks most like `word`, if any does.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKELY)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

/// `did you mean ...?` for a word near a known one, else the list of what is known (up to 30), else nothing.
pub(crate) fn help(word: &str, known: &[&str]) -> Option<String> {
    if let Some(near) = nearest(word, known.iter().copied()) {
        return Some(format!("did you mean `{near}`?"));
    }
    if known.is_empty() || known.len() > 30 {
        return None;
    }
    let all: Vec<_> = known.iter().map(|word| format!("`{word}`")).collect();
    Some(format!("known are {}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_typos_and_lists_the_rest() {
        let known = ["slots", "spares", "limits"];
        assert_eq!(help("slot", &known).as_deref(), Some("did you mean `slots`?"));
        assert_eq!(help("sapres", &known).as_deref(), Some("did you mean `spares`?"));
        assert_eq!(help("qqq", &known).as_deref(), Some("known are `slots`, `spares`, `limits`"));
        assert_eq!(help("x", &[]), None);
        assert_eq!(nearest(&"s".repeat(1 << 20), known), None);
    }
}
