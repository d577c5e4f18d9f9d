//! A list of secrets that leaves none behind.
//!
//! Spec: docs/spec/packet.md, PKT-5.
//!
//! A `Vec` that grows, and one whose items are moved out, leaves their bytes in memory that nobody
//! erases: an item's own `Drop` runs where it is moved to. So [`Erasing`] erases what it leaves
//! when it grows, and all of its memory when it is dropped.
//!
//! Not done here: erasing copies on the stack, by which items come in and go out.

use core::{
    ops::{Deref, DerefMut},
    slice,
};

use zeroize::{Zeroize, optimization_barrier};

/// Overwrites with zeros, a vector at a time where the CPU can: `zeroize` on bytes writes one by one.
pub(crate) fn erase(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// A list whose memory is erased when it is let go, what was moved out of it too (PKT-5).
#[derive(Debug)]
pub struct Erasing<T>(Vec<T>);

impl<T> Erasing<T> {
    /// Empty; allocates nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Empty, with room for `count` items.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        Self(Vec::with_capacity(count))
    }

    /// Appends an item.
    pub fn push(&mut self, item: T) {
        if self.0.len() == self.0.capacity() {
            let mut larger = Vec::with_capacity((2 * self.0.len()).max(8));
            larger.append(&mut self.0);
            // What is dropped here is the old memory, empty: its `Drop` erases it.
            drop(core::mem::replace(self, Self(larger)));
        }
        self.0.push(item);
    }

    /// Takes all items out, in order. Their places are erased later, with the list.
    pub fn drain(&mut self) -> impl Iterator<Item = T> {
        self.0.drain(..)
    }

    /// Drops all items, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl<T> Default for Erasing<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Extend<T> for Erasing<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        items.into_iter().for_each(|item| self.push(item));
    }
}

impl<T> Deref for Erasing<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Erasing<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T> IntoIterator for &'a Erasing<T> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> slice::Iter<'a, T> {
        self.0.iter()
    }
}

impl<T> Drop for Erasing<T> {
    fn drop(&mut self) {
        self.0.clear();
        self.0.spare_capacity_mut().zeroize();
    }
}
