//! The sandbox: what the process may still do once everything that needs a right is open (Linux).
//!
//! Three layers, each for itself, each as far as the kernel has it: no program that is started gains a right
//! (`no_new_privs`); of the system calls, those that no part of shadowtap makes end the process, and those that are not
//! known to be needed are refused (seccomp); and of the files, those of the system can be read, those of the job read or
//! written, and nothing else (Landlock). None can be taken back. Where a layer is missing, the log says so once, and
//! `/healthz` says which there are.
//!
//! With a middleware, a program of the user's runs under the same rules: then Landlock is left out, and of the system
//! calls only those are forbidden that no ordinary program makes.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use clap::ValueEnum;

/// Whether the process gives up what it does not need.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum SandboxMode {
    /// As far as the kernel can.
    #[default]
    On,
    /// No: for debuggers, and to find out whether the sandbox is in the way.
    Off,
}

/// What a job still needs once it has begun.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Files that are read, or folders in which files are.
    pub reads: Vec<PathBuf>,
    /// Folders in which files are made, written and removed.
    pub writes: Vec<PathBuf>,
    /// Whether files have names that are not known yet: then none is out of reach.
    pub all_files: bool,
    /// Whether programs of the user's are started.
    pub programs: bool,
}

impl Needs {
    /// A job that reads these files.
    #[must_use]
    pub fn reading(files: &[PathBuf]) -> Self {
        Self {
            reads: files.to_vec(),
            ..Self::default()
        }
    }

    /// The same, and it writes this file, or others beside it.
    #[must_use]
    pub fn writing(mut self, file: &Path) -> Self {
        if file.as_os_str() == "-" {
            return self;
        }
        let folder = match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => file,
        };
        self.writes.push(folder.to_owned());
        self
    }
}

/// The sandbox of this process. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct Sandbox {
    mode: SandboxMode,
    entered: Arc<OnceLock<Layers>>,
}

impl Sandbox {
    /// One that is not entered yet.
    #[must_use]
    pub fn new(mode: SandboxMode) -> Self {
        Self {
            mode,
            entered: Arc::default(),
        }
    }

    /// Enters it for good: this thread, and those that it starts from now on. Says in the log what holds.
    pub fn enter(&self, needs: &Needs) {
        match self.put_on(needs) {
            None => {}
            Some(layers) if layers.are_whole() => tracing::info!("sandbox: {layers}"),
            Some(layers) => tracing::warn!("the sandbox is not whole: {layers}"),
        }
    }

    /// The same for whoever reads files and is soon done: it is said for those who debug.
    pub fn enter_quietly(&self, needs: &Needs) {
        if let Some(layers) = self.put_on(needs) {
            tracing::debug!("sandbox: {layers}");
        }
    }

    fn put_on(&self, needs: &Needs) -> Option<&Layers> {
        if self.mode == SandboxMode::Off {
            return None;
        }
        // Whoever enters twice has only got narrower.
        Some(self.entered.get_or_init(|| Layers::put_on(needs)))
    }

    /// In words, for `/healthz`.
    #[must_use]
    pub fn words(&self) -> String {
        match (self.entered.get(), self.mode) {
            (Some(layers), _) => layers.to_string(),
            (None, SandboxMode::On) => "not entered yet".to_owned(),
            (None, SandboxMode::Off) => "off".to_owned(),
        }
    }
}

/// What became of each layer: in words why it is not there, or how far it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layers {
    /// The capabilities that are left.
    pub capabilities: Result<String, String>,
    /// Whether programs that are started gain no right.
    pub no_new_privs: Result<(), String>,
    /// Which system calls are left.
    pub calls: Result<&'static str, String>,
    /// Which files are left.
    pub files: Result<String, String>,
}

impl Layers {
    #[cfg(target_os = "linux")]
    fn put_on(needs: &Needs) -> Self {
        let no_new_privs =
            rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string());
        // The filter forbids to build further walls: it comes last.
        let files = if needs.programs {
            Err("a program of yours runs inside".to_owned())
        } else if needs.all_files {
            Err("the names of the files are not known yet".to_owned())
        } else {
            files::restrict(needs)
        };
        Self {
            capabilities: lay_down_capabilities(),
            no_new_privs,
            files,
            calls: calls::restrict(needs.programs),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn put_on(_: &Needs) -> Self {
        let nothing = || "only on Linux".to_owned();
        Self {
            capabilities: Err(nothing()),
            no_new_privs: Err(nothing()),
            calls: Err(nothing()),
            files: Err(nothing()),
        }
    }

    /// Whether nothing is missing that could be there.
    #[must_use]
    pub fn are_whole(&self) -> bool {
        self.capabilities.is_ok()
            && self.no_new_privs.is_ok()
            && self.calls.is_ok()
            && self.files.is_ok()
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.capabilities {
            Ok(left) => write!(f, "capabilities {left}")?,
            Err(why) => write!(f, "capabilities kept ({why})")?,
        }
        match &self.no_new_privs {
            Ok(()) => f.write_str("; no_new_privs on")?,
            Err(why) => write!(f, "; no_new_privs off ({why})")?,
        }
        match &self.calls {
            Ok(how) => write!(f, "; seccomp on ({how})")?,
            Err(why) => write!(f, "; seccomp off ({why})")?,
        }
        match &self.files {
            Ok(how) => write!(f, "; landlock on ({how})"),
            Err(why) => write!(f, "; landlock off ({why})"),
        }
    }
}

/// Every capability but those by which root reads and writes the files of others, where this process has them still: files that
/// a job names may be somebody's. In words what is left.
#[cfg(target_os = "linux")]
fn lay_down_capabilities() -> Result<String, String> {
    use caps::{CapSet, Capability, CapsHashSet};

    let of_files: CapsHashSet = [
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_DAC_READ_SEARCH,
    ]
    .into();
    let laid_down = || {
        let permitted = caps::read(None, CapSet::Permitted)?;
        let kept: CapsHashSet = permitted.intersection(&of_files).copied().collect();
        caps::clear(None, CapSet::Ambient)?;
        caps::clear(None, CapSet::Inheritable)?;
        caps::set(None, CapSet::Effective, &kept)?;
        caps::set(None, CapSet::Permitted, &kept)?;
        Ok(kept)
    };
    let kept = laid_down().map_err(|error: caps::errors::CapsError| error.to_string())?;
    if kept.is_empty() {
        return Ok("none".to_owned());
    }
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(names.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_in_words() {
        let layers = Layers {
            capabilities: Ok("none".to_owned()),
            no_new_privs: Ok(()),
            calls: Ok("strict"),
            files: Err("not in this kernel".to_owned()),
        };
        assert!(!layers.are_whole());
        assert_eq!(
            layers.to_string(),
            "capabilities none; no_new_privs on; seccomp on (strict); landlock off (not in this kernel)"
        );
        let sandbox = Sandbox::new(SandboxMode::Off);
        sandbox.enter(&Needs::default());
        assert_eq!(sandbox.words(), "off");
        assert_eq!(Sandbox::default().words(), "not entered yet");
    }

    #[test]
    fn a_file_is_written_in_its_folder() {
        let folder = |file: &str| Needs::default().writing(Path::new(file)).writes;
        assert_eq!(folder("a.pcap"), [Path::new(".")]);
        assert_eq!(folder("out/a.pcap"), [Path::new("out")]);
        assert_eq!(folder("/a.pcap"), [Path::new("/")]);
    }
}
