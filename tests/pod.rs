//! A pod in miniature: version 1 and the sidecar in one network namespace, version 2 and the client in others, on a bridge,
//! with Services and names. The walk-through of `k8s/README.md`, counted request by request.

use std::fs;

use crate::support::cluster::{Cluster, PORT, Pod, Running};
use crate::support::stage::wait_for;

/// Virtual addresses of Services.
const MY_APP: &str = "10.96.0.1";
const PREVIEW: &str = "10.96.0.3";

/// Sends `count` requests to `address`, told apart by `phase`, each on a connection of its own if `apart`; the version that
/// answered all of them.
fn answered_by(client: &Pod, address: &str, phase: &str, count: usize, apart: bool) -> String {
    let url = format!("http://{address}/?phase={phase}-[1-{count}]-");
    let close = ["-H", "Connection: close", &url];
    let said = client.requests(if apart { &close[..] } else { &close[2..] });
    assert_eq!(said.len(), count, "{said:?}");
    let mut versions: Vec<_> = said
        .iter()
        .map(|line| line.rsplit_once("Version: ").expect("the front page").1)
        .collect();
    versions.dedup();
    assert_eq!(versions.len(), 1, "{said:?}");
    versions[0].to_owned()
}

/// Holds that `app` has served each of the requests of `phase` just so many times.
fn served(app: &Running, phase: &str, count: usize, times: usize) {
    let said = app.said();
    for number in 1..=count {
        let request = format!("GET /?phase={phase}-{number}- ");
        let got = said
            .lines()
            .filter(|line| line.starts_with(&request))
            .count();
        assert_eq!(got, times, "{request}\n{said}");
    }
}

/// The verdict of a pod's sidecar, and how much of the traffic it says it is over.
fn verdict(pod: &Pod) -> serde_json::Value {
    let said = pod
        .fetch("http://127.0.0.1:9471/verdict")
        .expect("it lives");
    let mut said: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    said["data"].take()
}

fn balanced(said: &str) {
    assert!(said.contains("The account"), "no account: {said}");
    assert!(!said.contains("this is a bug"), "{said}");
    assert!(!said.contains("kernel_buffer_full"), "{said}");
}

