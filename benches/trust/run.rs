//! The order of things: which parts run.

use std::io;
use std::time::Duration;

use super::stage::program;
use super::surroundings::{in_namespace, said};
use super::{bombs, experiment, offline, serve, soak};

pub(super) fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|it| it != "--bench")
        .collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => in_namespace(&["all", "8", "5"]),
        ["all", seconds, rounds] => all(
            seconds_of(seconds)?,
            rounds.parse().map_err(io::Error::other)?,
        ),
        ["flood", number] => offline::flood(number.parse().map_err(io::Error::other)?),
        ["bombs"] => bombs::all().map(drop),
        ["bomb", codings, file] => bombs::one(codings, file.as_ref()),
        ["soak"] => in_namespace(&["soaked", "1800"]),
        ["soak", seconds] => in_namespace(&["soaked", seconds]),
        ["soaked", seconds] => soak::run(seconds_of(seconds)?),
        ["serve", address, count] => serve::run(address, count.as_ref()),
        _ => {
            println!("nothing to do for: {}", words.join(" "));
            Ok(())
        }
    }
}

/// Everything but the long run, and the page.
fn all(time: Duration, rounds: usize) -> io::Result<()> {
    let beside = experiment::run(time, rounds)?;
    let repaired = experiment::repaired(time)?;
    let missed = offline::missed()?;
    let floods = offline::floods()?;
    let bombs = bombs::all()?;
    let page = format!(
        "# Trust\n\n`make trust` writes this page, and fails when something in it is not as it must be. The [long run](soak.md) is a page of its own. \
         Measured on {}\n\n{beside}## Lost packets\n\n\
         Packets that are lost before the capture are repaired by TCP: live, dropped by the kernel on the client's side, every request is answered and \
         replayed, once.\n\n{repaired}\n\
         Packets that the capture alone misses cost the messages that they were part of, and no other: no request is replayed and none judged of which a byte \
         is missing. The theoretical best is the share of requests (exchanges) of which every byte was captured. What follows a hole of which nothing tells whether a body \
         goes on behind it is found, marked as unproven, and left aside unless `--replay-ambiguous` is given; an answer behind a hole that may be another request's is nobody's. 20 captures of 2,500 exchanges, made up, with \
         bodies of up to 9 KB:\n\n{missed}\n\
         ## Floods\n\n\
         Made up, read as fast as they can be, with the bounds that the program has by default; every thousand packets an honest connection in the middle of it \
         has one more exchange. CPU is that of everything, making the packets up included.\n\n{floods}\n\
         ## Compression bombs\n\n\
         Two answers to one request, each a gibibyte of zeros in the codings named, compared with the bounds that the program has by default: both are unpacked as far \
         as what is compared may be large (8 MiB), and counted as `content_too_large`. Memory is what the process grew by beyond the two answers as they came, at most.\n\n{bombs}",
        machine()
    );
    std::fs::write("docs/trust.md", page)?;
    println!("written: docs/trust.md");
    Ok(())
}

fn seconds_of(word: &str) -> io::Result<Duration> {
    word.parse()
        .map(Duration::from_secs)
        .map_err(io::Error::other)
}

/// The machine, the versions and the date, as the pages begin.
pub(super) fn machine() -> String {
    let first = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split([':', '=']).nth(1))
            .map_or("?", str::trim)
            .trim_matches('"')
            .to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first("/proc/meminfo", "MemTotal");
    let memory = memory.trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / f64::from(1 << 20);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let build = match std::env::var("TRUST_PROGRAM") {
        Ok(_) => " (another build than `cargo bench` makes, named by `TRUST_PROGRAM`)",
        Err(_) => "",
    };
    format!(
        "{}, {cores} cores, {memory:.0} GiB; {}, Linux {}; {}; {}{build}; {}; load of the machine at the end {}.",
        first("/proc/cpuinfo", "model name"),
        first("/etc/os-release", "PRETTY_NAME"),
        said("uname", &["-r"]),
        said("nginx", &["-v"]).replace("nginx version: ", ""),
        said(&program(), &["--version"]),
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        load.split(' ').next().unwrap_or("?"),
    )
}
