//! CPU time, and what is made of several rounds.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// CPU seconds that this thread has used.
#[expect(
    unsafe_code,
    reason = "a system call without a safe wrapper in the standard library"
)]
pub(crate) fn thread_cpu() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Nanoseconds of the clock that all processes of the machine share.
#[expect(
    unsafe_code,
    reason = "a system call without a safe wrapper in the standard library"
)]
pub(crate) fn monotonic() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU seconds of a process, its kernel's share in them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    /// Both.
    pub(crate) total: f64,
    /// In the kernel.
    pub(crate) kernel: f64,
}

/// Waits for the end of a process and says what it used.
#[expect(
    unsafe_code,
    reason = "a system call without a safe wrapper in the standard library"
)]
pub(crate) fn wait_for(child: &Child) -> io::Result<Cpu> {
    let mut status = 0;
    // SAFETY: a rusage is plain numbers, for which zero is a value; the kernel writes one, and one int. Nothing else waits
    // for the process: `Child` does not when it is dropped.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
        if libc::wait4(pid, &raw mut status, 0, &raw mut usage) < 0 {
            return Err(io::Error::last_os_error());
        }
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    if status != 0 {
        return Err(io::Error::other(format!(
            "a process of the benchmark ended with status {status:#x}"
        )));
    }
    Ok(Cpu {
        total: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        kernel: seconds(usage.ru_stime),
    })
}

/// Asks a process to stop, waits for its end, and says what it used.
#[expect(
    unsafe_code,
    reason = "a system call without a safe wrapper in the standard library"
)]
pub(crate) fn stop(child: &Child) -> io::Result<Cpu> {
    let pid = libc::pid_t::try_from(child.id()).map_err(io::Error::other)?;
    // SAFETY: the call takes numbers. The process is a child that nobody has waited for, so that its id is still its own.
    unsafe { libc::kill(pid, libc::SIGTERM) };
    wait_for(child)
}

/// The most memory that a running process has had at a time, in MiB.
pub(crate) fn peak_memory(child: &Child) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// A memory control group for one process: what the kernel charges a pod for.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    peak: &'static str,
}

impl MemoryGroup {
    /// `None` where there are no control groups for memory, or this user may not make one.
    pub(crate) fn new() -> Option<Self> {
        let name = format!("shadowtap-bench-{}", std::process::id());
        [
            ("/sys/fs/cgroup", "memory.peak"),
            ("/sys/fs/cgroup/memory", "memory.max_usage_in_bytes"),
        ]
        .into_iter()
        .find_map(|(mounted, peak)| {
            let folder = Path::new(mounted).join(&name);
            fs::create_dir(&folder).ok()?;
            let group = Self { folder, peak };
            group.peak().is_some().then_some(group)
        })
    }

    /// From now on it is charged for what the process takes.
    pub(crate) fn take(&self, child: &Child) -> io::Result<()> {
        fs::write(self.folder.join("cgroup.procs"), child.id().to_string())
    }

    /// The most that it was charged for at a time, in MiB.
    pub(crate) fn peak(&self) -> Option<f64> {
        let text = fs::read_to_string(self.folder.join(self.peak)).ok()?;
        Some(text.trim().parse::<f64>().ok()? / f64::from(1 << 20))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// CPU seconds that a running process has used.
pub(crate) fn cpu_of(child: &Child) -> Option<f64> {
    let mut total = 0.0;
    for task in fs::read_dir(format!("/proc/{}/task", child.id())).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += text.split(' ').next()?.parse::<f64>().ok()? / 1e9;
    }
    Some(total)
}

/// CPU seconds of a command that runs to its end.
pub(crate) fn command_cpu(command: &mut Command) -> io::Result<f64> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(wait_for(&child)?.total)
}

/// Figures of several rounds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(pub(crate) Vec<f64>);

impl Rounds {
    /// The one in the middle.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// The smallest and the largest.
    pub(crate) fn range(&self) -> (f64, f64) {
        self.0
            .iter()
            .fold((f64::MAX, f64::MIN), |(low, high), &it| {
                (low.min(it), high.max(it))
            })
    }
}

/// Round by round, one divided by the other.
pub(crate) fn ratios(subject: &Rounds, floor: &Rounds) -> Rounds {
    Rounds(
        subject
            .0
            .iter()
            .zip(&floor.0)
            .map(|(subject, floor)| subject / floor)
            .collect(),
    )
}
