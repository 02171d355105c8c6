//! The whole play on a stage of network namespaces: a real nginx as version 1 and as version 2, real clients, `shadowtap` live.
//!
//! The law of every test here: version 2's access log holds exactly the requests of version 1's.

use std::fmt::Write as _;

use crate::support::rng::Rng;
use crate::support::run::{in_root, inspect};
use crate::support::stage::{PLAIN, PORT, Scenery, Stage, comes_true, wait_for};

#[test]
fn the_stage_itself_stands() {
    for scenery in [
        PLAIN,
        Scenery {
            v6: true,
            mtu: 9000,
            ..PLAIN
        },
        Scenery {
            loss: 4,
            offload: false,
            mtu: 600,
            ..PLAIN
        },
    ] {
        let Some(stage) = Stage::build(scenery) else {
            return;
        };
        all_kinds_of_curl(&stage);
        shapes_of_no_library(&stage);
        assert_eq!(stage.served("v1").total(), 67);
        assert_eq!(stage.served("v2").total(), 0);
    }
}

#[test]
fn every_request_of_curl_is_mirrored() {
    mirrored(PLAIN, "any", all_kinds_of_curl);
}

#[test]
fn a_named_interface_gives_the_same_as_any() {
    mirrored(PLAIN, "front", all_kinds_of_curl);
}

#[test]
fn requests_over_ipv6_are_mirrored() {
    mirrored(Scenery { v6: true, ..PLAIN }, "any", all_kinds_of_curl);
}

#[test]
fn several_workers_mirror_what_one_does() {
    for (v6, interface) in [(false, "any"), (true, "front")] {
        let how = ["--interface", interface, "--workers", "3"];
        mirrored_by(&how, Scenery { v6, ..PLAIN }, |stage| {
            all_kinds_of_curl(stage);
            shapes_of_no_library(stage);
        });
    }
}

#[test]
fn several_interfaces_are_captured_side_by_side() {
    let how = ["--interface", "front,lo", "--workers", "2"];
    mirrored_by(&how, PLAIN, |stage| {
        all_kinds_of_curl(stage);
        stage.curl_at_v1(&["http://{}/from/inside"]);
    });
}

#[test]
fn both_directions_of_every_connection_meet_in_one_worker() {
    const CONNECTIONS: u64 = 200;
    for v6 in [false, true] {
        let Some(stage) = Stage::build(Scenery { v6, ..PLAIN }) else {
            return;
        };
        let out = stage.folder.path().join("recorded.jsonl");
        let port = PORT.to_string();
        let record = stage.sidecar(
            "record",
            9203,
            &[
                "record",
                "--interface",
                "front",
                "--workers",
                "4",
                "--port",
                &port,
                "--out",
                out.to_str().expect("a plain path"),
            ],
        );
        let urls = format!("http://{{}}/n/[1-{CONNECTIONS}]");
        stage.at_client(
            "curl",
            &[
                "-sS",
                "-Z",
                "--parallel-max",
                "20",
                "-H",
                "Connection: close",
                "-o",
                "/dev/null",
                &urls,
            ],
        );
        #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
        let wanted = Some(CONNECTIONS as f64);
        wait_for("every exchange", || {
            stage.metric(9203, "shadowtap_responses_whole_total") == wanted
        });
        assert_eq!(stage.metric(9203, "shadowtap_connections_total"), wanted);
        let said = record.stop();
        balanced(&said);
        let recorded = std::fs::read_to_string(&out).expect("a recording");
        let exchanges: Vec<serde_json::Value> = recorded
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(exchanges.len() as u64, CONNECTIONS);
        assert!(exchanges.iter().all(|exchange| exchange["status"] == 200));
        // Each worker has numbers of its own.
        let workers: std::collections::HashSet<u64> = exchanges
            .iter()
            .map(|exchange| {
                let id = exchange["id"].as_str().expect("an id");
                u64::from_str_radix(id, 16).expect("a number") >> 48
            })
            .collect();
        assert!(workers.len() > 1, "{workers:?}");
    }
}

