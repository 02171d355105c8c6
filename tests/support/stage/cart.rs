//! A stage on which a shadow could pay twice: a client, a cart in two versions, the payment provider that both can reach,
//! and a mock; each in a network namespace of its own.

use std::fs;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::super::cannot_run;
use super::super::run::PROGRAM;
use super::{Namespace, Process, Sidecar, link, start, wait_for};

/// The sample application: cart and provider.
const SAMPLE: &str = env!("CARGO_BIN_EXE_sample-app");

/// Where the cart listens.
const CART: &str = "0.0.0.0:8080";

/// The provider, as both versions of the cart call it.
const PROVIDER: &str = "10.81.0.2:9000";

/// The mock, as version 2 and as the sidecar call it.
const MOCK_FOR_V2: &str = "http://10.80.0.2:9900";
const MOCK_FOR_SIDECAR: &str = "http://10.79.0.2:9900";

/// The namespaces, version 1 and the provider.
pub(crate) struct CartStage {
    folder: TempDir,
    client: Namespace,
    v1: Namespace,
    v2: Namespace,
    mock: Namespace,
    _servers: Vec<Process>,
}

/// How version 2 is on this stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Version2 {
    /// Right, with the mock as its proxy.
    Right,
    /// It charges twice.
    ChargesTwice,
    /// Right, and on its own: it calls the real provider.
    WithoutMock,
}

/// Version 2 and what goes with it; it ends with this.
pub(crate) struct Play<'a> {
    stage: &'a CartStage,
    mock: Sidecar,
    mirror: Sidecar,
    _v2: Process,
}

impl CartStage {
    /// Builds the stage; `None`, with the reason printed, where the kernel does not let us. In CI that is a failure.
    pub(crate) fn build() -> Option<Self> {
        Self::try_build().map_err(cannot_run).ok()
    }

    fn try_build() -> Result<Self, String> {
        let client = Namespace::first()?;
        let v1 = client.another()?;
        let v2 = client.another()?;
        let mock = client.another()?;
        let provider = client.another()?;
        link(&client, "uplink", &v1, "front", 77)?;
        link(&v1, "back", &v2, "front", 78)?;
        link(&v1, "feed", &mock, "feed", 79)?;
        link(&v2, "calls", &mock, "calls", 80)?;
        link(&v1, "pays", &provider, "first", 81)?;
        link(&v2, "pays", &provider, "second", 82)?;
        // Version 2 could pay: nothing but the mock keeps it from that.
        v2.must(&["ip", "route", "add", "10.81.0.0/24", "via", "10.82.0.2"])?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut stage = Self {
            folder,
            client,
            v1,
            v2,
            mock,
            _servers: Vec::new(),
        };
        let paying = stage.sample(
            &provider,
            "provider",
            &["--role", "provider", "--listen", "0.0.0.0:9000"],
        );
        let first = stage.cart(&stage.v1, "v1", &[]);
        stage._servers = vec![paying, first];
        Ok(stage)
    }

