//! Numbers for tests that try many things: without order, and the same in every run.

/// Gives numbers below the one that it is given (xorshift; Marsaglia 2003).
pub(crate) fn below() -> impl FnMut(u64) -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    }
}
