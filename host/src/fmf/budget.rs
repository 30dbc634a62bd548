//! How much merging may produce.
//!
//! A small file can ask for a lot: a long list at the root that each of a hundred thousand children extends, mappings
//! merged into every item of lists of lists. What a merge copies is counted, and the sum is limited.

use super::error::Limit;

/// Bytes that one load, or one adjusting, may still copy.
#[derive(Debug)]
pub(crate) struct Budget(u64);

impl Budget {
    /// About seven times what a hundred thousand tests with fifteen keys need.
    const BYTES: u64 = 1 << 30;

    pub(crate) fn new() -> Self {
        Self(Self::BYTES)
    }

    /// Counts a copy of `count` things of `size` bytes each.
    pub(crate) fn spend(&mut self, count: usize, size: usize) -> Result<(), Limit> {
        let bytes = (count as u64).saturating_mul(size as u64);
        self.0 = self.0.checked_sub(bytes).ok_or(Limit::Merged { mebibytes: Self::BYTES >> 20 })?;
        Ok(())
    }
}