#[test]
fn requests_in_jumbo_frames_are_mirrored() {
    mirrored(Scenery { mtu: 9000, ..PLAIN }, "any", all_kinds_of_curl);
}

#[test]
fn requests_without_offload_are_mirrored() {
    mirrored(
        Scenery {
            offload: false,
            ..PLAIN
        },
        "any",
        all_kinds_of_curl,
    );
}

#[test]
fn what_tcp_repairs_is_mirrored() {
    mirrored(Scenery { loss: 4, ..PLAIN }, "any", |stage| {
        all_kinds_of_curl(stage);
        shapes_of_no_library(stage);
    });
}

#[test]
fn what_tcp_repairs_in_small_segments_is_mirrored() {
    mirrored(
        Scenery {
            loss: 4,
            offload: false,
            mtu: 600,
            ..PLAIN
        },
        "front",
        |stage| {
            all_kinds_of_curl(stage);
            shapes_of_no_library(stage);
        },
    );
}

#[test]
fn pipelined_split_and_slow_requests_are_mirrored() {
    mirrored(PLAIN, "any", shapes_of_no_library);
}

#[test]
fn thousands_of_short_connections_are_mirrored() {
    mirrored(PLAIN, "any", |stage| {
        load(stage, 3000, 1, &["-H", "Connection: close"])
    });
}

#[test]
fn kept_alive_connections_under_load_are_mirrored() {
    mirrored(PLAIN, "any", |stage| load(stage, 6000, 1, &[]));
}

#[test]
fn pipelined_connections_under_load_are_mirrored() {
    mirrored(PLAIN, "any", |stage| load(stage, 6000, 8, &[]));
}

#[test]
fn a_recording_of_the_same_run_replays_the_same_requests() {
    for file in [
        "traffic.pcap",
        "traffic.gor",
        "traffic.jsonl.gz",
        "traffic.har",
    ] {
        let Some(stage) = Stage::build(PLAIN) else {
            return;
        };
        let port = PORT.to_string();
        let path = stage.folder.path().join(file);
        let path = path.to_str().expect("a plain path");
        let recorder = stage.sidecar("record", 9201, &["record", "--port", &port, "--out", path]);
        let mirror = stage.sidecar(
            "mirror",
            9202,
            &["mirror", "--port", &port, "--to", &stage.v2_url()],
        );
        all_kinds_of_curl(&stage);
        shapes_of_no_library(&stage);
        stage.wait_for_v2(1);
        balanced(&mirror.stop());
        balanced(&recorder.stop());
        stage.v2_got_what_v1_got(1);

        let replay = [
            "replay",
            path,
            "--port",
            &port,
            "--to",
            &stage.v2_url(),
            "--speed",
            "max",
        ];
        let without_port = ["replay", path, "--to", &stage.v2_url(), "--speed", "max"];
        let said = stage.shadowtap(if file.ends_with("pcap") {
            &replay
        } else {
            &without_port
        });
        balanced(&said);
        stage.v2_got_what_v1_got(2);
    }
}

/// SIGKILL while requests come: what was said to be written is read, and the end of the file does no harm.
#[test]
fn a_recording_that_is_killed_keeps_what_was_written() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    for file in [
        "killed.gor",
        "killed.jsonl",
        "killed.har",
        "killed.pcap",
        "killed.gor.gz",
    ] {
        let path = stage.folder.path().join(file);
        let name = path.to_str().expect("a plain path");
        let port = PORT.to_string();
        let recorder = stage.sidecar("killed", 9207, &["record", "--port", &port, "--out", name]);
        let written = || {
            let name = "shadowtap_records_written_total";
            stage.metric(9207, name).unwrap_or(0.0)
        };
        load(&stage, 1000, 1, &[]);
        wait_for("something to be written", || written() > 0.0);
        load(&stage, 1000, 1, &[]);
        let told = written();
        drop(recorder); // SIGKILL
        let found = inspect(&path).exchanges().len();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
        let least = match file {
            // Packets, of which an exchange has at least two.
            "killed.pcap" => found as f64 > 0.0,
            // A request and an answer.
            "killed.gor" | "killed.gor.gz" => found as f64 * 2.0 >= told,
            _ => found as f64 >= told,
        };
        assert!(least, "{file}: {found} found, {told} told");
    }
}

