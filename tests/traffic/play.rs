//! Which part of a recording is played, how often and for how long.

use super::*;

/// GET /0 to GET /9, one a second from 2026-11-24T08:00:00Z on, the even ones in one file and the odd ones in another.
fn two_files(directory: &tempfile::TempDir) -> [String; 2] {
    [0, 1].map(|odd| {
        let path = directory.path().join(format!("{odd}.gor"));
        let seconds = (odd..10).step_by(2);
        fs::write(&path, seconds.map(record).collect::<String>()).expect("written");
        path.to_str().expect("text").to_owned()
    })
}

/// GET /N, so many seconds after eight.
fn record(second: u64) -> String {
    let nanos = (1_795_507_200 + second) * 1_000_000_000;
    format!("1 {second:024} {nanos} 0\nGET /{second} HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n")
}

/// Replays the two files over one connection; what arrived, in order, and the account.
fn play(more: &[&str]) -> (Vec<usize>, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let files = two_files(&directory);
    let (address, seen) = server();
    let target = format!("http://{address}");
    let plain = [
        "replay",
        &files[0],
        &files[1],
        "--to",
        &target,
        "--max-connections",
        "1",
    ];
    let output = run(&[&plain[..], more].concat());
    let account = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{account}");
    assert!(!account.contains("bug in shadowtap"), "{account}");
    let heads = seen.lock().expect("no panic");
    let number = |head: &String| numbers(std::slice::from_ref(head))[0];
    (heads.iter().map(number).collect(), account)
}

#[test]
fn a_part_of_several_files_is_played_in_the_order_of_time() {
    let all: Vec<usize> = (0..10).collect();
    assert_eq!(play(&["--speed", "max"]).0, all);
    for slice in [
        ["--from", "2s", "--until", "5s"],
        [
            "--from",
            "2026-11-24T08:00:02Z",
            "--until",
            "2026-11-24T09:00:05+01:00",
        ],
        ["--until", "5", "--from", "1.5s"],
    ] {
        let (played, account) = play(&[&["--speed", "max"][..], &slice].concat());
        assert_eq!(played, [2, 3, 4], "{slice:?}");
        assert!(account.contains(" 7   outside_slice: "), "{account}");
    }
    let (played, account) = play(&["--from", "1h"]);
    assert_eq!(played, [] as [usize; 0]);
    assert!(
        account.contains("before --from or behind --until"),
        "{account}"
    );
}

#[test]
fn rounds_follow_each_other() {
    for pace in [
        &["--speed", "max"][..],
        &["--speed", "100"],
        &["--skip-idle", "1ms"],
        &["--rate", "1000/s"],
    ] {
        let slice = ["--from", "7s", "--until", "9s", "--loop", "3"];
        let (played, account) = play(&[pace, &slice].concat());
        assert_eq!(played, [7, 8, 7, 8, 7, 8], "{pace:?}");
        assert!(account.contains(" 24   outside_slice: "), "{account}");
    }
}

#[test]
fn for_ever_lasts_as_long_as_asked() {
    let (played, _) = play(&["--speed", "max", "--loop", "forever", "--duration", "300ms"]);
    assert_eq!(played[..2], [0, 1]);
    assert!(
        played
            .iter()
            .zip((0..10).cycle())
            .all(|(&played, number)| played == number)
    );
    // The second is due when it is over.
    assert_eq!(play(&["--duration", "300ms"]).0, [0]);
}

#[test]
fn a_long_pause_is_kept_and_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("days.gor");
    fs::write(&file, record(0) + &record(86_400)).expect("written");
    let (address, _) = server();
    let mut child = Command::new(PROGRAM)
        .args([
            "replay",
            file.to_str().expect("text"),
            "--log-level",
            "info",
        ])
        .args(["--to", &format!("http://{address}")])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let said = lines
        .map_while(Result::ok)
        .find(|line| line.contains("--skip-idle"));
    child.kill().expect("it waits");
    child.wait().expect("it was started");
    assert!(said.is_some_and(|line| line.contains("86399s") || line.contains("86400s")));
}

#[test]
fn standard_input_is_played_once() {
    let output = run(&["replay", "-", "--to", "http://v2", "--loop", "2"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--loop: standard input"), "{said}");
}
