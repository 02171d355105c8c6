//! A queue that nearly always holds one thing at most, which then needs no memory of its own.

use std::collections::VecDeque;

/// First in, first out.
///
/// Invariant: `behind` is there only while it holds something, and then `first` is there too.
pub(super) struct Queue<T> {
    first: Option<T>,
    behind: Option<Box<Behind<T>>>,
}

/// What is behind the first.
struct Behind<T>(VecDeque<T>);

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            behind: None,
        }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub(super) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&T> {
        match &self.behind {
            Some(behind) => behind.0.back(),
            None => self.first.as_ref(),
        }
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut T> {
        match &mut self.behind {
            Some(behind) => behind.0.back_mut(),
            None => self.first.as_mut(),
        }
    }

    pub(super) fn get(&self, index: usize) -> Option<&T> {
        match index.checked_sub(1) {
            None => self.first.as_ref(),
            Some(index) => self.behind.as_ref()?.0.get(index),
        }
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        match index.checked_sub(1) {
            None => self.first.as_mut(),
            Some(index) => self.behind.as_mut()?.0.get_mut(index),
        }
    }

    #[inline]
    pub(super) fn push_back(&mut self, item: T) {
        if self.first.is_none() {
            self.first = Some(item);
            return;
        }
        let empty = || Box::new(Behind(VecDeque::new()));
        self.behind.get_or_insert_with(empty).0.push_back(item);
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let next = self.behind.as_mut().and_then(|it| it.0.pop_front());
        if self.behind.as_ref().is_some_and(|it| it.0.is_empty()) {
            self.behind = None;
        }
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.first
            .iter()
            .chain(self.behind.iter().flat_map(|it| it.0.iter()))
    }

    pub(super) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = &mut T> {
        self.first
            .iter_mut()
            .chain(self.behind.iter_mut().flat_map(|it| it.0.iter_mut()))
    }

    /// Those from `index` on.
    pub(super) fn iter_from(&self, index: usize) -> impl Iterator<Item = &T> {
        let behind = self.behind.iter().flat_map(move |it| {
            let from = index.saturating_sub(1).min(it.0.len());
            it.0.range(from..)
        });
        self.first.iter().filter(move |_| index == 0).chain(behind)
    }

    /// How many there are at the front of which `is_before` holds; it holds of none behind one of which it does not.
    pub(super) fn partition_point(&self, mut is_before: impl FnMut(&T) -> bool) -> usize {
        match &self.first {
            Some(first) if is_before(first) => {
                let behind = self.behind.as_ref();
                1 + behind.map_or(0, |it| it.0.partition_point(is_before))
            }
            _ => 0,
        }
    }

    /// Bytes of memory held.
    #[inline]
    pub(super) fn memory(&self) -> usize {
        let behind = self.behind.as_ref();
        behind.map_or(0, |it| it.0.capacity() * std::mem::size_of::<T>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random pushes and pops, against the standard library's queue.
    #[test]
    fn it_is_a_queue() {
        let mut random = crate::random::below();
        let mut queue = Queue::default();
        let mut oracle = VecDeque::new();
        for n in 0..10_000 {
            let growing = n % 100 < 50;
            if (random(3) > 0) == growing {
                queue.push_back(n);
                oracle.push_back(n);
            } else {
                assert_eq!(queue.pop_front(), oracle.pop_front());
            }
            assert_eq!(queue.front(), oracle.front());
            assert_eq!(queue.back(), oracle.back());
            assert_eq!(queue.back_mut(), oracle.back_mut());
            assert!(queue.iter().eq(oracle.iter()));
            assert!(queue.iter().rev().eq(oracle.iter().rev()));
            assert!(queue.iter_mut().eq(oracle.iter_mut()));
            let index = random(oracle.len() as u64 + 1) as usize;
            assert_eq!(queue.get(index), oracle.get(index));
            assert_eq!(queue.get_mut(index), oracle.get_mut(index));
            assert!(queue.iter_from(index).eq(oracle.range(index..)));
            let middle = n - random(20).min(n);
            let point = oracle.partition_point(|&it| it < middle);
            assert_eq!(queue.partition_point(|&it| it < middle), point);
            assert_eq!(queue.memory() > 0, oracle.len() > 1);
        }
    }
}
