//! Writers of capture files: pcap and pcapng in every flavour that a reader meets.

/// One record: nanoseconds since 1970 and the frame.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// When, in nanoseconds since 1970.
    pub(crate) at: u64,
    /// The frame, whole.
    pub(crate) frame: Vec<u8>,
}

/// A kind of capture file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flavour {
    /// Classic pcap.
    Pcap {
        /// Big-endian numbers.
        big: bool,
        /// Nanoseconds instead of microseconds.
        nanos: bool,
    },
    /// pcapng.
    PcapNg {
        /// Big-endian numbers.
        big: bool,
        /// The `if_tsresol` option: a power of ten, or of two with the top bit set.
        resolution: u8,
        /// Simple packet blocks: no times.
        simple: bool,
        /// The records spread over so many sections.
        sections: usize,
    },
}

/// Plain pcap as tcpdump writes it here.
pub(crate) const PCAP: Flavour = Flavour::Pcap {
    big: false,
    nanos: false,
};

/// Every flavour worth trying.
pub(crate) const FLAVOURS: &[Flavour] = &[
    PCAP,
    Flavour::Pcap {
        big: true,
        nanos: false,
    },
    Flavour::Pcap {
        big: false,
        nanos: true,
    },
    Flavour::Pcap {
        big: true,
        nanos: true,
    },
    Flavour::PcapNg {
        big: false,
        resolution: 6,
        simple: false,
        sections: 1,
    },
    Flavour::PcapNg {
        big: true,
        resolution: 9,
        simple: false,
        sections: 1,
    },
    Flavour::PcapNg {
        big: false,
        resolution: 0x80 | 20,
        simple: false,
        sections: 2,
    },
    Flavour::PcapNg {
        big: false,
        resolution: 6,
        simple: true,
        sections: 1,
    },
];

impl Flavour {
    /// The usual end of such a file's name.
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Pcap { .. } => "pcap",
            Self::PcapNg { .. } => "pcapng",
        }
    }

    /// The file that holds `records`, each cut to `snap` bytes.
    pub(crate) fn write(self, link: u16, snap: usize, records: &[Record]) -> Vec<u8> {
        match self {
            Self::Pcap { big, nanos } => pcap(big, nanos, link, snap, records),
            Self::PcapNg {
                big,
                resolution,
                simple,
                sections,
            } => {
                let mut out = Bytes {
                    big,
                    bytes: Vec::new(),
                };
                for part in records.chunks(records.len().div_ceil(sections).max(1)) {
                    out.section(link, resolution, simple, snap, part);
                }
                out.bytes
            }
        }
    }
}

fn pcap(big: bool, nanos: bool, link: u16, snap: usize, records: &[Record]) -> Vec<u8> {
    let mut out = Bytes {
        big,
        bytes: Vec::new(),
    };
    out.u32(if nanos { 0xa1b2_3c4d } else { 0xa1b2_c3d4 });
    out.u16(2);
    out.u16(4);
    out.u32(0);
    out.u32(0);
    out.u32(number(snap));
    out.u32(link.into());
    for Record { at, frame } in records {
        out.u32(number(at / 1_000_000_000));
        let fraction = at % 1_000_000_000;
        out.u32(number(if nanos { fraction } else { fraction / 1000 }));
        let kept = &frame[..frame.len().min(snap)];
        out.u32(number(kept.len()));
        out.u32(number(frame.len()));
        out.bytes.extend_from_slice(kept);
    }
    out.bytes
}

/// Bytes that grow, in one byte order.
struct Bytes {
    big: bool,
    bytes: Vec<u8>,
}

impl Bytes {
    fn u16(&mut self, value: u16) {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend_from_slice(&bytes);
    }

    fn u32(&mut self, value: u32) {
        let bytes = if self.big {
            value.to_be_bytes()
        } else {
            value.to_le_bytes()
        };
        self.bytes.extend_from_slice(&bytes);
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn block(&mut self, kind: u32, body: impl FnOnce(&mut Self)) {
        let mut inner = Self {
            big: self.big,
            bytes: Vec::new(),
        };
        body(&mut inner);
        let length = number(inner.bytes.len() + 12);
        self.u32(kind);
        self.u32(length);
        self.bytes.extend_from_slice(&inner.bytes);
        self.u32(length);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(u16::try_from(value.len()).expect("a short option"));
        self.padded(value);
    }

    fn section(
        &mut self,
        link: u16,
        resolution: u8,
        simple: bool,
        snap: usize,
        records: &[Record],
    ) {
        self.block(0x0a0d_0d0a, |block| {
            block.u32(0x1a2b_3c4d);
            block.u16(1);
            block.u16(0);
            block.u32(u32::MAX);
            block.u32(u32::MAX);
            block.option(4, b"tests");
            block.option(0, b"");
        });
        self.block(1, |block| {
            block.u16(link);
            block.u16(0);
            block.u32(number(snap));
            block.option(9, &[resolution]);
            block.option(0, b"");
        });
        // A kind that nobody knows, which readers skip.
        self.block(0x0bad, |block| block.padded(b"?"));
        for Record { at, frame } in records {
            let kept = &frame[..frame.len().min(snap)];
            if simple {
                self.block(3, |block| {
                    block.u32(number(frame.len()));
                    block.padded(kept);
                });
                continue;
            }
            let per_second = match resolution {
                power @ 0x80.. => 1_u128 << (power & 0x7f),
                power => 10_u128.pow(power.into()),
            };
            let ticks = u128::from(*at) * per_second / 1_000_000_000;
            self.block(6, |block| {
                block.u32(0);
                block.u32(u32::try_from(ticks >> 32).expect("a time of this age"));
                block.u32(u32::try_from(ticks & 0xffff_ffff).expect("32 bits"));
                block.u32(number(kept.len()));
                block.u32(number(frame.len()));
                block.padded(kept);
                block.option(2, &[0, 0, 0, 1]);
                block.option(0, b"");
            });
        }
        self.block(5, |block| {
            block.u32(0);
            block.u32(0);
            block.u32(0);
        });
    }
}

fn number<N: TryInto<u32>>(value: N) -> u32 {
    value.try_into().ok().expect("fits the file's field")
}
