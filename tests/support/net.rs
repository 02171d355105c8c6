//! TCP conversations, packet by packet.
//!
//! A conversation keeps what a kernel keeps: each side's initial sequence number and how far it has sent. Packets come out of
//! [`Conversation::template`], which has everything as it would be next, and differ from it only where the case says so:
//!
//! ```ignore
//! let packet = Tcp { flags: RST, ..conversation.template(Side::Client) };
//! conversation.packets.push(packet);
//! ```

use std::net::{IpAddr, SocketAddr};

/// No more data.
pub(crate) const FIN: u8 = 0x01;
/// Synchronise.
pub(crate) const SYN: u8 = 0x02;
/// Reset.
pub(crate) const RST: u8 = 0x04;
/// Push.
pub(crate) const PSH: u8 = 0x08;
/// The acknowledgement number counts.
pub(crate) const ACK: u8 = 0x10;

/// One of the two ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// Opens the connection and sends the requests.
    Client,
    /// Answers.
    Server,
}

impl Side {
    /// The other end.
    pub(crate) fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// One TCP packet.
#[derive(Clone, Debug)]
pub(crate) struct Tcp {
    /// When, in nanoseconds since 1970.
    pub(crate) at: u64,
    /// Who sent it.
    pub(crate) from: Side,
    /// Sequence number.
    pub(crate) seq: u32,
    /// Acknowledgement number.
    pub(crate) ack: u32,
    /// Flags.
    pub(crate) flags: u8,
    /// Window.
    pub(crate) window: u16,
    /// Options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// Payload.
    pub(crate) payload: Vec<u8>,
    /// The first bit of its payload is turned on the way, so that the checksum is wrong.
    pub(crate) damaged: bool,
}

/// A TCP connection being written down.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// The client's address.
    pub(crate) client: SocketAddr,
    /// The server's address.
    pub(crate) server: SocketAddr,
    /// The largest payload of a packet.
    pub(crate) mss: usize,
    /// The time of the next packet, in nanoseconds since 1970.
    pub(crate) now: u64,
    /// The packets so far.
    pub(crate) packets: Vec<Tcp>,
    isn: [u32; 2],
    sent: [u32; 2],
}

/// Where the generated captures begin: 2023-11-14T22:13:20Z.
pub(crate) const START: u64 = 1_700_000_000_000_000_000;

impl Conversation {
    /// The `n`th conversation of a capture, IPv4, with a server on port 80.
    pub(crate) fn new(n: u16) -> Self {
        Self::between(
            SocketAddr::new(IpAddr::from([10, 0, 0, 2]), 20_000 + n),
            SocketAddr::new(IpAddr::from([10, 0, 0, 1]), 80),
        )
    }

