//! The names of GoReplay's files: `%Y-%m-%d` and its kin, and the numbers of chunks.

use std::path::{Path, PathBuf};

/// A point in time, in parts, as a file name shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// With four digits.
    pub year: i32,
    /// From 1.
    pub month: u32,
    /// From 1.
    pub day: u32,
    /// From 0 to 23.
    pub hour: u32,
    /// From 0 to 59.
    pub minute: u32,
    /// From 0 to 60.
    pub second: u32,
    /// Of the second.
    pub nanosecond: u32,
}

/// A file name with places for the time (`%Y %m %d %H %M %S %NS`), the run (`%i`), the request (`%r`) and the record's
/// type (`%t`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    text: String,
    instance: String,
}

impl Template {
    /// `instance` is what `%i` stands for.
    #[must_use]
    pub fn new(text: &str, instance: &str) -> Self {
        Self {
            text: text.to_owned(),
            instance: instance.to_owned(),
        }
    }

    /// Whether the name depends on the record, and not on the time alone.
    #[must_use]
    pub fn is_by_request(&self) -> bool {
        self.text.contains("%r")
    }

    /// Whether the files are gzipped.
    #[must_use]
    pub fn is_gzipped(&self) -> bool {
        self.text.ends_with(".gz")
    }

    /// The name for a record of that id and type.
    #[must_use]
    pub fn name(&self, now: &Moment, id: &[u8], kind: u8) -> String {
        let mut name = String::with_capacity(self.text.len() + 32);
        let mut rest = &self.text[..];
        while let Some(at) = rest.find('%') {
            name.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            // The longer name first: %NS is not %N and S.
            let places: [(&str, String); 9] = [
                ("NS", format!("{:09}", now.nanosecond)),
                ("Y", format!("{:04}", now.year)),
                ("m", format!("{:02}", now.month)),
                ("d", format!("{:02}", now.day)),
                ("H", format!("{:02}", now.hour)),
                ("M", format!("{:02}", now.minute)),
                ("S", format!("{:02}", now.second)),
                ("i", self.instance.clone()),
                ("r", safe(id)),
            ];
            let place = places
                .iter()
                .find_map(|(place, text)| Some((rest.strip_prefix(place)?, text)));
            match place {
                Some((behind, text)) => {
                    name.push_str(text);
                    rest = behind;
                }
                None if rest.starts_with('t') && self.is_by_request() => {
                    name.push(char::from(b'0' + kind));
                    rest = &rest[1..];
                }
                None => name.push('%'),
            }
        }
        name.push_str(rest);
        name
    }
}

/// An id as it may stand in a file name: it comes from outside.
fn safe(id: &[u8]) -> String {
    id.iter()
        .map(|&byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' => char::from(byte),
            _ => '_',
        })
        .collect()
}

