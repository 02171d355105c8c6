//! Landlock: which files are left.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
    make_bitflags,
};

use super::Needs;

/// What is read of the system by names, time zones, certificates, the C library and the resolver, and what the process
/// reads of itself. A service account's token is in none of them.
const SYSTEM: [&str; 16] = [
    "/etc",
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/run/current-system",
    "/run/resolvconf",
    "/run/systemd/resolve",
    "/run/nscd",
    "/run/NetworkManager",
    "/var/lib/ca-certificates",
    "/proc",
    "/sys/fs/cgroup",
    "/sys/class/net",
    "/dev",
];

/// Newer kernels know more kinds of access than this one; those are left as they are.
const KNOWN: ABI = ABI::V5;

/// Nothing is left but what is needed; in words how far that goes.
pub(super) fn restrict(needs: &Needs) -> Result<String, String> {
    let restricted = || -> Result<_, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .create()?;
        let certificates = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .into_iter()
            .filter_map(std::env::var_os)
            .map(PathBuf::from);
        let system = SYSTEM.iter().map(PathBuf::from);
        for path in system.chain(certificates).chain(needs.reads.clone()) {
            allow(&mut rules, path, READ)?;
        }
        allow(&mut rules, "/dev/null".into(), READ | AccessFs::WriteFile)?;
        for path in &needs.writes {
            allow(&mut rules, path.clone(), READ | WRITE)?;
        }
        rules.restrict_self()
    };
    let status = restricted().map_err(|error| error.to_string())?;
    match (status.ruleset, status.landlock) {
        (RulesetStatus::FullyEnforced, LandlockStatus::Available { .. }) => Ok("strict".to_owned()),
        (RulesetStatus::PartiallyEnforced, _) => Ok("as far as this kernel knows it".to_owned()),
        (_, LandlockStatus::NotEnabled) => Err("not enabled in this kernel".to_owned()),
        _ => Err("not in this kernel".to_owned()),
    }
}

/// Lets `path` be used; one that is not there, or not on a disk, needs no rule.
fn allow(
    rules: &mut RulesetCreated,
    path: PathBuf,
    access: BitFlags<AccessFs>,
) -> Result<(), RulesetError> {
    let Ok(opened) = PathFd::new(&path) else {
        return Ok(());
    };
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(KNOWN)
    };
    match rules.add_rule(PathBeneath::new(opened, access)) {
        Ok(_) => Ok(()),
        // A pipe: Landlock does not look at those.
        Err(RulesetError::AddRules(_)) if !path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

const WRITE: BitFlags<AccessFs> =
    make_bitflags!(AccessFs::{WriteFile | Truncate | RemoveFile | MakeReg | MakeDir});
