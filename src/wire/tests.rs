use std::net::{IpAddr, SocketAddr};

use super::build::*;
use super::*;
use crate::account::{Account, Counter, Reason, Stage};
use crate::time::Timestamp;

/// What a decoder made of one frame.
struct Decoded {
    segments: Vec<(SocketAddr, SocketAddr, Vec<u8>, u32, Path)>,
    account: Account,
}

impl Decoded {
    fn of(frames: &[(LinkType, &[u8])]) -> Self {
        let mut decoder = Decoder::default();
        let mut account = Account::new();
        let mut segments = Vec::new();
        for (n, &(link, data)) in frames.iter().enumerate() {
            let packet = Packet {
                time: Timestamp::from_nanos(n as u64),
                link,
                wire_len: data.len() as u32,
                data,
            };
            if let Some(segment) = decoder.decode(&packet, &mut account) {
                segments.push(owned(&segment));
            }
        }
        decoder.finish(&mut account);
        assert_law(&account);
        Self { segments, account }
    }

    fn ethernet(frames: &[Vec<u8>]) -> Self {
        let frames: Vec<_> = frames
            .iter()
            .map(|frame| (LinkType::ETHERNET, &frame[..]))
            .collect();
        Self::of(&frames)
    }

    fn payloads(&self) -> Vec<&[u8]> {
        self.segments.iter().map(|s| &s.2[..]).collect()
    }
}

fn owned(segment: &Segment<'_>) -> (SocketAddr, SocketAddr, Vec<u8>, u32, Path) {
    (
        segment.source,
        segment.destination,
        segment.payload.to_vec(),
        segment.cut,
        segment.path,
    )
}

fn assert_law(account: &Account) {
    assert_eq!(
        account.get(Counter::Packets),
        account.get(Counter::Segments) + account.dropped_at(Stage::Packet),
        "{account:?}"
    );
}

#[test]
fn every_kind_of_frame_gives_its_segment() {
    for (name, link, frame) in every_kind() {
        let decoded = Decoded::of(&[(link, &frame)]);
        assert_eq!(
            decoded.payloads(),
            [TCP.payload],
            "{name}: {:?}",
            decoded.account
        );
        let (source, destination, _, cut, _) = &decoded.segments[0];
        assert_eq!(*cut, 0, "{name}");
        let (client, server): (IpAddr, IpAddr) = if source.is_ipv4() {
            (CLIENT.into(), SERVER.into())
        } else {
            (CLIENT6.into(), SERVER6.into())
        };
        assert_eq!(*source, SocketAddr::new(client, 40_000), "{name}");
        assert_eq!(*destination, SocketAddr::new(server, 80), "{name}");
    }
}

#[test]
fn every_snap_length_gives_what_is_there() {
    for (name, link, frame) in every_kind() {
        let mut decoder = Decoder::default();
        let mut seen = 0;
        for snap_len in 0..=frame.len() {
            let mut account = Account::new();
            let packet = Packet {
                time: Timestamp::ZERO,
                link,
                wire_len: frame.len() as u32,
                data: &frame[..snap_len],
            };
            if let Some(segment) = decoder.decode(&packet, &mut account) {
                assert!(
                    TCP.payload.starts_with(segment.payload),
                    "{name} {snap_len}"
                );
                assert_eq!(
                    segment.payload.len() + segment.cut as usize,
                    TCP.payload.len(),
                    "{name} {snap_len}"
                );
                seen += 1;
            }
            assert_law(&account);
            assert_eq!(account.dropped(Reason::FragmentIncomplete), 0);
        }
        assert!(seen > TCP.payload.len(), "{name}");
    }
}

#[test]
fn no_frame_that_is_cut_or_changed_breaks_the_decoder() {
    for (_, link, frame) in every_kind() {
        for len in 0..frame.len() {
            Decoded::of(&[(link, &frame[..len])]);
        }
        for at in 0..frame.len() {
            for byte in [
                0,
                1,
                0x45,
                0x7f,
                0x80,
                0xff,
                frame[at] ^ 1,
                frame[at] ^ 0x10,
            ] {
                let mut changed = frame.clone();
                changed[at] = byte;
                Decoded::of(&[(link, &changed)]);
            }
        }
        for other in [0, 9, 105, 113, 119, 192, 239, 276, 999] {
            Decoded::of(&[(LinkType(other), &frame)]);
        }
    }
}

