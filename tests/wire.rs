//! Frames of every kind in files of every kind, down to the TCP segments in them.

use shadowtap::account::Account;
use shadowtap::capture::PacketSource;
use shadowtap::capture::file::FileSource;
use shadowtap::wire::{Decoder, DecoderConfig};

use crate::support::files::FLAVOURS;
use crate::support::frames::WRAPS;
use crate::support::net::{Conversation, Side, Tcp};
use crate::support::rng::Rng;
use crate::support::scenario::{Weather, render, scenario};

/// What must come out of a frame: who, to whom, flags, sequence and acknowledgement number, payload.
type Found = (String, String, u8, u32, u32, Vec<u8>);

#[test]
fn every_frame_in_every_file_gives_its_segment() {
    let mut rng = Rng::new(6);
    for v6 in [false, true] {
        let scenario = scenario(&mut rng, Weather::Rough, v6);
        let packets = scenario.packets();
        let wanted: Vec<Found> = packets
            .iter()
            .map(|(conversation, tcp)| wanted(conversation, tcp))
            .collect();
        for &wrap in WRAPS {
            for &flavour in FLAVOURS {
                let file = render(&packets, wrap, flavour, v6, false, &mut rng);
                let (found, account) = segments(file);
                assert!(
                    found == wanted,
                    "{wrap:?} {flavour:?} v6={v6}: {} segments of {}",
                    found.len(),
                    wanted.len()
                );
                let packets = account.get(shadowtap::account::Counter::Packets);
                let dropped = account.dropped_at(shadowtap::account::Stage::Packet);
                assert_eq!(
                    packets - dropped,
                    wanted.len() as u64,
                    "{wrap:?} {flavour:?}: {account:?}"
                );
            }
        }
    }
}

fn wanted(conversation: &Conversation, tcp: &Tcp) -> Found {
    let (source, destination) = match tcp.from {
        Side::Client => (conversation.client, conversation.server),
        Side::Server => (conversation.server, conversation.client),
    };
    let ack = if tcp.flags & crate::support::net::ACK == 0 {
        0
    } else {
        tcp.ack
    };
    (
        source.to_string(),
        destination.to_string(),
        tcp.flags,
        tcp.seq,
        ack,
        tcp.payload.clone(),
    )
}

fn segments(file: Vec<u8>) -> (Vec<Found>, Account) {
    let mut source = FileSource::from_reader(Box::new(std::io::Cursor::new(file)), "memory")
        .expect("a capture file");
    let mut decoder = Decoder::new(DecoderConfig::default());
    let mut account = Account::new();
    let mut found = Vec::new();
    while let Some(packet) = source.next_packet().expect("a whole file") {
        if let Some(segment) = decoder.decode(&packet, &mut account) {
            found.push((
                segment.source.to_string(),
                segment.destination.to_string(),
                segment.flags.0,
                segment.seq,
                segment.ack,
                segment.payload.to_vec(),
            ));
        }
    }
    decoder.finish(&mut account);
    (found, account)
}
