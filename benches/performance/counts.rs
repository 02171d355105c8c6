//! Instructions, counted by callgrind: the same on every run of the same program.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::generate::Traffic;

/// Instructions for each packet that is read and for each request that is replayed, without what starting costs: the
/// difference between a file and one that is twice as long. `None` where there is no valgrind.
pub(crate) fn count(folder: &Path) -> io::Result<Option<(f64, f64)>> {
    if Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return Ok(None);
    }
    let myself = std::env::current_exe()?;
    // A build without optimisation takes its time.
    let exchanges = if cfg!(debug_assertions) { 500 } else { 4000 };
    let short = Traffic {
        connections: 64,
        exchanges,
        body: 90,
    };
    let long = Traffic {
        exchanges: exchanges * 2,
        ..short
    };
    let mut server = serve(&myself)?;
    let mut counted = Vec::new();
    for traffic in [short, long] {
        let file = folder.join("counts.pcap");
        traffic.write(&mut io::BufWriter::new(std::fs::File::create(&file)?))?;
        let mut read = Command::new(&myself);
        read.arg("subject").arg(&file);
        let mut replay = Command::new(env!("CARGO_BIN_EXE_shadowtap"));
        replay.arg("replay").arg(&file).args([
            "--to",
            &format!("http://{ADDRESS}"),
            "--speed",
            "max",
            "--progress",
            "off",
        ]);
        counted.push([instructions(&read, folder)?, instructions(&replay, folder)?]);
    }
    drop(server.stdin.take());
    server.wait()?;
    let requests = f64::from(long.exchanges - short.exchanges);
    let more = |which: usize| counted[1][which] - counted[0][which];
    // A request, an answer and an acknowledgement are three packets.
    Ok(Some((more(0) / (requests * 3.0), more(1) / requests)))
}

fn serve(myself: &Path) -> io::Result<Child> {
    let mut child = Command::new(myself)
        .args(["serve", ADDRESS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = String::new();
    let out = child.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
    io::BufRead::read_line(&mut io::BufReader::with_capacity(6, out), &mut ready)?;
    Ok(child)
}

/// How many instructions a command takes.
fn instructions(command: &Command, folder: &Path) -> io::Result<f64> {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            &format!(
                "--callgrind-out-file={}",
                folder.join("counts.out").display()
            ),
        ])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines()
        .find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok())
        .ok_or_else(|| io::Error::other(format!("valgrind said: {said}")))
}

const ADDRESS: &str = "127.0.0.1:19191";
