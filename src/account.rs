//! The account: what came in, what went on, and under which name everything else left.
//!
//! Each [`Stage`] obeys one law, `in = out + Σ dropped{reason}`, which [`Account::check`] holds it to. Counters and
//! reasons are closed enums, so that a loss without a name cannot be written down, and the same names appear in the
//! printed account, in the metrics and in the documentation.

use std::fmt;

/// Declares an enum whose variants have a stable text name, in declaration order, and their documentation as text.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// Every value, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name that the account, the metrics and the JSON output use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The name in plain words, as one or more sentences: the text that documents the value here.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim(),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_enum! {
    /// A step on the way from the wire to the target. Each obeys `in = out + Σ dropped`.
    Stage {
        /// The kernel and the interface, before libpcap hands anything over.
        Capture = "capture",
        /// A captured frame, on its way to becoming a TCP segment.
        Packet = "packet",
        /// A TCP segment, on its way into a stream.
        Segment = "segment",
        /// A TCP connection, from its first segment to its end.
        Connection = "connection",
        /// An HTTP request, from its first byte to its last.
        Request = "request",
        /// An HTTP response, from its first byte to its pairing with a request.
        Response = "response",
        /// A whole request, on its way to a target.
        Replay = "replay",
        /// A whole exchange or message, on its way into a recording.
        Record = "record",
        /// A replayed request, on its way to being judged by both versions' answers.
        Compare = "compare",
        /// An outgoing call of version 1, on its way to the mock.
        Egress = "egress",
        /// A stub, for as long as a mock holds it.
        Stub = "stub",
        /// A call of version 2, on its way to an answer of the mock.
        Mock = "mock",
        /// A message, on its way through the middleware.
        Middleware = "middleware",
        /// A message of a GoReplay pipeline, on its way from an input to the outputs.
        Message = "message",
    }
}

named_enum! {
    /// Something counted that is not a loss.
    Counter {
        /// Frames that the capture handed over.
        Packets = "packets",
        /// Bytes of those frames, as they were on the wire.
        PacketBytes = "packet_bytes",
        /// TCP segments found in the frames.
        Segments = "segments",
        /// Segments without payload: handshakes, acknowledgements, closes.
        SegmentsControl = "segments_control",
        /// Segments that brought at least one new byte of a stream.
        SegmentsData = "segments_data",
        /// TCP connections seen.
        Connections = "connections",
        /// Holes in a stream that no packet filled.
        Gaps = "gaps",
        /// Bytes in those holes.
        GapBytes = "gap_bytes",
        /// Retransmissions whose bytes differed from what they repeat.
        Conflicts = "conflicts",
        /// Times that a direction lost the message framing and had to look for the next message.
        Desynchronised = "desynchronised",
        /// Connections that carry TLS.
        ConnectionsTls = "connections_tls",
        /// Connections that carry HTTP/2.
        ConnectionsHttp2 = "connections_http2",
        /// Connections that carry neither HTTP/1, HTTP/2 nor TLS.
        ConnectionsOther = "connections_other",
        /// Connections that carried no byte, or none that was captured.
        ConnectionsSilent = "connections_silent",
        /// Connections on which at least one HTTP/1 message began.
        ConnectionsHttp1 = "connections_http1",
        /// HTTP requests that began.
        Requests = "requests",
        /// Requests seen whole, and so fit to be replayed.
        RequestsWhole = "requests_whole",
        /// HTTP responses that began (final ones; interim answers belong to them).
        Responses = "responses",
        /// Responses seen whole and paired with their request.
        ResponsesWhole = "responses_whole",
        /// Requests handed to a target (one for each target).
        ReplaysOffered = "replays_offered",
        /// Replays that the target answered.
        ReplaysAnswered = "replays_answered",
        /// Messages or exchanges offered to a recording.
        RecordsOffered = "records_offered",
        /// Messages or exchanges written.
        RecordsWritten = "records_written",
        /// Requests that were replayed to the version that is judged.
        ComparesOffered = "compares_offered",
        /// Requests of which both versions' answers were compared and judged.
        ComparesJudged = "compares_judged",
        /// Version 1's own outgoing calls that were learnt for a mock.
        EgressCalls = "egress_calls",
        /// Those that the mock took.
        EgressFed = "egress_fed",
        /// Calls that a mock was told version 1 had made, and stubs that were written.
        StubsOffered = "stubs_offered",
        /// Calls that came to the mock.
        MockCalls = "mock_calls",
        /// Calls that got an answer.
        MockAnswered = "mock_answered",
        /// Answers to calls that were version 1's to the byte.
        MockExact = "mock_exact",
        /// Answers to calls that were version 1's but for noise and ids.
        MockNormalised = "mock_normalised",
        /// Answers to one of several identical calls.
        MockSequence = "mock_sequence",
        /// Calls that were let through to the real provider.
        MockPassedThrough = "mock_passed_through",
        /// Outgoing calls that both versions made.
        SideEffectsSame = "side_effects_same",
        /// Outgoing calls that version 1 alone made.
        SideEffectsMissing = "side_effects_missing",
        /// Outgoing calls that version 2 alone made.
        SideEffectsExtra = "side_effects_extra",
        /// Outgoing calls that both versions made, with other content.
        SideEffectsChanged = "side_effects_changed",
        /// Messages handed to the middleware.
        MiddlewareOffered = "middleware_offered",
        /// Messages that the middleware made itself, or returned again or late.
        MiddlewareAdded = "middleware_added",
        /// Messages that the middleware returned.
        MiddlewareReturned = "middleware_returned",
        /// Times that the middleware was started.
        MiddlewareStarts = "middleware_starts",
        /// Messages that the inputs of a GoReplay pipeline brought.
        Messages = "messages",
        /// Messages handed to its outputs.
        MessagesEmitted = "messages_emitted",
    }
}