/// Files are made and deleted from within the sandbox, and all that is left can be read.
#[test]
fn a_live_recording_stays_within_its_bound() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let folder = stage.folder.path().join("rotating");
    std::fs::create_dir(&folder).expect("a temporary folder");
    let out = folder.join("traffic.gor");
    let port = PORT.to_string();
    let recorder = stage.sidecar(
        "rotating",
        9208,
        &[
            "record",
            "--port",
            &port,
            "--out",
            out.to_str().expect("a plain path"),
            "--rotate-size",
            "32KiB",
            "--max-size",
            "128KiB",
        ],
    );
    load(&stage, 2000, 1, &[]);
    balanced(&recorder.stop());
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|it| it.expect("readable").path())
        .collect();
    files.sort();
    assert!((3..=5).contains(&files.len()), "{files:?}");
    assert!(!files[0].ends_with("traffic.00001.gor"), "{files:?}");
    let size = |path: &std::path::PathBuf| path.metadata().expect("a file").len();
    assert!(files.iter().map(size).sum::<u64>() <= 128 << 10);
    for file in &files {
        let found = inspect(file);
        assert_eq!(found.code, Some(0), "{}", found.stderr);
        assert!(!found.exchanges().is_empty(), "{file:?}");
    }
}

#[test]
fn stopping_in_the_middle_of_traffic_drains_what_was_seen() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let mirror = stage.sidecar(
        "mirror",
        9202,
        &[
            "mirror",
            "--port",
            &PORT.to_string(),
            "--to",
            &stage.v2_url(),
        ],
    );
    load(&stage, 2000, 1, &[]);
    // Nothing waits for version 2 here: stopping has to.
    balanced(&mirror.stop());
    stage.v2_got_what_v1_got(1);
}

#[test]
fn a_dead_version_2_costs_nothing_but_its_replays() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    // A port that nobody listens on, and an address that nobody has.
    for (admin, target) in [
        (9203, "http://10.78.0.2:9"),
        (9204, "http://10.78.0.9:8080"),
    ] {
        let before = stage.served("v1").total();
        let mirror = stage.sidecar(
            "mirror",
            admin,
            &["mirror", "--port", &PORT.to_string(), "--to", target],
        );
        shapes_of_no_library(&stage);
        let sent = stage.served("v1").total() - before;
        assert_eq!(sent, 49, "version 1 serves as ever");
        #[expect(clippy::cast_precision_loss, reason = "a few requests")]
        let sent = sent as f64;
        wait_for("every request to be seen", || {
            stage.metric(admin, "shadowtap_requests_total") == Some(sent)
        });
        let said = mirror.stop();
        balanced(&said);
        assert!(
            said.contains("0 of 49") || said.contains("of 49 to"),
            "{said}"
        );
        // Not only that nothing was judged.
        assert!(
            said.contains("  version 2 has not answered yet: "),
            "{said}"
        );
        assert_eq!(stage.served("v2").total(), 0);
    }
}

#[test]
fn what_the_kernel_drops_is_in_the_account() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let mirror = stage.sidecar(
        "mirror",
        9205,
        &[
            "mirror",
            "--buffer",
            "1MiB",
            "--port",
            &PORT.to_string(),
            "--to",
            &stage.v2_url(),
        ],
    );
    // Far more than the buffer holds, while nobody empties it.
    mirror.asleep(|| load(&stage, 5000, 1, &[]));
    let dropped = "shadowtap_dropped_total{stage=\"capture\",reason=\"kernel_buffer_full\"}";
    wait_for("the loss to be told", || {
        stage.metric(9205, dropped).is_some_and(|lost| lost > 0.0)
    });
    let said = mirror.stop();
    assert!(said.contains("kernel_buffer_full"), "{said}");
    assert!(!said.contains("this is a bug"), "{said}");
    let served = stage.served("v1").total();
    assert!(stage.served("v2").total() < served, "{said}");
}

