//! The manifests under `k8s/`, and what `inject` and `kubectl kustomize` make of others: held against the schemas of Kubernetes,
//! and their flags against the program's own parser.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use shadowtap::cli::{Config, Job};

use crate::support::cannot_run;
use crate::support::peers::kubectl;
use crate::support::run::{PROGRAM, in_root};
use crate::support::stage::Process;

/// The oldest version with native sidecars, one between, and the newest that the schemas are there for.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.36"];

/// The Python that `make setup` has put the schemas beside; `None`, with the reason printed, where it is not there. In CI that
/// is a failure.
fn python() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let python = cache?.join("shadowtap/python/bin/python3");
    if python.exists() {
        return Some(python);
    }
    let why = format!("{} is not there: run make setup", python.display());
    cannot_run(why);
    None
}

/// The documents in `manifests`, all valid.
fn valid(python: &Path, manifests: &str) -> Vec<Value> {
    let mut documents = Value::Null;
    for version in VERSIONS {
        let script = in_root("tests/support/manifests.py");
        let output = piped(
            Command::new(python).arg(script).args([version, "-"]),
            manifests,
        );
        let wrong = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{version}: {wrong}\n{manifests}");
        documents = serde_json::from_slice(&output.stdout).expect("JSON");
    }
    let Value::Array(documents) = documents else {
        panic!("{documents}");
    };
    assert!(!documents.is_empty());
    documents
}

fn piped(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut stdin = child.stdin.take().expect("piped above");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("our child");
    // It may have ended before it had read all.
    let _ = writer.join().expect("no panic");
    output
}