#[test]
fn from_the_first_apply_to_the_switch_and_back() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1) = (cluster.pod("client", 9), cluster.pod("v1", 2));
    let target = "http://my-app-v2:8080";
    // Version 1 alone: the name of version 2 does not exist yet.
    let v1 = pod1.app("v1.0.0", &[]);
    let sidecar = pod1.sidecar(&["--port=8080", "--to", target]);
    cluster.services(&[(MY_APP, &[&pod1])]);
    wait_for("the sidecar to say what is missing", || {
        sidecar.said().contains("does not resolve")
    });
    assert!(pod1.readiness().contains("no target has resolved"));
    assert_eq!(answered_by(&client, MY_APP, "alone", 20, true), "v1.0.0");
    served(&v1, "alone", 20, 1);

    // Version 2 appears. The sidecar is the same process.
    let pod2 = cluster.pod("v2", 3);
    let v2 = pod2.app("v2.0.0", &[]);
    cluster.names(&[("my-app-v2", &pod2.address)]);
    wait_for("version 2 to be found", || pod1.readiness() == "ready\n");
    assert_eq!(answered_by(&client, MY_APP, "both", 40, true), "v1.0.0");
    assert_eq!(answered_by(&client, MY_APP, "kept", 40, false), "v1.0.0");
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase") >= 80
    });
    for (phase, count) in [("both", 40), ("kept", 40)] {
        served(&v1, phase, count, 1);
        served(&v2, phase, count, 1);
    }
    served(&v2, "alone", 20, 0);
    // What came before there was a version 2 does not keep it from being promoted.
    wait_for("the requests to be judged", || {
        verdict(&pod1)["requests"] == 80
    });
    assert_eq!(verdict(&pod1)["completeness"], 1.0, "{}", verdict(&pod1));

    // It is killed: version 1 answers as ever.
    v2.kill();
    assert_eq!(answered_by(&client, MY_APP, "dead", 40, true), "v1.0.0");
    served(&v1, "dead", 40, 1);

    // It comes back under another address.
    let pod3 = cluster.pod("v2-again", 4);
    let v2 = pod3.app("v2.0.0", &[]);
    cluster.names(&[("my-app-v2", &pod3.address)]);
    let mut knocks = 0;
    wait_for("version 2 to be found again", || {
        knocks += 1;
        answered_by(&client, MY_APP, &format!("knock{knocks}"), 1, true);
        v2.count("GET /?phase=knock") > 0
            && pod1.metric(&format!(
                "shadowtap_target_breaker_open{{target=\"{target}\"}}"
            )) == Some(0.0)
    });
    assert_eq!(answered_by(&client, MY_APP, "back", 40, true), "v1.0.0");
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=back") >= 40
    });
    served(&v1, "back", 40, 1);
    served(&v2, "back", 40, 1);

    // The switch: users' requests go to version 2, once, and no longer come by the sidecar. And back.
    cluster.services(&[(MY_APP, &[&pod3])]);
    assert_eq!(answered_by(&client, MY_APP, "switched", 40, true), "v2.0.0");
    served(&v1, "switched", 40, 0);
    served(&v2, "switched", 40, 1);
    cluster.services(&[(MY_APP, &[&pod1])]);
    assert_eq!(answered_by(&client, MY_APP, "home", 40, true), "v1.0.0");
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=home") >= 40
    });
    served(&v1, "home", 40, 1);
    served(&v2, "home", 40, 1);
    // None of those that went to version 2 directly is among them.
    let all = 20 + 40 + 40 + 40 + knocks + 40 + 40;
    wait_for("every request to be counted", || {
        pod1.metric("shadowtap_requests_total") == Some(f64::from(all))
    });
    let said = sidecar.stop();
    balanced(&said);
    assert!(said.contains(&format!("of {all} to {target}")), "{said}");
}

#[test]
fn a_version_2_that_crashes_is_not_promoted_between_two_crashes() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1) = (cluster.pod("client", 9), cluster.pod("v1", 2));
    let pod2 = cluster.pod("v2", 3);
    let _v1 = pod1.app("v1.0.0", &[]);
    // A few requests are enough to judge by.
    let target = format!("http://{}:{PORT}", pod2.address);
    let lenient = [
        "--max-difference=90%",
        "--max-errors=90%",
        "--max-slow=90%",
        "--slower-floor=60s",
        "--min-completeness=1%",
    ];
    let sidecar = pod1.sidecar(&[&["--port=8080", "--to", &target], &lenient[..]].concat());
    cluster.services(&[(MY_APP, &[&pod1])]);
    let (mut asked, mut latest) = (0, serde_json::Value::Null);
    // Asks until the verdict is as it should be.
    let mut until = |what: &str, is_so: &dyn Fn(&serde_json::Value) -> bool| {
        wait_for(what, || {
            asked += 1;
            answered_by(&client, MY_APP, &format!("round{asked}"), 5, false);
            latest = verdict(&pod1);
            is_so(&latest)
        });
        latest.clone()
    };
    let reason =
        |verdict: &serde_json::Value| verdict["reasons"][0].as_str().unwrap_or("").to_owned();
    let waits = until("it to be missed", &|it| {
        reason(it).starts_with("version 2 has not answered yet: ")
    });
    assert_eq!(waits["verdict"], "continue", "{waits}");
    assert_eq!(waits["presence"]["missing"], 0, "{waits}");

    // The first one is not held, since before it there was none. It tells the same version, so that it answers alike.
    let v2 = pod2.app("v1.0.0", &[]);
    until("the first to be promoted", &|it| it["verdict"] == "promote");

    // It crashes: nobody takes its verdict for the next one's.
    let refused = || {
        let name = "shadowtap_dropped_total{stage=\"replay\",reason=\"connect_failed\"}";
        pod1.metric(name).unwrap_or_default()
    };
    let before = refused();
    v2.kill();
    // It takes the better part of a minute.
    until("it to refuse", &|_| refused() >= before + 12.0);
    let gone = until("it to be gone", &|it| {
        reason(it).starts_with("version 2 has not answered since ")
    });
    assert_eq!(
        (&gone["verdict"], &gone["requests"]),
        (&"continue".into(), &0.into()),
        "{gone}"
    );
    let after = gone["presence"]["gone_after"].as_u64().expect("a number");
    assert!(after > 0, "{gone}");
    assert_eq!(gone["presence"]["missing"], 10 * after, "{gone}");

    // The one that is started again is as good as the first, and is not promoted before it has stayed for longer.
    let v2 = pod2.app("v1.0.0", &[]);
    let gone_after = format!("version 2 was gone after {after} requests; ");
    let held = until("the next to be judged", &|it| {
        it["requests"].as_u64() >= Some(after) && it["endpoints"][0]["standing"] == "good"
    });
    assert_eq!(held["verdict"], "continue", "{held}");
    assert!(reason(&held).starts_with(&gone_after), "{held}");
    assert_eq!(held["needs"], held["presence"]["missing"], "{held}");
    let stayed = until("the next to be promoted", &|it| it["verdict"] == "promote");
    assert!(stayed["requests"].as_u64() >= Some(9 * after), "{stayed}");
    assert_eq!(stayed["presence"]["missing"], 0, "{stayed}");

    v2.kill();
    balanced(&sidecar.stop());
}

