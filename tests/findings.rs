//! What the fuzzer found, and what grew its corpus first: each must go through its target.

use std::fs;

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::fuzz;
use crate::support::rng::Rng;
use crate::support::run::in_root;

/// A fuzz target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 10] = [
    ("decode_frame", fuzz::decode_frame),
    ("reassemble", fuzz::reassemble),
    ("parse_http", fuzz::parse_http),
    ("read_capture", fuzz::read_capture),
    ("read_gor", fuzz::read_gor),
    ("read_har", fuzz::read_har),
    ("read_jsonl", fuzz::read_jsonl),
    ("parse_filter", fuzz::parse_filter),
    ("read_middleware", fuzz::read_middleware),
    ("inject_manifest", fuzz::inject_manifest),
];

#[test]
fn nothing_that_the_fuzzer_found_stops_its_target() {
    for (name, target) in TARGETS {
        target(&[]);
        // Nothing found yet is no folder yet.
        for entry in fs::read_dir(in_root("fuzz/findings").join(name))
            .into_iter()
            .flatten()
        {
            let path = entry.expect("readable").path();
            println!("{}", path.display());
            target(&fs::read(path).expect("readable"));
        }
    }
}

/// A short run without the fuzzer: what each target begins with, changed here and there, the same every time. A long one when
/// `FUZZ_SECONDS` says how long, of `FUZZ_TARGET` alone if that is given, and with other changes when `FUZZ_SEED` is.
#[test]
fn seeds_with_changes_stop_no_target() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|it| it.parse::<u64>().ok())
    };
    let seconds = number("FUZZ_SECONDS");
    let only = std::env::var("FUZZ_TARGET").ok();
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, target) in TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let seeds = folder.path().join(name);
        let made = Command::new("sh")
            .arg(in_root("fuzz/seed.sh"))
            .args([name.as_ref(), seeds.as_os_str()])
            .status();
        assert!(made.is_ok_and(|it| it.success()), "seeds of {name}");
        let mut seeds: Vec<_> = fs::read_dir(&seeds)
            .expect("a folder")
            .map(|it| it.expect("readable").path())
            .collect();
        seeds.sort();
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let seeds: Vec<_> = seeds
            .into_iter()
            .map(|path| fs::read(path).expect("readable"))
            .collect();
        let mut rng = Rng::new(number("FUZZ_SEED").unwrap_or(9));
        let begin = Instant::now();
        let mut executions = 0_u64;
        while match seconds {
            Some(seconds) => begin.elapsed() < Duration::from_secs(seconds),
            None => executions < 150,
        } {
            let first = rng.pick(&seeds);
            let other = rng.pick(&seeds);
            // Debug builds are slow, and long files say no more than short ones.
            let mut bytes = first[..first.len().min(4096)].to_vec();
            for _ in 0..rng.range(0, 8) {
                change(&mut bytes, other, &mut rng);
            }
            if seconds.is_some() {
                // What stopped it is there when it has stopped it.
                fs::write(std::env::temp_dir().join(format!("fuzz-{name}")), &bytes)
                    .expect("a temporary file");
            }
            target(&bytes);
            executions += 1;
        }
        println!("{name}: {executions} executions in {:?}", begin.elapsed());
    }
}

/// Changes something: a bit, a byte, a piece that is left out, repeated, or of another file.
fn change(bytes: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let at = rng.range(0, bytes.len() + 1);
    let end = (at + rng.range(0, 24)).min(bytes.len());
    match rng.range(0, 6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.range(0, 8),
        1 if at < bytes.len() => bytes[at] = *rng.pick(b"\0\xff\r\n \t:0123456789;G{}[]\",-"),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        4 if !other.is_empty() => {
            let from = rng.range(0, other.len());
            let to = (from + rng.range(0, 40)).min(other.len());
            bytes.splice(at..end, other[from..to].iter().copied());
        }
        _ => bytes.truncate(at.max(bytes.len() / 2)),
    }
}