named_enum! {
    /// Why something left before the end of the way.
    Reason {
        /// The kernel's capture buffer was full.
        KernelBufferFull = "kernel_buffer_full",
        /// The network interface dropped it.
        InterfaceDropped = "interface_dropped",

        /// The capture file's link type is not one that is read.
        UnknownLinkType = "unknown_link_type",
        /// Not IP: ARP, LLDP, 802.11 management …
        NotIp = "not_ip",
        /// IP, but neither TCP nor a known tunnel.
        NotTcp = "not_tcp",
        /// A header contradicts itself or the frame's length.
        MalformedPacket = "malformed_packet",
        /// The snap length cut the frame before its TCP header ended.
        HeaderCut = "header_cut",
        /// A tunnel inside a tunnel inside … deeper than anyone builds.
        TunnelTooDeep = "tunnel_too_deep",
        /// An IP fragment that was put together with others; the whole counts as one packet.
        FragmentMerged = "fragment_merged",
        /// An IP fragment whose siblings never came.
        FragmentIncomplete = "fragment_incomplete",
        /// An IP fragment of a datagram that the receiving kernel throws away because fragments overlap.
        FragmentOverlap = "fragment_overlap",
        /// An IP fragment that the memory bound pushed out.
        FragmentOverBudget = "fragment_over_budget",

        /// Of a connection that was left out whole, to stay within the limits on CPU or memory.
        SegmentOverLimit = "segment_over_limit",
        /// Not a connection that the user asked to watch.
        NotWatched = "not_watched",
        /// Every byte was known already.
        Duplicate = "duplicate",
        /// Sequence number far outside what the receiver could take.
        OutOfWindow = "out_of_window",
        /// Data without the ACK flag: the receiver drops it (RFC 9293 §3.10.7.4).
        NoAckFlag = "no_ack_flag",
        /// It acknowledges bytes that were never sent: the receiver drops it (RFC 9293 §3.10.7.4, RFC 5961 §5).
        AcksUnsent = "acks_unsent",
        /// Data with SYN inside an established connection: the receiver drops it (RFC 5961 §4).
        UnexpectedSyn = "unexpected_syn",
        /// A timestamp far in the past: the receiver drops it (RFC 7323 §5, PAWS).
        OldTimestamp = "old_timestamp",
        /// The checksum is wrong, though others of its sender are right, and it was sent again or never acknowledged: the receiver
        /// dropped it (RFC 9293 §3.1).
        BadChecksum = "bad_checksum",
        /// A TCP-MD5 option that the connection did not agree on: the receiver drops it.
        UnexpectedMd5 = "unexpected_md5",
        /// Data behind FIN or RST: no application ever reads it.
        AfterClose = "after_close",
        /// Data on a SYN that the server did not accept.
        SynDataRefused = "syn_data_refused",
        /// The bytes belong to something that is not HTTP/1.
        NotHttp = "not_http",
        /// The memory bound for data behind a hole was reached.
        SegmentOverBudget = "segment_over_budget",

        /// Closed by FIN in both directions.
        Finished = "finished",
        /// Closed by RST.
        Reset = "reset",
        /// Silent for longer than the idle limit.
        Idle = "idle",
        /// A new connection took the same addresses and ports.
        Replaced = "replaced",
        /// Pushed out by a bound on connections or memory.
        Evicted = "evicted",
        /// Left out whole, to stay within the limits on CPU or memory.
        ConnectionOverLimit = "connection_over_limit",
        /// Still open when the capture ended.
        CaptureEnded = "capture_ended",

        /// Bytes of the request were not captured.
        RequestGap = "request_gap",
        /// The connection ended inside the request.
        RequestCutByClose = "request_cut_by_close",
        /// The capture ended inside the request.
        RequestCutByCaptureEnd = "request_cut_by_capture_end",
        /// The head or the chunk framing is not HTTP that a server would accept.
        RequestMalformed = "request_malformed",
        /// Larger than the bound for one message.
        RequestTooLarge = "request_too_large",
        /// The connection was given up inside the request: idle, replaced, evicted or left out.
        RequestAbandoned = "request_abandoned",
        /// The server answered finally before the body came, and the client never sent it.
        RequestBodyNeverSent = "request_body_never_sent",

        /// It began in the middle of another protocol, and the server did not answer in HTTP.
        RequestUnconfirmed = "request_unconfirmed",

        /// Bytes of the response were not captured.
        ResponseGap = "response_gap",
        /// The connection ended inside the response.
        ResponseCutByClose = "response_cut_by_close",
        /// The capture ended inside the response.
        ResponseCutByCaptureEnd = "response_cut_by_capture_end",
        /// The head or the chunk framing is not HTTP.
        ResponseMalformed = "response_malformed",
        /// Larger than the bound for one message.
        ResponseTooLarge = "response_too_large",
        /// The connection was given up inside the response: idle, replaced, evicted or left out.
        ResponseAbandoned = "response_abandoned",
        /// A response whose request was not seen.
        ResponseWithoutRequest = "response_without_request",

        /// The queue to the target was full.
        QueueFull = "queue_full",
        /// The target could not follow, and this request's connection was chosen to be left out until it ends, so that the
        /// other connections are replayed whole.
        ConnectionShed = "connection_shed",
        /// Carries the shadow marker: it is a replay already.
        Marked = "marked",
        /// Two servers may read it in two ways, it was found behind bytes that were not captured and may be part of a body, or
        /// version 1 had closed the connection before it came.
        Ambiguous = "ambiguous",
        /// Larger than `--max-body`.
        BodyTooLarge = "body_too_large",
        /// Not chosen by the user's filters.
        Filtered = "filtered",
        /// Not in the part of the recording that the user asked for.
        OutsideSlice = "outside_slice",
        /// Not in the sample that the user asked for.
        SampledOut = "sampled_out",
        /// Above the rate that the user allows the target.
        RateLimited = "rate_limited",
        /// Above the bandwidth that the user allows the target.
        BandwidthLimited = "bandwidth_limited",
        /// What the user wants changed in it would not leave a request.
        NotRewritable = "not_rewritable",
        /// Whether its body holds what the user wants changed cannot be told: it is compressed, or JSON that is none.
        BodyNotRewritable = "body_not_rewritable",
        /// The grace period ended before its turn.
        Stopped = "stopped",
        /// Sent, but the grace period ended before the answer came.
        StoppedUnanswered = "stopped_unanswered",
        /// The breaker was open: the target had failed too often in a row.
        BreakerOpen = "breaker_open",
        /// The target leads back to version 1, which would do everything twice: replay to it is paused.
        TargetIsVersion1 = "target_is_version_1",
        /// A request that opens a tunnel (CONNECT): nothing to compare.
        TunnelRequest = "tunnel_request",
        /// The target's name did not resolve.
        ResolveFailed = "resolve_failed",
        /// The target refused the connection or was unreachable.
        ConnectFailed = "connect_failed",
        /// The target did not accept the connection in time.
        ConnectTimeout = "connect_timeout",
        /// The connection to the target broke while the request was sent or answered.
        ConnectionLost = "connection_lost",
        /// The target did not begin to answer in time.
        FirstByteTimeout = "first_byte_timeout",
        /// The target did not finish its answer in time.
        AnswerTimeout = "answer_timeout",
        /// The target's answer was not HTTP.
        AnswerMalformed = "answer_malformed",
        /// The target closed before its answer was whole.
        AnswerCut = "answer_cut",

        /// The recording's queue was full.
        RecordQueueFull = "record_queue_full",
        /// Not chosen for the recording by the user's filters.
        RecordFiltered = "record_filtered",
        /// Not in the sample that the user wants recorded.
        RecordSampledOut = "record_sampled_out",
        /// Writing failed: the disk is full, the file is gone, or nobody takes it at the other end.
        WriteFailed = "write_failed",
        /// The recording is as large as the user allows, or this alone is larger.
        RecordingFull = "recording_full",
        /// Not whole, and the format has no way to say so.
        RecordIncomplete = "record_incomplete",

        /// Version 1 closed the connection without an answer, or the capture ended before it.
        Version1Unanswered = "version_1_unanswered",
        /// The client went away before version 1 had answered: there is nothing to compare with, and nothing was missed.
        Version1ClientLeft = "version_1_client_left",
        /// The client closed its sending side, and version 1 closed without an answer: nobody can tell whether the client waited.
        Version1HalfClosed = "version_1_half_closed",
        /// Version 1's answer was not captured whole.
        Version1Incomplete = "version_1_incomplete",
        /// The request or version 1's answer can be read in more than one way.
        Version1Ambiguous = "version_1_ambiguous",
        /// Nothing was heard of version 1's answer in time.
        Version1NotSeen = "version_1_not_seen",
        /// Version 2's answer was larger than what is kept of one.
        Version2TooLarge = "version_2_too_large",
        /// Version 2 was not reached through no fault of its own: it was not sent to, or the program stopped.
        Version2NotReached = "version_2_not_reached",
        /// There was no version 2 at the time: its name did not resolve, or nobody took connections there.
        NoVersion2 = "no_version_2",
        /// An answer is larger than what is compared, its codings taken off.
        ContentTooLarge = "content_too_large",
        /// The memory bound for answers that wait for the other version's was reached.
        CompareOverBudget = "compare_over_budget",
        /// Bytes of the outgoing call were not captured.
        EgressIncomplete = "egress_incomplete",
        /// The queue to the mock was full.
        EgressQueueFull = "egress_queue_full",
        /// The mock could not be reached, or did not take it.
        MockUnreachable = "mock_unreachable",
        /// There is no mock to tell.
        NoMock = "no_mock",

        /// An answer without its call, or a call that is not whole.
        StubWithoutRequest = "stub_without_request",
        /// Pushed out by newer stubs.
        StubEvicted = "stub_evicted",
        /// Taken away through the mock's interface.
        StubRemoved = "stub_removed",
        /// Still held when the mock ended.
        StubHeldAtEnd = "stub_held_at_end",

        /// Version 1 has made no such call.
        MockMiss = "mock_miss",
        /// CONNECT, which would carry TLS, or something that is no call to a provider.
        MockRefused = "mock_refused",
        /// The caller went away before there was an answer.
        MockCallerGone = "mock_caller_gone",
        /// The real provider, which the call was let through to, did not answer.
        PassThroughFailed = "pass_through_failed",
        /// Above the number or the share that the user allows this output.
        RecordLimited = "record_limited",

        /// The middleware did not return it.
        MiddlewareFiltered = "middleware_filtered",
        /// The queue to the middleware was full.
        MiddlewareQueueFull = "middleware_queue_full",
        /// The middleware was not running.
        MiddlewareDown = "middleware_down",
        /// The middleware ended, or was ended because it had stalled, and it was inside.
        MiddlewareDied = "middleware_died",
        /// What the middleware returned is no whole request, or not of its protocol.
        MiddlewareMalformed = "middleware_malformed",

        /// Not chosen by the user's filters, or the answer to a request that was not.
        MessageFiltered = "message_filtered",
        /// Not in the sample that the user asked for.
        MessageSampledOut = "message_sampled_out",
        /// Above the number or the share that the user allows this input.
        MessageLimited = "message_limited",
        /// Larger than the user allows a message to be.
        MessageTooLarge = "message_too_large",
        /// The input's bytes are no such message.
        MessageMalformed = "message_malformed",
        /// The queue to the outputs was full.
        MessageQueueFull = "message_queue_full",
    }
}

