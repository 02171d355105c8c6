//! A segment that is kept until it is known whether its receiver took it.

use bytes::Bytes;

use crate::wire::Segment;

/// A segment with payload of its own.
pub(super) struct Kept {
    head: Segment<'static>,
    payload: Bytes,
}

impl Kept {
    pub(super) fn of(segment: &Segment<'_>) -> Self {
        let Segment {
            time,
            path,
            source,
            destination,
            seq,
            ack,
            flags,
            window,
            urgent,
            timestamps,
            signed,
            checksum,
            payload,
            cut,
        } = *segment;
        Self {
            head: Segment {
                time,
                path,
                source,
                destination,
                seq,
                ack,
                flags,
                window,
                urgent,
                timestamps,
                signed,
                checksum,
                payload: &[],
                cut,
            },
            payload: Bytes::copy_from_slice(payload),
        }
    }

    pub(super) fn as_segment(&self) -> Segment<'_> {
        Segment {
            payload: &self.payload,
            ..self.head
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        std::mem::size_of::<Self>() + self.payload.len()
    }
}
