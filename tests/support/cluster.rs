//! A cluster in miniature: pods as network namespaces on a bridge, Services that a node translates as kube-proxy does, and
//! names that a DNS server answers.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;

use tempfile::TempDir;

use super::cannot_run;
use super::run::{PROGRAM, in_root};
use super::stage::{Namespace, Process, signal, wait_for};

/// The sample application.
pub(crate) const SAMPLE: &str = env!("CARGO_BIN_EXE_sample-app");

/// Where the application listens in a pod.
pub(crate) const PORT: u16 = 8080;

/// The node, and what all pods share.
pub(crate) struct Cluster {
    /// Where files go.
    pub(crate) folder: TempDir,
    node: Namespace,
    /// Runs for the pods.
    _dns: Process,
}

/// One pod: a network namespace with an address.
pub(crate) struct Pod {
    /// Its address.
    pub(crate) address: String,
    pub(crate) namespace: Namespace,
    name: String,
    folder: PathBuf,
}

/// A program that runs in a pod.
pub(crate) struct Running {
    process: Process,
    log: PathBuf,
}

impl Cluster {
    /// Builds it; `None`, with the reason printed, where the kernel does not let us. In CI that is a failure.
    pub(crate) fn build() -> Option<Self> {
        Self::try_build().map_err(cannot_run).ok()
    }

    fn try_build() -> Result<Self, String> {
        let node = Namespace::first()?;
        node.must(&["ip", "link", "add", "cni0", "type", "bridge"])?;
        node.must(&["ip", "address", "add", "10.79.0.1/24", "dev", "cni0"])?;
        node.must(&["ip", "link", "set", "cni0", "up"])?;
        let routing = "echo 1 > /proc/sys/net/ipv4/ip_forward; \
                       for file in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 > $file; done";
        node.must(&["sh", "-c", routing])?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("zone"), "").map_err(|error| error.to_string())?;
        let resolver = "nameserver 10.79.0.1\noptions timeout:1 attempts:2\n";
        fs::write(path("resolv.conf"), resolver).map_err(|error| error.to_string())?;
        let said = fs::File::create(path("dns.log")).map_err(|error| error.to_string())?;
        let script = in_root("tests/support/dns.py");
        let dns = node
            .command("python3")
            .args([
                script.to_str().expect("a plain path"),
                "10.79.0.1",
                &path("zone"),
            ])
            .stdout(said.try_clone().expect("a file"))
            .stderr(said)
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let mut dns = Process(dns);
        wait_for("the DNS server", || {
            assert!(
                !dns.has_ended(),
                "it ended: {}",
                read(&folder.path().join("dns.log"))
            );
            read(&folder.path().join("dns.log")).contains("ready")
        });
        let cluster = Self {
            folder,
            node,
            _dns: dns,
        };
        // Fails here, if at all, where the kernel does not translate addresses.
        cluster.try_services(&[])?;
        Ok(cluster)
    }

    /// A new pod with the address `10.79.0.HOST`.
    pub(crate) fn pod(&self, name: &str, host: u8) -> Pod {
        let namespace = self.node.another().expect("as the first");
        let pid = namespace.pid().to_string();
        let outside = format!("veth{host}");
        let address = format!("10.79.0.{host}");
        let own = format!("{address}/32");
        // A pod may meet itself through a Service: its link has to take back what it has brought (kubelet's hairpin mode).
        let node = [
            &[
                "ip", "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns",
                &pid,
            ][..],
            &["ip", "link", "set", &outside, "master", "cni0", "up"],
            &[
                "ip",
                "link",
                "set",
                &outside,
                "type",
                "bridge_slave",
                "hairpin",
                "on",
            ],
        ];
        // Through the node even to its neighbours, so that the node sees the answers too.
        let pod = [
            &["ip", "address", "add", &own, "dev", "eth0"][..],
            &["ip", "link", "set", "eth0", "up"],
            &["ip", "route", "add", "10.79.0.1", "dev", "eth0"],
            &["ip", "route", "add", "default", "via", "10.79.0.1"],
        ];
        for command in node {
            self.node.must(command).expect("a link");
        }
        for command in pod {
            namespace.must(command).expect("an address");
        }
        Pod {
            address,
            namespace,
            name: name.to_owned(),
            folder: self.folder.path().to_owned(),
        }
    }

    /// Makes these Services, and no others: the virtual address, and the pods behind its port 80.
    pub(crate) fn services(&self, services: &[(&str, &[&Pod])]) {
        self.try_services(services).expect("rules");
    }

    fn try_services(&self, services: &[(&str, &[&Pod])]) -> Result<(), String> {
        let mut there = String::new();
        let mut back = String::new();
        for (address, pods) in services {
            let count = pods.len();
            let choices: Vec<_> = pods
                .iter()
                .enumerate()
                .map(|(index, pod)| format!("{index} : {}", pod.address))
                .collect();
            if let [pod] = pods {
                let to = &pod.address;
                let _ = write!(
                    there,
                    "ip daddr {address} tcp dport 80 dnat to {to}:{PORT}; "
                );
            } else if count > 1 {
                let choices = choices.join(", ");
                let _ = write!(
                    there,
                    "ip daddr {address} tcp dport 80 dnat to numgen random mod {count} map {{ {choices} }}:{PORT}; "
                );
            }
            for pod in *pods {
                // A pod that meets itself through a Service does not answer itself directly.
                let own = &pod.address;
                let _ = write!(back, "ip saddr {own} ip daddr {own} masquerade; ");
            }
        }
        let rules = format!(
            "table ip services; delete table ip services; table ip services {{ \
             chain there {{ type nat hook prerouting priority -100; {there} }}; \
             chain back {{ type nat hook postrouting priority 100; {back} }}; }}"
        );
        self.node.must(&["nft", &rules])
    }

    /// Makes these names, and no others.
    pub(crate) fn names(&self, names: &[(&str, &str)]) {
        let lines: String = names
            .iter()
            .map(|(name, at)| format!("{name} {at}\n"))
            .collect();
        let new = self.folder.path().join("zone.new");
        fs::write(&new, lines).expect("a temporary file");
        fs::rename(new, self.folder.path().join("zone")).expect("a temporary file");
    }
}