#[test]
fn what_is_no_tcp_says_why() {
    let reason_of = |link, frame: &[u8]| {
        let account = Decoded::of(&[(link, frame)]).account;
        let mut reasons = Reason::ALL.iter().filter(|&&r| account.dropped(r) > 0);
        reasons.next().copied()
    };
    let frame_reason = |frame: &[u8]| reason_of(LinkType::ETHERNET, frame);
    assert_eq!(
        reason_of(LinkType(147), &request()),
        Some(Reason::UnknownLinkType)
    );
    assert_eq!(
        frame_reason(&ethernet(0x0806, &[0; 28])),
        Some(Reason::NotIp)
    );
    let udp_packet = ipv4(17, &udp(53, 53, b"x"));
    assert_eq!(
        frame_reason(&ethernet(0x0800, &udp_packet)),
        Some(Reason::NotTcp)
    );
    // An ICMP error quotes the packet that caused it.
    let icmp = ipv4(1, &cat(&[&[3, 4, 0, 0, 0, 0, 0, 0], &request()]));
    assert_eq!(frame_reason(&ethernet(0x0800, &icmp)), Some(Reason::NotTcp));
    let mut bad = ethernet(0x0800, &request());
    bad[14] = 0x44;
    assert_eq!(frame_reason(&bad), Some(Reason::MalformedPacket));
    let mut bad = ethernet(0x0800, &request());
    bad[14 + 20 + 12] = 0x40;
    assert_eq!(frame_reason(&bad), Some(Reason::MalformedPacket));

    let mut deep = request();
    for _ in 0..9 {
        deep = ipv4(4, &deep);
    }
    assert_eq!(
        frame_reason(&ethernet(0x0800, &deep)),
        Some(Reason::TunnelTooDeep)
    );
}

#[test]
fn header_fields_and_options() {
    let decode = |options: &[u8], flags, urgent| {
        let tcp = Tcp {
            options,
            flags,
            urgent,
            ..TCP
        };
        let frame = ethernet(0x0800, &ipv4(6, &tcp.build()));
        let packet = Packet {
            time: Timestamp::from_nanos(5),
            link: LinkType::ETHERNET,
            wire_len: frame.len() as u32,
            data: &frame,
        };
        let mut decoder = Decoder::default();
        let segment = decoder
            .decode(&packet, &mut Account::new())
            .expect("a segment");
        assert_eq!(
            (segment.time, segment.seq, segment.ack, segment.window),
            (Timestamp::from_nanos(5), 1_000, 2_000, 0xffff)
        );
        assert_eq!(segment.flags, TcpFlags(flags));
        (segment.timestamps, segment.signed, segment.urgent)
    };
    assert_eq!(decode(&[], 0x18, 9), (None, false, None));
    assert_eq!(decode(&[], 0x38, 9), (None, false, Some(9)));
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(decode(&timestamps, 0x18, 0), (Some((1, 2)), false, None));
    let among_others = [2, 4, 5, 0xb4, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0];
    assert_eq!(decode(&among_others, 0x02, 0), (Some((1, 2)), false, None));
    let mut md5 = vec![1, 1, 19, 18];
    md5.extend([7; 16]);
    assert_eq!(decode(&md5, 0x18, 0), (None, true, None));
    assert_eq!(decode(&[29, 4, 0, 0], 0x18, 0), (None, true, None));
    // Lengths that make no sense end the options.
    assert_eq!(decode(&[8, 1, 19, 18], 0x18, 0), (None, false, None));
    assert_eq!(decode(&[3, 0, 19, 18], 0x18, 0), (None, false, None));
    assert_eq!(decode(&[1, 1, 1, 8], 0x18, 0), (None, false, None));
    assert_eq!(decode(&[0, 19, 2, 0], 0x18, 0), (None, false, None));
}