#[test]
fn above_the_limit_whole_connections_are_left_out() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let mirror = stage.sidecar(
        "mirror",
        9207,
        &[
            "mirror",
            "--cpu-limit",
            "1m",
            "--port",
            &PORT.to_string(),
            "--to",
            &stage.v2_url(),
        ],
    );
    let shed = "shadowtap_dropped_total{stage=\"connection\",reason=\"connection_over_limit\"}";
    wait_for("connections to be left out", || {
        load(&stage, 500, 1, &[]);
        stage.metric(9207, shed).is_some_and(|shed| shed > 0.0)
    });
    wait_for("the verdict to know of it", || {
        let verdict = stage.admin(9207, "/verdict").unwrap_or_default();
        let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("JSON");
        let completeness = &verdict["data"]["completeness"];
        completeness.as_f64().expect("a number") < 1.0
    });
    let said = mirror.stop();
    balanced(&said);
    assert!(said.contains("a limit is reached"), "{said}");
    assert!(said.contains("connection_over_limit"), "{said}");
}

#[test]
fn what_the_middleware_loses_is_in_the_verdict_while_the_mirror_runs() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let script = stage.folder.path().join("dies.sh");
    std::fs::write(&script, "head -n 5; read line; exit 3\n").expect("a temporary file");
    let mirror = stage.sidecar(
        "mirror",
        9206,
        &[
            "mirror",
            "--port",
            &PORT.to_string(),
            "--to",
            &stage.v2_url(),
            "--middleware",
            &format!("sh {}", script.display()),
        ],
    );
    shapes_of_no_library(&stage);
    let died = "shadowtap_dropped_total{stage=\"middleware\",reason=\"middleware_died\"}";
    wait_for("the loss to be told", || {
        stage.metric(9206, died).is_some_and(|lost| lost > 0.0)
    });
    wait_for("the verdict to know of the loss", || {
        let verdict = stage.admin(9206, "/verdict").unwrap_or_default();
        let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("JSON");
        let completeness = &verdict["data"]["completeness"];
        completeness.as_f64().expect("a number") < 1.0
    });
    let said = mirror.stop();
    assert!(!said.contains("this is a bug"), "{said}");
}

/// Plays `traffic` on a stage with a mirror, and holds version 2 to have got what version 1 got.
fn mirrored(scenery: Scenery, interface: &str, traffic: impl FnOnce(&Stage)) {
    mirrored_by(&["--interface", interface], scenery, traffic);
}

/// The same with a mirror that is told `how` to capture.
fn mirrored_by(how: &[&str], scenery: Scenery, traffic: impl FnOnce(&Stage)) {
    let Some(stage) = Stage::build(scenery) else {
        return;
    };
    let (port, v2) = (PORT.to_string(), stage.v2_url());
    let arguments = [&["mirror", "--port", &port, "--to", &v2], how].concat();
    let mirror = stage.sidecar("mirror", 9202, &arguments);
    traffic(&stage);
    stage.wait_for_v2(1);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand requests")]
    let sent = stage.served("v1").total() as f64;
    let is_told = comes_true(|| {
        let answered = format!(
            "shadowtap_replays_total{{target=\"{}\",outcome=\"answered\"}}",
            stage.v2_url()
        );
        stage.metric(9202, "shadowtap_requests_total") == Some(sent)
            && stage.metric(9202, &answered) == Some(sent)
    });
    let said = mirror.stop();
    println!("{said}");
    assert!(is_told, "the metrics do not tell every replay");
    balanced(&said);
    stage.v2_got_what_v1_got(1);
}

/// Holds that the program printed an account that adds up (it says so when it does not), with no request lost on the way.
fn balanced(said: &str) {
    assert!(said.contains("The account"), "no account: {said}");
    assert!(!said.contains("this is a bug"), "{said}");
    assert!(
        !said.contains("kernel_buffer_full"),
        "the capture lost packets: {said}"
    );
}

