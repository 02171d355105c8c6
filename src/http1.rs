//! HTTP/1 on the wire: heads, message framing, bodies, each as the bytes were.

mod body;
pub mod framing;
mod head;
mod name;
mod place;
mod reader;
pub mod recognise;
mod strict;

pub(crate) use body::chunk_size_loose;
pub use body::{Body, Framing, chunk_size};
pub use head::{Fields, HeadError, RequestHead, ResponseHead, head_length, unfold, whole_lines};
pub use name::{FieldName, FieldNameError};
pub(crate) use place::{empty_line_begin, host_name_len, path_begin, range_in, range_of};
pub use reader::{Abandoned, BodyEnd, MessageLimits, MessageReader, Side, Step};
pub(crate) use reader::{strict_request, strict_response};
