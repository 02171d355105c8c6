//! Recordings: the formats that exchanges and packets are written to and read back from.

mod json;
pub mod jsonl;
pub(crate) mod rfc3339;