fn all_kinds_of_curl(stage: &Stage) {
    let mut rng = Rng::new(5);
    stage.curl(&[
        "http://{}/get?a=1&b=%20c",
        "http://{}/get/again",
        "http://{}//double//slash/../up",
    ]);
    stage.curl(&["--path-as-is", "http://{}/a/../b/./c"]);
    stage.curl(&["-I", "http://{}/head"]);
    stage.curl(&["-X", "DELETE", "-H", "X-Id: 7", "http://{}/delete"]);
    stage.curl(&["-X", "PURGE", "http://{}/purge"]);
    stage.curl(&[
        "-X",
        "OPTIONS",
        "-H",
        "Cookie: a=b; c=d",
        "http://{}/options",
    ]);
    stage.curl(&["-d", "name=value&other=%26", "http://{}/form"]);
    stage.curl(&["--http1.0", "http://{}/http10"]);
    // Offers `Upgrade: h2c`, which nginx declines.
    stage.curl(&["--http2", "http://{}/offer", "http://{}/offer/again"]);
    let small = stage.file("small", &rng.bytes(3000));
    stage.curl(&["--data-binary", &format!("@{small}"), "http://{}/binary"]);
    stage.curl(&[
        "-H",
        "Transfer-Encoding: chunked",
        "--data-binary",
        &format!("@{small}"),
        "http://{}/chunked",
    ]);
    stage.curl(&["-F", &format!("file=@{small}"), "http://{}/multipart"]);
    let large = stage.file("large", &rng.bytes(5_000_000));
    stage.curl(&[
        "-H",
        "Expect: 100-continue",
        "--data-binary",
        &format!("@{large}"),
        "http://{}/large",
    ]);
    stage.curl(&["-H", "Expect:", "-T", &large, "http://{}/large/put"]);
    let slow = stage.file("slow", &rng.text(60_000));
    stage.curl(&["--limit-rate", "60k", "-T", &slow, "http://{}/slow"]);
}

fn shapes_of_no_library(stage: &Stage) {
    let mut pipelined = String::new();
    for n in 0..20 {
        let _ = write!(
            pipelined,
            "GET /pipe/{n} HTTP/1.1\r\nHost: x\r\nX-Id: {n}\r\n\r\n"
        );
        let _ = write!(
            pipelined,
            "POST /pipe/{n}/post HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nGET / HTT"
        );
    }
    let chunked = "PUT /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;name=\"va;lue\"\r\nfirst\r\n0006\r\nsecond\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let letters = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
    let steps = serde_json::json!([
        {"pieces": [pipelined.clone()], "answers": 40},
        {"pieces": letters("POST /letters HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"), "answers": 1},
        {"pieces": letters(chunked), "answers": 1},
        {"pieces": ["\r\n\r\nGET /blank-lines HTTP/1.1\r\nHost: x\r\n\r\n"], "answers": 1},
        {"pieces": ["GET http://example.test/absolute?q HTTP/1.1\r\nHost: example.test\r\n\r\n"], "answers": 1},
        {"pieces": ["GET /bare-lf HTTP/1.1\nHost: x\n\n"], "answers": 1},
        {"pieces": ["GET /half-closed HTTP/1.1\r\nHost: x\r\n\r\n"], "answers": 1, "half_close": true},
        {"pieces": ["POST /sl", "ow HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 6\r\n\r\na", "b", "c", "def"], "pause": 0.3, "answers": 1},
        {"pieces": ["GET /two/1 HTTP/1.1\r\nHost: x\r\n\r\nGET /two/2 HT", "TP/1.1\r\nHost: x\r\n\r\n"], "pause": 0.2, "answers": 2},
    ]);
    let steps = stage.file("steps.json", steps.to_string().as_bytes());
    let script = in_root("tests/support/raw_client.py");
    stage.at_client(
        "python3",
        &[script.to_str().expect("a plain path"), "{}", &steps],
    );
}

fn load(stage: &Stage, requests: usize, pipeline: usize, arguments: &[&str]) {
    let script = in_root("tests/support/load.lua");
    let script = script.to_str().expect("a plain path");
    let (per_thread, pipeline) = ((requests / 2).to_string(), pipeline.to_string());
    let fixed = ["-t2", "-c16", "-d5s", "-s", script, "http://{}/"];
    let last = ["--", &per_thread, &pipeline];
    stage.at_client("wrk", &[arguments, &fixed, &last].concat());
}
