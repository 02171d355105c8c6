//! Version 2: answers every request, and keeps their number in a file, which outlives it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::load::length_of;

/// Serves until it is killed.
pub(super) fn run(address: &str, count: &Path) -> io::Result<()> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(count)?;
    let served = Arc::new(Mutex::new((served(count), file)));
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        let served = Arc::clone(&served);
        let stream = stream?;
        std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                // A client that goes away ends its connection, nothing else.
                let _ = converse(stream, &served);
            })?;
    }
    Ok(())
}

/// How many requests were served, over all lives of the server.
pub(super) fn served(count: &Path) -> u64 {
    let bytes = std::fs::read(count).unwrap_or_default();
    bytes
        .first_chunk::<8>()
        .map_or(0, |it| u64::from_le_bytes(*it))
}

fn converse(mut stream: TcpStream, served: &Mutex<(u64, File)>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let body = r#"{"id":7,"name":"a thing","price":1234,"tags":["one","two"]}"#;
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        while let Some(length) = length_of(&bytes).filter(|&length| length <= bytes.len()) {
            bytes.drain(..length);
            {
                let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
                served.0 += 1;
                served.1.write_all_at(&served.0.to_le_bytes(), 0)?;
            }
            stream.write_all(answer.as_bytes())?;
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
}
