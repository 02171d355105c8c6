//! The capture file format of libpcap (<https://www.tcpdump.org/manpages/pcap-savefile.5.txt>), with nanoseconds; and packets made
//! up for exchanges that come from a recording without any.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ahash::AHashMap;
use etherparse::PacketBuilder;

use crate::exchange::{ConnectionId, Endpoints, Exchange, Response};
use crate::http1::Framing;
use crate::time::Timestamp;
use crate::wire::{LinkType, Packet};

/// Ethernet: what made-up packets begin with.
pub const ETHERNET: LinkType = LinkType(1);

/// The longest snap length that readers take.
pub const MAX_SNAP_LENGTH: u32 = 262_144;

/// What begins a file.
#[must_use]
pub fn file_header(link: LinkType, snap_length: u32) -> [u8; 24] {
    let mut header = [0; 24];
    header[..4].copy_from_slice(&MAGIC_NANOSECONDS.to_le_bytes());
    header[4..6].copy_from_slice(&2u16.to_le_bytes());
    header[6..8].copy_from_slice(&4u16.to_le_bytes());
    header[16..20].copy_from_slice(&snap_length.to_le_bytes());
    header[20..24].copy_from_slice(&u32::from(link.0).to_le_bytes());
    header
}

/// Appends one packet record. Times beyond the year 2106 do not fit and are cut down.
pub fn append_packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    let (secs, nanos) = packet.time.as_secs_nanos();
    let captured = u32::try_from(packet.data.len()).unwrap_or(u32::MAX);
    for field in [
        u32::try_from(secs).unwrap_or(u32::MAX),
        nanos,
        captured,
        packet.wire_len.max(captured),
    ] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&packet.data[..captured as usize]);
}

/// A packet that was never on a wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Made {
    time: Timestamp,
    data: Vec<u8>,
}

impl Made {
    pub(super) fn packet(&self) -> Packet<'_> {
        Packet {
            time: self.time,
            link: ETHERNET,
            wire_len: u32::try_from(self.data.len()).unwrap_or(u32::MAX),
            data: &self.data,
        }
    }
}

/// Makes up the packets of exchanges: a handshake, the messages one after the other, and a close.
///
/// Invariant: `open` and `by_age` hold the same connections.
#[derive(Debug, Default)]
pub(super) struct Synthesis {
    open: AHashMap<Endpoints, u64>,
    by_age: BTreeMap<u64, Connection>,
    opened: u64,
}

/// Which messages of an exchange packets were made for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Done {
    pub(super) request: bool,
    pub(super) response: bool,
}

impl Synthesis {
    /// The packets of one exchange. A message that is not whole has none; a response without its request neither.
    pub(super) fn exchange(&mut self, exchange: &Exchange, out: &mut Vec<Made>) -> Done {
        let whole = exchange
            .request
            .as_ref()
            .filter(|it| it.completeness.is_whole());
        let Some(request) = whole else {
            return Done::default();
        };
        let endpoints = usable(exchange.endpoints, exchange.connection);
        let mut connection =
            self.connection(endpoints, exchange.connection, request.first_byte, out);
        let parts = [&request.head.bytes()[..], &request.body.wire];
        connection.send(true, &parts, [request.first_byte, request.last_byte], out);

        let response = exchange
            .response
            .as_ref()
            .filter(|it| it.completeness.is_whole());
        let ends = match response {
            None => true,
            Some(response) => {
                let interim = interim_heads(response);
                let parts = [&interim, &response.head.bytes()[..], &response.body.wire];
                connection.send(
                    false,
                    &parts,
                    [response.first_byte, response.last_byte],
                    out,
                );
                // What comes behind a tunnel's answer is no HTTP.
                let is_tunnel = response.head.status() == 101
                    || request.head.method() == b"CONNECT"
                        && (200..300).contains(&response.head.status());
                is_tunnel
                    || response.body.framing == Framing::UntilClose
                    || response.head.fields().has_token("connection", "close")
            }
        };
        if ends {
            connection.close(out);
        } else {
            self.opened += 1;
            self.open.insert(endpoints, self.opened);
            self.by_age.insert(self.opened, connection);
        }
        if self.by_age.len() > MAX_OPEN
            && let Some((_, mut oldest)) = self.by_age.pop_first()
        {
            self.open.remove(&oldest.endpoints);
            oldest.close(out);
        }
        Done {
            request: true,
            response: response.is_some(),
        }
    }

    /// The packets that close what is still open.
    pub(super) fn finish(&mut self, out: &mut Vec<Made>) {
        self.open.clear();
        for (_, mut connection) in std::mem::take(&mut self.by_age) {
            connection.close(out);
        }
    }

    /// Takes the open connection between those ends out, or opens one.
    fn connection(
        &mut self,
        endpoints: Endpoints,
        id: ConnectionId,
        time: Timestamp,
        out: &mut Vec<Made>,
    ) -> Connection {
        let open = self
            .open
            .remove(&endpoints)
            .and_then(|age| self.by_age.remove(&age));
        match open {
            Some(connection) if connection.id == id => connection,
            other => {
                if let Some(mut other) = other {
                    other.close(out);
                }
                self.opened += 1;
                Connection::open(endpoints, id, self.opened, time, out)
            }
        }
    }
}

