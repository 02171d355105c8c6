//! gzip (RFC 1952) that gives every byte before the damage.

use std::io::{self, BufRead, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};

/// Decompresses the members of a gzip file, one after the other.
///
/// flate2's own reader drops what it decompressed in the call that meets the damage; this one hands it over first.
pub(super) struct Gunzip<R> {
    reader: R,
    state: State,
    inflate: Decompress,
    crc: Crc,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A member must begin.
    FirstHeader,
    /// Another member, or the end.
    NextHeader,
    Body,
    Trailer,
    /// The compressed data made no sense; what came before it was handed over.
    Damaged,
    End,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            state: State::FirstHeader,
            inflate: Decompress::new(false),
            crc: Crc::new(),
        }
    }

    /// RFC 1952 §2.3.
    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.reader.read_exact(&mut fixed)?;
        if fixed[..3] != [0x1f, 0x8b, 8] {
            return Err(damage("gzip data is followed by something else"));
        }
        let flags = fixed[3];
        if flags & EXTRA != 0 {
            let mut len = [0; 2];
            self.reader.read_exact(&mut len)?;
            self.skip(usize::from(u16::from_le_bytes(len)))?;
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                while self.byte()? != 0 {}
            }
        }
        if flags & HEADER_CRC != 0 {
            self.skip(2)?;
        }
        self.inflate.reset(false);
        self.crc.reset();
        Ok(())
    }

    /// Whether another member follows. Zeros at the end, as tapes leave them, are ignored as gzip(1) does.
    fn another(&mut self) -> io::Result<bool> {
        loop {
            let buffered = self.reader.fill_buf()?;
            if buffered.is_empty() {
                return Ok(false);
            }
            let zeros = buffered.iter().take_while(|&&byte| byte == 0).count();
            if zeros == 0 {
                return Ok(true);
            }
            self.reader.consume(zeros);
        }
    }

    fn body(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let input = self.reader.fill_buf()?;
        if input.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (total_in, total_out) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, buffer, FlushDecompress::None);
        let read = (self.inflate.total_in() - total_in) as usize;
        let written = (self.inflate.total_out() - total_out) as usize;
        self.reader.consume(read);
        self.crc.update(&buffer[..written]);
        match status {
            Ok(Status::StreamEnd) => self.state = State::Trailer,
            Ok(Status::Ok | Status::BufError) if read + written > 0 => {}
            Ok(Status::Ok | Status::BufError) | Err(_) => self.state = State::Damaged,
        }
        Ok(written)
    }

    /// RFC 1952 §2.3.1.
    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.reader.read_exact(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.sum()
            || u32::from_le_bytes([e, f, g, h]) != self.crc.amount()
        {
            return Err(damage("the gzip checksum does not match"));
        }
        Ok(())
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.reader.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn skip(&mut self, n: usize) -> io::Result<()> {
        for _ in 0..n {
            self.byte()?;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::FirstHeader => {
                    self.header()?;
                    self.state = State::Body;
                }
                State::NextHeader => {
                    self.state = if self.another()? {
                        State::FirstHeader
                    } else {
                        State::End
                    };
                }
                State::Body => {
                    let written = self.body(buffer)?;
                    if written > 0 {
                        return Ok(written);
                    }
                }
                State::Trailer => {
                    self.trailer()?;
                    self.state = State::NextHeader;
                }
                State::Damaged => return Err(damage("the gzip data does not decompress")),
                State::End => return Ok(0),
            }
        }
    }
}

fn damage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
