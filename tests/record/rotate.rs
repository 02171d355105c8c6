//! Recordings in several files, bounded as a whole, and files that others remove, rename or cut while they are written.

use super::*;
use shadowtap::record::Rotation;

const NAMES: [&str; 8] = [
    "a.gor",
    "a.jsonl",
    "a.har",
    "a.pcap",
    "a.gor.gz",
    "a.jsonl.gz",
    "a.har.gz",
    "a.pcap.gz",
];

fn rotating(size: u64, max: Option<u64>) -> Options {
    Options {
        rotation: Rotation {
            size: Some(size),
            every: None,
            max,
        },
        ..Options::default()
    }
}

/// Requests of several lengths, with bodies that do not compress.
fn noisy(count: u64) -> Vec<Exchange> {
    let mut noise = 7u32;
    (0..count)
        .map(|number| {
            let length = 10 + (number as usize * 37) % 900;
            let body: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8
            })
            .take(length)
            .collect();
            let head = format!("POST /{number} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            exchange(number, &head, &body, Framing::Length(length as u64), None)
        })
        .collect()
}

fn files(folder: &TempDir) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().path())
        .collect();
    files.sort();
    files
}

fn sizes(folder: &TempDir) -> Vec<u64> {
    let length = |path: &PathBuf| fs::metadata(path).unwrap().len();
    files(folder).iter().map(length).collect()
}

/// The targets of the requests in these files, in order.
fn targets(name: &str, paths: &[PathBuf]) -> Vec<String> {
    let exchanges = if name.contains("pcap") {
        paths.iter().flat_map(|path| capture(path)).collect()
    } else {
        read(paths)
    };
    let request = |it: &Exchange| it.request.clone().unwrap();
    exchanges
        .iter()
        .map(|it| String::from_utf8_lossy(request(it).head.target()).into_owned())
        .collect()
}

#[test]
fn files_in_turn_hold_everything_and_none_is_too_large() {
    let list = noisy(400);
    let all: Vec<String> = (0..400).map(|number| format!("/{number}")).collect();
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, rotating(20_000, None)).unwrap();
        for exchange in &list {
            writer.exchange(exchange).unwrap();
        }
        let (account, result) = writer.finish();
        result.unwrap();
        account.check().unwrap();
        assert_eq!(account.get(Counter::RecordsWritten), 400, "{name}");
        let files = files(&folder);
        assert!(files.len() > 8, "{name}: {files:?}");
        let first = name.replacen('.', ".00001.", 1);
        assert!(files[0].ends_with(&first), "{name}: {files:?}");
        for size in sizes(&folder) {
            assert!(size <= 20_000, "{name}: {size}");
        }
        let mut found = targets(name, &files);
        if name.contains("pcap") {
            // A connection goes on in the next file; each file alone has its requests all the same.
            found.sort();
            let mut all = all.clone();
            all.sort();
            assert_eq!(found, all, "{name}");
        } else {
            assert_eq!(found, all, "{name}");
        }
    }
}

#[test]
fn a_recording_never_grows_past_its_bound() {
    let list = noisy(1500);
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, rotating(20_000, Some(100_000))).unwrap();
        let mut most = 0;
        for (number, exchange) in list.iter().enumerate() {
            writer.exchange(exchange).unwrap();
            if number % 50 == 0 {
                writer.flush().unwrap();
            }
            most = most.max(sizes(&folder).iter().sum());
        }
        let (account, result) = writer.finish();
        result.unwrap();
        account.check().unwrap();
        most = most.max(sizes(&folder).iter().sum());
        assert!((70_000..=100_000).contains(&most), "{name}: {most} bytes");
        // What is left is the end, whole.
        let found = targets(name, &files(&folder));
        assert!(found.len() > 50, "{name}");
        if !name.contains("pcap") {
            let first = 1500 - found.len();
            let last: Vec<String> = (first..1500).map(|number| format!("/{number}")).collect();
            assert_eq!(found, last, "{name}");
        }
    }
}

#[test]
fn without_rotation_a_full_recording_ends() {
    let list = noisy(400);
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut options = rotating(0, Some(50_000));
        options.rotation.size = None;
        let mut writer = Writer::create(&path, options).unwrap();
        let full = list.iter().find_map(|it| writer.exchange(it).err());
        let full = full.unwrap_or_else(|| panic!("{name}: 400 requests in 50 kB"));
        assert!(matches!(full, RecordError::Full { .. }), "{name}: {full}");
        let (account, _) = writer.finish();
        account.check().unwrap();
        let size = fs::metadata(&path).unwrap().len();
        assert!((40_000..=50_000).contains(&size), "{name}: {size}");
        if name != "a.pcap" && name != "a.pcap.gz" {
            assert_eq!(account.dropped(Reason::RecordingFull), 1, "{name}");
            let found = targets(name, &[path]);
            assert_eq!(found.len() as u64, account.get(Counter::RecordsWritten));
        }
    }
}

