//! Cases 25 to 31: files in GoReplay's format.

use super::*;
use std::io::{Read as _, Write as _};

/// Cases 24 and 25.
#[test]
fn what_is_written_reads_back_to_the_byte() {
    let big = format!(
        "POST /big HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{}",
        "x".repeat(100_000)
    );
    let text = [
        record(1, "a", 0, &get("/")),
        record(1, "b", 1, POST),
        record(1, "c", 2, &big),
        record(2, "c", 3, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        record(3, "c", 4, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ]
    .concat();
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &text);
    for name in ["out.gor", "out.gor.gz"] {
        let output = path(&folder, name);
        run_well(&[
            "--input-file",
            &input,
            "--output-file",
            &output,
            "--output-file-append",
        ]);
        let mut bytes = fs::read(&output).expect("written");
        if name.ends_with(".gz") {
            let mut plain = Vec::new();
            flate2::read::MultiGzDecoder::new(&bytes[..])
                .read_to_end(&mut plain)
                .expect("gzip");
            bytes = plain;
        }
        assert!(bytes == text.as_bytes(), "{name}");
        // And read once more, packed or not.
        let again = run(&["--input-file", &output, "--output-stdout"]);
        assert!(again.stdout == text.as_bytes(), "{name}");
    }
}

/// Case 26.
#[test]
fn files_of_a_pattern_are_merged_by_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let one = [
        record(1, "a", 1, &get("/1")),
        record(2, "b", 2, answer),
        record(1, "c", 3, &get("/3")),
    ];
    let two = [record(1, "b", 2, &get("/2")), record(1, "d", 4, &get("/4"))];
    file(&folder, "x_0.gor", &one.concat());
    file(&folder, "x_1.gor", &two.concat());
    let pattern = path(&folder, "x_*.gor");
    let output = run(&["--input-file", &pattern, "--output-stdout"]);
    assert_eq!(
        shown(&records(&output.stdout)),
        [
            "1 GET /1 HTTP/1.1",
            "1 GET /2 HTTP/1.1",
            "2 HTTP/1.1 200 OK",
            "1 GET /3 HTTP/1.1",
            "1 GET /4 HTTP/1.1"
        ]
    );
}

/// Case 27: how long it takes is for a person to measure; that long pauses can be cut and speeds be given is not.
#[test]
fn pauses_are_divided_and_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    // An hour at the original's pace.
    let input = file(&folder, "in.gor", &requests(3, 1_800_000));
    let fast = format!("{input}|10000000%");
    for flags in [
        &["--input-file", &fast[..]][..],
        &["--input-file", &input, "--input-file-max-wait", "5ms"],
    ] {
        let output = run(&[flags, &["--output-stdout"]].concat());
        assert_eq!(records(&output.stdout).len(), 3);
    }
    for (speed, expected) in [("", "3600s"), ("|200%", "1800s"), ("|50%", "7200s")] {
        let input = format!("{input}{speed}");
        let dry = run(&["--input-file", &input, "--input-file-dry-run"]);
        let said = String::from_utf8_lossy(&dry.stdout).into_owned();
        let expected = format!("Expected duration: {expected}\n");
        assert!(
            said.contains("Records: 3") && said.contains(&expected),
            "{said}"
        );
    }
}

/// Case 28.
#[test]
fn a_loop_begins_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(2, 0));
    let output = run(&[
        "--input-file",
        &input,
        "--input-file-loop",
        "--output-stdout",
        "--exit-after",
        "1s",
    ]);
    assert_eq!(output.status.code(), Some(0));
    assert!(records(&output.stdout).len() >= 1000);
    let mut pattern = String::new();
    for name in ["a.gor.gz", "b.gor.gz"] {
        let text = requests(1000, 0);
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("memory");
        fs::write(folder.path().join(name), encoder.finish().expect("memory")).expect("written");
        pattern = path(&folder, "?.gor.gz");
    }
    let packed = path(&folder, "packed.gor.gz");
    run_well(&[
        "--input-file",
        &pattern,
        "--output-file",
        &packed,
        "--output-file-append",
    ]);
    assert!(fs::metadata(&packed).expect("written").len() < requests(2000, 0).len() as u64);
    let output = run(&["--input-file", &packed, "--output-stdout"]);
    assert_eq!(records(&output.stdout).len(), 2000);
}