impl Reason {
    /// The stage at which something leaves for this reason.
    #[must_use]
    pub const fn stage(self) -> Stage {
        use Reason::*;
        match self {
            KernelBufferFull | InterfaceDropped => Stage::Capture,
            UnknownLinkType | NotIp | NotTcp | MalformedPacket | HeaderCut | TunnelTooDeep
            | FragmentMerged | FragmentIncomplete | FragmentOverlap | FragmentOverBudget => {
                Stage::Packet
            }
            SegmentOverLimit | NotWatched | Duplicate | OutOfWindow | NoAckFlag | AcksUnsent
            | UnexpectedSyn | OldTimestamp | BadChecksum | UnexpectedMd5 | AfterClose
            | SynDataRefused | NotHttp | SegmentOverBudget => Stage::Segment,
            Finished | Reset | Idle | Replaced | Evicted | ConnectionOverLimit | CaptureEnded => {
                Stage::Connection
            }
            RequestGap
            | RequestCutByClose
            | RequestCutByCaptureEnd
            | RequestMalformed
            | RequestTooLarge
            | RequestAbandoned
            | RequestBodyNeverSent
            | RequestUnconfirmed => Stage::Request,
            ResponseGap
            | ResponseCutByClose
            | ResponseCutByCaptureEnd
            | ResponseMalformed
            | ResponseTooLarge
            | ResponseAbandoned
            | ResponseWithoutRequest => Stage::Response,
            QueueFull | ConnectionShed | Marked | Ambiguous | BodyTooLarge | Filtered
            | OutsideSlice | SampledOut | RateLimited | BandwidthLimited | NotRewritable
            | BodyNotRewritable | Stopped | StoppedUnanswered | BreakerOpen | TargetIsVersion1
            | TunnelRequest | ResolveFailed | ConnectFailed | ConnectTimeout | ConnectionLost
            | FirstByteTimeout | AnswerTimeout | AnswerMalformed | AnswerCut => Stage::Replay,
            RecordQueueFull | RecordFiltered | RecordSampledOut | RecordingFull | WriteFailed
            | RecordIncomplete | RecordLimited => Stage::Record,
            Version1Unanswered | Version1ClientLeft | Version1HalfClosed | Version1Incomplete
            | Version1Ambiguous | Version1NotSeen | Version2TooLarge | Version2NotReached
            | NoVersion2 | ContentTooLarge | CompareOverBudget => Stage::Compare,
            EgressIncomplete | EgressQueueFull | MockUnreachable | NoMock => Stage::Egress,
            StubWithoutRequest | StubEvicted | StubRemoved | StubHeldAtEnd => Stage::Stub,
            MockMiss | MockRefused | MockCallerGone | PassThroughFailed => Stage::Mock,
            MiddlewareFiltered | MiddlewareQueueFull | MiddlewareDown | MiddlewareDied
            | MiddlewareMalformed => Stage::Middleware,
            MessageFiltered | MessageSampledOut | MessageLimited | MessageTooLarge
            | MessageMalformed | MessageQueueFull => Stage::Message,
        }
    }

