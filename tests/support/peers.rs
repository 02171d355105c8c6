//! Programs of other people that the tests run beside ours. `make setup` puts those that no system's packages have into a
//! folder of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::cannot_run;
use super::run::in_root;

/// Where `make setup` puts the middleware libraries; `None`, with the reason printed, where it did not. In CI that is a failure.
pub(crate) fn middleware_libraries() -> Option<PathBuf> {
    let folder = folder();
    let is_there = |file: &str| folder.join(file).exists();
    if is_there("python/gor/middleware.py") && is_there("node_modules/goreplay_middleware") {
        return Some(folder);
    }
    cannot_run(format_args!(
        "no middleware libraries in {}; run `make setup`",
        folder.display()
    ));
    None
}

/// A kubectl that knows `debug --custom`, which came with 1.31; `None`, with the reason printed, where there is none. In CI that
/// is a failure.
pub(crate) fn kubectl() -> Option<PathBuf> {
    let knows = |program: &PathBuf| {
        let help = Command::new(program).args(["debug", "--help"]).output();
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--custom"))
    };
    let found = ["kubectl".into(), folder().join("kubectl")]
        .into_iter()
        .find(knows);
    if found.is_none() {
        cannot_run("no kubectl that knows `debug --custom` (1.31 or later); run `make setup`");
    }
    found
}

/// Runs a script of `tests/browser`, which looks at a dashboard, behind `token` if there is one; what it printed, or `None`
/// where there is no browser to do it. In CI that is a failure.
pub(crate) fn browse(script: &str, admin: SocketAddr, token: Option<&str>) -> Option<String> {
    let folder = in_root("tests/browser");
    if !folder.join("node_modules/playwright-core").exists() {
        cannot_run("playwright-core is missing: run `make setup`");
        return None;
    }
    let mut command = Command::new("node");
    command
        .arg(folder.join(script))
        .arg(format!("http://{admin}/"));
    match (token, std::env::var_os("SHADOWTAP_SCREENSHOTS")) {
        (Some(token), _) => _ = command.env("TOKEN", token),
        (None, Some(folder)) => _ = command.arg(folder),
        (None, None) => {}
    }
    let output = command.output().expect("node runs");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{wrong}");
    Some(printed)
}

fn folder() -> PathBuf {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let in_cache = || {
        let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache")));
        cache.unwrap_or_default().join("shadowtap/peers")
    };
    var("SHADOWTAP_TEST_PEERS").map_or_else(in_cache, PathBuf::from)
}