#[test]
fn nothing_is_replayed_where_the_preview_service_selects_version_1() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1) = (cluster.pod("client", 9), cluster.pod("v1", 2));
    let target = "http://my-app-preview";
    cluster.names(&[("my-app-preview", PREVIEW)]);
    cluster.services(&[(MY_APP, &[&pod1]), (PREVIEW, &[&pod1])]);
    let v1 = pod1.app("v1.0.0", &[]);
    let paused = format!("shadowtap_target_paused{{target=\"{target}\"}}");
    // Users call all the time, also while the sidecar starts.
    std::thread::scope(|scope| {
        let calls = scope.spawn(|| {
            for round in 0..10 {
                answered_by(&client, MY_APP, &format!("early{round}"), 30, true);
            }
        });
        let sidecar = pod1.sidecar(&["--port=8080", "--to", target]);
        wait_for("the pause", || pod1.readiness().contains("is paused"));
        calls.join().expect("every call is answered");
        assert_eq!(answered_by(&client, MY_APP, "steady", 40, true), "v1.0.0");
        assert_eq!(pod1.metric(&paused), Some(1.0));
        assert!(
            sidecar.said().contains("selecting version 1's pods"),
            "{}",
            sidecar.said()
        );
        for round in 0..10 {
            served(&v1, &format!("early{round}"), 30, 1);
        }
        served(&v1, "steady", 40, 1);

        // A release: the preview Service selects version 2, whose pods have the sidecar too.
        let pod2 = cluster.pod("v2", 3);
        let v2 = pod2.app("v2.0.0", &[]);
        let other = pod2.sidecar(&["--port=8080", "--to", target]);
        wait_for("the other's pause", || {
            pod2.readiness().contains("is paused") || pod2.readiness() == "ready\n"
        });
        cluster.services(&[(MY_APP, &[&pod1]), (PREVIEW, &[&pod2])]);
        wait_for("the replay to go on", || pod1.readiness() == "ready\n");
        assert_eq!(answered_by(&client, MY_APP, "release", 40, true), "v1.0.0");
        wait_for("the requests at version 2", || {
            v2.count("GET /?phase=release") >= 40
        });
        served(&v1, "release", 40, 1);
        served(&v2, "release", 40, 1);
        // The time between two releases does not keep the next version 2 from being promoted.
        wait_for("the requests to be judged", || {
            verdict(&pod1)["requests"] == 40
        });
        assert_eq!(verdict(&pod1)["completeness"], 1.0, "{}", verdict(&pod1));
        // Version 2's own sidecar has seen them, and that its target is itself.
        wait_for("the pause at version 2", || {
            pod2.readiness().contains("is paused")
        });

        // It is promoted: both Services select it.
        cluster.services(&[(MY_APP, &[&pod2]), (PREVIEW, &[&pod2])]);
        assert_eq!(answered_by(&client, MY_APP, "promoted", 40, true), "v2.0.0");
        served(&v2, "promoted", 40, 1);
        served(&v1, "promoted", 40, 0);
        let said = sidecar.stop();
        balanced(&said);
        assert!(said.contains("target_is_version_1"), "{said}");
        let said = other.stop();
        balanced(&said);
        served(&v2, "promoted", 40, 1);
    });
}

