//! Compact storage: a million tests times twenty lanes is a lot of numbers, nearly all of them small.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// Numbers by position, in as few bytes each as the biggest of them needs; none while all are the same. What takes no memory is
/// not far away in it either: most policies have nothing to say of most tests.
#[derive(Debug)]
pub(super) enum Column {
    /// So many times this number.
    Same(i8, usize),
    One(Vec<i8>),
    Two(Vec<i16>),
    Four(Vec<i32>),
    Eight(Vec<i64>),
}

impl Column {
    /// `count` times `number`, which fits into one byte.
    pub(super) fn new(number: i8, count: usize) -> Self {
        Self::Same(number, count)
    }

    /// Whether all numbers are known to be the same.
    pub(super) fn is_same(&self) -> bool {
        matches!(self, Self::Same(..))
    }

    /// The number at a position, 0 behind the end.
    pub(super) fn get(&self, at: usize) -> i64 {
        let found = match self {
            Self::Same(number, count) => (at < *count).then_some(i64::from(*number)),
            Self::One(numbers) => numbers.get(at).map(|&number| i64::from(number)),
            Self::Two(numbers) => numbers.get(at).map(|&number| i64::from(number)),
            Self::Four(numbers) => numbers.get(at).map(|&number| i64::from(number)),
            Self::Eight(numbers) => numbers.get(at).copied(),
        };
        found.unwrap_or(0)
    }

    /// Changes a number; behind the end nothing happens.
    pub(super) fn set(&mut self, at: usize, number: i64) {
        while !self.try_set(at, number) {
            self.widen();
        }
    }

    /// Changes many numbers, each like [`set`](Self::set).
    pub(super) fn set_all(&mut self, numbers: impl Iterator<Item = (usize, i64)>) {
        /// Up to the first number that does not fit, which is returned.
        fn put<N: TryFrom<i64>>(
            slots: &mut [N],
            numbers: &mut impl Iterator<Item = (usize, i64)>,
        ) -> Option<(usize, i64)> {
            for (at, number) in numbers {
                let Ok(fitting) = N::try_from(number) else { return Some((at, number)) };
                if let Some(slot) = slots.get_mut(at) {
                    *slot = fitting;
                }
            }
            None
        }
        let mut numbers = numbers;
        loop {
            let unfit = match self {
                Self::Same(same, _) => numbers.find(|(_, number)| *number != i64::from(*same)),
                Self::One(slots) => put(slots, &mut numbers),
                Self::Two(slots) => put(slots, &mut numbers),
                Self::Four(slots) => put(slots, &mut numbers),
                Self::Eight(slots) => put(slots, &mut numbers),
            };
            let Some((at, number)) = unfit else { return };
            self.set(at, number);
        }
    }

    /// Returns whether the number fits.
    fn try_set(&mut self, at: usize, number: i64) -> bool {
        fn put<N: TryFrom<i64>>(numbers: &mut [N], at: usize, number: i64) -> bool {
            let Ok(number) = N::try_from(number) else { return false };
            if let Some(slot) = numbers.get_mut(at) {
                *slot = number;
            }
            true
        }
        match self {
            Self::Same(same, count) => i64::from(*same) == number || at >= *count,
            Self::One(numbers) => put(numbers, at, number),
            Self::Two(numbers) => put(numbers, at, number),
            Self::Four(numbers) => put(numbers, at, number),
            Self::Eight(numbers) => put(numbers, at, number),
        }
    }

    fn widen(&mut self) {
        fn wider<From: Copy + Into<To>, To>(numbers: &[From]) -> Vec<To> {
            numbers.iter().map(|&number| number.into()).collect()
        }
        *self = match self {
            Self::Same(number, count) => Self::One(vec![*number; *count]),
            Self::One(numbers) => Self::Two(wider(numbers)),
            Self::Two(numbers) => Self::Four(wider(numbers)),
            Self::Four(numbers) => Self::Eight(wider(numbers)),
            Self::Eight(numbers) => Self::Eight(std::mem::take(numbers)),
        };
    }
}

/// Numbers that fit beside each other.
const FEW: usize = 4;

/// A short list of numbers; up to four need no allocation.
#[derive(Debug, Clone)]
pub(super) enum Short {
    Few(u8, [u32; FEW]),
    Many(Box<[u32]>),
}

impl Default for Short {
    fn default() -> Self {
        Self::Few(0, [0; FEW])
    }
}

impl From<&[u32]> for Short {
    fn from(numbers: &[u32]) -> Self {
        let mut few = [0; FEW];
        match few.get_mut(..numbers.len()) {
            Some(part) => {
                part.copy_from_slice(numbers);
                Self::Few(numbers.len() as u8, few)
            }
            None => Self::Many(numbers.into()),
        }
    }
}

impl Deref for Short {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        match self {
            Self::Few(count, numbers) => numbers.get(..usize::from(*count)).unwrap_or_default(),
            Self::Many(numbers) => numbers,
        }
    }
}

impl DerefMut for Short {
    fn deref_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Few(count, numbers) => numbers.get_mut(..usize::from(*count)).unwrap_or_default(),
            Self::Many(numbers) => numbers,
        }
    }
}

// A key of a map that is asked with slices: equality and hash are those of the slice.
impl Borrow<[u32]> for Short {
    fn borrow(&self) -> &[u32] {
        self
    }
}
impl PartialEq for Short {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}
impl Eq for Short {}
impl Hash for Short {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::hash::Map;

    #[test]
    fn a_column_holds_whatever_it_is_given() {
        let numbers =
            [0, -1, 127, -128, 128, 40_000, -40_000, 1 << 31, i64::from(i32::MIN), i64::MAX, i64::MIN];
        for rotation in 0..numbers.len() {
            let mut column = Column::new(-1, numbers.len());
            assert_eq!((column.get(0), column.get(numbers.len())), (-1, 0));
            let at = |step: usize| (step + rotation) % numbers.len();
            for step in 0..numbers.len() {
                column.set(at(step), numbers[at(step)]);
            }
            column.set(numbers.len(), 7);
            let mut at_once = Column::new(-1, numbers.len());
            at_once.set_all((0..=numbers.len()).map(|step| (at(step), numbers[at(step)])));
            assert!((0..numbers.len()).all(|at| at_once.get(at) == numbers[at]), "{at_once:?}");
            assert_eq!((0..numbers.len()).map(|at| column.get(at)).collect::<Vec<_>>(), numbers);
        }
    }

    #[test]
    fn short_lists_are_found_as_slices() {
        let mut map: Map<Short, usize> = Map::default();
        let lists: Vec<Vec<u32>> = (0..7).map(|count| (10..10 + count).collect()).collect();
        for list in &lists {
            map.insert(list.as_slice().into(), list.len());
        }
        for list in &lists {
            assert_eq!(map.get(list.as_slice()), Some(&list.len()));
            let mut changed = Short::from(list.as_slice());
            changed.iter_mut().for_each(|number| *number += 1);
            assert_eq!(changed.len(), list.len());
            assert_eq!(changed == Short::from(list.as_slice()), list.is_empty());
        }
    }
}