/// Cases 29 and 30.
#[test]
fn chunks_are_numbered_and_bounded() {
    for (name, chunk) in [("out.gor", "out_"), ("out.gor.gz", "out.gor_")] {
        let folder = tempfile::tempdir().expect("a folder");
        let input = file(&folder, "in.gor", &requests(3, 0));
        let (template, end) = (path(&folder, name), &name[chunk.len() - 1..]);
        let count = |number: usize| {
            let file = path(&folder, &format!("{chunk}{number}{end}"));
            if !Path::new(&file).exists() {
                return 0;
            }
            records(&run(&["--input-file", &file, "--output-stdout"]).stdout).len()
        };
        run_well(&[
            "--input-file",
            &input,
            "--output-file",
            &template,
            "--output-file-queue-limit",
            "2",
        ]);
        assert_eq!([0, 1, 2].map(count), [2, 1, 0], "{name}");
        // A second run goes on behind the chunks that are there.
        run_well(&[
            "--input-file",
            &input,
            "--output-file",
            &template,
            "--output-file-queue-limit",
            "3",
        ]);
        assert_eq!([0, 1, 2, 3].map(count), [2, 1, 3, 0], "{name}");
        let size = (requests(2, 0).len() - 10).to_string();
        run_well(&[
            "--input-file",
            &input,
            "--output-file",
            &template,
            "--output-file-size-limit",
            &size,
        ]);
        assert_eq!([3, 4, 5].map(count), [2, 1, 0], "{name}");
    }
}

/// Case 29: a file for each request, its answer in it.
#[test]
fn a_name_may_be_the_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let text = [
        record(1, "aa", 0, &get("/a")),
        record(1, "bb", 1, &get("/b")),
        record(2, "aa", 2, answer),
        record(2, "bb", 3, answer),
    ]
    .concat();
    let input = file(&folder, "in.gor", &text);
    run_well(&[
        "--input-file",
        &input,
        "--output-file",
        &path(&folder, "%r.gor"),
    ]);
    for (name, line) in [("aa_0.gor", "/a"), ("bb_0.gor", "/b")] {
        let found = records_of(path(&folder, name));
        assert_eq!(
            shown(&found),
            [
                format!("1 GET {line} HTTP/1.1"),
                "2 HTTP/1.1 200 OK".to_owned()
            ]
        );
    }
    run_well(&[
        "--input-file",
        &input,
        "--output-file",
        &path(&folder, "%r-%t.gor"),
        "--output-file-append",
    ]);
    assert_eq!(records_of(path(&folder, "aa-2.gor")).len(), 1);
    run_well(&[
        "--input-file",
        &input,
        "--output-file",
        &path(&folder, "by-%Y%m%d.gor"),
    ]);
    let names: Vec<String> = fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with("by-20"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

/// Case 31.
#[test]
fn appending_appends_and_a_torn_record_costs_itself_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(3, 0));
    let output = file(&folder, "out.gor", &requests(2, 0));
    run_well(&[
        "--input-file",
        &input,
        "--output-file",
        &output,
        "--output-file-append",
    ]);
    assert_eq!(records_of(&output).len(), 5);
    let whole = requests(3, 0);
    let torn = file(&folder, "torn.gor", &whole[..whole.len() - 30]);
    let read = run(&["--input-file", &torn, "--output-stdout"]);
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    assert_eq!(read.status.code(), Some(0), "{said}");
    assert_eq!(records(&read.stdout).len(), 2);
    assert!(said.contains("the last record is cut"), "{said}");
    let full = run(&[
        "--input-file",
        &input,
        "--output-file",
        &path(&folder, "most.gor"),
        "--output-file-max-size-limit",
        "100",
    ]);
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("--output-file-max-size-limit"));
}

/// Case 32: sizes as Go writes them.
#[test]
fn sizes_are_gos() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(1, 0));
    let taken = |size: &str| {
        let flags = [
            "--input-file",
            &input,
            "--output-null",
            "--copy-buffer-size",
            size,
        ];
        run(&flags).status.code() == Some(0)
    };
    for size in [
        "42mb",
        "4_2",
        "00",
        "0",
        "0_600tb",
        "0600Tb",
        "0o12Mb",
        "0b_10010001111_1kb",
        "1024",
        "0b111",
        "0x12gB",
    ] {
        assert!(taken(size), "{size}");
    }
    for size in ["", "kb", "1k", "1.5mb", "-1", "1 mb", "08"] {
        assert!(!taken(size), "{size}");
    }
}

/// The bound of a chunk is one on what lies on the disk, once that was written.
#[test]
fn a_packed_chunk_is_measured_packed() {
    let folder = tempfile::tempdir().expect("a folder");
    // 20 records of 50 kB that pack to next to nothing, with time to be written out in between.
    let request = format!(
        "POST / HTTP/1.1\r\nContent-Length: 50000\r\n\r\n{}",
        "x".repeat(50_000)
    );
    let text: String = (0..20)
        .map(|it| record(1, &format!("a{it}"), it * 150, &request))
        .collect();
    let input = file(&folder, "in.gor", &text);
    run_well(&[
        "--input-file",
        &input,
        "--output-file",
        &path(&folder, "out.gor.gz"),
        "--output-file-size-limit",
        "100kb",
        "--output-file-flush-interval",
        "1ms",
    ]);
    let chunks = fs::read_dir(folder.path()).expect("a folder").count() - 1;
    assert!(
        chunks < 5,
        "{chunks} chunks of a megabyte that packs to 2 kB"
    );
}