#[test]
fn two_pods_of_version_1_behind_the_preview_service_both_pause() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let client = cluster.pod("client", 9);
    let pods = [cluster.pod("a", 2), cluster.pod("b", 3)];
    let target = "http://my-app-preview";
    cluster.names(&[("my-app-preview", PREVIEW)]);
    let both = [&pods[0], &pods[1]];
    cluster.services(&[(MY_APP, &both), (PREVIEW, &both)]);
    let apps = pods.each_ref().map(|pod| pod.app("v1.0.0", &[]));
    let sidecars = pods
        .each_ref()
        .map(|pod| pod.sidecar(&["--port=8080", "--to", target]));
    for pod in &pods {
        wait_for("the pause", || {
            pod.readiness().contains("selecting version 1's pods")
        });
    }
    assert_eq!(answered_by(&client, MY_APP, "steady", 100, true), "v1.0.0");
    for sidecar in sidecars {
        balanced(&sidecar.stop());
    }
    let all: usize = apps.iter().map(|app| app.count("GET /?phase=steady")).sum();
    assert_eq!(all, 100, "each once, at one of them");
}

#[test]
fn a_name_that_means_the_pod_itself_pauses_until_it_means_another() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1, pod2) = (
        cluster.pod("client", 9),
        cluster.pod("v1", 2),
        cluster.pod("v2", 3),
    );
    cluster.names(&[("my-app-v2", &pod1.address)]);
    cluster.services(&[(MY_APP, &[&pod1])]);
    let v1 = pod1.app("v1.0.0", &[]);
    let v2 = pod2.app("v2.0.0", &[]);
    let sidecar = pod1.sidecar(&["--port=8080", "--to=http://my-app-v2:8080"]);
    wait_for("the pause", || {
        pod1.readiness()
            .contains("10.79.0.2:8080 is version 1 itself")
    });
    answered_by(&client, MY_APP, "own", 20, true);
    cluster.names(&[("my-app-v2", &pod2.address)]);
    wait_for("the other address", || pod1.readiness() == "ready\n");
    answered_by(&client, MY_APP, "other", 20, true);
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=other") >= 20
    });
    cluster.names(&[("my-app-v2", &pod1.address)]);
    wait_for("the pause again", || {
        pod1.readiness().contains("is version 1 itself")
    });
    answered_by(&client, MY_APP, "again", 20, true);
    let said = sidecar.stop();
    balanced(&said);
    for (phase, times) in [("own", 0), ("other", 1), ("again", 0)] {
        served(&v1, phase, 20, 1);
        served(&v2, phase, 20, times);
    }
}