#[test]
fn a_path_tells_networks_apart_but_not_directions() {
    let path = |frame: Vec<u8>| Decoded::ethernet(&[frame]).segments[0].4;
    let tagged = |id| path(ethernet(0x8100, &vlan(id, 0x0800, &request())));
    assert_eq!(path(ethernet(0x0800, &request())), Path::default());
    assert_eq!(tagged(0), Path::default());
    assert_eq!(tagged(0x2000 | 10), tagged(10));
    assert_ne!(tagged(10), tagged(20));
    assert_ne!(tagged(10), Path::default());

    let double = |outer, inner| {
        path(ethernet(
            0x88a8,
            &vlan(outer, 0x8100, &vlan(inner, 0x0800, &request())),
        ))
    };
    assert_ne!(double(1, 2), double(2, 1));
    assert_eq!(double(0, 10), tagged(10));

    let vxlan = |from, to, vni| {
        let inner = cat(&[&[8, 0, 0, 0, 0, 0, vni, 0], &ethernet(0x0800, &request())]);
        let outer = Ipv4 {
            source: from,
            destination: to,
            protocol: 17,
            payload: &udp(1, 4789, &inner),
            ..IPV4
        };
        path(ethernet(0x0800, &outer.build()))
    };
    let (a, b) = ([192, 168, 0, 1], [192, 168, 0, 2]);
    assert_eq!(vxlan(a, b, 7), vxlan(b, a, 7));
    assert_ne!(vxlan(a, b, 7), vxlan(a, b, 8));

    let gtp = |tunnel| {
        let header = cat(&[
            &[0x30, 0xff],
            &(request().len() as u16).to_be_bytes(),
            &[0, 0, 0, tunnel],
        ]);
        path(ethernet(
            0x0800,
            &ipv4(17, &udp(2152, 2152, &cat(&[&header, &request()]))),
        ))
    };
    assert_eq!(gtp(1), gtp(2));
    let nvgre = |network, flow| {
        let header = [0x20, 0, 0x65, 0x58, 0, 0, network, flow];
        path(ethernet(
            0x0800,
            &ipv4(47, &cat(&[&header, &ethernet(0x0800, &request())])),
        ))
    };
    assert_eq!(nvgre(5, 1), nvgre(5, 2));
    assert_ne!(nvgre(5, 1), nvgre(6, 1));
}

/// The template request in IPv4 fragments of `part` bytes.
fn fragments(id: u16, part: usize) -> Vec<Vec<u8>> {
    let tcp = TCP.build();
    tcp.chunks(part)
        .enumerate()
        .map(|(n, chunk)| {
            let packet = Ipv4 {
                id,
                offset: n * part,
                more: (n + 1) * part < tcp.len(),
                payload: chunk,
                ..IPV4
            };
            ethernet(0x0800, &packet.build())
        })
        .collect()
}

fn fragments6(id: u32, part: usize) -> Vec<Vec<u8>> {
    let tcp = TCP.build();
    tcp.chunks(part)
        .enumerate()
        .map(|(n, chunk)| {
            let more = (n + 1) * part < tcp.len();
            ethernet(0x86dd, &fragment6(6, id, n * part, more, chunk))
        })
        .collect()
}

#[test]
fn fragments_in_any_order_make_one_segment() {
    for mut frames in [fragments(7, 24), fragments6(7, 24)] {
        assert_eq!(frames.len(), 3);
        for swap in [(0, 0), (0, 1), (0, 2), (1, 2), (0, 1), (0, 2)] {
            frames.swap(swap.0, swap.1);
            let decoded = Decoded::ethernet(&frames);
            assert_eq!(decoded.payloads(), [TCP.payload]);
            assert_eq!(decoded.account.dropped(Reason::FragmentMerged), 2);
        }
    }
}

#[test]
fn fragments_of_eight_bytes() {
    for frames in [fragments(7, 8), fragments6(7, 8)] {
        assert_eq!(Decoded::ethernet(&frames).payloads(), [TCP.payload]);
    }
}

#[test]
fn fragments_that_come_twice() {
    for frames in [fragments(7, 24), fragments6(7, 24)] {
        // Each at once after itself, as a capture on two interfaces shows them.
        let twice: Vec<_> = frames
            .iter()
            .flat_map(|frame| [frame.clone(), frame.clone()])
            .collect();
        let decoded = Decoded::ethernet(&twice);
        assert_eq!(decoded.payloads(), [TCP.payload]);
        assert_eq!(decoded.account.dropped(Reason::FragmentMerged), 5);
        // And the same identification again, for the next datagram.
        let mut next = frames.clone();
        *next[0].last_mut().expect("bytes") ^= 1;
        let again: Vec<_> = twice.iter().chain(&next).cloned().collect();
        assert_eq!(Decoded::ethernet(&again).segments.len(), 2);
    }
}

#[test]
fn fragments_that_miss_one_wait_until_the_end() {
    for mut frames in [fragments(7, 24), fragments6(7, 24)] {
        frames.remove(1);
        let decoded = Decoded::ethernet(&frames);
        assert!(decoded.segments.is_empty());
        assert_eq!(decoded.account.dropped(Reason::FragmentIncomplete), 2);
    }
}

