//! The sandbox, from inside: this test binary starts itself again, enters it, and tries what must not work.

use std::fs;
use std::io;
use std::net::ToSocketAddrs as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Output};

use shadowtap::sandbox::{Needs, Sandbox, SandboxMode};
use socket2::{Domain, Socket, Type};

use crate::support::run::PROGRAM;

/// What a process dies of at a forbidden call.
const SIGSYS: i32 = 31;

/// Where what is tried inside gets a folder from.
const FOLDER: &str = "SHADOWTAP_TEST_FOLDER";

/// Runs one of the tests below in a process of its own.
fn inside(name: &str, folder: Option<&tempfile::TempDir>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let test = format!("sandbox::inside_{name}");
    command.args([&*test, "--exact", "--ignored", "--nocapture"]);
    if let Some(folder) = folder {
        command.env(FOLDER, folder.path());
    }
    command.output().expect("started")
}

fn enter(needs: Needs) {
    let sandbox = Sandbox::new(SandboxMode::On);
    sandbox.enter(&needs);
    let words = sandbox.words();
    for layer in ["no_new_privs on", "seccomp on"] {
        assert!(words.contains(layer), "this needs {layer}: {words}");
    }
}

#[track_caller]
fn assert_died(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.signal(), Some(SIGSYS), "{said}");
}

#[track_caller]
fn assert_passed(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn starting_a_program_ends_the_process() {
    assert_died(&inside("starts_a_program", None));
}

#[test]
#[ignore = "run in a process of its own"]
fn inside_starts_a_program() {
    enter(Needs::default());
    panic!("it came back: {}", Command::new("true").exec());
}

#[test]
fn a_packet_socket_ends_the_process() {
    assert_died(&inside("opens_a_packet_socket", None));
}

#[test]
#[ignore = "run in a process of its own"]
fn inside_opens_a_packet_socket() {
    enter(Needs::default());
    panic!(
        "it came back: {:?}",
        Socket::new(Domain::PACKET, Type::RAW, None)
    );
}

#[test]
fn files_that_are_not_needed_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["input", "secret"] {
        fs::write(folder.path().join(name), "text").expect("written");
    }
    fs::create_dir(folder.path().join("out")).expect("made");
    assert_passed(&inside("touches_files", Some(&folder)));
}

#[test]
#[ignore = "run in a process of its own"]
fn inside_touches_files() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let at = |name: &str| folder.join(name);
    enter(Needs::reading(&[at("input"), at("is-not-there")]).writing(&at("out/recording.gor")));
    let refused = |outcome: io::Result<()>| {
        let kind = outcome.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::PermissionDenied));
    };
    assert_eq!(fs::read_to_string(at("input")).expect("read"), "text");
    fs::write(at("out/recording.gor"), "x").expect("written");
    fs::rename(at("out/recording.gor"), at("out/recording-1.gor")).expect("renamed");
    fs::remove_file(at("out/recording-1.gor")).expect("removed");
    refused(fs::read(at("secret")).map(drop));
    refused(fs::write(at("input"), "other"));
    refused(fs::write(at("new"), "x"));
    refused(fs::remove_file(at("secret")));
    refused(fs::write("/etc/shadowtap-was-here", "x"));
    refused(fs::read_dir(&folder).map(drop));
}

#[test]
fn what_is_needed_still_works() {
    assert_passed(&inside("does_what_is_needed", None));
}

#[test]
#[ignore = "run in a process of its own"]
fn inside_does_what_is_needed() {
    enter(Needs::default());
    let sum = std::thread::spawn(|| (0..10).sum::<u32>()).join();
    assert_eq!(sum.expect("a thread"), 45);
    assert_ne!(
        ("localhost", 80)
            .to_socket_addrs()
            .expect("resolved")
            .count(),
        0
    );
    std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    assert_ne!(if_addrs::get_if_addrs().expect("the interfaces").len(), 0);
    // A process is refused before it could end this one.
    let started = Command::new("true").status();
    assert!(started.is_err(), "{started:?}");
    let status = fs::read_to_string("/proc/thread-self/status").expect("read");
    let is = |name: &str, value: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let found = line.and_then(|line| line.split_whitespace().nth(1));
        assert_eq!(found, Some(value), "{name}");
    };
    is("NoNewPrivs:", "1");
    is("Seccomp:", "2");
    is("CapInh:", "0000000000000000");
    // All but those for reading and writing files.
    let line = status.lines().find(|line| line.starts_with("CapPrm:"));
    let mask = line.and_then(|line| u64::from_str_radix(line[7..].trim(), 16).ok());
    assert_eq!(mask.expect("a mask") & !0b110, 0);
}

#[test]
fn a_program_of_the_users_runs_but_does_nothing_unheard_of() {
    assert_passed(&inside("runs_programs", None));
}

#[test]
#[ignore = "run in a process of its own"]
fn inside_runs_programs() {
    enter(Needs {
        programs: true,
        ..Needs::default()
    });
    assert!(Command::new("true").status().expect("started").success());
    let status = Command::new("chroot").args(["/tmp", "true"]).status();
    assert_eq!(status.expect("started").signal(), Some(SIGSYS));
}

/// A file verb as a user who may nothing, and one that may: what it does is the same.
#[test]
fn files_are_read_in_the_sandbox_and_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("one.gor");
    let record = "1 aaaaaaaaaaaaaaaaaaaaaaaa 1700000000000000000 0\nGET /now HTTP/1.1\r\nHost: a\r\n\r\n\n🐵🙈🙉\n";
    fs::write(&file, record).expect("written");
    let run = |mode: &str| {
        let ran = Command::new(PROGRAM)
            .args(["inspect", "--json", "--sandbox", mode])
            .arg(&file)
            .output()
            .expect("started");
        assert!(ran.status.success(), "{ran:?}");
        ran.stdout
    };
    let inside = run("on");
    assert!(String::from_utf8_lossy(&inside).contains("/now"));
    assert_eq!(inside, run("off"));
}