#[test]
fn marks_from_elsewhere_stop_nothing_for_long() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1, pod2) = (
        cluster.pod("client", 9),
        cluster.pod("v1", 2),
        cluster.pod("v2", 3),
    );
    cluster.names(&[("my-app-v2", &pod2.address)]);
    cluster.services(&[(MY_APP, &[&pod1])]);
    let (_v1, v2) = (pod1.app("v1.0.0", &[]), pod2.app("v2.0.0", &[]));
    let sidecar = pod1.sidecar(&["--port=8080", "--to=http://my-app-v2:8080"]);
    wait_for("version 2 to be found", || pod1.readiness() == "ready\n");
    answered_by(&client, MY_APP, "before", 10, true);
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=before") >= 10
    });
    client.requests(&["-H", "Shadowtap: 1", "http://10.96.0.1/?phase=marked-1-"]);
    wait_for("the pause", || {
        sidecar
            .said()
            .contains("replay is paused: a request that carries the mark")
    });
    wait_for("the end of the pause", || pod1.readiness() == "ready\n");
    answered_by(&client, MY_APP, "after", 10, true);
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=after") >= 10
    });
    balanced(&sidecar.stop());
    served(&v2, "marked", 1, 0);
}

#[test]
fn a_sidecar_that_comes_late_mirrors_a_connection_that_is_open_already() {
    // As an ephemeral container does, in a pod that runs.
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1, pod2) = (
        cluster.pod("client", 9),
        cluster.pod("v1", 2),
        cluster.pod("v2", 3),
    );
    let (v1, v2) = (pod1.app("v1.0.0", &[]), pod2.app("v2.0.0", &[]));
    let url = format!("http://{}:{PORT}/?phase=open-[1-100000]-", pod1.address);
    let calls = client.start("calls", "curl", &["-sS", "--rate", "20/s", &url]);
    wait_for("the first requests", || v1.count("GET /?phase=open") >= 5);
    let sidecar = pod1.sidecar(&["--port=8080", "--to=http://10.79.0.3:8080"]);
    wait_for("requests at version 2", || {
        v2.count("GET /?phase=open") >= 20
    });
    calls.kill();
    let said = sidecar.stop();
    balanced(&said);
    assert!(said.contains("connections            1 "), "{said}");
    // From the first that it saw, each one; the last may have been under way.
    let numbers = |app: &Running| -> Vec<usize> {
        let said = app.said();
        let number = |line: &str| {
            let rest = line.strip_prefix("GET /?phase=open-")?;
            rest.split('-').next()?.parse().ok()
        };
        said.lines().filter_map(number).collect()
    };
    let (all, mirrored) = (numbers(&v1), numbers(&v2));
    let first = mirrored[0];
    assert!(first > 5, "{mirrored:?}");
    let expected: Vec<usize> = (first..first + mirrored.len()).collect();
    assert_eq!(mirrored, expected);
    assert!(
        all.len() - mirrored.last().expect("some") <= 1,
        "{all:?} {mirrored:?}"
    );
}

#[test]
fn no_capability_is_left_once_the_capture_is_open_and_new_interfaces_are_seen_all_the_same() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    let (client, pod1, pod2) = (
        cluster.pod("client", 9),
        cluster.pod("v1", 2),
        cluster.pod("v2", 3),
    );
    let (_v1, v2) = (pod1.app("v1.0.0", &[]), pod2.app("v2.0.0", &[]));
    let sidecar = pod1.sidecar(&["--port=8080", "--to=http://10.79.0.3:8080"]);
    assert!(
        sidecar.said().contains("every capability is given up"),
        "{}",
        sidecar.said()
    );
    let tasks = format!("/proc/{}/task", sidecar.child().id());
    let mut threads = 0;
    for task in fs::read_dir(tasks).expect("it runs") {
        let status = fs::read_to_string(task.expect("a thread").path().join("status"));
        let status = status.expect("it runs");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:\t0000000000000000")),
                "{status}"
            );
        }
        threads += 1;
    }
    assert!(threads > 3, "{threads} threads");
    // An interface that comes later, and one that goes.
    let pid = pod1.namespace.pid().to_string();
    for command in [
        &[
            "ip", "link", "add", "late", "type", "veth", "peer", "name", "late", "netns", &pid,
        ][..],
        &["ip", "address", "add", "10.80.0.1/24", "dev", "late"],
        &["ip", "link", "set", "late", "up"],
    ] {
        client.namespace.must(command).expect("a link");
    }
    for command in [
        &["ip", "address", "add", "10.80.0.2/24", "dev", "late"][..],
        &["ip", "link", "set", "late", "up"],
    ] {
        pod1.namespace.must(command).expect("an address");
    }
    wait_for("the new address to be known", || {
        client.fetch("http://10.80.0.2:8080/?phase=late-1-");
        v2.count("GET /?phase=late") > 0
    });
    pod1.namespace
        .must(&["ip", "link", "del", "late"])
        .expect("deleted");
    answered_by(
        &client,
        &format!("{}:{PORT}", pod1.address),
        "still",
        10,
        true,
    );
    wait_for("the requests at version 2", || {
        v2.count("GET /?phase=still") >= 10
    });
    balanced(&sidecar.stop());
}