/// One made-up TCP connection.
#[derive(Debug)]
struct Connection {
    endpoints: Endpoints,
    id: ConnectionId,
    /// The next sequence numbers: the client's, the server's.
    next: [u32; 2],
    /// The time of its last packet; none goes back behind it.
    time: Timestamp,
}

impl Connection {
    fn open(
        endpoints: Endpoints,
        id: ConnectionId,
        number: u64,
        time: Timestamp,
        out: &mut Vec<Made>,
    ) -> Self {
        // Scattered, so that a port that is used again begins elsewhere.
        let initial = (number as u32).wrapping_mul(0x9e37_79b1);
        let mut connection = Self {
            endpoints,
            id,
            next: [initial, initial ^ 0x5555_5555],
            time,
        };
        connection.packet(true, SYN, &[], out);
        connection.packet(false, SYN | ACK, &[], out);
        connection.packet(true, ACK, &[], out);
        connection
    }

    fn send(
        &mut self,
        from_client: bool,
        parts: &[&[u8]],
        [first, last]: [Timestamp; 2],
        out: &mut Vec<Made>,
    ) {
        let bytes = parts.concat();
        let count = bytes.len().div_ceil(SEGMENT);
        for (at, piece) in bytes.chunks(SEGMENT).enumerate() {
            let is_last = at + 1 == count;
            self.time = self
                .time
                .max(if is_last && count > 1 { last } else { first });
            self.packet(from_client, ACK | if is_last { PSH } else { 0 }, piece, out);
        }
        // A message in one segment has its last byte where its first is; the acknowledgement shows when it was over.
        self.time = self.time.max(last);
        self.packet(!from_client, ACK, &[], out);
    }

    fn close(&mut self, out: &mut Vec<Made>) {
        self.packet(false, FIN | ACK, &[], out);
        self.packet(true, FIN | ACK, &[], out);
        self.packet(false, ACK, &[], out);
    }

    fn packet(&mut self, from_client: bool, flags: u8, payload: &[u8], out: &mut Vec<Made>) {
        let Endpoints { client, server } = self.endpoints;
        let [client_next, server_next] = self.next;
        let (source, destination, seq, ack) = if from_client {
            (client, server, client_next, server_next)
        } else {
            (server, client, server_next, client_next)
        };
        let link = PacketBuilder::ethernet2(MAC_OF_CLIENT, MAC_OF_SERVER);
        let network = match (source.ip(), destination.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
            (from, to) => link.ipv6(as_v6(from), as_v6(to), 64),
        };
        let mut tcp = network.tcp(source.port(), destination.port(), seq, u16::MAX);
        for (flag, set) in [
            (SYN, PacketBuilderTcp::syn as fn(_) -> _),
            (FIN, PacketBuilderTcp::fin),
            (PSH, PacketBuilderTcp::psh),
        ] {
            if flags & flag != 0 {
                tcp = set(tcp);
            }
        }
        if flags & ACK != 0 {
            tcp = tcp.ack(ack);
        }
        let mut data = Vec::with_capacity(tcp.size(payload.len()));
        let written = tcp.write(&mut data, payload);
        debug_assert!(written.is_ok(), "a segment fits into a packet");
        out.push(Made {
            time: self.time,
            data,
        });
        let taken = payload.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        let next = &mut self.next[usize::from(!from_client)];
        *next = next.wrapping_add(taken);
    }
}

/// Ends that packets can have: ports that are not zero, addresses of one family.
fn usable(ends: Endpoints, id: ConnectionId) -> Endpoints {
    let Endpoints {
        mut client,
        mut server,
    } = ends;
    if client.port() == 0 {
        client.set_port(1024 + (id.0 % 64_000) as u16);
    }
    if server.port() == 0 {
        server.set_port(80);
    }
    if client.is_ipv4() != server.is_ipv4() {
        client = SocketAddr::new(IpAddr::V6(as_v6(client.ip()).into()), client.port());
        server = SocketAddr::new(IpAddr::V6(as_v6(server.ip()).into()), server.port());
    }
    Endpoints { client, server }
}

fn as_v6(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V6(ip) => ip.octets(),
        IpAddr::V4(ip) if ip.is_unspecified() => [0; 16],
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
    }
}

/// Interim answers, of which only the status codes are known.
fn interim_heads(response: &Response) -> Vec<u8> {
    let heads = response.interim.iter();
    heads
        .flat_map(|status| format!("HTTP/1.1 {status:03} \r\n\r\n").into_bytes())
        .collect()
}

type PacketBuilderTcp = etherparse::PacketBuilderStep<etherparse::TcpHeader>;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

const MAC_OF_CLIENT: [u8; 6] = [0x02, 0, 0, 0, 0, 1];
const MAC_OF_SERVER: [u8; 6] = [0x02, 0, 0, 0, 0, 2];

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// Payload bytes of a made-up packet, as large-receive offload shows them.
const SEGMENT: usize = 16 << 10;

/// Connections that are open at once; one more closes the oldest.
const MAX_OPEN: usize = 10_000;
