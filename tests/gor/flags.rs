//! Flags that are wrong, refused or needless; the table in the documentation.

use super::*;
use crate::support::run::in_root;
use shadowtap::cli::gor::flags::{FLAGS, Use};

#[test]
fn a_refused_flag_is_named_with_the_reason_and_another_way() {
    for flag in FLAGS {
        let Use::Refused(why, instead) = flag.usage else {
            continue;
        };
        let given = format!("--{}=1", flag.name);
        let output = run(&["--input-file", "x", "--output-null", &given]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{given}: {said}");
        for words in [flag.name, why, instead] {
            assert!(said.contains(words), "{given}: {said}");
        }
    }
}

/// Case 39.
#[test]
fn kafka_is_refused_with_another_way() {
    let output = run(&["--input-raw", ":80", "--output-kafka-host", "k:9092"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--output-file"));
}

#[test]
fn what_needs_nothing_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let input = file(&folder, "in.gor", &requests(1, 0));
    let said = run_well(&[
        "--input-file",
        &input,
        "--output-null",
        "--input-raw-expire",
        "5s",
        "-input-raw-override-snaplen",
    ]);
    assert!(
        said.contains("--input-raw-expire: nothing to do here"),
        "{said}"
    );
    assert!(
        said.contains("--input-raw-override-snaplen: nothing to do here"),
        "{said}"
    );
}

#[test]
fn a_program_called_gor_is_gor() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("gor");
    std::os::unix::fs::symlink(PROGRAM, &link).expect("a link");
    let input = file(&folder, "in.gor", &requests(3, 0));
    let output = Command::new(&link)
        .args(["-input-file", &input, "-output-stdout"])
        .output()
        .expect("started");
    assert_eq!(records(&output.stdout).len(), 3);
    let help = Command::new(&link).arg("--help").output().expect("started");
    let help = String::from_utf8_lossy(&help.stdout);
    assert!(help.contains("--output-http-workers"));
    assert!(!help.starts_with("error"), "{help}");
}

#[test]
fn the_documentation_has_every_flag() {
    let page = fs::read_to_string(in_root("docs/goreplay.md")).expect("it is there");
    for flag in FLAGS {
        assert!(
            page.contains(&format!("`--{}`", flag.name)),
            "{}",
            flag.name
        );
    }
}