#[test]
fn numbers_go_on_behind_earlier_files_which_count() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("a.00007.gor", 60_000),
        ("a.00123.gor", 30_000),
        ("a.12.gor", 10),
        ("b.00009.gor", 10),
        ("a.00001.jsonl", 10),
    ] {
        fs::write(folder.path().join(name), vec![b'x'; bytes]).unwrap();
    }
    let path = folder.path().join("a.gor");
    let mut writer = Writer::create(&path, rotating(20_000, Some(100_000))).unwrap();
    for exchange in noisy(5) {
        writer.exchange(&exchange).unwrap();
    }
    writer.finish().1.unwrap();
    let names: Vec<_> = files(&folder)
        .iter()
        .map(|it| it.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "a.00001.jsonl",
            "a.00123.gor",
            "a.00124.gor",
            "a.12.gor",
            "b.00009.gor"
        ]
    );
}

#[test]
fn a_record_larger_than_files_are_gets_one_alone_and_one_larger_than_all_is_named() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, rotating(8_000, Some(60_000))).unwrap();
        let mut noise = 7u32;
        let mut large = |length: usize| {
            let body: Vec<u8> = std::iter::repeat_with(|| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b'a' + (noise >> 24) as u8 % 26
            })
            .take(length)
            .collect();
            let head = format!("POST /large HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            exchange(900, &head, &body, Framing::Length(length as u64), None)
        };
        writer.exchange(&get(1, "/1")).unwrap();
        writer.exchange(&large(20_000)).unwrap();
        writer.exchange(&get(901, "/2")).unwrap();
        writer.exchange(&large(90_000)).unwrap();
        writer.exchange(&get(902, "/3")).unwrap();
        let (account, result) = writer.finish();
        result.unwrap();
        account.check().unwrap();
        assert!(sizes(&folder).iter().sum::<u64>() <= 60_000, "{name}");
        if !name.contains("pcap") {
            assert_eq!(account.dropped(Reason::RecordingFull), 1, "{name}");
            let found = targets(name, &files(&folder));
            assert_eq!(found, ["/1", "/large", "/2", "/3"], "{name}");
        }
    }
}

#[test]
fn time_ends_a_file_that_has_records() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let mut options = rotating(0, None);
    options.rotation.size = None;
    // Every file is older than that at once.
    options.rotation.every = Some(Duration::from_nanos(1));
    let mut writer = Writer::create(&path, options).unwrap();
    for number in 0..3 {
        writer.turn_if_due().unwrap();
        writer.turn_if_due().unwrap();
        writer.exchange(&get(number, "/")).unwrap();
    }
    writer.finish().1.unwrap();
    assert_eq!(files(&folder).len(), 3);
    assert_eq!(read(&files(&folder)).len(), 3);
}

#[test]
fn a_file_that_is_removed_or_renamed_is_followed_by_another() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let other = folder.path().join(format!("moved-{name}"));
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        writer.exchange(&get(1, "/1")).unwrap();
        writer.flush().unwrap();
        fs::rename(&path, &other).unwrap();
        writer.exchange(&get(2, "/2")).unwrap();
        writer.flush().unwrap();
        writer.exchange(&get(3, "/3")).unwrap();
        writer.flush().unwrap();
        fs::remove_file(&path).unwrap();
        writer.flush().unwrap();
        writer.exchange(&get(4, "/4")).unwrap();
        writer.finish().1.unwrap();
        assert_eq!(targets(name, &[other]), ["/1", "/2"], "{name}");
        assert_eq!(targets(name, &[path]), ["/4"], "{name}");
    }
}

#[test]
fn a_file_that_somebody_empties_begins_anew() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut writer = Writer::create(&path, Options::default()).unwrap();
        writer.exchange(&get(1, "/1")).unwrap();
        writer.flush().unwrap();
        fs::File::create(&path).unwrap();
        writer.flush().unwrap();
        writer.exchange(&get(2, "/2")).unwrap();
        writer.finish().1.unwrap();
        assert_eq!(targets(name, &[path]), ["/2"], "{name}");
    }
}

/// What is in the file when the program dies, at any moment, is read up to the last whole record, and what is cut is told in bytes.
#[test]
fn a_recording_that_was_killed_is_read_and_says_how_much_is_cut() {
    for name in NAMES {
        let folder = tempfile::tempdir().unwrap();
        let list = noisy(30);
        let (path, _) = write(&folder, name, &list);
        let whole = fs::read(&path).unwrap();
        let flushed = {
            // A file as it is behind a flush, with more written behind it.
            let path = folder.path().join(format!("b{name}"));
            let mut writer = Writer::create(&path, Options::default()).unwrap();
            for exchange in &list[..15] {
                writer.exchange(exchange).unwrap();
            }
            writer.flush().unwrap();
            fs::read(&path).unwrap().len()
        };
        for cut in (flushed..whole.len()).step_by(197) {
            let path = folder.path().join(format!("cut-{name}"));
            fs::write(&path, &whole[..cut]).unwrap();
            let said = Command::new(env!("CARGO_BIN_EXE_shadowtap"))
                .args(["inspect", "--json"])
                .arg(&path)
                .output()
                .unwrap();
            let lines = said.stdout.iter().filter(|&&byte| byte == b'\n').count();
            let errors = String::from_utf8_lossy(&said.stderr);
            // A flush ends what a compressor has taken; plain files need none.
            let least = if name.ends_with(".gz") { 0 } else { 14 };
            assert!(lines >= least, "{name} at {cut}: {lines} {errors}");
            let told = errors.contains(" bytes") || lines == 30;
            let between = name == "a.gor" || name == "a.jsonl" || name == "a.pcap";
            assert!(
                told || between,
                "{name} at {cut} of {}: {errors}",
                whole.len()
            );
        }
    }
}