    /// Whether leaving here is what the user or the protocol asked for, rather than a loss.
    #[must_use]
    pub const fn intentional(self) -> bool {
        use Reason::*;
        matches!(
            self,
            NotIp
                | NotTcp
                | FragmentMerged
                | FragmentOverlap
                | NotWatched
                | Duplicate
                | NoAckFlag
                | AcksUnsent
                | UnexpectedSyn
                | OldTimestamp
                | BadChecksum
                | UnexpectedMd5
                | AfterClose
                | SynDataRefused
                | NotHttp
                | Finished
                | Reset
                | Replaced
                | CaptureEnded
                | RequestBodyNeverSent
                | RequestUnconfirmed
                | Marked
                | Filtered
                | OutsideSlice
                | NoVersion2
                | Version1ClientLeft
                | RecordFiltered
                | RecordSampledOut
                | RecordingFull
                | SampledOut
                | RateLimited
                | BandwidthLimited
                | TunnelRequest
                | NoMock
                | StubRemoved
                | StubHeldAtEnd
                | MockRefused
                | RecordLimited
                | MiddlewareFiltered
                | MessageFiltered
                | MessageSampledOut
                | MessageLimited
        )
    }
}

/// Counts of everything that came in, went on, or left early. Plain numbers: each worker owns one, and they add up.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    counts: [u64; Counter::ALL.len()],
    dropped: [u64; Reason::ALL.len()],
}

