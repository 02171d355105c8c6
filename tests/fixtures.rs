//! Capture files beside their golden output, and what must hold for every capture however it is read.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;

use shadowtap::tap::Answers;

use crate::support::cases::{self, Case};
use crate::support::files::{Flavour, PCAP};
use crate::support::frames::Wrap;
use crate::support::http::{Content, get, ok, post, request, response};
use crate::support::net::{Conversation, START, Side};
use crate::support::rng::Rng;
use crate::support::run::{in_root, inspect, inspect_piped};
use crate::support::{corpus, inside, scenario};

/// Set to write the golden files again instead of holding the output against them.
const REGENERATE: &str = "SHADOWTAP_REGENERATE";

#[test]
fn every_fixture_gives_its_golden_lines() {
    let folder = in_root("fixtures");
    let regenerate = std::env::var_os(REGENERATE).is_some();
    for (name, file) in built() {
        let path = folder.join(&name);
        if regenerate {
            fs::write(&path, &file).expect("the fixture can be written");
        }
        let there = fs::read(&path).unwrap_or_default();
        assert!(
            there == file,
            "{name} is not what is built; `make regenerate` writes it"
        );
    }
    let mut captures: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("readable").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "pcap" || end == "pcapng")
        })
        .collect();
    captures.sort();
    for capture in captures {
        let inspection = inspect(&capture);
        let golden = capture.with_extension("jsonl");
        if regenerate {
            fs::write(&golden, &inspection.stdout).expect("the golden file can be written");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            inspection.stdout == expected,
            "{}: the output is not the golden one; if it should be, `make regenerate` writes it.\n{}",
            capture.display(),
            inspection.stdout
        );
    }
}

#[test]
fn the_way_of_reading_makes_no_difference() {
    for case in every_case() {
        let whole = inside::read(&case.file);
        let again = inside::read(&case.file);
        let packed = inside::read(&gzip(&case.file));
        for other in [again, packed] {
            assert_eq!(whole.text, other.text, "{}", case.name);
            assert_eq!(whole.account, other.account, "{}", case.name);
        }
        if case.file.len() < 100_000 {
            let slow = inside::read_byte_by_byte(&case.file);
            assert_eq!(whole.text, slow.text, "{} byte by byte", case.name);
            assert_eq!(whole.account, slow.account, "{} byte by byte", case.name);
        }
    }
}

#[test]
fn answers_that_nobody_wants_change_nothing_else() {
    for case in every_case() {
        let [wanted, unwanted] = [Answers::HandedOut, Answers::Counted]
            .map(|answers| inside::without_answers(&case.file, answers));
        assert!(wanted == unwanted, "{}", case.name);
    }
}

#[test]
fn the_program_reads_files_gzip_and_pipes_alike() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    for (name, file) in built() {
        let path = temporary.path().join(&name);
        fs::write(&path, &file).expect("the capture can be written");
        let packed = temporary.path().join(format!("{name}.gz"));
        fs::write(&packed, gzip(&file)).expect("the capture can be written");
        let whole = inspect(&path).stdout;
        assert!(!whole.is_empty(), "{name}");
        assert_eq!(whole, inspect(&path).stdout, "{name} read again");
        assert_eq!(whole, inspect(&packed).stdout, "{name} gzipped");
        assert_eq!(whole, inspect_piped(&file, 1).stdout, "{name} byte by byte");
        assert_eq!(
            whole,
            inspect_piped(&gzip(&file), 7).stdout,
            "{name} gzipped"
        );
    }
}

#[test]
fn a_cut_file_gives_everything_before_the_cut() {
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let (_, file) = built().swap_remove(0);
    let path = temporary.path().join("cut.pcap");
    let mut before = 0;
    for length in (0..file.len()).step_by(37) {
        fs::write(&path, &file[..length]).expect("the capture can be written");
        let inspection = inspect(&path);
        let found = inspection
            .exchanges()
            .iter()
            .filter(|line| line["response_complete"] == true)
            .count();
        assert!(
            found >= before,
            "{length} bytes give {found} answers, fewer gave {before}"
        );
        before = found;
        if inspection.code != Some(0) {
            assert!(
                inspection.stderr.contains("cut.pcap"),
                "{}",
                inspection.stderr
            );
        }
    }
    assert!(before > 0);
}

