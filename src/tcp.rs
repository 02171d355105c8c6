//! TCP as a passive observer sees it: segments in, ordered streams out, every hole accounted for.

mod disorder;
mod stream;

pub use stream::{
    Accepted, Hole, Mark, Out, PROOF_GRACE, Piece, Rejected, Spare, Stream, StreamLimits,
};