impl Account {
    /// An account with nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            counts: [0; Counter::ALL.len()],
            dropped: [0; Reason::ALL.len()],
        }
    }

    /// Counts `n` more of `counter`.
    pub const fn add(&mut self, counter: Counter, n: u64) {
        self.counts[counter as usize] += n;
    }

    /// Counts one more of `counter`.
    pub const fn count(&mut self, counter: Counter) {
        self.add(counter, 1);
    }

    /// Counts one that left for `reason`.
    pub const fn drop(&mut self, reason: Reason) {
        self.drop_n(reason, 1);
    }

    /// Counts `n` that left for `reason`.
    pub const fn drop_n(&mut self, reason: Reason, n: u64) {
        self.dropped[reason as usize] += n;
    }

    /// How many of `counter` there were.
    #[must_use]
    pub const fn get(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// How many left for `reason`.
    #[must_use]
    pub const fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// How many left early at `stage`, for whatever reason.
    #[must_use]
    pub fn dropped_at(&self, stage: Stage) -> u64 {
        Reason::ALL
            .iter()
            .filter(|reason| reason.stage() == stage)
            .map(|&reason| self.dropped(reason))
            .sum()
    }

    /// Adds everything that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts) {
            *mine += theirs;
        }
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }

    /// What this account has counted since `earlier`, an older copy of itself.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        for (now, then) in difference.counts.iter_mut().zip(earlier.counts) {
            *now = now.saturating_sub(then);
        }
        for (now, then) in difference.dropped.iter_mut().zip(earlier.dropped) {
            *now = now.saturating_sub(then);
        }
        difference
    }

    /// Holds every stage to `in = out + Σ dropped`.
    ///
    /// The laws hold once everything in flight has been finished, so call it at the end.
    ///
    /// # Errors
    /// The first stage whose sums disagree.
    pub fn check(&self) -> Result<(), Imbalance> {
        use Counter::*;
        let laws = [
            (Stage::Packet, self.get(Packets), self.get(Segments)),
            (
                Stage::Segment,
                self.get(Segments),
                self.get(SegmentsControl) + self.get(SegmentsData),
            ),
            (Stage::Connection, self.get(Connections), 0),
            (Stage::Request, self.get(Requests), self.get(RequestsWhole)),
            (
                Stage::Response,
                self.get(Responses),
                self.get(ResponsesWhole),
            ),
            (
                Stage::Replay,
                self.get(ReplaysOffered),
                self.get(ReplaysAnswered),
            ),
            (
                Stage::Record,
                self.get(RecordsOffered),
                self.get(RecordsWritten),
            ),
            (
                Stage::Compare,
                self.get(ComparesOffered),
                self.get(ComparesJudged),
            ),
            (Stage::Egress, self.get(EgressCalls), self.get(EgressFed)),
            (Stage::Stub, self.get(StubsOffered), 0),
            (Stage::Mock, self.get(MockCalls), self.get(MockAnswered)),
            (
                Stage::Middleware,
                self.get(MiddlewareOffered) + self.get(MiddlewareAdded),
                self.get(MiddlewareReturned),
            ),
            (
                Stage::Message,
                self.get(Messages),
                self.get(MessagesEmitted),
            ),
        ];
        for (stage, entered, left) in laws {
            let dropped = self.dropped_at(stage);
            if entered != left + dropped {
                return Err(Imbalance {
                    stage,
                    entered,
                    left,
                    dropped,
                });
            }
        }
        Ok(())
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Counter::ALL.iter().map(|&c| (c.name(), self.get(c)));
        let dropped = Reason::ALL.iter().map(|&r| (r.name(), self.dropped(r)));
        f.debug_map()
            .entries(counts.chain(dropped).filter(|&(_, n)| n > 0))
            .finish()
    }
}

/// A stage whose sums do not agree: a bug in this program, never a property of the traffic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "the account of the {stage} stage does not add up: {entered} in, {left} out, {dropped} dropped"
)]
pub struct Imbalance {
    /// The stage.
    pub stage: Stage,
    /// How many entered it.
    pub entered: u64,
    /// How many went on.
    pub left: u64,
    /// How many left early.
    pub dropped: u64,
}