/// The captures that are kept and those that are generated.
fn every_case() -> Vec<Case> {
    let mut cases = corpus::all();
    cases.extend(cases::all());
    cases
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// The fixtures: each a conversation or two that a reader of the golden lines can follow.
fn built() -> Vec<(String, Vec<u8>)> {
    let mut fixtures = Vec::new();
    let mut add = |name: &str, conversations: Vec<Conversation>, wrap: Wrap, flavour: Flavour| {
        let v6 = conversations[0].client.is_ipv6();
        let scenario = scenario::Scenario {
            conversations,
            truth: Vec::new(),
        };
        let packets = scenario.packets();
        let file = scenario::render(&packets, wrap, flavour, v6, false, &mut Rng::new(0));
        fixtures.push((format!("{name}.{}", flavour.extension()), file));
    };

    let mut conversation = Conversation::new(1);
    conversation.open();
    for n in 0..3 {
        conversation
            .send(Side::Client, &get(&format!("/keep-alive/{n}")).wire)
            .send(Side::Server, &ok(format!("answer {n}").as_bytes()).wire);
    }
    conversation.close(Side::Client);
    add("keep_alive", vec![conversation], Wrap::Ethernet, PCAP);

    let mut conversation = Conversation::new(2);
    let requests: Vec<u8> = (0..3)
        .flat_map(|n| post(&format!("/pipelined/{n}"), b"in").wire)
        .collect();
    let answers: Vec<u8> = (0..3)
        .flat_map(|n| ok(format!("out {n}").as_bytes()).wire)
        .collect();
    conversation
        .open()
        .send(Side::Client, &requests)
        .send(Side::Server, &answers)
        .close(Side::Server);
    add("pipelined", vec![conversation], Wrap::Vlan(5), PCAP);

    let mut conversation = Conversation::new_v6(3);
    let chunks = Content::Chunked(
        vec![b"first ".to_vec(), b"second".to_vec()],
        vec![("X-Sum".to_owned(), "1".to_owned())],
    );
    conversation
        .open()
        .send(
            Side::Client,
            &request(
                "PUT",
                "/chunked?a=%20b",
                &[("Expect", "100-continue")],
                &chunks,
            )
            .wire,
        )
        .send(Side::Server, b"HTTP/1.1 100 Continue\r\n\r\n")
        .send(
            Side::Server,
            &response(201, &[("Location", "/chunked")], &chunks).wire,
        )
        .close(Side::Client);
    let ng = Flavour::PcapNg {
        big: false,
        resolution: 9,
        simple: false,
        sections: 1,
    };
    add("chunked_v6", vec![conversation], Wrap::Sll2, ng);

    let mut conversation = Conversation::new(4);
    conversation
        .open()
        .send(Side::Client, &get("/lost").wire)
        .send(Side::Server, &ok(&[b'x'; 4000]).wire)
        .send(Side::Client, &get("/after").wire)
        .send(Side::Server, &ok(b"found").wire)
        .close(Side::Client);
    let lost = conversation
        .packets
        .iter()
        .position(|tcp| tcp.from == Side::Server && tcp.payload.len() == 1460)
        .expect("a full segment");
    conversation.packets.remove(lost + 2);
    add("lost_segment", vec![conversation], Wrap::Ethernet, PCAP);

    let mut conversation = Conversation::new(5);
    conversation
        .open()
        .send(Side::Client, &get("/before").wire)
        .send(Side::Server, &ok(b"before the capture").wire);
    conversation.packets.clear();
    conversation
        .send(Side::Client, &get("/joined").wire)
        .send(Side::Server, &ok(b"joined").wire)
        .reset(Side::Client);
    let mut reused = Conversation::new(5).with_isn(77, 99);
    reused.now = conversation.now + 1_000_000;
    reused
        .open()
        .send(Side::Client, &get("/reused").wire)
        .send(
            Side::Server,
            &response(200, &[], &Content::UntilClose(b"to the end".to_vec())).wire,
        )
        .close(Side::Server);
    add(
        "joined_then_reused",
        vec![conversation, reused],
        Wrap::Raw,
        PCAP,
    );

    let mut upgraded = Conversation::new(6);
    let upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    upgraded
        .open()
        .send(
            Side::Client,
            &request("GET", "/socket", &upgrade, &Content::None).wire,
        )
        .send(Side::Server, &response(101, &upgrade, &Content::None).wire)
        .send(Side::Client, b"\x81\x85abcdGET / HTTP/1.1\r\n\r\n")
        .close(Side::Client);
    let mut tls = Conversation::new(7);
    tls.now = START + 20_000_000;
    tls.open()
        .send(Side::Client, b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03")
        .send(Side::Server, b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x03")
        .close(Side::Client);
    let mut h2 = Conversation::new(8);
    h2.now = START + 40_000_000;
    h2.open()
        .send(
            Side::Client,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        )
        .send(Side::Server, b"\0\0\0\x04\0\0\0\0\0")
        .close(Side::Client);
    add(
        "upgrade_tls_http2",
        vec![upgraded, tls, h2],
        Wrap::Ethernet,
        PCAP,
    );
    fixtures
}
