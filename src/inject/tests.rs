use super::sidecar::{DEFAULT_ADMIN, DEFAULT_IMAGE, NAME, NO_TOKEN, User};
use super::*;

fn add(kind: Kind) -> Change {
    Change::Add(Sidecar {
        kind,
        user: User::Root,
        image: DEFAULT_IMAGE.to_owned(),
        watched: Vec::new(),
        targets: vec!["http://my-app-v2".parse().expect("a target")],
        admin: DEFAULT_ADMIN,
        more: Vec::new(),
    })
}

fn injected(manifest: &str, change: &Change) -> Injected {
    match inject(manifest, change, &[]) {
        Ok(injected) => injected,
        Err(error) => panic!("{error}\n{manifest}"),
    }
}

/// Manifests of every shape. `@` begins a line in which the layout is preserved when the sidecar is gone again.
const MANIFESTS: &[(&str, &str)] = &[
    (
        "plain",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        image: x\n        ports:\n        - containerPort: 8080\n",
    ),
    (
        "indented lists, comments and blank lines",
        "# ünïcode\nkind: Deployment # what\n\nmetadata: {name: a}\nspec:\n  template:\n    spec:\n\n      # before\n      containers:   # behind\n        # first\n        -   name: app\n            command: [\"sh\", -c, \"a # b\"]\n            args:\n              - |\n                text\n                # no comment\n\n            ports: [{containerPort: 8080}]\n\n        # last\n      # end\n",
    ),
    (
        "init containers and volumes",
        "kind: StatefulSet\nspec:\n  template:\n    spec:\n      volumes:\n      # data\n      - name: data\n        emptyDir: {}\n      initContainers:\n        # migrate\n        - name: migrate\n          image: m\n        # other\n        - {name: other, image: o}\n      containers:\n        - image: x\n          name: app\n          ports:\n            - {name: metrics, containerPort: 9090}\n            - {name: http, containerPort: 8080}\n",
    ),
    (
        "lists after the containers",
        "kind: DaemonSet\nspec:\n  template:\n    spec:\n      containers:\n      - name: app\n        ports:\n        - containerPort: 80\n      initContainers:\n      - name: i\n      restartPolicy: Always\n      volumes:\n      - name: v\n",
    ),
    (
        "a pod, no newline at the end",
        "kind: Pod\nspec:\n  containers:\n  - ports: [{containerPort: 80}]\n    name: app",
    ),
    (
        "dashes alone",
        "kind: Pod\nspec:\n  containers:\n  -\n    name: app\n    ports: [{containerPort: 80}]\n  volumes:\n  -\n    name: v\n",
    ),
    (
        "carriage returns",
        "kind: Pod\r\nspec:\r\n  containers:\r\n  - name: app\r\n    ports:\r\n    - containerPort: 80\r\n  volumes:\r\n  - name: v\r\n",
    ),
    (
        "a cron job",
        "kind: CronJob\nspec:\n  schedule: '* * * * *'\n  jobTemplate:\n    spec:\n      template:\n        spec:\n          restartPolicy: Never\n          containers:\n          - name: job\n            ports:\n            - containerPort: 80\n",
    ),
    (
        "several documents",
        "---\n# a service\nkind: Service\nspec:\n  ports: [{port: 80}]\n---\nkind: Job\nspec: {template: {spec: {containers: [{name: j, ports: [{containerPort: 80}]}]}}}\n---\n...\n---\nkind: Pod\nspec:\n  containers:\n  - name: p\n    ports:\n    - containerPort: 80\n",
    ),
    (
        "a list",
        "apiVersion: v1\nitems:\n- kind: Deployment\n  spec:\n    template:\n      spec:\n        containers:\n        - name: a\n          ports:\n          - containerPort: 80\n- kind: Pod\n  spec:\n    containers:\n    - name: b\n      ports:\n      - containerPort: 80\nkind: List\n",
    ),
    (
        "json in one line",
        r#"{"kind":"Pod","spec":{"containers":[{"name":"a","ports":[{"containerPort":80}]}],"volumes":[{"name":"v"}]}}"#,
    ),
    (
        "json as kubectl prints it",
        "{\n    \"kind\": \"Pod\",\n    \"spec\": {\n        \"containers\": [\n            {\n                \"name\": \"a\",\n                \"ports\": [\n                    {\n                        \"containerPort\": 80\n                    }\n                ]\n            }\n        ],\n        \"initContainers\": [\n            {\n                \"name\": \"i\"\n            },\n            {\n                \"name\": \"j\"\n            }\n        ],\n        \"restartPolicy\": \"Always\"\n    }\n}\n",
    ),
    (
        "empty lists",
        "kind: Pod\nspec:\n  initContainers: []\n  volumes: [ ]\n  containers:\n  - name: a\n    ports: [{containerPort: 80}]\n",
    ),
    (
        "comments, anchors and tags behind the dash",
        "kind: Pod\nspec:\n  initContainers: &all # these\n  - # the first - of two\n    name: i\n  - &second\n    name: j\n    env:\n  - *second\n  containers: !!seq\n  -   # the only one\n    name: a\n    ports: [{containerPort: 80}]\n  volumes:\n    - !!map\n      name: v\n",
    ),
    (
        "flow style over many lines, with commas at the end",
        "kind: Pod\nspec: {\n  # before\n  containers: [ # behind\n    { name: a, ports: [ { containerPort: 80 } ], },\n  ],\n  initContainers: [ { name: i }, ],\n}\n",
    ),
    (
        "json with both lists at its end",
        r#"{"kind":"Pod","spec":{"volumes":[{"name":"v"}],"hostname":"h","containers":[{"name":"a","ports":[{"containerPort":80}]}]}}"#,
    ),
    (
        "a byte order mark, tabs in texts, characters of several bytes",
        "\u{feff}kind: Pod\nmetadata:\n  annotations: {a: \"x\ty\", b: '漢字'}\n  labels:\n    c: |-\n      \ttab\n      - name: shadowtap\nspec:\n  containers:\n  - name: a # ünï\n    args:\n    - |+\n      keep\n\n    ports:\n    - containerPort: 80\n",
    ),
    (
        "containers right behind a dash",
        "kind: List\nitems:\n- kind: Pod\n  spec: {containers: [ {name: a, ports: [{containerPort: 80}]} ]}\n",
    ),
];