#[test]
fn fragments_that_overlap() {
    let tcp = TCP.build();
    let part = |offset: usize, end: usize| {
        let packet = Ipv4 {
            offset,
            more: end < tcp.len(),
            payload: &tcp[offset..end],
            ..IPV4
        };
        ethernet(0x0800, &packet.build())
    };
    let changed = |mut frame: Vec<u8>| {
        frame[34] ^= 1;
        frame
    };
    // With other bytes, in part: all are dropped.
    let frames = [part(0, 32), changed(part(24, 48)), part(48, tcp.len())];
    let decoded = Decoded::ethernet(&frames);
    assert!(decoded.segments.is_empty());
    assert_eq!(decoded.account.dropped(Reason::FragmentOverlap), 2);
    // With the same bytes: as a hop cut them anew.
    for frames in [
        vec![part(0, 32), part(24, 48), part(48, tcp.len())],
        vec![part(0, 24), part(40, 48), part(8, 56), part(48, tcp.len())],
        vec![part(40, tcp.len()), part(16, 24), part(8, 48), part(0, 16)],
    ] {
        let decoded = Decoded::ethernet(&frames);
        assert_eq!(decoded.payloads(), [TCP.payload]);
    }
    // Inside bytes that are there in one run: the first win, whatever they are.
    let frames = [
        part(0, 24),
        part(24, 48),
        changed(part(8, 32)),
        part(48, tcp.len()),
    ];
    assert_eq!(Decoded::ethernet(&frames).payloads(), [TCP.payload]);
    // Beyond the end, and with another end.
    let frames = [part(40, tcp.len()), {
        let packet = Ipv4 {
            offset: 96,
            more: true,
            payload: &[0; 8],
            ..IPV4
        };
        ethernet(0x0800, &packet.build())
    }];
    assert_eq!(
        Decoded::ethernet(&frames)
            .account
            .dropped(Reason::FragmentOverlap),
        2
    );
}

#[test]
fn identifications_are_used_again_and_by_others() {
    let frames: Vec<_> = fragments(7, 24)
        .into_iter()
        .chain(fragments(7, 40))
        .collect();
    assert_eq!(frames.len(), 5);
    assert_eq!(Decoded::ethernet(&frames).segments.len(), 2);

    let mut other = fragments(7, 24);
    for frame in &mut other {
        frame[14 + 15] = 99;
    }
    let mixed: Vec<_> = fragments(7, 24)
        .into_iter()
        .zip(other)
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert_eq!(Decoded::ethernet(&mixed).segments.len(), 2);
}

#[test]
fn fragments_wait_for_thirty_seconds() {
    let frames = fragments(7, 40);
    for (wait, segments) in [(29, 1), (31, 0)] {
        let mut decoder = Decoder::default();
        let mut account = Account::new();
        for (frame, secs) in frames.iter().zip([100, 100 + wait]) {
            let packet = Packet {
                time: Timestamp::from_secs_nanos(secs, 0),
                link: LinkType::ETHERNET,
                wire_len: frame.len() as u32,
                data: frame,
            };
            decoder.decode(&packet, &mut account);
        }
        assert_eq!(account.get(Counter::Segments), segments);
        decoder.finish(&mut account);
        assert_law(&account);
    }
}

#[test]
fn many_datagrams_wait_and_expire() {
    let mut decoder = Decoder::default();
    let mut account = Account::new();
    let mut decode = |frame: &[u8], secs| {
        let packet = Packet {
            time: Timestamp::from_secs_nanos(secs, 0),
            link: LinkType::ETHERNET,
            wire_len: frame.len() as u32,
            data: frame,
        };
        decoder.decode(&packet, &mut account);
        account.clone()
    };
    // Each round leaves incomplete datagrams behind, among ones that become whole.
    for round in 0..20 {
        for id in 0..500 {
            let frames = fragments(id, 40);
            decode(&frames[0], round * 20);
            if id % 5 != 0 {
                decode(&frames[1], round * 20);
            }
        }
    }
    let account = decode(&fragments(9, 40)[0], 1_000);
    assert_eq!(account.get(Counter::Segments), 20 * 400);
    // Those whose second half never comes leave incomplete, however often their first half is repeated.
    assert_eq!(account.dropped(Reason::FragmentIncomplete), 20 * 100);
}

#[test]
fn the_oldest_fragments_leave_at_the_bound() {
    let mut decoder = Decoder::new(DecoderConfig {
        fragment_budget: 20_000,
        ..DecoderConfig::default()
    });
    let mut account = Account::new();
    for id in 0..10_000 {
        let frame = &fragments(id, 24)[usize::from(id % 3)];
        let packet = Packet {
            time: Timestamp::ZERO,
            link: LinkType::ETHERNET,
            wire_len: frame.len() as u32,
            data: frame,
        };
        assert!(decoder.decode(&packet, &mut account).is_none());
    }
    assert!(account.dropped(Reason::FragmentOverBudget) > 9_900);
    decoder.finish(&mut account);
    assert!(account.dropped(Reason::FragmentIncomplete) > 5);
    assert_law(&account);
}

