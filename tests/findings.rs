//! What the fuzzer found, and what grew its corpus first: each must go through its target.

use std::fs;

use crate::support::fuzz;
use crate::support::run::in_root;

/// A fuzz target.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("decode_frame", fuzz::decode_frame),
    ("reassemble", fuzz::reassemble),
    ("parse_http", fuzz::parse_http),
    ("read_capture", fuzz::read_capture),
    ("read_gor", fuzz::read_gor),
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