impl Pod {
    /// Starts version `version` of the sample application and waits until it serves.
    pub(crate) fn app(&self, version: &str, more: &[&str]) -> Running {
        let running = self.start("app", SAMPLE, &[&["--app-version", version], more].concat());
        wait_for("the application", || {
            self.fetch("http://127.0.0.1:8086/ready")
                .is_some_and(|said| said == "ready\n")
        });
        running
    }

    /// Starts the sidecar and waits until it lives; its admin server is on port 9471.
    pub(crate) fn sidecar(&self, arguments: &[&str]) -> Running {
        let mut running = self.start(
            "shadowtap",
            PROGRAM,
            &[&["mirror", "--admin=0.0.0.0:9471"], arguments].concat(),
        );
        wait_for("the sidecar", || {
            assert!(!running.process.has_ended(), "it ended: {}", running.said());
            self.fetch("http://127.0.0.1:9471/healthz").is_some()
        });
        running
    }

    /// Starts a program that finds the cluster's DNS server in `/etc/resolv.conf`.
    pub(crate) fn start(&self, what: &str, program: &str, arguments: &[&str]) -> Running {
        let log = self.folder.join(format!("{}.{what}.log", self.name));
        let file = fs::File::create(&log).expect("a temporary file");
        let child = self
            .namespace
            .command("unshare")
            .args([
                "-m",
                "sh",
                "-c",
                "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"",
            ])
            .arg(self.folder.join("resolv.conf"))
            .arg(program)
            .args(arguments)
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("the program can be started");
        Running {
            process: Process(child),
            log,
        }
    }

    /// The body of a page, as seen from the pod; none if there is no answer.
    pub(crate) fn fetch(&self, url: &str) -> Option<String> {
        let output = self
            .namespace
            .command("curl")
            .args(["-sS", "-g", "--max-time", "5", url])
            .output()
            .expect("installed by `make setup`");
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What `/readyz` of the sidecar says.
    pub(crate) fn readiness(&self) -> String {
        self.fetch("http://127.0.0.1:9471/readyz")
            .unwrap_or_default()
    }

    /// A number from the sidecar's `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let text = self.fetch("http://127.0.0.1:9471/metrics")?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Sends requests one after the other and gives back what was answered, line by line; each must be.
    pub(crate) fn requests(&self, arguments: &[&str]) -> Vec<String> {
        let output = self
            .namespace
            .command("curl")
            .args([&["-sS", "--fail", "--max-time", "20"], arguments].concat())
            .output()
            .expect("installed by `make setup`");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

impl Running {
    /// What it has printed.
    pub(crate) fn said(&self) -> String {
        read(&self.log)
    }

    /// How many of its lines hold `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.said()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Its process.
    pub(crate) fn child(&self) -> &Child {
        &self.process.0
    }

    /// Ends it without warning.
    pub(crate) fn kill(self) {
        drop(self);
    }

    /// Asks it to end and waits for that; what it has printed.
    pub(crate) fn stop(mut self) -> String {
        signal("TERM", &self.process.0);
        wait_for("the end after SIGTERM", || self.process.has_ended());
        let status = self.process.0.wait().expect("our child");
        assert!(status.success(), "{status}: {}", self.said());
        self.said()
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