/// The number of a chunk, as in `logs_10.gz`.
#[must_use]
pub fn index_of(path: &Path) -> Option<u64> {
    let (stem, _) = split(path.to_str()?);
    let (_, digits) = stem.rsplit_once('_')?;
    (!digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// The name of a chunk: the number goes before the extension, in the place of one that is there.
#[must_use]
pub fn with_index(path: &Path, index: u64) -> PathBuf {
    let text = path.to_string_lossy();
    let (stem, extension) = split(&text);
    let stem = match index_of(path) {
        Some(_) => stem.rsplit_once('_').map_or(stem, |(front, _)| front),
        None => stem,
    };
    PathBuf::from(format!("{stem}_{index}{extension}"))
}

/// The name without the extension, and the extension with its dot.
fn split(path: &str) -> (&str, &str) {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name..].rfind('.') {
        Some(dot) => path.split_at(name + dot),
        None => (path, ""),
    }
}

/// Which chunk of a file is being written, and when the next one begins.
#[derive(Clone, Debug, Default)]
pub struct Chunks {
    records: u64,
    bytes: u64,
}

impl Chunks {
    /// Whether a chunk that has what was added is full; a bound of 0 is none.
    #[must_use]
    pub const fn is_full(&self, most_records: u64, most_bytes: u64) -> bool {
        (most_records > 0 && self.records >= most_records)
            || (most_bytes > 0 && self.bytes >= most_bytes)
    }

    /// Sets the bytes to what the file was found to have: of a packed one that is less than was added.
    pub const fn measured(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// Adds a record.
    pub const fn add(&mut self, bytes: u64) {
        self.records += 1;
        self.bytes += bytes;
    }
}

/// The path of a plain chunk, as GoReplay's tests order them: by name, then by number.
#[cfg(test)]
fn order(path: &str) -> (String, Option<u64>) {
    let path = Path::new(path);
    let index = index_of(path);
    let (stem, extension) = split(path.to_str().expect("text"));
    let front = match index {
        Some(_) => stem.rsplit_once('_').expect("an index").0,
        None => stem,
    };
    (format!("{front}{extension}"), index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment {
        year: 2014,
        month: 3,
        day: 9,
        hour: 7,
        minute: 5,
        second: 1,
        nanosecond: 42,
    };

    #[test]
    fn places_are_filled() {
        for (template, expected) in [
            ("./test_requests.gor", "./test_requests.gor"),
            ("/tmp/log-%Y-%m-%d-%S-%t", "/tmp/log-2014-03-09-01-%t"),
            ("%Y%m%d%H%M%S.gor", "20140309070501.gor"),
            ("%NS-%S", "000000042-01"),
            ("%r-%t.gor", "a1f-2.gor"),
            ("%i", "inst"),
            ("100%", "100%"),
            ("%x%%Y", "%x%2014"),
        ] {
            let name = Template::new(template, "inst").name(&NOW, b"a1f", 2);
            assert_eq!(name, expected);
        }
        let name = Template::new("%r.gor", "").name(&NOW, b"../../etc/x y", 1);
        assert_eq!(name, "______etc_x_y.gor");
    }

    #[test]
    fn a_new_second_is_a_new_name() {
        let template = Template::new("/tmp/log-%Y-%m-%d-%S", "");
        let later = Moment { second: 2, ..NOW };
        assert_ne!(template.name(&NOW, b"", 1), template.name(&later, b"", 1));
    }

    #[test]
    fn numbers_are_read() {
        for (path, index) in [
            ("/tmp/logs", None),
            ("/tmp/logs_1", Some(1)),
            ("/tmp/logs_2.gz", Some(2)),
            ("/tmp/logs_0.gz", Some(0)),
            ("/tmp/a_1/logs", None),
            ("/tmp/logs_x", None),
            ("/tmp/logs_", None),
        ] {
            assert_eq!(index_of(Path::new(path)), index, "{path}");
        }
    }

    #[test]
    fn numbers_are_set() {
        for (path, index, expected) in [
            ("/tmp/logs", 0, "/tmp/logs_0"),
            ("/tmp/logs.gz", 1, "/tmp/logs_1.gz"),
            ("/tmp/logs_1", 0, "/tmp/logs_0"),
            ("/tmp/logs_0", 10, "/tmp/logs_10"),
            ("/tmp/logs_0.gz", 10, "/tmp/logs_10.gz"),
            (
                "/tmp/logs_underscores.gz",
                10,
                "/tmp/logs_underscores_10.gz",
            ),
            ("./test_requests.gor", 0, "./test_requests_0.gor"),
            ("/a.b/logs", 3, "/a.b/logs_3"),
            // A date behind `_` is taken for a number: docs/goreplay.md says so.
            ("out_20261128.gor", 0, "out_0.gor"),
            ("out-20261128.gor", 0, "out-20261128_0.gor"),
        ] {
            assert_eq!(with_index(Path::new(path), index), Path::new(expected));
        }
    }

    #[test]
    fn numbers_are_in_order() {
        let sorted = ["2014_10", "2015_0", "2015_2", "2015_10", "2016_0"];
        let mut files = ["2016_0", "2015_10", "2015_0", "2014_10", "2015_2"];
        files.sort_by_key(|file| order(file));
        assert_eq!(files, sorted);
    }

    #[test]
    fn chunks_are_full() {
        let mut chunk = Chunks::default();
        assert!(!chunk.is_full(2, 0));
        chunk.add(10);
        assert!(!chunk.is_full(2, 11) && chunk.is_full(2, 10) && chunk.is_full(1, 0));
        chunk.add(10);
        assert!(chunk.is_full(2, 0) && !chunk.is_full(0, 0));
        chunk.measured(7);
        assert!(!chunk.is_full(0, 10) && chunk.is_full(2, 10));
    }
}
