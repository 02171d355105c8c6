//! The ends of a connection, in as few bytes as nearly all of them need.

use std::net::{SocketAddr, SocketAddrV4};

/// Two ends, each at the number of the direction that flows from it.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Ends {
    V4([SocketAddrV4; 2]),
    Other(Box<[SocketAddr; 2]>),
}

impl Ends {
    pub(super) fn new(ends: [SocketAddr; 2]) -> Self {
        match ends {
            [SocketAddr::V4(a), SocketAddr::V4(b)] => Self::V4([a, b]),
            _ => Self::Other(Box::new(ends)),
        }
    }

    #[inline]
    pub(super) fn get(&self) -> [SocketAddr; 2] {
        match self {
            Self::V4(ends) => ends.map(SocketAddr::V4),
            Self::Other(ends) => **ends,
        }
    }

    /// Whether it is these.
    #[inline]
    pub(super) fn are(&self, ends: [&SocketAddr; 2]) -> bool {
        match (self, ends) {
            (Self::V4([a, b]), [SocketAddr::V4(c), SocketAddr::V4(d)]) => a == c && b == d,
            (Self::V4(_), _) => false,
            (Self::Other(known), ends) => known.each_ref() == ends,
        }
    }

    /// Bytes held beside itself.
    pub(super) fn memory(&self) -> usize {
        match self {
            Self::V4(_) => 0,
            Self::Other(ends) => std::mem::size_of_val(&**ends),
        }
    }
}
