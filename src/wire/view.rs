//! Bytes that were captured, and how many there were.

use crate::account::Reason;

/// A stretch of a frame: the bytes that were captured, and its length on the wire.
///
/// Invariant: `data.len() <= len`. When they differ, the snap length cut the rest off, so a header that runs beyond
/// `data` but not beyond `len` is [`Reason::HeaderCut`], and one that runs beyond `len` is [`Reason::MalformedPacket`].
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a> {
    /// What was captured.
    pub(super) data: &'a [u8],
    /// How many bytes there were.
    pub(super) len: usize,
}

impl<'a> View<'a> {
    /// A view of `data`, which was `len` bytes on the wire (or `data.len()`, if that is more).
    pub(super) fn new(data: &'a [u8], len: usize) -> Self {
        Self {
            data,
            len: len.max(data.len()),
        }
    }

    /// Why `n` bytes are not there.
    #[cold]
    pub(super) fn missing(&self, n: usize) -> Reason {
        if n <= self.len {
            Reason::HeaderCut
        } else {
            Reason::MalformedPacket
        }
    }

    /// The first `n` bytes, which stay in the view.
    #[inline]
    pub(super) fn peek(&self, n: usize) -> Result<&'a [u8], Reason> {
        self.data.get(..n).ok_or_else(|| self.missing(n))
    }

    /// The first `N` bytes, which stay in the view.
    #[inline]
    pub(super) fn peek_array<const N: usize>(&self) -> Result<&'a [u8; N], Reason> {
        self.data.first_chunk().ok_or_else(|| self.missing(N))
    }

    /// The first `n` bytes, taken off the view.
    #[inline]
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Reason> {
        let (head, rest) = self
            .data
            .split_at_checked(n)
            .ok_or_else(|| self.missing(n))?;
        self.data = rest;
        self.len -= n;
        Ok(head)
    }

    /// The first `N` bytes, taken off the view.
    #[inline]
    pub(super) fn take_array<const N: usize>(&mut self) -> Result<&'a [u8; N], Reason> {
        let (head, rest) = self
            .data
            .split_first_chunk()
            .ok_or_else(|| self.missing(N))?;
        self.data = rest;
        self.len -= N;
        Ok(head)
    }

    /// Ends the view after `len` bytes. More than it has means that the rest was cut off.
    #[inline]
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = len;
        if self.data.len() > len {
            self.data = &self.data[..len];
        }
    }

    /// Ends the view after `len` bytes, unless it is shorter already.
    #[inline]
    pub(super) fn limit(&mut self, len: usize) {
        self.set_len(len.min(self.len));
    }

    /// The `u16` in network byte order at `at`, if it was captured.
    #[inline]
    pub(super) fn u16_at(&self, at: usize) -> Option<u16> {
        let bytes = self.data.get(at..)?.first_chunk()?;
        Some(u16::from_be_bytes(*bytes))
    }
}
