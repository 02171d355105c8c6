//! Under which name a message leaves that did not become whole.

use crate::account::Reason;
use crate::exchange::Completeness;
use crate::http1::{Abandoned, BodyEnd};
use crate::tap::Ending;

/// The names of one kind of message.
pub(super) struct Reasons {
    gap: Reason,
    too_large: Reason,
    malformed: Reason,
    cut_by_close: Reason,
    cut_by_capture_end: Reason,
    abandoned: Reason,
}

pub(super) const OF_REQUESTS: Reasons = Reasons {
    gap: Reason::RequestGap,
    too_large: Reason::RequestTooLarge,
    malformed: Reason::RequestMalformed,
    cut_by_close: Reason::RequestCutByClose,
    cut_by_capture_end: Reason::RequestCutByCaptureEnd,
    abandoned: Reason::RequestAbandoned,
};

pub(super) const OF_ANSWERS: Reasons = Reasons {
    gap: Reason::ResponseGap,
    too_large: Reason::ResponseTooLarge,
    malformed: Reason::ResponseMalformed,
    cut_by_close: Reason::ResponseCutByClose,
    cut_by_capture_end: Reason::ResponseCutByCaptureEnd,
    abandoned: Reason::ResponseAbandoned,
};

impl Reasons {
    /// Of a message whose body ended like this.
    pub(super) fn of_body(&self, how: BodyEnd, ending: Option<Ending>) -> Completeness {
        Completeness::Incomplete(match how {
            BodyEnd::Whole => return Completeness::Whole,
            BodyEnd::Gap => self.gap,
            BodyEnd::TooLarge => self.too_large,
            BodyEnd::Malformed => self.malformed,
            BodyEnd::Cut => self.cut(ending),
        })
    }

    /// Of a message whose head was given up.
    pub(super) fn of_head(&self, why: Abandoned, ending: Option<Ending>) -> Reason {
        match why {
            Abandoned::Gap => self.gap,
            Abandoned::TooLarge => self.too_large,
            Abandoned::Malformed => self.malformed,
            Abandoned::Cut => self.cut(ending),
        }
    }

    /// Of a message that the end of its stream cut off.
    pub(super) fn cut(&self, ending: Option<Ending>) -> Reason {
        match ending {
            None | Some(Ending::Fin | Ending::Reset) => self.cut_by_close,
            Some(Ending::CaptureEnded) => self.cut_by_capture_end,
            Some(Ending::Replaced | Ending::Idle | Ending::Evicted | Ending::OverLimit) => {
                self.abandoned
            }
        }
    }
}
