//! Values with versions in them: `centos-stream-9`, `python3-3.8.5`.

use std::cmp::Ordering;

use num_bigint::BigInt;

/// A value, split into its name and the parts of its version at `:`, `-` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    raw: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    text: String,
    folded: String,
    number: Option<BigInt>,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    /// The first part of the version has to be the same for the others to be compared.
    pub(super) minor: bool,
    /// Whether their order is asked for, or only whether they are equal.
    pub(super) ordered: bool,
    pub(super) ignore_case: bool,
}

impl Version {
    pub(super) fn new(raw: &str) -> Self {
        Self { raw: raw.to_owned(), parts: raw.split([':', '-', '.']).map(Part::new).collect() }
    }

    pub(super) fn raw(&self) -> &str {
        &self.raw
    }

    /// The order of this value relative to `other`, which sets the precision: what it leaves out counts as equal. None
    /// if they cannot be compared. When no order is asked for, anything but `Equal` only means different.
    pub(super) fn compare(&self, other: &Self, mode: Mode) -> Option<Ordering> {
        let different = (!mode.ordered).then_some(Ordering::Greater);
        let ([our_name, ours @ ..], [their_name, theirs @ ..]) =
            (self.parts.as_slice(), other.parts.as_slice())
        else {
            return None;
        };
        if !our_name.is(their_name, mode.ignore_case) {
            return different;
        }
        if mode.minor
            && let [their_major, their_rest @ ..] = theirs
            && !ours.first()?.is(their_major, mode.ignore_case)
        {
            // Minor versions of different major ones have no order.
            if !mode.ordered || !their_rest.is_empty() {
                return different;
            }
        }
        let first_difference = ours
            .iter()
            .zip(theirs)
            .map(|(our, their)| our.compare(their, mode.ignore_case))
            .find(|o| o.is_ne());
        if first_difference.is_some() {
            return first_difference;
        }
        match (theirs.len() > ours.len(), mode) {
            (false, _) => Some(Ordering::Equal),
            (true, Mode { minor: true, .. }) => None,
            (true, Mode { ordered: false, .. }) => different,
            // Nothing to compare the version with.
            (true, _) if ours.is_empty() => None,
            (true, _) => Some(Ordering::Less),
        }
    }
}

impl Part {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), folded: text.to_lowercase(), number: integer(text) }
    }

    fn text(&self, ignore_case: bool) -> &str {
        if ignore_case { &self.folded } else { &self.text }
    }

    fn is(&self, other: &Self, ignore_case: bool) -> bool {
        self.text(ignore_case) == other.text(ignore_case)
    }

    /// As numbers if both are, else as texts.
    fn compare(&self, other: &Self, ignore_case: bool) -> Ordering {
        match (&self.number, &other.number) {
            (Some(our), Some(their)) => our.cmp(their),
            _ => self.text(ignore_case).cmp(other.text(ignore_case)),
        }
    }
}

/// What python's `int` reads: blanks around, a sign, single underscores between digits; not more than 4300 of them.
pub(crate) fn integer(text: &str) -> Option<BigInt> {
    let text = text.trim();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let groups_fit =
        digits.split('_').all(|group| !group.is_empty() && group.bytes().all(|b| b.is_ascii_digit()));
    if !groups_fit || digits.len() > 4300 {
        return None;
    }
    let number = BigInt::parse_bytes(digits.replace('_', "").as_bytes(), 10)?;
    Some(if text.starts_with('-') { -number } else { number })
}
