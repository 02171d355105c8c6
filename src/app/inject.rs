//! `inject`: manifests → standard output.

use std::io::{self, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::cli::inject::Job;
use crate::inject::{self, Change};

/// Runs `shadowtap inject`. Nothing is printed unless all of it can be.
///
/// # Errors
/// When a file cannot be read or changed, or holds nothing to change.
pub fn run(job: Job) -> anyhow::Result<()> {
    let mut output = String::new();
    let mut workloads = Vec::new();
    for file in &job.files {
        let manifest = read(file)?;
        let injected =
            inject::inject(&manifest, &job.change, &job.only).with_context(|| name(file))?;
        if !output.is_empty() {
            if !output.ends_with('\n') {
                output.push('\n');
            }
            if !injected.text.starts_with("---") {
                output += "---\n";
            }
        }
        output += &injected.text;
        workloads.extend(injected.workloads);
    }
    for only in &job.only {
        if !workloads
            .iter()
            .any(|(name, _)| name.ends_with(&format!(" {only}")))
        {
            bail!("--workload {only}: there is no such workload in what was read");
        }
    }
    if workloads.is_empty() && job.change != Change::Remove {
        bail!(
            "there is no workload in what was read: no Deployment, StatefulSet, DaemonSet, ReplicaSet, Job, CronJob, \
             Rollout or Pod"
        );
    }
    io::stdout()
        .write_all(output.as_bytes())
        .context("writing to standard output")?;
    for (name, done) in workloads {
        tracing::info!("{name}: {done}");
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        io::stdin().read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text))
    }
    .with_context(|| name(file))?;
    Ok(text)
}

fn name(file: &Path) -> String {
    if file.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        file.display().to_string()
    }
}
