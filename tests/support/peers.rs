//! Programs of other people that the tests run beside ours.

use std::path::PathBuf;

/// Where `make setup` puts the middleware libraries; `None`, with the reason printed, where it did not. In CI that is a failure.
pub(crate) fn middleware_libraries() -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = var("SHADOWTAP_TEST_PEERS").map_or_else(
        || {
            let cache = var("XDG_CACHE_HOME").map(PathBuf::from);
            let cache = cache.or_else(|| Some(PathBuf::from(var("HOME")?).join(".cache")));
            cache.unwrap_or_default().join("shadowtap/peers")
        },
        PathBuf::from,
    );
    let is_there = |file: &str| folder.join(file).exists();
    if is_there("python/gor/middleware.py") && is_there("node_modules/goreplay_middleware") {
        return Some(folder);
    }
    let why = format!(
        "no middleware libraries in {}; run `make setup`",
        folder.display()
    );
    assert!(std::env::var_os("CI").is_none(), "{why}");
    eprintln!("skipped: {why}");
    None
}