#[test]
fn beside_a_mesh_proxy_each_request_is_mirrored_once() {
    let Some(cluster) = Cluster::build() else {
        return;
    };
    // As Istio has it: what comes for the application is turned to the proxy, which calls the pod's address from 127.0.0.6.
    // And as with a proxy that owns the pod's port: the application listens on 127.0.0.1.
    for (number, listen, proxy, upstream, turned, flags) in [
        (
            2,
            "0.0.0.0:8080",
            "0.0.0.0:15006",
            "10.79.0.2:8080",
            true,
            &["--interface=lo", "--port=8080"][..],
        ),
        (
            4,
            "127.0.0.1:8080",
            "10.79.0.4:8080",
            "127.0.0.1:8080",
            false,
            &["--port=127.0.0.1:8080"],
        ),
    ] {
        let (client, pod1, pod2) = (
            cluster.pod("client", number + 20),
            cluster.pod(&format!("v1-{number}"), number),
            cluster.pod(&format!("v2-{number}"), number + 10),
        );
        let v1 = pod1.app("v1.0.0", &["--listen", listen]);
        let v2 = pod2.app("v2.0.0", &[]);
        let home = cluster.folder.path().join(format!("proxy-{number}"));
        fs::create_dir(&home).expect("a folder");
        let config = format!(
            "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; events {{}} http {{ access_log {0}/access.log; \
             client_body_temp_path {0}/body; proxy_temp_path {0}/proxy; fastcgi_temp_path {0}/f; uwsgi_temp_path {0}/u; scgi_temp_path {0}/s; \
             server {{ listen {proxy}; location / {{ proxy_http_version 1.1; proxy_set_header Connection ''; \
             {1} proxy_pass http://{upstream}; }} }} }}",
            home.display(),
            if turned { "proxy_bind 127.0.0.6;" } else { "" },
        );
        let file = home.join("nginx.conf");
        fs::write(&file, config).expect("a file");
        let _proxy = pod1.start(
            "proxy",
            "nginx",
            &[
                "-p",
                home.to_str().expect("plain"),
                "-c",
                file.to_str().expect("plain"),
            ],
        );
        if turned {
            let rules = "table ip mesh { chain in { type nat hook prerouting priority -100; tcp dport 8080 redirect to :15006; }; }";
            pod1.namespace.must(&["nft", rules]).expect("rules");
        }
        let address = format!("{}:{PORT}", pod1.address);
        wait_for("the proxy", || {
            client
                .fetch(&format!("http://{address}/?phase=proxy-1-"))
                .is_some()
        });
        let to = format!("http://{}:{PORT}", pod2.address);
        let sidecar = pod1.sidecar(&[flags, &["--to", &to]].concat());
        wait_for("the sidecar to be ready", || pod1.readiness() == "ready\n");
        assert_eq!(answered_by(&client, &address, "mesh", 40, true), "v1.0.0");
        assert_eq!(answered_by(&client, &address, "kept", 40, false), "v1.0.0");
        wait_for("the requests at version 2", || {
            v2.count("GET /?phase") >= 80
        });
        let said = sidecar.stop();
        balanced(&said);
        for phase in ["mesh", "kept"] {
            served(&v1, phase, 40, 1);
            served(&v2, phase, 40, 1);
        }
    }
}
