//! The core has no clock, no sockets, no threads, no locks and no files: the lints that say so are on, and nobody goes around them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::run::in_root;

/// The core modules.
const CORE: [&str; 12] = [
    "account", "compare", "exchange", "goreplay", "http1", "judge", "mock", "tap", "tcp", "time",
    "traffic", "wire",
];

/// What only the shell may use.
const IMPURE: [&str; 14] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::thread",
    "std::fs",
    "std::env",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::net::Tcp",
    "std::net::Udp",
    "tokio::",
    "crossbeam",
    "async fn",
];

#[test]
fn the_lints_of_the_core_are_on() {
    let lib = fs::read_to_string(in_root("src/lib.rs")).expect("it is there");
    for module in CORE {
        let guarded = format!("#[deny(clippy::disallowed_types)]\npub mod {module};");
        assert!(lib.contains(&guarded), "{module} is not guarded in lib.rs");
    }
    let bans = fs::read_to_string(in_root("clippy.toml")).expect("it is there");
    for banned in [
        "std::time::Instant",
        "std::time::SystemTime",
        "std::sync::Mutex",
        "std::sync::RwLock",
        "std::net::TcpStream",
        "std::net::TcpListener",
        "std::net::UdpSocket",
        "std::thread::JoinHandle",
        "std::fs::File",
        "tokio::net::TcpStream",
    ] {
        let entry = format!("path = \"{banned}\", reason = ");
        assert!(
            bans.contains(&entry),
            "{banned} is not banned, or without a reason"
        );
    }
}

#[test]
fn nobody_goes_around_them() {
    let mut files = Vec::new();
    for module in CORE {
        files.push(in_root(&format!("src/{module}.rs")));
        collect(&in_root(&format!("src/{module}")), &mut files);
    }
    assert!(
        files.len() > CORE.len(),
        "the core has more files than that"
    );
    for file in files {
        let text = fs::read_to_string(&file).expect("readable");
        assert!(
            !text.contains("clippy::disallowed"),
            "{} lifts the lint",
            file.display()
        );
        // Tests at the end of a file, and words in comments, are free.
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
        {
            for word in IMPURE {
                assert!(!line.contains(word), "{}: {line}", file.display());
            }
        }
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}
