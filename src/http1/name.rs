//! Field names as somebody chose them.

use std::fmt;
use std::str::FromStr;

/// A field name: a token (RFC 9110 §5.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldName(String);

impl FieldName {
    /// The name of the marker unless the user chose another: `Shadowtap`.
    #[must_use]
    pub fn marker() -> Self {
        Self("Shadowtap".to_owned())
    }

    /// The name as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `name` is the same name: case does not count.
    #[must_use]
    pub fn is(&self, name: &[u8]) -> bool {
        name.eq_ignore_ascii_case(self.0.as_bytes())
    }
}

impl FromStr for FieldName {
    type Err = FieldNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_token_byte =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if text.is_empty() || !text.bytes().all(is_token_byte) {
            return Err(FieldNameError(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is no field name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a header name")]
pub struct FieldNameError(String);