#[test]
fn in_and_out_again_leaves_every_byte_as_it_was() {
    for (name, manifest) in MANIFESTS {
        let change = add(Kind::Native);
        let with = injected(manifest, &change);
        assert!(
            with.workloads.iter().all(|(_, done)| *done == Done::Added),
            "{name}"
        );
        assert!(!with.workloads.is_empty(), "{name}");
        for (_, workload) in pods(&with.text) {
            let (first, _) = workload.item("initContainers", NAME).expect(name);
            assert_eq!(first, 0, "{name}: it starts before all others");
            assert!(workload.item("volumes", NO_TOKEN).is_some(), "{name}");
            assert!(workload.item("containers", NAME).is_none(), "{name}");
        }
        let twice = injected(&with.text, &change);
        assert_eq!(twice.text, with.text, "{name}: twice");
        assert!(
            twice
                .workloads
                .iter()
                .all(|(_, done)| *done == Done::Unchanged),
            "{name}"
        );
        let without = injected(&with.text, &Change::Remove);
        assert_eq!(without.text, *manifest, "{name}: out again");
        assert_eq!(
            injected(manifest, &Change::Remove).text,
            *manifest,
            "{name}: nothing to take out"
        );
    }
}

#[test]
fn what_is_not_touched_stays_to_the_byte() {
    for (name, manifest) in MANIFESTS {
        let with = injected(manifest, &add(Kind::Native)).text;
        let mut rest = with.as_str();
        for line in manifest.lines() {
            let at = line
                .split(['[', '{'])
                .next()
                .and_then(|begin| rest.find(begin));
            rest = &rest[at.unwrap_or_else(|| panic!("{name}: {line:?} is gone from\n{with}"))..];
        }
    }
}

