//! Files: gzip, flushes, full disks, what is refused.

use super::*;
use crate::support::cannot_run;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn gzip_of_several_members_is_read_whole() {
    let file = [gzip(&gor(1, "a", 1, GET)), gzip(&gor(1, "b", 2, GET))].concat();
    let (exchanges, damage) = read_bytes("whatever", &file);
    assert_eq!((exchanges.len(), damage.len()), (2, 0));
}

#[test]
fn a_gzip_file_is_readable_up_to_the_last_flush() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor.gz", "a.jsonl.gz", "a.har.gz"] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        writer.exchange(&get(1, "/1")).unwrap();
        writer.flush().unwrap();
        writer.exchange(&get(2, "/2")).unwrap();
        let bytes = fs::read(&path).unwrap();
        let (exchanges, damage) = read_bytes(name, &bytes);
        assert_eq!(exchanges.len(), 1, "{name}: {damage:?}");
        assert_eq!(damage.len(), 1, "{name}: {damage:?}");
        writer.finish().1.unwrap();
        assert_eq!(read(&[path]).len(), 2);
    }
}

#[test]
fn a_flushed_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.jsonl", "a.har"] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        for number in 1..5 {
            writer.exchange(&get(number, "/")).unwrap();
            writer.flush().unwrap();
            let bytes = fs::read(&path).unwrap();
            let (exchanges, damage) = read_bytes(name, &bytes);
            assert_eq!(exchanges.len() as u64, number, "{name}");
            assert!(damage.is_empty(), "{name}: {damage:?}");
        }
        writer.finish().1.unwrap();
    }
    let har: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("a.har")).unwrap()).unwrap();
    assert_eq!(har["log"]["entries"].as_array().unwrap().len(), 4);
    assert_eq!(har["log"]["version"], "1.2");
}

#[test]
fn recordings_without_records_are_read() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.gor",
        "a.jsonl",
        "a.har",
        "a.gor.gz",
        "a.jsonl.gz",
        "a.har.gz",
    ] {
        let (path, _) = write(&folder, name, &[]);
        assert!(read(&[path]).is_empty(), "{name}");
    }
    let (path, _) = write(&folder, "a.pcap", &[]);
    assert!(capture(&path).is_empty());
}

#[test]
fn an_existing_file_is_refused_without_force_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.jsonl", "a.har", "a.pcap", "a.gor.gz"] {
        let path = folder.path().join(name);
        fs::write(&path, "precious").unwrap();
        let refused = Writer::create(&path, Options::default()).err().unwrap();
        assert!(matches!(refused, RecordError::Exists { .. }));
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");

        let force = Options {
            force: true,
            ..Options::default()
        };
        let mut writer = Writer::create(&path, force).unwrap();
        let kept = fs::read(&path).unwrap();
        assert_eq!(kept, b"precious", "{name}: until the first write");
        writer.exchange(&get(1, "/")).unwrap();
        writer.finish().1.unwrap();
        let count = match name {
            "a.pcap" => capture(&path).len(),
            _ => read(&[path]).len(),
        };
        assert_eq!(count, 1, "{name}");
    }
}

#[test]
fn names_that_say_no_format_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["out", "out.txt", "out.gz", "out.pcapng"] {
        let path = folder.path().join(name);
        let refused = Writer::create(&path, Options::default()).err().unwrap();
        assert!(matches!(refused, RecordError::NoFormat { .. }), "{name}");
        assert!(!path.exists());
    }
    for (format, works) in [
        (Format::Gor, true),
        (Format::Jsonl, true),
        (Format::Har, false),
        (Format::Pcap, false),
    ] {
        let options = Options {
            format: Some(format),
            ..Options::default()
        };
        let stdout = Writer::create(Path::new("-"), options);
        assert_eq!(stdout.is_ok(), works, "{format} to the standard output");
    }
    let missing = folder.path().join("no/such/folder/a.gor");
    let refused = Writer::create(&missing, Options::default()).err().unwrap();
    assert!(
        refused.to_string().contains("no/such/folder/a.gor"),
        "{refused}"
    );
}

