//! The same filters where nothing is sent.

use super::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn convert_writes_what_is_chosen_and_counts_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = recording(&directory);
    let out = directory.path().join("chosen.jsonl");
    let out = out.to_str().expect("text");
    let flags = ["--only", "status:5xx", "--except", "path:/0,/1??"];
    let output = run(&[
        &["convert", file.to_str().expect("text"), "--out", out][..],
        &flags,
    ]
    .concat());
    let account = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert!(account.contains(" 191   record_filtered: "), "{account}");
    assert!(!account.contains("bug in shadowtap"), "{account}");
    let lines = fs::read_to_string(out).expect("written");
    let targets: Vec<_> = lines
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).expect("JSON")["target"].clone()
        })
        .collect();
    let expected: Vec<_> = (1..10).map(|n| format!("/{n}0")).collect();
    assert_eq!(targets, expected);

    // A capture file is not copied packet by packet then.
    let packets = directory.path().join("chosen.pcap");
    let packets = packets.to_str().expect("text");
    let output = run(&[
        &["convert", file.to_str().expect("text"), "--out", packets][..],
        &flags,
    ]
    .concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let again = directory.path().join("again.pcap");
    let again = again.to_str().expect("text");
    let output = run(&["convert", packets, "--out", again, "--only", "path:/20"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&run(&["inspect", "--json", again]).stdout);
    assert_eq!(shown.lines().count(), 1, "{shown}");
    assert!(shown.contains("\"/20\""), "{shown}");
}

#[test]
fn inspect_shows_what_is_chosen() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = recording(&directory);
    let file = file.to_str().expect("text");
    let output = run(&[
        "inspect",
        file,
        "--only",
        "path:/1?",
        "--except",
        "status:5xx",
    ]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    assert!(
        shown.contains(" /11\n") && !shown.contains(" /10\n") && !shown.contains(" /2\n"),
        "{shown}"
    );
    assert!(
        text(&output.stderr).contains("191 exchanges"),
        "{}",
        text(&output.stderr)
    );

    let sample = |percent: &str| {
        let output = run(&[
            "inspect",
            "--json",
            file,
            "--percent",
            percent,
            "--sample-by",
            "client",
        ]);
        text(&output.stdout).lines().count()
    };
    assert_eq!((sample("100"), sample("0")), (200, 0));
    assert_eq!(sample("50") % 50, 0);
}