#[test]
fn other_flags_bring_it_up_to_date_in_its_place() {
    for (name, manifest) in MANIFESTS {
        let with = injected(manifest, &add(Kind::Native)).text;
        let Change::Add(mut sidecar) = add(Kind::Native) else {
            unreachable!()
        };
        sidecar.more.push("--percent=10".to_owned());
        sidecar.user = User::NonRoot;
        let change = Change::Add(sidecar);
        let updated = injected(&with, &change);
        assert!(
            updated
                .workloads
                .iter()
                .all(|(_, done)| *done == Done::Updated),
            "{name}"
        );
        assert_eq!(updated.text, injected(manifest, &change).text, "{name}");
        assert_eq!(
            injected(&updated.text, &Change::Remove).text,
            *manifest,
            "{name}"
        );
    }
}

#[test]
fn a_classic_sidecar_is_a_container_and_becomes_a_native_one() {
    for (name, manifest) in MANIFESTS {
        if manifest.contains("Job") {
            let error = inject(manifest, &add(Kind::Classic), &[]).expect_err(name);
            assert!(matches!(error, InjectError::ClassicJob { .. }), "{error}");
            continue;
        }
        let classic = injected(manifest, &add(Kind::Classic)).text;
        for (_, pod) in pods(&classic) {
            assert!(pod.item("containers", NAME).is_some(), "{name}");
        }
        assert!(
            !classic.contains("restartPolicy: Always")
                || manifest.contains("restartPolicy: Always")
        );
        assert_eq!(
            injected(&classic, &Change::Remove).text,
            *manifest,
            "{name}"
        );
        let native = injected(&classic, &add(Kind::Native)).text;
        for (_, pod) in pods(&native) {
            assert!(pod.item("containers", NAME).is_none(), "{name}");
            assert!(pod.item("initContainers", NAME).is_some(), "{name}");
        }
    }
}

#[test]
fn a_null_list_is_none() {
    let manifest = "kind: Pod\nspec:\n  initContainers:\n  volumes: ~ # none\n  containers:\n  - name: a\n    ports: [{containerPort: 80}]\n";
    let with = injected(manifest, &add(Kind::Native)).text;
    for (_, pod) in pods(&with) {
        assert!(pod.item("initContainers", NAME).is_some(), "{with}");
        assert!(pod.item("volumes", NO_TOKEN).is_some(), "{with}");
    }
    assert_eq!(injected(&with, &add(Kind::Native)).text, with);
}

