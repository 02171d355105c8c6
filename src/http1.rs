//! HTTP/1 on the wire: heads, message framing, bodies, each as the bytes were.

mod body;
mod head;

pub use body::{Body, Framing, chunk_size};
pub use head::{Fields, HeadError, RequestHead, ResponseHead, head_length, unfold};