    fn sample(&self, namespace: &Namespace, name: &str, arguments: &[&str]) -> Process {
        let log = self.folder.path().join(format!("{name}.log"));
        let child = namespace
            .command(SAMPLE)
            .args(arguments)
            .stdout(fs::File::create(&log).expect("a temporary file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        wait_for(name, || self.log(name).contains(" on "));
        Process(child)
    }

    fn cart(&self, namespace: &Namespace, name: &str, more: &[&str]) -> Process {
        let provider = format!("http://{PROVIDER}");
        let arguments = ["--role", "cart", "--listen", CART, "--provider", &provider];
        self.sample(namespace, name, &[&arguments[..], more].concat())
    }

    fn log(&self, name: &str) -> String {
        let path = self.folder.path().join(format!("{name}.log"));
        fs::read_to_string(path).unwrap_or_default()
    }

    /// Version 2, the mock, and the sidecar beside version 1 that feeds it.
    pub(crate) fn play(&self, version_2: Version2, mirror: &[&str]) -> Play<'_> {
        let mock = self.shadowtap(
            &self.mock,
            "mock",
            9301,
            &["mock", "--listen", "0.0.0.0:9900", "--wait", "5s"],
        );
        let more: &[&str] = match version_2 {
            Version2::Right => &["--proxy", MOCK_FOR_V2],
            Version2::ChargesTwice => &["--proxy", MOCK_FOR_V2, "--charge-twice"],
            Version2::WithoutMock => &[],
        };
        let second = self.cart(&self.v2, "v2", more);
        let arguments = [
            "mirror",
            "--port",
            "8080",
            "--to",
            "http://10.78.0.2:8080",
            "--learn-egress",
            PROVIDER,
            "--to-mock",
            MOCK_FOR_SIDECAR,
            // A busy machine may take its time.
            "--grace",
            "30s",
        ];
        let mirror = self.shadowtap(&self.v1, "mirror", 9302, &[&arguments[..], mirror].concat());
        Play {
            stage: self,
            mock,
            mirror,
            _v2: second,
        }
    }

    fn shadowtap(
        &self,
        namespace: &Namespace,
        name: &str,
        admin: u16,
        arguments: &[&str],
    ) -> Sidecar {
        let command = [&[PROGRAM], arguments].concat();
        start(self.folder.path(), namespace, name, admin, &command)
    }

    /// Buys at version 1, several clients at a time; every order must be answered 201. With `traced`, each has a trace.
    pub(crate) fn buy(&self, orders: std::ops::Range<u64>, traced: bool) {
        let url = "http://10.77.0.2:8080/orders";
        let trace = if traced {
            "-H \"traceparent: 00-$(printf %032x $0)-00000000000000aa-01\""
        } else {
            ""
        };
        let buy = format!(
            "curl -sf -o /dev/null {trace} -d \"{{\\\"order\\\":$0,\\\"quantity\\\":2}}\" {url}"
        );
        let all = format!(
            "seq {} {} | xargs -P 8 -I N sh -c '{buy}' N",
            orders.start,
            orders.end - 1
        );
        let status = self.client.command("sh").args(["-c", &all]).status();
        assert!(status.expect("started").success(), "an order was refused");
    }

    /// The orders that a version answered with 201, as they were answered, sorted.
    pub(crate) fn answered(&self, version: &str) -> Vec<String> {
        let log = self.log(version);
        let mut lines: Vec<String> = log
            .lines()
            .filter_map(|line| line.strip_prefix("201 "))
            .map(str::to_owned)
            .collect();
        lines.sort();
        lines
    }

    /// The provider's own log: the orders that were charged, sorted.
    pub(crate) fn charged(&self) -> Vec<u64> {
        let log = self.log("provider");
        let mut orders: Vec<u64> = log
            .lines()
            .filter_map(|line| {
                line.strip_prefix("charge ")?
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect();
        orders.sort_unstable();
        orders
    }
}

impl Play<'_> {
    /// Waits until version 2 has answered, in whatever way, as many orders.
    pub(crate) fn wait_for_v2(&self, orders: usize) {
        wait_for("version 2's orders", || {
            let log = self.stage.log("v2");
            log.lines().filter(|line| line.contains('{')).count() >= orders
        });
    }

    /// What the mock says at that path.
    pub(crate) fn ask_mock(&self, path: &str) -> Value {
        ask(&self.stage.mock, &format!("http://127.0.0.1:9900{path}"))
    }

    /// What the sidecar's admin server says at that path.
    pub(crate) fn ask_mirror(&self, path: &str) -> Value {
        ask(&self.stage.v1, &format!("http://127.0.0.1:9302{path}"))
    }

    /// Stops the sidecar, then the mock; what both said.
    pub(crate) fn stop(self) -> [String; 2] {
        [self.mirror.stop(), self.mock.stop()]
    }
}

fn ask(namespace: &Namespace, url: &str) -> Value {
    let output = namespace.command("curl").args(["-sf", url]).output();
    let output = output.expect("installed by `make setup`");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
