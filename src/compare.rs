//! How two answers to the same request differ.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// In which way a field differs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DifferenceKind {
    /// Version 1 has it, version 2 does not.
    Missing,
    /// Version 2 has it, version 1 does not.
    Extra,
    /// Both have it, as values of different types.
    Type,
    /// Both have it, with different values.
    Value,
    /// Both have the same elements, in a different order.
    Order,
    /// Both have it, with different numbers of elements, lines or bytes.
    Length,
}

impl DifferenceKind {
    /// Every kind, in declaration order.
    pub const ALL: [Self; 6] = [
        Self::Missing,
        Self::Extra,
        Self::Type,
        Self::Value,
        Self::Order,
        Self::Length,
    ];

    /// The stable name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Type => "type",
            Self::Value => "value",
            Self::Order => "order",
            Self::Length => "length",
        }
    }
}

impl std::fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A field in which two answers differ, and how. Of one request each pair of field and kind is told once, whatever the
/// number of places in which it occurs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// `status`, `header.content-type`, `body.items[].price`, `body`.
    pub field: Arc<str>,
    /// In which way.
    pub kind: DifferenceKind,
    /// What version 1 has at the first such place, cut short; `None` where it has nothing.
    pub v1: Option<String>,
    /// What version 2 has there.
    pub v2: Option<String>,
}

/// What came of comparing two answers to the same request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comparison {
    /// The endpoint of the request: `GET /orders/{id}`.
    pub endpoint: Arc<str>,
    /// What differs, noise taken out.
    pub differences: Vec<Difference>,
}