#[test]
fn a_tunnel_in_fragments_that_holds_fragments() {
    let outer: Vec<_> = fragments(9, 24)
        .iter()
        .enumerate()
        .flat_map(|(n, frame)| {
            let vxlan = cat(&[&[8, 0, 0, 0, 0, 0, 1, 0], frame]);
            let datagram = udp(1, 4789, &vxlan);
            let (first, second) = datagram.split_at(40);
            [(0, true, first), (40, false, second)].map(|(offset, more, part)| {
                let packet = Ipv4 {
                    source: [1, 1, 1, 1],
                    id: n as u16,
                    offset,
                    more,
                    protocol: 17,
                    payload: part,
                    ..IPV4
                };
                ethernet(0x0800, &packet.build())
            })
        })
        .collect();
    assert_eq!(outer.len(), 6);
    let decoded = Decoded::ethernet(&outer);
    assert_eq!(decoded.payloads(), [TCP.payload]);
    assert_eq!(decoded.account.dropped(Reason::FragmentMerged), 5);
}

#[test]
fn a_fragment_that_the_snap_length_cut_ends_the_payload() {
    let frames = fragments(7, 40);
    let mut decoder = Decoder::default();
    let mut account = Account::new();
    let packet = |data: &'static [u8], wire_len: usize| Packet {
        time: Timestamp::ZERO,
        link: LinkType::ETHERNET,
        wire_len: wire_len as u32,
        data,
    };
    let cut: &'static [u8] = frames[0][..frames[0].len() - 4].to_vec().leak();
    let rest: &'static [u8] = frames[1].clone().leak();
    assert!(
        decoder
            .decode(&packet(cut, frames[0].len()), &mut account)
            .is_none()
    );
    let segment = decoder
        .decode(&packet(rest, rest.len()), &mut account)
        .expect("a segment");
    assert_eq!(segment.payload, &TCP.payload[..16]);
    assert_eq!(segment.cut as usize, TCP.payload.len() - 16);
}

/// Random fragments of one datagram against a map of its blocks.
#[test]
fn random_fragments_against_a_map() {
    use proptest::prelude::*;
    let tcp = TCP.build();
    let blocks = tcp.len().div_ceil(8);
    proptest!(|(order in proptest::collection::vec((0..blocks, 1..4_usize), 1..24))| {
        let mut have = vec![false; blocks];
        let mut whole = 0;
        let mut frames = Vec::new();
        for (first, len) in order {
            let last = (first + len).min(blocks);
            have[first..last].fill(true);
            let end = (last * 8).min(tcp.len());
            let packet = Ipv4 {
                offset: first * 8,
                more: end < tcp.len(),
                payload: &tcp[first * 8..end],
                ..IPV4
            };
            frames.push(ethernet(0x0800, &packet.build()));
            if have.iter().all(|&there| there) {
                whole = 1;
                break;
            }
        }
        let decoded = Decoded::ethernet(&frames);
        prop_assert_eq!(decoded.segments.len(), whole);
        prop_assert!(decoded.payloads().iter().all(|payload| *payload == TCP.payload));
    });
}

/// Whatever fragments come, in whatever time, under a bound: every one is counted once.
#[test]
fn random_fragments_keep_the_law() {
    use proptest::prelude::*;
    let fragment = (
        0..3_u16,
        0..40_usize,
        0..6_usize,
        any::<bool>(),
        0..2_u8,
        0..9_u64,
    );
    proptest!(|(fragments in proptest::collection::vec(fragment, 1..200))| {
        let mut decoder = Decoder::new(DecoderConfig {
            fragment_budget: 3_000,
            ..DecoderConfig::default()
        });
        let mut account = Account::new();
        let mut secs = 0;
        for (id, block, blocks, more, filler, wait) in fragments {
            secs += wait;
            let packet = Ipv4 {
                id,
                offset: block * 8,
                more,
                payload: &vec![filler; blocks * 8 + usize::from(!more)],
                ..IPV4
            };
            let frame = ethernet(0x0800, &packet.build());
            let packet = Packet {
                time: Timestamp::from_secs_nanos(secs, 0),
                link: LinkType::ETHERNET,
                wire_len: frame.len() as u32,
                data: &frame,
            };
            decoder.decode(&packet, &mut account);
        }
        decoder.finish(&mut account);
        assert_law(&account);
    });
}
