//! Capture files from a fixed seed: anyone gets the same input.

use std::io::{self, Write};

/// What is in a capture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    /// Keep-alive connections; all are opened first, and stay open.
    pub(crate) connections: u32,
    /// Exchanges, each on a connection picked at random.
    pub(crate) exchanges: u32,
    /// Bytes of each answer's body.
    pub(crate) body: usize,
}

impl Traffic {
    /// Packets before the first request: the handshakes.
    pub(crate) fn handshake_packets(self) -> u64 {
        u64::from(self.connections) * 3
    }

    /// Writes the capture: Ethernet, IPv4, TCP with timestamps, segments of at most 1,448 bytes, every second one of an
    /// answer acknowledged, and the last.
    pub(crate) fn write(self, out: &mut impl Write) -> io::Result<()> {
        let mut file = Capture {
            out,
            now: 0,
            identification: 0,
        };
        file.header()?;
        let mut rng = Rng(0x5ad0_77a9);
        let mut connections: Vec<Connection> = (0..self.connections)
            .map(|n| Connection {
                n,
                sent: [rng.next() as u32, rng.next() as u32],
            })
            .collect();
        for connection in &mut connections {
            file.segment(connection, CLIENT, SYN, b"")?;
            file.segment(connection, SERVER, SYN | ACK, b"")?;
            file.segment(connection, CLIENT, ACK, b"")?;
        }
        let body: Vec<u8> = (0..self.body)
            .map(|_| b'a' + (rng.next() % 26) as u8)
            .collect();
        for id in 0..self.exchanges {
            let connection = &mut connections[(rng.next() % u64::from(self.connections)) as usize];
            file.segment(connection, CLIENT, ACK | PSH, &request(id))?;
            let answer = answer(id, &body);
            let pieces = answer.chunks(1448);
            let last = pieces.len() - 1;
            for (n, piece) in pieces.enumerate() {
                file.segment(connection, SERVER, ACK | PSH, piece)?;
                if n % 2 == 1 || n == last {
                    file.segment(connection, CLIENT, ACK, b"")?;
                }
            }
        }
        Ok(())
    }
}

/// A request as browsers and services send them: 200 bytes.
pub(crate) fn request(id: u32) -> Vec<u8> {
    format!(
        "GET /api/items/{id}?page=4&sort=name HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench/1.0\r\n\
         Accept: application/json\r\nX-Request-Id: {id:032x}\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

/// An answer of some 190 bytes and its body.
pub(crate) fn answer(id: u32, body: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Tue, 14 Nov 2023 22:13:20 GMT\r\n\
         Content-Type: application/json\r\nX-Request-Id: {id:032x}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

struct Connection {
    n: u32,
    /// The next sequence number of each side.
    sent: [u32; 2],
}

/// A capture file that is being written.
struct Capture<'a, W> {
    out: &'a mut W,
    /// Microseconds since the first packet.
    now: u64,
    identification: u16,
}

impl<W: Write> Capture<'_, W> {
    fn header(&mut self) -> io::Result<()> {
        self.out.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        self.out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        self.out.write_all(&262_144_u32.to_le_bytes())?;
        self.out.write_all(&1_u32.to_le_bytes())
    }

    fn segment(
        &mut self,
        connection: &mut Connection,
        from: usize,
        flags: u8,
        payload: &[u8],
    ) -> io::Result<()> {
        self.now += 3;
        self.identification = self.identification.wrapping_add(1);
        let [_, a, b, c] = (connection.n / 40_000).to_be_bytes();
        let client = [10, a, b, c + 1];
        let port = (20_000 + (connection.n % 40_000) as u16).to_be_bytes();
        let ends = [(client, port), (SERVER_ADDRESS, SERVER_PORT)];
        let ((source, source_port), (destination, destination_port)) = (ends[from], ends[1 - from]);
        let length = (52 + payload.len()) as u16;
        let mut frame = [0_u8; 66];
        frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1]);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14..16].copy_from_slice(&[0x45, 0]);
        frame[16..18].copy_from_slice(&length.to_be_bytes());
        frame[18..20].copy_from_slice(&self.identification.to_be_bytes());
        frame[20..24].copy_from_slice(&[0x40, 0, 64, 6]);
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame[34..36].copy_from_slice(&source_port);
        frame[36..38].copy_from_slice(&destination_port);
        frame[38..42].copy_from_slice(&connection.sent[from].to_be_bytes());
        if flags & ACK != 0 {
            frame[42..46].copy_from_slice(&connection.sent[1 - from].to_be_bytes());
        }
        frame[46..50].copy_from_slice(&[0x80, flags, 0xff, 0xff]);
        frame[54..58].copy_from_slice(&[1, 1, 8, 10]);
        frame[58..62].copy_from_slice(&((self.now / 1000) as u32 + 1).to_be_bytes());
        let taken = payload.len() as u32 + u32::from(flags & SYN != 0);
        connection.sent[from] = connection.sent[from].wrapping_add(taken);
        let size = (frame.len() + payload.len()) as u32;
        self.out
            .write_all(&(START + (self.now / 1_000_000) as u32).to_le_bytes())?;
        self.out
            .write_all(&((self.now % 1_000_000) as u32).to_le_bytes())?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&frame)?;
        self.out.write_all(payload)
    }
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

const CLIENT: usize = 0;
const SERVER: usize = 1;
const SYN: u8 = 0x02;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const SERVER_ADDRESS: [u8; 4] = [10, 255, 0, 1];
const SERVER_PORT: [u8; 2] = 8080_u16.to_be_bytes();
/// 2023-11-14T22:13:20Z.
const START: u32 = 1_700_000_000;
