//! What the verdict of a running mirror says of its own completeness: clients that leave, interfaces that drop, and the latest half.

use std::fs;

use crate::support::run::in_root;
use crate::support::stage::{PLAIN, PORT, Stage, wait_for};

fn completeness(stage: &Stage, admin: u16) -> f64 {
    let verdict = stage.admin(admin, "/verdict").unwrap_or_default();
    let verdict: serde_json::Value = serde_json::from_str(&verdict).expect("JSON");
    let completeness = &verdict["data"]["completeness"];
    completeness.as_f64().expect("a number")
}

#[test]
fn who_left_is_told_from_who_may_have_waited_and_the_latest_half_counts() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    // nginx has the other port.
    let port = (PORT + 1).to_string();
    let script = in_root("tests/support/leaving_v1.py");
    let _v1 = stage.script_beside_v1(&script, &[&port]);
    let url = |path: &str| format!("http://{}:{port}{path}", stage.v1_host());
    let patient = ["--retry", "60", "--retry-delay", "1", "--retry-connrefused"];
    stage.at_client("curl", &[&["-sS", &url("/")], &patient[..]].concat());
    let to = stage.v2_url();
    let mirror = stage.sidecar("mirror", 9207, &["mirror", "--port", &port, "--to", &to]);
    let counted = |reason: &str| {
        let name = format!("shadowtap_dropped_total{{stage=\"compare\",reason=\"{reason}\"}}");
        stage.metric(9207, &name).unwrap_or_default()
    };

    // One that does not wait: its kernel resets what still comes. On a slow machine it may have left before it asked.
    let impatient = format!("curl -s --max-time 0.3 {}; test $? -eq 28", url("/left"));
    wait_for("a client to have left", || {
        stage.at_client("sh", &["-c", &impatient]);
        counted("version_1_client_left") > 0.0
    });
    assert!(completeness(&stage, 9207) >= 1.0);

    // One that has nothing more to send, and waits.
    let waiting = format!(
        "import socket\n\
         client = socket.create_connection((\"{}\", {port}))\n\
         client.sendall(b\"GET /half HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n\")\n\
         client.shutdown(socket.SHUT_WR)\n\
         assert not client.recv(1)",
        stage.v1_host()
    );
    for _ in 0..5 {
        stage.at_client("python3", &["-c", &waiting]);
    }
    wait_for("all that waited in vain", || {
        counted("version_1_half_closed") >= 5.0
    });
    wait_for("the verdict to know of them", || {
        completeness(&stage, 9207) < 1.0
    });

    // They count until as much traffic has come behind them.
    wait_for("the verdict to have them behind it", || {
        stage.at_client("curl", &["-gsS", &url("/n/[1-20]")]);
        completeness(&stage, 9207) >= 1.0
    });
    let said = mirror.stop();
    assert!(said.contains("version_1_half_closed"), "{said}");
    assert!(!said.contains("this is a bug"), "{said}");
}

/// No interface can be made to drop here (see `capture::interface`), so others' counters stand in for the system's.
#[test]
fn what_interfaces_drop_is_in_the_account_the_metrics_and_the_verdict() {
    let Some(stage) = Stage::build(PLAIN) else {
        return;
    };
    let counters = stage.folder.path().join("net/front/statistics");
    fs::create_dir_all(&counters).expect("a temporary folder");
    let missed = counters.join("rx_missed_errors");
    fs::write(&missed, "100\n").expect("a temporary file");
    let net = stage.folder.path().join("net");
    let mount = "mount --bind \"$0\" /sys/class/net && exec \"$@\"";
    let net = net.to_str().expect("a plain path");
    let starter = ["unshare", "-m", "sh", "-c", mount, net];
    let (port, to) = (PORT.to_string(), stage.v2_url());
    let mirror = ["mirror", "--port", &port, "--to", &to];
    let mirror = stage.sidecar_by(&starter, "mirror", 9208, &mirror);
    stage.curl(&["http://{}/", "-o", "/dev/null"]);
    let dropped = "shadowtap_dropped_total{stage=\"capture\",reason=\"interface_dropped\"}";
    wait_for("the request to be judged", || {
        let judged = stage.metric(9208, "shadowtap_compares_judged_total");
        judged.is_some_and(|judged| judged > 0.0)
    });
    assert_eq!(stage.metric(9208, dropped), Some(0.0));
    assert!(completeness(&stage, 9208) >= 1.0);
    fs::write(&missed, "107\n").expect("a temporary file");
    wait_for("the loss to be told", || {
        stage.metric(9208, dropped) == Some(7.0)
    });
    wait_for("the verdict to know of the loss", || {
        completeness(&stage, 9208) < 1.0
    });
    let said = mirror.stop();
    assert!(said.contains("interface_dropped"), "{said}");
    assert!(!said.contains("this is a bug"), "{said}");
}
