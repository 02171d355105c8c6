//! The captures under `fixtures/conformance`: built like those of `cases`, kept as files.

use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;

use super::cases::Case;
use super::run::in_root;
use super::score::lines;

/// Every capture there, in the order of its index.
pub(crate) fn all() -> Vec<Case> {
    let folder = in_root("fixtures/conformance");
    let index = fs::read_to_string(folder.join("index.tsv")).expect("the index is there");
    index
        .lines()
        .map(|line| {
            let [name, class, what] = line.splitn(3, '\t').collect::<Vec<_>>()[..] else {
                panic!("not a line of the index: {line}");
            };
            let packed = fs::read(folder.join(format!("{name}.gz"))).expect("the capture is there");
            let mut file = Vec::new();
            GzDecoder::new(&packed[..])
                .read_to_end(&mut file)
                .expect("gzip");
            let truth = folder.join(format!("{name}.truth.jsonl"));
            Case {
                name: name.to_owned(),
                class: class.to_owned(),
                what: what.to_owned(),
                file,
                truth: lines(&fs::read_to_string(truth).expect("the truth is there")),
            }
        })
        .collect()
}