#[test]
fn neighbours_that_were_both_added_go_together() {
    // The cluster, or a person, may have put them anywhere.
    let lists = [
        r#""initContainers":[{"name":"shadowtap","image":"shadowtap:1"}]"#,
        r#""volumes":[{"name":"shadowtap-no-token"}]"#,
        r#""containers":[{"name":"a"}]"#,
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let spec = order.map(|index| lists[index]).join(",");
        let manifest = format!(r#"{{"kind":"Pod","spec":{{{spec}}}}}"#);
        assert_eq!(
            injected(&manifest, &Change::Remove).text,
            r#"{"kind":"Pod","spec":{"containers":[{"name":"a"}]}}"#,
            "{manifest}"
        );
    }
    let manifest = "kind: Pod\nspec:\n  initContainers: [ {name: shadowtap, image: shadowtap}, ]\n  containers: [{name: a}]\n";
    let without = injected(manifest, &Change::Remove).text;
    assert!(without.contains("initContainers: [ "), "{without}");
}

#[test]
fn a_layout_that_cannot_be_edited_is_refused() {
    for manifest in [
        "kind: Pod\nspec:\n  ? containers\n  : - name: a\n      ports: [{containerPort: 80}]\n",
        "kind: Pod\rspec:\r  containers:\r  - name: a\r    ports: [{containerPort: 80}]\r",
    ] {
        for kind in [Kind::Native, Kind::Classic] {
            let outcome = inject(manifest, &add(kind), &[]);
            assert_eq!(outcome, Err(InjectError::Layout), "{manifest}");
        }
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused() {
    let manifest = "kind: Pod\nspec:\n  volumes:\n  containers:\n  - name: a\n    ports: [{containerPort: 80}]\n  volumes: []\n";
    for change in [add(Kind::Native), Change::Remove] {
        let refused = inject(manifest, &change, &[]).unwrap_err().to_string();
        assert!(
            refused.contains("line 7") && refused.contains("'volumes'"),
            "{refused}"
        );
    }
}

#[test]
fn kinds_of_others_with_the_same_name_are_left_alone() {
    let theirs = "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec:\n  tasks: []\n---\n";
    let manifest = format!("{theirs}{}", MANIFESTS[0].1);
    let with = injected(&manifest, &add(Kind::Native));
    assert_eq!(with.workloads.len(), 1);
    assert!(with.text.starts_with(theirs));
}

#[test]
fn the_whole_node_is_refused_in_every_spelling() {
    for word in ["true", "True", "TRUE", "yes", "On", "y", "\"true\""] {
        let manifest = format!(
            "kind: Pod\nspec:\n  hostNetwork: {word}\n  containers:\n  - name: a\n    ports: [{{containerPort: 80}}]\n"
        );
        let outcome = inject(&manifest, &add(Kind::Native), &[]);
        assert!(
            matches!(outcome, Err(InjectError::HostNetwork { .. })),
            "{word}"
        );
        let manifest = manifest.replace(word, "no");
        assert!(inject(&manifest, &add(Kind::Native), &[]).is_ok());
    }
}

#[test]
fn a_port_that_may_be_another_s_is_not_taken() {
    for (ports, taken) in [
        // Metrics are not what users ask for.
        (
            "[{containerPort: 8080}, {name: http-metrics, containerPort: 9090}]",
            None,
        ),
        (
            "[{name: api, containerPort: 8080}, {name: http-admin, containerPort: 9090}]",
            None,
        ),
        (
            "[{name: http, containerPort: 8080}, {name: http-envoy-prom, containerPort: 15090}]",
            Some(8080),
        ),
        (
            "[{name: web, containerPort: 8080}, {name: https, containerPort: 8443}]",
            Some(8080),
        ),
        (
            "[{name: http, containerPort: 8080}, {name: http, containerPort: 8080}, {containerPort: 1}]",
            Some(8080),
        ),
        (
            "[{name: http, containerPort: 8080}, {name: web, containerPort: 8081}]",
            None,
        ),
    ] {
        let manifest =
            format!("kind: Pod\nspec:\n  containers:\n  - name: a\n    ports: {ports}\n");
        match (inject(&manifest, &add(Kind::Native), &[]), taken) {
            (Ok(with), Some(port)) => {
                assert!(with.text.contains(&format!("--port={port}\n")), "{ports}");
            }
            (Err(InjectError::Port { .. }), None) => {}
            (outcome, _) => panic!("{ports}: {outcome:?}"),
        }
    }
}

#[test]
fn one_port_under_two_names_is_one_port() {
    let manifest = "kind: Pod\nspec:\n  containers:\n  - name: a\n    ports:\n    - {name: x, containerPort: 80, hostPort: 1}\n    - {name: y, containerPort: 80}\n";
    assert!(
        injected(manifest, &add(Kind::Native))
            .text
            .contains("--port=80\n")
    );
}

#[test]
fn the_port_is_the_one_that_the_container_names_or_that_is_called_http() {
    for (name, manifest) in MANIFESTS {
        let with = injected(manifest, &add(Kind::Native)).text;
        let port = if manifest.contains("8080") {
            "8080"
        } else {
            "80"
        };
        for (_, pod) in pods(&with) {
            let (_, container) = pod.item("initContainers", NAME).expect(name);
            let arguments: Vec<_> = container
                .get("args")
                .expect(name)
                .items()
                .iter()
                .filter_map(Node::text)
                .collect();
            assert_eq!(
                arguments,
                [
                    "mirror",
                    &format!("--port={port}"),
                    "--to=http://my-app-v2",
                    "--admin=0.0.0.0:9471"
                ],
                "{name}"
            );
        }
    }
}

#[test]
fn only_the_workloads_that_are_named() {
    let manifest = MANIFESTS[9]
        .1
        .replace("kind: Pod", "kind: Pod\n  metadata: {name: b}");
    let with = inject(&manifest, &add(Kind::Native), &["b".to_owned()]).expect("it is there");
    assert_eq!(with.workloads, [("Pod b".to_owned(), Done::Added)]);
    assert_eq!(with.text.matches("image: shadowtap").count(), 1);
}

/// What `helm template` gives of the chart that `helm create` makes ends in a test, a pod without a port.
#[test]
fn a_helm_hook_is_left_as_it_is_unless_it_is_named() {
    let app = "kind: Deployment\nmetadata: {name: shop}\nspec: {template: {spec: {containers: [{name: a, ports: [{containerPort: 80}]}]}}}\n";
    let hook = "kind: Pod\nmetadata:\n  name: shop-test\n  annotations:\n    \"helm.sh/hook\": test\nspec: {containers: [{name: wget, command: [wget]}]}\n";
    let manifest = format!("{app}---\n# Source: tests/test-connection.yaml\n{hook}");
    let with = injected(&manifest, &add(Kind::Native));
    assert_eq!(
        with.workloads.iter().map(|it| it.1).collect::<Vec<_>>(),
        [Done::Added, Done::HelmHook]
    );
    assert!(with.text.ends_with(hook), "{}", with.text);
    assert_eq!(injected(&with.text, &add(Kind::Native)).text, with.text);
    assert_eq!(injected(&with.text, &Change::Remove).text, manifest);

    let Change::Add(mut sidecar) = add(Kind::Native) else {
        unreachable!("it adds");
    };
    sidecar.watched = vec![WatchedEnd {
        address: None,
        port: 80,
    }];
    let named = inject(&manifest, &Change::Add(sidecar), &["shop-test".to_owned()]);
    let named = named.expect("it is there");
    assert_eq!(named.workloads, [("Pod shop-test".to_owned(), Done::Added)]);
    // Nobody has to name it to take the sidecar out again.
    assert_eq!(injected(&named.text, &Change::Remove).text, manifest);
}

#[test]
fn a_container_of_the_application_that_is_called_like_the_sidecar_stays() {
    for (container, is_ours) in [
        ("image: corp/shop:1", false),
        ("image: shadowtap.example/shop", false),
        ("image: corp/shop:1, args: [serve, --mirror]", false),
        (
            "image: registry.example:5000/tools/shadowtap@sha256:00",
            true,
        ),
        ("image: corp/tap:1, args: [mirror, --port=80]", true),
        ("image: corp/tap:1, command: [/bin/tap, mirror]", true),
        (
            "image: corp/tap:1, volumeMounts: [{name: shadowtap-no-token, mountPath: /x}]",
            true,
        ),
    ] {
        for list in ["containers", "initContainers"] {
            let other = "containers: [{name: a, ports: [{containerPort: 80}]}";
            let manifest = match list {
                "containers" => {
                    format!("kind: Pod\nspec: {{{other}, {{name: shadowtap, {container}}}]}}\n")
                }
                _ => format!(
                    "kind: Pod\nspec: {{{other}], {list}: [{{name: shadowtap, {container}}}]}}\n"
                ),
            };
            for change in [add(Kind::Native), add(Kind::Classic), Change::Remove] {
                match inject(&manifest, &change, &[]) {
                    Ok(_) => assert!(is_ours, "{manifest}"),
                    Err(error) => {
                        assert!(!is_ours, "{manifest}: {error}");
                        assert!(error.to_string().contains("rename it"), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_the_cluster_adds_to_it_is_no_change() {
    let with = injected(MANIFESTS[0].1, &add(Kind::Native)).text;
    let seen = with.replace(
        "  image: shadowtap",
        "  terminationMessagePath: /dev/x\n        image: shadowtap",
    );
    assert_ne!(seen, with);
    assert_eq!(injected(&seen, &add(Kind::Native)).text, seen);
    assert_eq!(injected(&seen, &Change::Remove).text, MANIFESTS[0].1);
}

#[test]
fn what_cannot_be_changed_says_why() {
    for (manifest, part) in [
        ("kind: Pod\nspec: [", "not YAML"),
        (
            "kind: Pod\nmetadata: {name: p}\n",
            "Pod p: the pod's spec is missing",
        ),
        ("kind: Pod\nspec: hello\n", "the pod's spec is text"),
        (
            "kind: Pod\nspec: {containers: []}\n",
            "containers is an empty list",
        ),
        (
            "kind: Pod\nspec: {containers: {}}\n",
            "containers is a mapping",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a}], volumes: 5}\n",
            "volumes is text",
        ),
        (
            "x: &x {containers: []}\nkind: Pod\nspec: *x\n",
            "the pod's spec is an alias",
        ),
        (
            "kind: List\nitems:\n- kind: Pod\n  spec: &x {containers: [{name: a, ports: [{containerPort: 80}]}]}\n- kind: Deployment\n  spec:\n    template: {spec: *x}\n",
            "Deployment without a name: the pod's spec is an alias",
        ),
        (
            "x: &x {containers: [{name: a}]}\nkind: Pod\nspec:\n  <<: *x\n",
            "containers is an alias",
        ),
        (
            "kind: Pod\nspec: {hostNetwork: true, containers: [{name: a, ports: [{containerPort: 80}]}]}\n",
            "the pod has hostNetwork",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a}]}\n",
            "its containers name no port",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a, ports: [{containerPort: 80}, {containerPort: 90}]}]}\n",
            "the ports 80,90",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a, ports: [{containerPort: 9471}]}]}\n",
            "--admin PORT",
        ),
    ] {
        let error = inject(manifest, &add(Kind::Native), &[])
            .expect_err(manifest)
            .to_string();
        assert!(error.contains(part), "{manifest}: {error}");
    }
    let deep = format!("kind: Pod\nspec: {}", "[".repeat(100_000));
    assert!(inject(&deep, &add(Kind::Native), &[]).is_err());
}

#[test]
fn no_prefix_of_a_manifest_makes_it_panic() {
    for (_, manifest) in MANIFESTS {
        for (end, _) in manifest.char_indices() {
            for change in [add(Kind::Native), add(Kind::Classic), Change::Remove] {
                if let Ok(with) = inject(&manifest[..end], &change, &[]) {
                    let _ = inject(&with.text, &Change::Remove, &[]);
                }
            }
        }
    }
}

/// The pods' specifications in a manifest, with the names of their workloads.
fn pods(manifest: &str) -> Vec<(String, Node)> {
    let mut pods = Vec::new();
    for document in yaml::parse(manifest).unwrap_or_else(|error| panic!("{error}\n{manifest}")) {
        let mut found = Vec::new();
        find_workloads(&document, &[], &mut found);
        for workload in found {
            let spec = workload.spec.expect("a spec");
            pods.push((workload.name.clone(), spec.clone()));
        }
    }
    pods
}
