//! Runs the program.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::score::{Line, lines};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_shadowtap");

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path in the repository.
pub(crate) fn in_root(path: &str) -> PathBuf {
    root().join(path)
}

/// The exchanges in the capture file at `path`, and the program's word on how it went.
pub(crate) fn inspect(path: &Path) -> Inspection {
    let output = Command::new("sh")
        .args(["-c", BOUNDS, PROGRAM, "inspect", "--json"])
        .arg(path)
        .stdin(Stdio::null())
        .output();
    Inspection::of(&output.expect("the program can be started"))
}

/// No capture may need more than 256 MiB, or more than 2 seconds of processor time, even without optimisation.
const BOUNDS: &str = "ulimit -d 262144 && ulimit -t 2 && exec \"$0\" \"$@\"";

/// The exchanges in the capture file that comes through standard input in writes of `piece` bytes.
pub(crate) fn inspect_piped(file: &[u8], piece: usize) -> Inspection {
    let mut child = Command::new(PROGRAM)
        .args(["inspect", "--json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let mut input = child.stdin.take().expect("piped above");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            for piece in file.chunks(piece) {
                // It may stop reading where the file is damaged.
                if input.write_all(piece).is_err() {
                    break;
                }
            }
        });
        child.wait_with_output()
    });
    Inspection::of(&output.expect("the program can be waited for"))
}

/// What `shadowtap inspect --json` said.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Inspection {
    /// Its exit code.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

impl Inspection {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The exchanges; panics when the program crashed or printed something else.
    pub(crate) fn exchanges(&self) -> Vec<Line> {
        assert!(
            matches!(self.code, Some(0 | 1)),
            "exit code {:?}: {}",
            self.code,
            self.stderr
        );
        lines(&self.stdout)
    }
}