    /// The same over IPv6.
    pub(crate) fn new_v6(n: u16) -> Self {
        Self::between(
            SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 2]), 20_000 + n),
            SocketAddr::new(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]), 80),
        )
    }

    /// A conversation between these two.
    pub(crate) fn between(client: SocketAddr, server: SocketAddr) -> Self {
        let n = u32::from(client.port());
        Self {
            client,
            server,
            mss: 1460,
            now: START,
            packets: Vec::new(),
            isn: [n.wrapping_mul(0x0101_6b2f), n.wrapping_mul(0x0e07_3355)],
            sent: [0, 0],
        }
    }

    /// With these initial sequence numbers.
    pub(crate) fn with_isn(mut self, client: u32, server: u32) -> Self {
        self.isn = [client, server];
        self
    }

    /// The sequence number of the byte at `offset` of what `side` sends.
    pub(crate) fn seq(&self, side: Side, offset: usize) -> u32 {
        self.isn[side as usize]
            .wrapping_add(1)
            .wrapping_add(u32::try_from(offset).expect("under 4 GiB"))
    }

    /// How much `side` has sent.
    pub(crate) fn offset(&self, side: Side) -> usize {
        self.sent[side as usize] as usize
    }

    /// Says that `side` has sent up to `offset`.
    pub(crate) fn set_offset(&mut self, side: Side, offset: usize) {
        self.sent[side as usize] = u32::try_from(offset).expect("under 4 GiB");
    }

    /// A packet as `side` would send it next, without payload; a millisecond passes.
    pub(crate) fn template(&mut self, side: Side) -> Tcp {
        self.now += 1_000_000;
        Tcp {
            at: self.now,
            from: side,
            seq: self.seq(side, self.offset(side)),
            ack: self.seq(side.peer(), self.offset(side.peer())),
            flags: ACK,
            window: 65535,
            options: Vec::new(),
            payload: Vec::new(),
            damaged: false,
        }
    }

    /// The three packets of the handshake.
    pub(crate) fn open(&mut self) -> &mut Self {
        let options = vec![2, 4, 0x05, 0xb4, 1, 3, 3, 7];
        let client = self.template(Side::Client);
        self.packets.push(Tcp {
            seq: client.seq.wrapping_sub(1),
            ack: 0,
            flags: SYN,
            options: options.clone(),
            ..client
        });
        let server = self.template(Side::Server);
        self.packets.push(Tcp {
            seq: server.seq.wrapping_sub(1),
            flags: SYN | ACK,
            options,
            ..server
        });
        self.ack(Side::Client)
    }

    /// `side` sends `bytes`, in segments of at most the MSS, each acknowledged.
    pub(crate) fn send(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        for piece in bytes.chunks(self.mss) {
            self.data(side, piece).ack(side.peer());
        }
        self
    }

    /// `side` sends one segment that holds `bytes`.
    pub(crate) fn data(&mut self, side: Side, bytes: &[u8]) -> &mut Self {
        let offset = self.offset(side);
        self.data_at(side, offset, bytes);
        self.set_offset(side, offset + bytes.len());
        self
    }

    /// A segment of `side` that holds `bytes` at `offset` of its stream; how far it has sent stays as it is.
    pub(crate) fn data_at(&mut self, side: Side, offset: usize, bytes: &[u8]) -> &mut Self {
        let template = self.template(side);
        self.packets.push(Tcp {
            seq: self.seq(side, offset),
            flags: ACK | PSH,
            payload: bytes.to_vec(),
            ..template
        });
        self
    }

    /// `side` sends `bytes` in segments that end at `cuts`, in the given order of pieces, and the other side acknowledges all.
    pub(crate) fn send_pieces(
        &mut self,
        side: Side,
        bytes: &[u8],
        pieces: &[(usize, usize)],
    ) -> &mut Self {
        let base = self.offset(side);
        for &(from, to) in pieces {
            self.data_at(side, base + from, &bytes[from..to]);
        }
        self.set_offset(side, base + bytes.len());
        self.ack(side.peer())
    }

    /// `side` acknowledges everything.
    pub(crate) fn ack(&mut self, side: Side) -> &mut Self {
        let template = self.template(side);
        self.packets.push(template);
        self
    }

    /// `first` closes, the other side follows.
    pub(crate) fn close(&mut self, first: Side) -> &mut Self {
        for side in [first, first.peer()] {
            let template = self.template(side);
            self.packets.push(Tcp {
                flags: FIN | ACK,
                ..template
            });
            self.set_offset(side, self.offset(side) + 1);
        }
        self.ack(first)
    }

    /// `side` resets.
    pub(crate) fn reset(&mut self, side: Side) -> &mut Self {
        let template = self.template(side);
        self.packets.push(Tcp {
            flags: RST | ACK,
            ..template
        });
        self
    }

    /// The IP packet that carries `tcp`.
    pub(crate) fn ip(&self, tcp: &Tcp) -> Vec<u8> {
        let (source, destination) = match tcp.from {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        };
        let header = 20 + tcp.options.len();
        let mut segment = Vec::with_capacity(header + tcp.payload.len());
        segment.extend_from_slice(&source.port().to_be_bytes());
        segment.extend_from_slice(&destination.port().to_be_bytes());
        segment.extend_from_slice(&tcp.seq.to_be_bytes());
        let ack = if tcp.flags & ACK == 0 { 0 } else { tcp.ack };
        segment.extend_from_slice(&ack.to_be_bytes());
        segment.push(u8::try_from(header / 4).expect("at most 40 bytes of options") << 4);
        segment.push(tcp.flags);
        segment.extend_from_slice(&tcp.window.to_be_bytes());
        segment.extend_from_slice(&[0, 0, 0, 0]);
        segment.extend_from_slice(&tcp.options);
        segment.extend_from_slice(&tcp.payload);
        let mut sum = Checksum::default();
        sum.address(source.ip());
        sum.address(destination.ip());
        sum.bytes(&[0, 6]);
        sum.bytes(
            &u32::try_from(segment.len())
                .expect("under 4 GiB")
                .to_be_bytes(),
        );
        sum.bytes(&segment);
        segment[16..18].copy_from_slice(&sum.finish().to_be_bytes());
        if tcp.damaged {
            segment[header] ^= 1;
        }
        packet(source.ip(), destination.ip(), 6, &segment)
    }
}

/// An IP packet with `payload` of protocol `protocol`; a length that does not fit its field is written as 0.
pub(crate) fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = u16::try_from(20 + payload.len()).unwrap_or(0).to_be_bytes();
            let mut header = vec![
                0x45, 0, length[0], length[1], 0, 1, 0x40, 0, 64, protocol, 0, 0,
            ];
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let mut sum = Checksum::default();
            sum.bytes(&header);
            let sum = sum.finish().to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            header.extend_from_slice(payload);
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let length = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
            // A payload that the field cannot tell is told by a hop-by-hop option (RFC 2675).
            let next = if length == [0, 0] { 0 } else { protocol };
            let mut header = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            if length == [0, 0] {
                let length = u32::try_from(8 + payload.len()).expect("under 4 GiB");
                header.extend_from_slice(&[protocol, 0, 0xc2, 4]);
                header.extend_from_slice(&length.to_be_bytes());
            }
            header.extend_from_slice(payload);
            header
        }
        mixed => panic!("not of one family: {mixed:?}"),
    }
}

/// The Internet checksum (RFC 1071).
#[derive(Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Adds bytes; an odd number of them only at the end.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            self.0 += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
    }

    fn address(&mut self, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.bytes(&ip.octets()),
            IpAddr::V6(ip) => self.bytes(&ip.octets()),
        }
    }

    /// The checksum.
    pub(crate) fn finish(mut self) -> u16 {
        while self.0 > 0xffff {
            self.0 = (self.0 & 0xffff) + (self.0 >> 16);
        }
        !u16::try_from(self.0).expect("folded")
    }
}
