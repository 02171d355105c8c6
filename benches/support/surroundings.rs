//! What benchmarks that drive real sockets need of the machine.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

/// Runs this program again with other words, in a network and a mount namespace of its own; who is not root gets a user namespace
/// too, in which tcpdump may refuse to work.
pub(crate) fn in_namespace(words: &[&str]) -> io::Result<()> {
    need(&["unshare", "ip"])?;
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
    let flags: &[&str] = if is_root { &["-nm"] } else { &["-Urnm"] };
    let error = Command::new("unshare")
        .args(flags)
        .args(["--", "sh", "-c"])
        .args([
            "ulimit -n $(ulimit -H -n); ip link set lo up; exec \"$@\"",
            "sh",
        ])
        .arg(std::env::current_exe()?)
        .args(words)
        .exec();
    Err(error)
}

/// How the program ends: with the error, if there is one, in words.
pub(crate) fn concluded(finished: io::Result<()>) -> ExitCode {
    match finished {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Sees to it that programs are there, before anything has taken time.
pub(crate) fn need(programs: &[&str]) -> io::Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    match programs.iter().find(|program| !is_there(program)) {
        None => Ok(()),
        Some(program) => Err(io::Error::other(format!(
            "{program} is not on the PATH, and this needs it: 'sh scripts/setup.sh bench' installs what is missing (some systems keep such \
             programs in /usr/sbin)"
        ))),
    }
}

/// The first line of what a program says; empty where there is none.
pub(crate) fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let both = output.map_or_else(|_| Vec::new(), |it| [it.stdout, it.stderr].concat());
    let text = String::from_utf8_lossy(&both);
    text.lines().next().unwrap_or_default().trim().to_owned()
}
