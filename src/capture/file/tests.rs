use std::collections::VecDeque;
use std::io::{self, Cursor, Read, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

/// A packet as a test wants to see it: time in nanoseconds, link type, wire length, bytes.
type Seen = (u64, u16, u32, Vec<u8>);

/// Everything that comes out of a file, and the message at its end, if it is not a clean one.
fn read(bytes: &[u8]) -> (Vec<Seen>, Option<String>) {
    read_from(Box::new(Cursor::new(bytes.to_vec())))
}

fn read_from(reader: Box<dyn Read + Send>) -> (Vec<Seen>, Option<String>) {
    let mut source = match FileSource::from_reader(reader, "test.pcap") {
        Ok(source) => source,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let as_seen = |packet: Packet<'_>| {
        let (time, link) = (packet.time.as_nanos(), packet.link.0);
        (time, link, packet.wire_len, packet.data.to_vec())
    };
    let mut seen = Vec::new();
    // What was shown as upcoming is what comes.
    let mut shown = VecDeque::new();
    loop {
        while let Some(packet) = source.upcoming() {
            shown.push_back(as_seen(packet));
        }
        assert!(shown.len() <= AHEAD);
        match source.next_packet() {
            Ok(Some(packet)) => {
                let packet = as_seen(packet);
                assert_eq!(shown.pop_front().as_ref().unwrap_or(&packet), &packet);
                seen.push(packet);
            }
            Ok(None) => {
                assert!(shown.is_empty());
                return (seen, None);
            }
            Err(error) => {
                assert!(shown.is_empty());
                let message = error.to_string();
                assert!(source.next_packet().expect("no second error").is_none());
                return (seen, Some(message));
            }
        }
    }
}

/// Gives one byte at a time, and is interrupted before each.
struct Trickle(Cursor<Vec<u8>>, bool);

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = !self.1;
        if self.1 {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("to memory");
    encoder.finish().expect("to memory")
}

/// The bytes of `numbers` in one byte order.
fn words(big_endian: bool, numbers: &[u32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|n| {
            if big_endian {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        })
        .collect()
}

fn halves(big_endian: bool, numbers: &[u16]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|n| {
            if big_endian {
                n.to_be_bytes()
            } else {
                n.to_le_bytes()
            }
        })
        .collect()
}

/// A pcap file with two packets: three whole bytes, and two that were 60 on the wire.
fn pcap(big_endian: bool, magic: u32, version: [u16; 2]) -> Vec<u8> {
    let mut file = words(big_endian, &[magic]);
    file.extend(halves(big_endian, &version));
    file.extend(words(big_endian, &[0, 0, 65_535, 1]));
    let extra: &[u8] = if magic == 0xa1b2_cd34 { &[9; 8] } else { &[] };
    for (time, wire_len, data) in [([10, 5], 3, &b"abc"[..]), ([11, 6], 60, b"de")] {
        let captured = data.len() as u32;
        file.extend(words(big_endian, &time));
        file.extend(words(big_endian, &[captured, wire_len]));
        file.extend(extra);
        file.extend(data);
    }
    file
}

fn two_packets(fraction: u64) -> Vec<Seen> {
    vec![
        (10_000_000_000 + 5 * fraction, 1, 3, b"abc".to_vec()),
        (11_000_000_000 + 6 * fraction, 1, 60, b"de".to_vec()),
    ]
}

fn block(big_endian: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let padded = body.len().next_multiple_of(4);
    let len = padded as u32 + 12;
    let mut block = words(big_endian, &[kind, len]);
    block.extend(body);
    block.resize(8 + padded, 0);
    block.extend(words(big_endian, &[len]));
    block
}

fn section(big_endian: bool) -> Vec<u8> {
    let mut body = words(big_endian, &[0x1a2b_3c4d]);
    body.extend(halves(big_endian, &[1, 0]));
    body.extend([0xff; 8]);
    block(big_endian, 0x0a0d_0d0a, &body)
}

fn interface(big_endian: bool, link: u16, snap_len: u32, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = halves(big_endian, &[link, 0]);
    body.extend(words(big_endian, &[snap_len]));
    for (code, value) in options {
        body.extend(halves(big_endian, &[*code, value.len() as u16]));
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    block(big_endian, 1, &body)
}

fn enhanced(big_endian: bool, interface: u32, time: u64, wire_len: u32, data: &[u8]) -> Vec<u8> {
    let mut body = words(
        big_endian,
        &[
            interface,
            (time >> 32) as u32,
            time as u32,
            data.len() as u32,
            wire_len,
        ],
    );
    body.extend(data);
    block(big_endian, 6, &body)
}

#[test]
fn pcap_of_every_kind() {
    for big_endian in [false, true] {
        for (magic, fraction) in [(0xa1b2_c3d4, 1_000), (0xa1b2_3c4d, 1), (0xa1b2_cd34, 1_000)] {
            let (seen, error) = read(&pcap(big_endian, magic, [2, 4]));
            assert_eq!(seen, two_packets(fraction), "{magic:x}");
            assert_eq!(error, None);
        }
    }
}

#[test]
fn pcap_that_old_programs_wrote() {
    // The lengths the other way round, always or sometimes.
    let mut file = pcap(false, 0xa1b2_c3d4, [2, 2]);
    file.truncate(24 + 16 + 3);
    assert_eq!(read(&file).0, two_packets(1_000)[..1]);
    let mut file = pcap(false, 0xa1b2_c3d4, [2, 3]);
    let second = 24 + 16 + 3 + 8;
    file[second..second + 8].copy_from_slice(&[60, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(read(&file).0, two_packets(1_000));
    // A wire length below the captured one, and a captured one beyond the snap length.
    let mut file = pcap(false, 0xa1b2_c3d4, [2, 4]);
    file[16..20].copy_from_slice(&[1, 0, 0, 0]);
    file[24 + 12..24 + 16].fill(0);
    assert_eq!(read(&file).0, two_packets(1_000));
}

#[test]
fn pcapng_with_all_that_it_can_hold() {
    for big_endian in [false, true] {
        let offset: i64 = -3;
        let offset = if big_endian {
            offset.to_be_bytes()
        } else {
            offset.to_le_bytes()
        };
        let mut file = section(big_endian);
        file.extend(block(big_endian, 0x0bad, b"unknown"));
        file.extend(interface(big_endian, 1, 4, &[(2, b"eth0"), (0, b"")]));
        file.extend(interface(big_endian, 113, 0, &[(9, &[9]), (14, &offset)]));
        file.extend(interface(big_endian, 101, 0, &[(9, &[0x80 | 10])]));
        file.extend(block(big_endian, 3, &{
            let mut body = words(big_endian, &[9]);
            body.extend(b"abcd");
            body
        }));
        file.extend(enhanced(big_endian, 0, 5_000_001, 3, b"abc"));
        file.extend(enhanced(big_endian, 1, 5_000_000_001, 60, b"de"));
        file.extend(enhanced(big_endian, 2, 5 * 1024 + 1, 2, b"fg"));
        file.extend(block(big_endian, 2, &{
            // The obsolete packet block: a short interface number, and drops.
            let mut body = halves(big_endian, &[1, 7]);
            body.extend(words(big_endian, &[0, 4_000_000_000, 2, 2]));
            body.extend(b"hi");
            body
        }));
        file.extend(block(big_endian, 5, &[0; 12]));
        // A section of the other byte order, whose interfaces are its own.
        file.extend(section(!big_endian));
        file.extend(interface(!big_endian, 229, 0, &[]));
        file.extend(enhanced(!big_endian, 0, 6_000_000, 1, b"j"));
        let (seen, error) = read(&file);
        assert_eq!(error, None);
        assert_eq!(
            seen,
            [
                (0, 1, 9, b"abcd".to_vec()),
                (5_000_001_000, 1, 3, b"abc".to_vec()),
                (2_000_000_001, 113, 60, b"de".to_vec()),
                (5_000_976_562, 101, 2, b"fg".to_vec()),
                (1_000_000_000, 113, 2, b"hi".to_vec()),
                (6_000_000_000, 229, 1, b"j".to_vec()),
            ]
        );
    }
}

/// An independent reader finds the same packets.
#[test]
fn pcapng_as_another_reader_sees_it() {
    use pcap_parser::traits::{PcapNGPacketBlock, PcapReaderIterator};
    use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapNGReader};
    let mut file = Vec::new();
    for (round, big_endian) in [false, true, false].into_iter().enumerate() {
        file.extend(section(big_endian));
        file.extend(interface(big_endian, 1, 0, &[]));
        file.extend(interface(big_endian, 113, 0, &[(9, &[9])]));
        for n in 0..100 {
            let data = vec![n as u8; (n * 37 % 400) as usize];
            let wire_len = data.len() as u32 + n % 3;
            file.extend(enhanced(
                big_endian,
                n % 2,
                u64::from(n) << 30,
                wire_len,
                &data,
            ));
            file.extend(block(big_endian, 0x8000_0000 + n, &[round as u8; 7]));
        }
    }
    let mut expected = Vec::new();
    let mut reader = PcapNGReader::new(65_536, &file[..]).expect("a reader");
    loop {
        let consumed = match reader.next() {
            Ok((consumed, block)) => {
                if let PcapBlockOwned::NG(Block::EnhancedPacket(block)) = block {
                    expected.push((block.orig_len(), block.packet_data().to_vec()));
                }
                consumed
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().expect("more");
                continue;
            }
            Err(error) => panic!("{error:?}"),
        };
        reader.consume(consumed);
    }
    let (seen, error) = read(&file);
    assert_eq!(error, None);
    let seen: Vec<_> = seen.into_iter().map(|seen| (seen.2, seen.3)).collect();
    assert_eq!(seen.len(), 300);
    assert_eq!(seen, expected);
}

#[test]
fn times_that_nanoseconds_cannot_say() {
    let time = |resolution: u8, offset: i64, units: u64| {
        let options: [(u16, &[u8]); 2] = [(9, &[resolution]), (14, &offset.to_le_bytes())];
        let mut file = section(false);
        file.extend(interface(false, 1, 0, &options));
        file.extend(enhanced(false, 0, units, 1, b"x"));
        read(&file).0[0].0
    };
    assert_eq!(time(0, 0, 7), 7_000_000_000);
    assert_eq!(time(12, 0, 1_234_567), 1_234);
    assert_eq!(time(127, 0, u64::MAX), 0);
    assert_eq!(time(0xff, 0, u64::MAX), 0);
    assert_eq!(time(0x80, 0, 3), 3_000_000_000);
    assert_eq!(time(6, -100, 7), 0);
    assert_eq!(time(0, i64::MAX, u64::MAX), u64::MAX);
    assert_eq!(time(6, i64::MIN, 7), 0);
}

#[test]
fn the_way_of_reading_makes_no_difference() {
    let mut pcapng = section(true);
    pcapng.extend(interface(true, 1, 0, &[]));
    for n in 0..50 {
        pcapng.extend(enhanced(true, 0, n, 2_000, &vec![n as u8; 40 * n as usize]));
    }
    for file in [pcap(false, 0xa1b2_c3d4, [2, 4]), pcapng] {
        let whole = read(&file);
        assert_eq!(whole.1, None);
        let trickle =
            |bytes: &[u8]| read_from(Box::new(Trickle(Cursor::new(bytes.to_vec()), false)));
        assert_eq!(trickle(&file), whole);
        assert_eq!(read(&gzip(&file)), whole);
        assert_eq!(trickle(&gzip(&file)), whole);
        // Several members, cut anywhere; zeros at the end, as tapes leave them.
        let (a, b) = file.split_at(file.len() / 3);
        let members = [gzip(a), gzip(b), vec![0; 100]].concat();
        assert_eq!(read(&members), whole);
        assert_eq!(trickle(&members), whole);
    }
}

#[test]
fn a_file_that_is_cut_gives_what_is_whole() {
    let mut pcapng = section(false);
    pcapng.extend(interface(false, 1, 0, &[]));
    pcapng.extend(enhanced(false, 0, 1, 3, b"abc"));
    pcapng.extend(enhanced(false, 0, 2, 2, b"de"));
    for file in [pcap(true, 0xa1b2_c3d4, [2, 4]), pcapng] {
        let (whole, _) = read(&file);
        for len in 0..file.len() {
            let (seen, error) = read(&file[..len]);
            assert_eq!(seen, whole[..seen.len()]);
            match error {
                // Between two records nothing shows that others should follow.
                None => assert!(seen.len() < whole.len()),
                Some(error) if len == 0 => assert!(error.contains("empty"), "{error}"),
                Some(error) if error.contains("not a capture") => assert!(len < 12, "{error}"),
                Some(error) => assert!(error.contains("cut off"), "{len} {error}"),
            }
        }
        let gzipped = gzip(&file);
        for len in 1..gzipped.len() {
            let (seen, error) = read(&gzipped[..len]);
            assert_eq!(seen, whole[..seen.len()]);
            assert!(error.is_some(), "{len}");
        }
    }
}

#[test]
fn a_cut_file_says_where() {
    let mut file = pcap(false, 0xa1b2_c3d4, [2, 4]);
    file.pop();
    assert_eq!(
        read(&file).1.expect("an error"),
        "test.pcap is cut off: it ends inside a packet that begins at byte 43, of which 17 bytes are there; \
         the packet before that was used"
    );
}

#[test]
fn damage_is_told_and_what_came_before_it_is_used() {
    let mut file = pcap(false, 0xa1b2_c3d4, [2, 4]);
    file[24 + 16 + 3 + 8 + 3] = 0xff;
    let (seen, error) = read(&file);
    assert_eq!(seen.len(), 1);
    let error = error.expect("an error");
    assert!(error.contains("damaged at byte 43"), "{error}");

    let good = [section(false), interface(false, 1, 0, &[])].concat();
    let first = enhanced(false, 0, 1, 3, b"abc");
    let start = [&good[..], &first].concat();
    let damaged = |block: &[u8]| {
        let (seen, error) = read(&[&start[..], block].concat());
        assert_eq!(seen.len(), 1);
        error.expect("an error")
    };
    let mut lengths = first.clone();
    *lengths.last_mut().expect("bytes") = 1;
    assert!(damaged(&lengths).contains("disagree"));
    let mut captured = first.clone();
    captured[8 + 12] = 200;
    assert!(damaged(&captured).contains("longer than its block"));
    assert!(damaged(&enhanced(false, 9, 1, 1, b"x")).contains("interface 9"));
    assert!(damaged(&words(false, &[6, 0x7fff_ffff, 0])).contains("cannot be"));
    assert!(damaged(&words(false, &[6, 4, 0])).contains("cannot be"));
    assert!(damaged(&block(false, 1, &[])).contains("link type"));
    assert!(damaged(&block(false, 3, &[])).contains("length"));
    assert!(damaged(&block(false, 0x0a0d_0d0a, &[7; 8])).contains("byte order"));
}

#[test]
fn damaged_gzip_gives_every_packet_before_the_damage() {
    let file = pcap(false, 0xa1b2_c3d4, [2, 4]);
    let whole = read(&file).0;
    let mut gzipped = gzip(&file);
    let trailer = gzipped.len() - 8;
    gzipped[trailer] ^= 1;
    let (seen, error) = read(&gzipped);
    assert_eq!(seen, whole);
    assert!(error.expect("an error").contains("checksum"));

    let mut gzipped = gzip(&file);
    gzipped.extend(b"and something else");
    let (seen, error) = read(&gzipped);
    assert_eq!(seen, whole);
    assert!(error.expect("an error").contains("something else"));
}

#[test]
fn random_damage_never_panics() {
    let mut pcapng = section(false);
    pcapng.extend(interface(false, 1, 0, &[(9, &[9])]));
    pcapng.extend(enhanced(false, 0, 1, 3, b"abc"));
    pcapng.extend(enhanced(false, 0, 2, 2, b"de"));
    for file in [pcap(false, 0xa1b2_c3d4, [2, 4]), gzip(&pcapng), pcapng] {
        for at in 0..file.len() {
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = byte;
                read(&damaged);
            }
        }
    }
}

#[test]
fn other_files_are_named() {
    let says = |bytes: &[u8], what: &str| {
        let error = read(bytes).1.expect("an error");
        assert!(error.contains(what), "{error}");
    };
    says(b"", "is empty");
    says(b"1 f1e2 1700000000000000000 0\nGET /", ".gor");
    says(b"{\"method\":\"GET\"}", "JSON");
    says(b"\x28\xb5\x2f\xfd12345678", "zstd");
    says(b"hello world", "68 65 6c 6c 6f 20 77 6f");
    says(&gzip(b"hello world"), "decompressed, it begins with");
    says(&gzip(&gzip(b"hello world, hello")), "a second time");
    says(&[0x1f, 0x8b, 9, 9, 9], "does not decompress");
    says(&gzip(b""), "is empty");
}

#[test]
fn a_file_that_is_not_there() {
    let error = FileSource::open("/nonexistent/traffic.pcap").expect_err("no file");
    let message = error.to_string();
    assert!(message.starts_with("cannot open /nonexistent/traffic.pcap: "));
}

#[test]
fn progress_counts_the_bytes_of_the_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let bytes = gzip(&pcap(false, 0xa1b2_c3d4, [2, 4]));
    file.write_all(&bytes).expect("written");
    let mut source = FileSource::open(file.path()).expect("a capture");
    while source.next_packet().expect("no error").is_some() {}
    let len = bytes.len() as u64;
    assert_eq!(source.progress(), (len, Some(len)));
}
