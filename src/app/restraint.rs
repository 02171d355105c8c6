//! What the program uses, and what it may use: read from the kernel for the [`Governor`], which decides.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::restraint::{Cores, Governor, Limits, Reading, Share};

/// Looks at what the program uses, and says what may be followed.
pub struct Restraint {
    governor: Governor,
    began: Instant,
    last: Share,
}

impl Restraint {
    /// Keeps the program within `limits`; `None` where there are none.
    #[must_use]
    pub fn new(limits: Limits) -> Option<Self> {
        (limits != Limits::default()).then(|| Self {
            governor: Governor::new(limits),
            began: Instant::now(),
            last: Share::ALL,
        })
    }

    /// The share of the connections to follow from now on, if that is another one than before. Says so in the log, when it
    /// begins and when it is over.
    pub fn look(&mut self) -> Option<Share> {
        let share = self.governor.look(Reading {
            at: self.began.elapsed(),
            cpu: cpu_time(),
            memory: resident(),
        });
        let before = std::mem::replace(&mut self.last, share);
        if before.is_all() && !share.is_all() {
            let Limits { cpu, memory } = *self.governor.limits();
            tracing::warn!(
                cpu_limit = cpu.map(|it| it.to_string()),
                memory_limit = memory,
                "a limit is reached: whole connections are left out, {share} are followed"
            );
        } else if share.is_all() && !before.is_all() {
            tracing::info!("within the limits again: every connection is followed");
        }
        (share != before).then_some(share)
    }
}

/// Processor time of all threads so far.
fn cpu_time() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or(0),
            u32::try_from(time.tv_nsec).unwrap_or(0),
        )
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// Bytes of memory that are in use; 0 where the system does not tell.
fn resident() -> u64 {
    let Ok(text) = fs::read_to_string("/proc/self/statm") else {
        return 0;
    };
    let pages = text.split_whitespace().nth(1);
    pages
        .and_then(|pages| pages.parse::<u64>().ok())
        .unwrap_or(0)
        * rustix::param::page_size() as u64
}

/// What the control group of this process allows; nothing where there is none.
#[must_use]
pub fn of_control_group() -> Limits {
    of_control_group_in(Path::new("/"))
}

/// The tightest limits on the way from the process's group up to the root of what is mounted, in both versions of control
/// groups. A container sees its own group as the root, or not at all under the name that the host gives it: then what is
/// mounted is its own.
fn of_control_group_in(root: &Path) -> Limits {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounted = root.join("sys/fs/cgroup");
    let mut limits = Limits::default();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        let is_of = |name: &str| controllers.split(',').any(|it| it == name);
        if controllers.is_empty() {
            for group in upwards(&mounted, path) {
                tighten(&mut limits.cpu, cpu_max(&group));
                tighten(&mut limits.memory, number(&group.join("memory.max")));
            }
        }
        if is_of("cpu") {
            for group in [mounted.join(controllers), mounted.join("cpu")]
                .iter()
                .flat_map(|hierarchy| upwards(hierarchy, path))
            {
                tighten(&mut limits.cpu, cpu_quota(&group));
            }
        }
        if is_of("memory") {
            for group in upwards(&mounted.join("memory"), path) {
                let limit = number(&group.join("memory.limit_in_bytes"));
                // Without a limit, the number is near the largest that there is.
                tighten(&mut limits.memory, limit.filter(|&limit| limit < 1 << 60));
            }
        }
    }
    limits
}

/// The folder of `path` in `mounted`, and those above it.
fn upwards(mounted: &Path, path: &str) -> Vec<PathBuf> {
    let inside = mounted.join(path.trim_start_matches('/'));
    let folders = inside.ancestors().map(Path::to_owned);
    folders
        .take_while(|folder| folder.starts_with(mounted))
        .collect()
}

fn tighten<T: PartialOrd + Copy>(limit: &mut Option<T>, found: Option<T>) {
    if let Some(found) = found
        && limit.is_none_or(|limit| found < limit)
    {
        *limit = Some(found);
    }
}

fn number<T: std::str::FromStr>(file: &Path) -> Option<T> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `QUOTA PERIOD`, in microseconds; the quota may be `max`.
fn cpu_max(group: &Path) -> Option<Cores> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Cores::new(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
}

fn cpu_quota(group: &Path) -> Option<Cores> {
    let quota: f64 = number(&group.join("cpu.cfs_quota_us"))?;
    let period: f64 = number(&group.join("cpu.cfs_period_us"))?;
    // -1 is none.
    Cores::new(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(files: &[(&str, &str)]) -> (Option<f64>, Option<u64>) {
        let root = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, text).expect("written");
        }
        let limits = of_control_group_in(root.path());
        (limits.cpu.map(Cores::get), limits.memory)
    }

    #[test]
    fn version_2() {
        let group = ("proc/self/cgroup", "0::/\n");
        let found = limits(&[
            group,
            ("sys/fs/cgroup/cpu.max", "50000 100000\n"),
            ("sys/fs/cgroup/memory.max", "134217728\n"),
        ]);
        assert_eq!(found, (Some(0.5), Some(128 << 20)));
        let found = limits(&[
            group,
            ("sys/fs/cgroup/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
        ]);
        assert_eq!(found, (None, None));
    }

    #[test]
    fn the_tightest_on_the_way_up_counts() {
        let found = limits(&[
            ("proc/self/cgroup", "0::/pods/pod1/sidecar\n"),
            ("sys/fs/cgroup/pods/pod1/sidecar/cpu.max", "200000 100000\n"),
            ("sys/fs/cgroup/pods/pod1/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/pods/memory.max", "1000000000\n"),
            ("sys/fs/cgroup/pods/pod1/sidecar/memory.max", "2000000000\n"),
        ]);
        assert_eq!(found, (Some(1.5), Some(1_000_000_000)));
    }

    #[test]
    fn version_1_also_where_the_hosts_path_is_not_there() {
        let found = limits(&[
            (
                "proc/self/cgroup",
                "5:memory:/kubepods/pod1/abc\n4:cpu,cpuacct:/kubepods/pod1/abc\n1:name=systemd:/\n",
            ),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "20000\n"),
            ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ]);
        assert_eq!(found, (Some(0.2), Some(64 << 20)));
        let found = limits(&[
            ("proc/self/cgroup", "5:memory:/\n4:cpu:/\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
        ]);
        assert_eq!(found, (None, None));
    }

    #[test]
    fn no_control_group_no_limit() {
        assert_eq!(limits(&[]), (None, None));
        assert_eq!(
            limits(&[("proc/self/cgroup", "garbage\n::\n")]),
            (None, None)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_uses_something() {
        assert!(resident() > 1 << 20);
        assert!(cpu_time() > Duration::ZERO);
    }
}
