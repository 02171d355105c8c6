//! Where the parts of a request lie in it, for whoever changes some of them and keeps the rest to the byte.

use std::ops::Range;

use memchr::{memchr, memmem, memrchr};

use super::RequestHead;

/// Where the path begins in a request target: in its origin-form or absolute-form; nowhere in `*` and in an authority
/// (RFC 9112 §3.2).
pub(crate) fn path_begin(target: &[u8]) -> Option<usize> {
    if target.first() == Some(&b'/') {
        return Some(0);
    }
    let authority = memmem::find(target, b"://")? + 3;
    let is_path_begin = |byte: &u8| matches!(byte, b'/' | b'?' | b'#');
    Some(
        target[authority..]
            .iter()
            .position(is_path_begin)
            .map_or(target.len(), |at| authority + at),
    )
}

/// The length of the name in a `Host` value, without the port.
pub(crate) fn host_name_len(value: &[u8]) -> usize {
    let name = match memchr(b']', value) {
        Some(bracket) if value.first() == Some(&b'[') => bracket,
        _ => 0,
    };
    memchr(b':', &value[name..]).map_or(value.len(), |colon| name + colon)
}

/// Where `part`, a slice of the head, lies in it.
pub(crate) fn range_of(head: &RequestHead, part: &[u8]) -> Range<usize> {
    range_in(head.bytes(), part)
}

/// Where `part`, a slice of `whole`, lies in it.
pub(crate) fn range_in(whole: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    start..start + part.len()
}

/// Where the empty line at the end of a head begins.
pub(crate) fn empty_line_begin(head: &[u8]) -> usize {
    let without_break = head.len().saturating_sub(1);
    memrchr(b'\n', &head[..without_break]).map_or(0, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_in_a_host_ends_before_the_port() {
        for (value, len) in [("a", 1), ("a:1", 1), ("[::1]:80", 5), ("[::1]", 5), ("", 0)] {
            assert_eq!(host_name_len(value.as_bytes()), len, "{value}");
        }
    }
}
