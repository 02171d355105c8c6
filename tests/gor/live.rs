//! Cases 5 and 6, and the classic sidecar: live, in network namespaces.

use super::*;
use crate::support::stage::{PLAIN, Scenery, Stage};

fn plays(scenery: Scenery) {
    let Some(stage) = Stage::build(scenery) else {
        return;
    };
    let out = path(&stage.folder, "out.gor");
    let to = stage.v2_url();
    // The arguments of a sidecar container, and nothing else.
    let sidecar = stage.beside_v1(
        "gor",
        "capturing",
        &[
            "gor",
            "--input-raw",
            ":8080",
            "--output-http",
            &to,
            "--http-original-host",
        ],
    );
    let recorder = stage.beside_v1(
        "recorder",
        "capturing",
        &[
            "gor",
            "--input-raw",
            ":8080",
            "--input-raw-track-response",
            "--input-raw-realip-header",
            "X-Real-IP",
            "--input-raw-ignore-interface",
            "back",
            "--output-file",
            &out,
            "--output-file-append",
        ],
    );
    let readme = stage.file("body", &vec![b'r'; 70_000]);
    let body = format!("@{readme}");
    for number in 0..5 {
        stage.curl(&["-o", "/dev/null", &format!("http://{{}}/{number}")]);
    }
    stage.curl(&[
        "-o",
        "/dev/null",
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Expect:",
        "--data-binary",
        &body,
        "http://{}/up",
    ]);
    stage.wait_for_v2(1);
    let said = sidecar.stop();
    assert!(!said.contains("bug in shadowtap"), "{said}");
    recorder.stop();
    stage.v2_got_what_v1_got(1);
    let found = records_of(&out);
    let of = |kind| {
        found
            .iter()
            .filter(|it| it.kind == kind)
            .collect::<Vec<_>>()
    };
    assert_eq!((of(Kind::Request).len(), of(Kind::Response).len()), (6, 6));
    for request in of(Kind::Request) {
        let text = String::from_utf8_lossy(&request.payload).to_lowercase();
        let value = text
            .split("x-real-ip: ")
            .nth(1)
            .and_then(|it| it.lines().next());
        assert!(
            value.is_some_and(|it| it.parse::<std::net::IpAddr>().is_ok()),
            "{text}"
        );
    }
}

#[test]
fn the_classic_sidecar_works() {
    plays(PLAIN);
}

#[test]
fn the_classic_sidecar_works_over_ipv6() {
    plays(Scenery { v6: true, ..PLAIN });
}