#[test]
fn a_recording_that_was_emptied_counts_what_went_with_it() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.gor", "a.jsonl", "a.har", "a.gor.gz"] {
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        writer.exchange(&get(1, "/1")).unwrap();
        writer.flush().unwrap();
        fs::File::create(&path).unwrap();
        writer.exchange(&get(2, "/2")).unwrap();
        writer.flush().unwrap();
        writer.turn_if_due().unwrap();
        writer.exchange(&get(3, "/3")).unwrap();
        let (account, result) = writer.finish();
        result.unwrap();
        account.check().unwrap();
        let found = read(&[path]).len() as u64;
        assert_eq!(found, 1, "{name}");
        let each = account.get(Counter::RecordsOffered) / 3;
        let lost = account.dropped(Reason::WriteFailed);
        assert_eq!(lost, each, "{name}");
        // The first was in the file, and somebody else took it out.
        assert_eq!(account.get(Counter::RecordsWritten), 2 * each, "{name}");
    }
}

#[test]
fn no_name_leads_to_a_file_that_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let name = |name: &str| folder.path().join(name);
    let (input, hard, soft) = (name("in.gor"), name("hard.gor"), name("soft.gor"));
    fs::write(&input, gor(1, "a", 1, GET)).unwrap();
    let before = fs::read(&input).unwrap();
    fs::hard_link(&input, &hard).unwrap();
    std::os::unix::fs::symlink(&input, &soft).unwrap();
    let shadowtap = |words: &[&str], stdin: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shadowtap"));
        command.args(words).stdin(stdin).output().unwrap()
    };
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for out in [&input, &hard, &soft] {
        for (file, stdin) in [
            (&*text(&input), Stdio::null()),
            ("-", fs::File::open(&input).unwrap().into()),
        ] {
            let said = shadowtap(&["convert", file, "--out", &text(out), "--force"], stdin);
            let error = String::from_utf8_lossy(&said.stderr);
            assert!(!said.status.success(), "{file} {out:?}");
            assert!(error.contains("so it cannot be written"), "{error}");
        }
    }
    let (input, hard) = (text(&input), text(&hard));
    let junit = ["replay", &input, "--to", "http://127.0.0.1:1", "--compare"];
    let said = shadowtap(&[&junit[..], &["--junit", &hard]].concat(), Stdio::null());
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(
        error.contains("--junit") && error.contains("so it cannot be written"),
        "{error}"
    );
    assert_eq!(fs::read(&input).unwrap(), before);
    // Another file is no secret.
    let other = text(&name("other.gor"));
    assert!(
        shadowtap(&["convert", &input, "--out", &other], Stdio::null())
            .status
            .success()
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a.gor",
        "a.jsonl",
        "a.har",
        "a.pcap",
        "a.gor.gz",
        "a.jsonl.gz",
    ] {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        let written = writer.exchange(&get(1, "/"));
        let flushed = writer.flush();
        let error = written.and(flushed).unwrap_err();
        assert!(matches!(error, RecordError::Write { .. }), "{name}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(writer.exchange(&get(2, "/")).is_err());
        let (account, result) = writer.finish();
        assert!(result.is_err());
        if name != "a.pcap" {
            assert_eq!(account.get(Counter::RecordsWritten), 0, "{name}");
            account.check().unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_fitted_on_a_full_disk_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    // Bodies that do not compress, 400 KB in all.
    let mut noise = 1u32;
    let list: Vec<_> = (0..40)
        .map(|number| {
            let body: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(10_000)
            .collect();
            let head = "POST / HTTP/1.1\r\nContent-Length: 10000\r\n\r\n";
            exchange(number, head, &body, Framing::Length(10_000), None)
        })
        .collect();
    let (input, _) = write(&folder, "all.gor", &list);
    for name in ["a.gor", "a.jsonl", "a.har", "a.pcap", "a.gor.gz"] {
        let kept = folder.path().join(name);
        let script = "mount -t tmpfs -o size=128k none /mnt || exit 99; \
                      \"$0\" convert \"$1\" --out /mnt/\"$3\"; code=$?; cp /mnt/\"$3\" \"$2\"; exit $code";
        let output = Command::new("unshare")
            .args(["-Urm", "sh", "-c", script, env!("CARGO_BIN_EXE_shadowtap")])
            .args([&input, &kept])
            .arg(name)
            .output();
        let output = match output {
            Ok(output) if output.status.code() != Some(99) && kept.exists() => output,
            cannot => {
                return cannot_run(format_args!("no mount namespace of our own: {cannot:?}"));
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(name) && said.contains("writing failed"),
            "{said}"
        );
        let exchanges = if name == "a.pcap" {
            capture(&kept)
        } else {
            let mut reader = Reader::open(std::slice::from_ref(&kept)).unwrap();
            let exchanges = join(&mut reader);
            // Only a compressed file keeps its torn end.
            assert!(
                name.ends_with(".gz") || reader.damaged() == 0,
                "{name}: {:?}",
                reader.damage()
            );
            exchanges
        };
        assert!(
            (5..40).contains(&exchanges.len()),
            "{name}: {} read",
            exchanges.len()
        );
        let body = |it: &Exchange| it.request.as_ref().unwrap().body.wire.clone();
        let kept = exchanges.iter().map(body);
        assert!(
            kept.eq(list.iter().take(exchanges.len()).map(body)),
            "{name}"
        );
    }
}

#[test]
fn a_file_is_not_written_while_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = write(&folder, "a.gor", &[get(1, "/")]);
    let before = fs::read(&path).unwrap();
    let roundabout = folder.path().join(".").join("a.gor");
    let output = Command::new(env!("CARGO_BIN_EXE_shadowtap"))
        .args(["convert", "--force", "--out"])
        .args([&roundabout, &path])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("give another name"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn content_tells_the_format_before_the_name_does() {
    let path = |name: &'static str| Path::new(name);
    for (first, name, format) in [
        (&b"\xa1\xb2\x3c\x4d rest"[..], "a.gor", Some(Format::Pcap)),
        (b"\xd4\xc3\xb2\xa1", "-", Some(Format::Pcap)),
        (b"\x0a\x0d\x0d\x0a", "-", Some(Format::PcapNg)),
        (b"1 d792 179 0\nGET", "a.har", Some(Format::Gor)),
        (b"{\"log\": {", "a.jsonl", Some(Format::Har)),
        (b"{\"client\":\"x\"", "-", Some(Format::Jsonl)),
        (b"", "a.jsonl", Some(Format::Jsonl)),
        (b"", "a.txt", None),
        (b"GET / HTTP/1.1", "-", None),
    ] {
        assert_eq!(detect(first, path(name)), format, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let readme = folder.path().join("README.md");
    fs::write(&readme, "# Something else").unwrap();
    let refused = Reader::open(std::slice::from_ref(&readme)).err().unwrap();
    assert!(
        refused.to_string().contains("README.md: not a recording"),
        "{refused}"
    );
    let refused = Reader::open(&[folder.path().join("gone.gor")])
        .err()
        .unwrap();
    assert!(refused.to_string().contains("gone.gor"), "{refused}");
}

#[test]
fn packets_are_written_as_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.pcap");
    let options = Options {
        snap_length: 1000,
        ..Options::default()
    };
    let mut writer = Writer::create(&path, options).unwrap();
    let packet = |time, wire_len, data| Packet {
        time: Timestamp::from_nanos(time),
        link: LinkType(113),
        wire_len,
        data,
    };
    let packets = [
        packet(START + 1, 4, &b"abcd"[..]),
        packet(START, 100, b"cut"),
    ];
    for packet in &packets {
        writer.packet(packet).unwrap();
    }
    let other = Packet {
        link: LinkType(1),
        ..packets[0]
    };
    let refused = writer.packet(&other).unwrap_err();
    assert!(refused.to_string().contains("one link type"), "{refused}");
    writer.finish().1.unwrap();

    let bytes = fs::read(&path).unwrap();
    assert_eq!(bytes[16..20], 1000u32.to_le_bytes());
    let mut source = FileSource::open(&path).unwrap();
    for expected in &packets {
        let got = source.next_packet().unwrap().unwrap();
        assert_eq!(format!("{got:?}"), format!("{expected:?}"));
    }
    assert!(source.next_packet().unwrap().is_none());
}