fn inject(arguments: &[&str], manifest: &str) -> String {
    let output = piped(
        Command::new(PROGRAM).arg("inject").args(arguments).arg("-"),
        manifest,
    );
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The pod specifications in documents.
fn pod_specs(documents: &[Value]) -> Vec<&Value> {
    let mut specs = Vec::new();
    for document in documents {
        if let Some(items) = document["items"].as_array() {
            specs.extend(pod_specs(items));
        }
        let spec = &document["spec"];
        for spec in [
            spec,
            &spec["template"]["spec"],
            &spec["jobTemplate"]["spec"]["template"]["spec"],
        ] {
            if spec["containers"].is_array() {
                specs.push(spec);
            }
        }
    }
    specs
}

/// The sidecar in a pod, native or classic.
fn sidecar(spec: &Value) -> Option<&Value> {
    let lists = ["initContainers", "containers"];
    let mut containers = lists
        .iter()
        .filter_map(|list| spec[list].as_array())
        .flatten();
    containers.find(|container| container["name"] == "shadowtap")
}

/// Holds a sidecar to what was measured on a real kubelet, and its flags to the program's parser.
fn check_sidecar(spec: &Value, settings: &Value) {
    let sidecar = sidecar(spec).expect("a sidecar");
    let security = &sidecar["securityContext"];
    assert_eq!(
        security["capabilities"],
        json!({"drop": ["ALL"], "add": ["NET_RAW"]})
    );
    assert_eq!(security["readOnlyRootFilesystem"], json!(true));
    assert_eq!(security["seccompProfile"]["type"], json!("RuntimeDefault"));
    let is_root = security["runAsUser"] == json!(0);
    assert_eq!(security["runAsNonRoot"], json!(!is_root));
    // Without privilege escalation the kernel does not look at file capabilities, which only user 0 can do without.
    assert_eq!(security["allowPrivilegeEscalation"], json!(!is_root));
    assert!(
        sidecar.get("readinessProbe").is_none(),
        "it would gate version 1"
    );
    for probe in ["startupProbe", "livenessProbe"] {
        assert_eq!(sidecar[probe]["httpGet"]["path"], "/healthz");
        assert_eq!(
            sidecar[probe]["httpGet"]["port"],
            sidecar["ports"][0]["containerPort"]
        );
    }
    assert!(sidecar["resources"]["limits"]["memory"].is_string());
    let is_token_there = spec["automountServiceAccountToken"] != json!(false);
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    assert_eq!(
        sidecar["volumeMounts"][0]["mountPath"] == token,
        is_token_there
    );

    let mut line = vec!["shadowtap".to_owned()];
    let flags = sidecar["args"].as_array().expect("arguments");
    line.extend(
        flags
            .iter()
            .map(|flag| flag.as_str().expect("text").to_owned()),
    );
    for (name, value) in settings.as_object().into_iter().flatten() {
        let flag = name
            .strip_prefix("SHADOWTAP_")
            .expect("a flag")
            .to_lowercase()
            .replace('_', "-");
        line.push(format!("--{flag}={}", value.as_str().expect("text")));
    }
    let job = match Config::parse(&line).map(|config| config.job) {
        Ok(Job::Mirror(job)) => job,
        other => panic!("{line:?}: {other:?}"),
    };
    let admin = job.admin.expect("an admin server").address.port();
    assert_eq!(sidecar["ports"][0]["containerPort"], json!(admin));
}

#[test]
fn every_manifest_is_one_that_kubernetes_takes() {
    let Some(python) = python() else {
        return;
    };
    let mut sidecars = 0;
    for file in ["app-v1.yaml", "app-v2.yaml", "network-policy.yaml"] {
        let text = fs::read_to_string(in_root("k8s").join(file)).expect("it is there");
        let documents = valid(&python, &text);
        for spec in pod_specs(&documents) {
            assert_eq!(spec["automountServiceAccountToken"], json!(false), "{file}");
            if sidecar(spec).is_some() {
                check_sidecar(spec, &Value::Null);
                sidecars += 1;
            }
        }
        for document in &documents {
            // `kubectl delete all -l app=my-app` finds all but the policy.
            assert_eq!(document["metadata"]["labels"]["app"], "my-app", "{file}");
        }
    }
    assert_eq!(sidecars, 1);
}

#[test]
fn the_mock_s_manifest_is_one_that_kubernetes_takes_and_its_parts_fit_together() {
    let Some(python) = python() else {
        return;
    };
    let text = fs::read_to_string(in_root("k8s/mock.yaml")).expect("it is there");
    let documents = valid(&python, &text);
    let of_kind = |kind: &str| -> Vec<&Value> {
        let those = documents.iter().filter(|it| it["kind"] == kind);
        those.collect()
    };
    // It goes where the user says: nothing in it may lead version 1 to the mock.
    for document in &documents {
        assert!(
            document["metadata"].get("namespace").is_none(),
            "{document}"
        );
        assert_ne!(document["metadata"]["name"], "payment");
    }
    let [deployment] = of_kind("Deployment")[..] else {
        panic!("one Deployment");
    };
    let pod = &deployment["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let flags = container["args"].as_array().expect("arguments");
    let flags = flags.iter().map(|flag| flag.as_str().expect("text"));
    let job = match Config::parse(std::iter::once("shadowtap").chain(flags)).map(|it| it.job) {
        Ok(Job::Mock(job)) => job,
        other => panic!("{other:?}"),
    };
    let port_of = |name: &str| {
        let ports = container["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == name);
        port.expect(name)["containerPort"].clone()
    };
    assert_eq!(port_of("http"), json!(job.listen.port()));
    assert_eq!(
        port_of("admin"),
        json!(job.admin.expect("an admin server").address.port())
    );
    assert_eq!(
        container["image"],
        shadowtap::inject::sidecar::DEFAULT_IMAGE
    );
    assert_eq!(pod["spec"]["securityContext"]["runAsNonRoot"], json!(true));
    assert_eq!(
        container["securityContext"]["capabilities"],
        json!({"drop": ["ALL"]})
    );
    assert_eq!(deployment["spec"]["replicas"], json!(1));
    let [service] = of_kind("Service")[..] else {
        panic!("one Service");
    };
    assert_eq!(service["spec"]["selector"], pod["metadata"]["labels"]);
    for port in service["spec"]["ports"].as_array().expect("ports") {
        port_of(port["targetPort"].as_str().expect("a name"));
    }
    // Version 2 reaches the mock on the port of its pods, which is what a policy sees.
    let policies = of_kind("NetworkPolicy");
    let [version_2, mock] = policies[..] else {
        panic!("two policies");
    };
    let to_mock = &version_2["spec"]["egress"][0];
    assert_eq!(
        to_mock["to"][0]["podSelector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
    assert_eq!(to_mock["ports"][0]["port"], port_of("http"));
    assert_eq!(
        mock["spec"]["podSelector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
    assert_eq!(
        mock["spec"]["ingress"][0]["ports"][0]["port"],
        port_of("http")
    );
    assert_eq!(mock["spec"]["egress"], json!([]));
}

#[test]
fn what_asks_for_the_verdict_asks_where_the_sidecars_answer() {
    let Some(python) = python() else {
        return;
    };
    let read = |file| fs::read_to_string(in_root("k8s").join(file)).expect("it is there");
    let documents = valid(&python, &read("app-v1.yaml"));
    let named = |name: &str| documents.iter().find(|it| it["metadata"]["name"] == name);
    let service = named("my-app-shadowtap").expect("the sidecars' Service");
    let deployment = named("my-app-v1").expect("version 1");
    let port = &service["spec"]["ports"][0];
    let sidecar = sidecar(&deployment["spec"]["template"]["spec"]).expect("a sidecar");
    assert_eq!(port["targetPort"], sidecar["ports"][0]["name"]);
    // A headless Service does not translate ports.
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(port["port"], sidecar["ports"][0]["containerPort"]);
    let asks = [read("flagger-canary.yaml"), {
        fs::read_to_string(in_root("docs/verdict.md")).expect("it is there")
    }];
    // With its namespace: who asks is a controller in another one.
    let at = format!("http://my-app-shadowtap.shop.svc:{}", port["port"]);
    for text in asks {
        let asked = text.matches("http://my-app-shadowtap").count();
        assert!(asked >= 2);
        assert_eq!(text.matches(&at).count(), asked, "{at}\n{text}");
    }
}

#[test]
fn inject_makes_the_sidecar_of_the_walk_through() {
    // Version 2 is version 1 without the sidecar: with it, it has the very container that is in version 1.
    let Some(python) = python() else {
        return;
    };
    let read = |file| fs::read_to_string(in_root("k8s").join(file)).expect("it is there");
    let by_hand = valid(&python, &read("app-v1.yaml"));
    let by_inject = valid(
        &python,
        &inject(&["--to=http://my-app-v2"], &read("app-v2.yaml")),
    );
    let by_hand = sidecar(pod_specs(&by_hand)[0]).expect("a sidecar").clone();
    let mut by_inject = sidecar(pod_specs(&by_inject)[0])
        .expect("a sidecar")
        .clone();
    // The walk-through's pods have no token to begin with.
    by_inject
        .as_object_mut()
        .expect("an object")
        .remove("volumeMounts");
    assert_eq!(by_hand, by_inject);
}

/// A pod specification of every kind that `inject` knows.
fn workloads() -> Vec<Value> {
    let pod = |restart: &str| {
        json!({"restartPolicy": restart, "containers": [
            {"name": "app", "image": "app:1", "ports": [{"containerPort": 8080}]}
        ]})
    };
    let meta = json!({"name": "app", "labels": {"app": "app"}});
    let template = |restart: &str| json!({"metadata": meta, "spec": pod(restart)});
    let selector = json!({"matchLabels": {"app": "app"}});
    let workload = |version: &str, kind: &str, spec: Value| json!({"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec});
    let job = json!({"template": template("Never")});
    let always = json!({"selector": selector, "template": template("Always")});
    let stateful =
        json!({"serviceName": "app", "selector": selector, "template": template("Always")});
    vec![
        workload("apps/v1", "Deployment", always.clone()),
        workload("apps/v1", "StatefulSet", stateful),
        workload("apps/v1", "DaemonSet", always.clone()),
        workload("apps/v1", "ReplicaSet", always),
        workload("batch/v1", "Job", job.clone()),
        workload(
            "batch/v1",
            "CronJob",
            json!({"schedule": "* * * * *", "jobTemplate": {"spec": job}}),
        ),
        workload("v1", "Pod", pod("Always")),
    ]
}

#[test]
fn what_inject_makes_of_every_workload_is_one_that_kubernetes_takes() {
    let Some(python) = python() else {
        return;
    };
    let all = workloads();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": all});
    for flags in [
        &[][..],
        &["--non-root"],
        &["--classic"],
        &[
            "--classic",
            "--non-root",
            "--percent=12.5",
            "--port=127.0.0.1:8080",
        ],
    ] {
        let is_classic = flags.contains(&"--classic");
        let mut fitting = all.clone();
        fitting.retain(|workload| {
            !is_classic
                || !workload["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.ends_with("Job"))
        });
        let texts: Vec<_> = fitting.iter().map(Value::to_string).collect();
        let mut manifests = vec![texts.join("\n---\n")];
        if !is_classic {
            manifests.push(serde_json::to_string_pretty(&list).expect("JSON"));
        }
        for manifest in manifests {
            let arguments = [&["--to=http://my-app-v2,https://v3.example"], flags].concat();
            let with = inject(&arguments, &manifest);
            let documents = valid(&python, &with);
            let specs = pod_specs(&documents);
            assert_eq!(specs.len(), fitting.len());
            for spec in specs {
                check_sidecar(spec, &Value::Null);
                let native =
                    sidecar(spec).is_some_and(|sidecar| sidecar["restartPolicy"] == "Always");
                assert_eq!(native, !is_classic);
                assert_eq!(spec["initContainers"].is_array(), native);
            }
            assert_eq!(inject(&arguments, &with), with, "twice");
            assert_eq!(inject(&["--remove"], &with), manifest, "out again");
        }
    }
}

#[test]
fn inject_says_what_it_did_and_what_it_cannot_do() {
    let run = |arguments: &[&str], input: &str| {
        let output = piped(Command::new(PROGRAM).arg("inject").args(arguments), input);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let pod = "kind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: a\n    ports:\n    - containerPort: 80\n";
    let to = "--to=http://v2";
    let (code, out, said) = run(&[to, "-"], pod);
    assert_eq!(code, Some(0), "{said}");
    assert!(out.contains("- --port=80\n"), "{out}");
    assert!(said.contains("Pod p: the sidecar is added"), "{said}");
    for (arguments, input, code, part) in [
        (&["-"][..], pod, 2, "--to"),
        (
            &[to, "-", "--", "--percnt=5"],
            pod,
            2,
            "the sidecar would not start",
        ),
        (&[to, "--percent=500", "-"], pod, 2, "500"),
        (&[to, "--workload=q", "-"], pod, 1, "--workload q"),
        (&[to, "-"], "kind: Service\n", 1, "no workload"),
        (&[to, "-"], "kind: [", 1, "standard input: line"),
        (&[to, "/nonesuch/app.yaml"], "", 1, "/nonesuch/app.yaml"),
    ] {
        let (got, out, said) = run(arguments, input);
        assert_eq!(got, Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
        assert_eq!(out, "", "nothing by halves");
    }
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("pod.yaml");
    fs::write(&file, pod).expect("written");
    let file = file.to_str().expect("a plain path");
    let (code, out, _) = run(&[to, file, file], "");
    assert_eq!(code, Some(0));
    assert_eq!(out.matches("\n---\n").count(), 1, "{out}");
    assert_eq!(out.matches("name: shadowtap\n").count(), 4, "{out}");
}

#[test]
fn the_component_adds_the_sidecar_that_inject_adds() {
    let Some(python) = python() else {
        return;
    };
    for (component, flags) in [
        ("component", &[][..]),
        ("component-non-root", &["--non-root"]),
    ] {
        let folder = tempfile::tempdir().expect("a directory");
        for part in ["component", "component-non-root", "example"] {
            copy(&in_root("k8s").join(part), &folder.path().join(part));
        }
        let file = folder.path().join("example/kustomization.yaml");
        let text = fs::read_to_string(&file).expect("it is there");
        fs::write(
            &file,
            text.replace("- ../component\n", &format!("- ../{component}\n")),
        )
        .expect("written");
        let Some(built) = kustomize(&folder.path().join("example")) else {
            return;
        };
        let documents = valid(&python, &built);
        let settings = documents
            .iter()
            .find(|document| document["kind"] == "ConfigMap")
            .expect("the settings");
        let specs = pod_specs(&documents);
        check_sidecar(specs[0], &settings["data"]);
        let plain =
            fs::read_to_string(in_root("k8s/example/deployment.yaml")).expect("it is there");
        let by_inject = valid(
            &python,
            &inject(&[&["--to=http://shop-v2"], flags].concat(), &plain),
        );
        let by_inject = pod_specs(&by_inject)[0].clone();
        assert_eq!(specs[0]["volumes"], by_inject["volumes"]);
        let mut component = sidecar(specs[0]).expect("a sidecar").clone();
        let mut by_inject = sidecar(&by_inject).expect("a sidecar").clone();
        // Only the flags come another way.
        for container in [&mut component, &mut by_inject] {
            let fields = container.as_object_mut().expect("an object");
            fields.remove("args");
            fields.remove("envFrom");
        }
        assert_eq!(component, by_inject);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("copied");
    }
}

/// What `kubectl kustomize` makes of a folder; `None` where there is no kubectl.
fn kustomize(folder: &Path) -> Option<String> {
    let output = Command::new(kubectl()?)
        .arg("kustomize")
        .arg(folder)
        .output();
    let output = output.expect("it was started before");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Some(String::from_utf8(output.stdout).expect("YAML"))
}

#[test]
fn the_debug_profile_and_its_command_make_an_ephemeral_container_that_may_capture() {
    let Some(python) = python() else {
        return;
    };
    let readme = fs::read_to_string(in_root("k8s/README.md")).expect("it is there");
    let command = readme
        .lines()
        .find(|line| line.starts_with("kubectl debug "))
        .expect("the command is in the walk-through");
    let (before, after) = command.split_once(" -- ").expect("the program's flags");
    assert!(
        before.contains("--custom=k8s/debug-profile.yaml"),
        "{before}"
    );
    let words: Vec<_> = after.split_whitespace().collect();
    assert!(
        matches!(
            Config::parse(words).map(|config| config.job),
            Ok(Job::Mirror(_))
        ),
        "{after}"
    );
    let profile = fs::read_to_string(in_root("k8s/debug-profile.yaml")).expect("it is there");
    let pod = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: a\n  ephemeralContainers:\n  - name: d\n    {}",
        profile.replace('\n', "\n    ").trim_end()
    );
    let documents = valid(&python, &pod);
    let security = &documents[0]["spec"]["ephemeralContainers"][0]["securityContext"];
    assert_eq!(security["capabilities"]["add"], json!(["NET_RAW"]));
    assert_eq!(security["runAsUser"], json!(0));
}

#[test]
fn kubectl_debug_makes_a_container_that_may_capture_and_may_nothing_else() {
    let Some(kubectl) = kubectl() else {
        return;
    };
    let folder = tempfile::tempdir().expect("a directory");
    let patch = folder.path().join("patch.json");
    let server = Command::new("python3")
        .arg(in_root("tests/support/api_server.py"))
        .arg(&patch)
        .stdout(Stdio::piped())
        .spawn()
        .expect("installed by `make setup`");
    let mut server = Process(server);
    let mut port = String::new();
    let said = server.0.stdout.take().expect("piped");
    BufReader::new(said).read_line(&mut port).expect("its port");
    let readme = fs::read_to_string(in_root("k8s/README.md")).expect("it is there");
    let command = readme
        .lines()
        .find(|line| line.starts_with("kubectl debug "));
    let command = command.expect("the command is in the walk-through");
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("kubectl"));
    let output = Command::new(kubectl)
        .args(["--kubeconfig=/dev/null", "--cache-dir"])
        .arg(folder.path())
        .arg(format!("--server=http://127.0.0.1:{}", port.trim()))
        .args(words)
        .current_dir(in_root(""))
        .output()
        .expect("it is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let patch = fs::read(patch).expect("the pod was changed");
    let patch: Value = serde_json::from_slice(&patch).expect("JSON");
    let container = &patch["spec"]["ephemeralContainers"][0];
    let profile = fs::read_to_string(in_root("k8s/debug-profile.yaml")).expect("it is there");
    for line in profile.lines().filter(|line| line.contains(": ")) {
        let (name, value) = line.trim().split_once(": ").expect("a setting");
        if name.starts_with('#') || name == "type" {
            continue;
        }
        assert_eq!(
            container["securityContext"][name].to_string(),
            value,
            "{patch}"
        );
    }
    assert_eq!(
        container["securityContext"]["capabilities"],
        json!({"drop": ["ALL"], "add": ["NET_RAW"]}),
        "{patch}"
    );
    let words = container["command"].as_array().expect("a command");
    let words = words.iter().map(|word| word.as_str().expect("text"));
    let job = Config::parse(words).map(|config| config.job);
    assert!(matches!(job, Ok(Job::Mirror(_))), "{job:?}");
}

#[test]
fn the_flags_in_the_documents_are_flags_of_the_program() {
    let verbs = [
        "mirror", "record", "replay", "mock", "inject", "verdict", "demo",
    ];
    let known: String = verbs
        .iter()
        .map(|verb| {
            let help = Command::new(PROGRAM).args([verb, "--help"]).output();
            String::from_utf8_lossy(&help.expect("started").stdout).into_owned()
        })
        .collect();
    let flag = regex::Regex::new("`(--[a-z][a-z-]*)").expect("a pattern");
    for file in ["k8s/README.md", "docs/mock.md"] {
        let text = fs::read_to_string(in_root(file)).expect("it is there");
        for found in flag.captures_iter(&text) {
            let there = regex::Regex::new(&format!("{}[ \n=]", &found[1])).expect("a pattern");
            assert!(there.is_match(&known), "{file}: {}", &found[1]);
        }
    }
}
