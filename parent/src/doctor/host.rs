//! The instance: the Nitro device and command, what the allocator was told and what it reserved, vsock.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::process::Stdio;

use strongroom_protocol::Address;
use tokio::process::Command;

use super::{Finding, below, bounded};

/// Whether an enclave at this address is one of this instance's Nitro card.
pub(super) const fn concerns(address: &Address) -> bool {
    matches!(address, Address::Vsock { .. })
}

pub(super) async fn examine(root: &Path) -> Vec<Finding> {
    vec![bounded("nitro-cli", nitro_cli()).await, device(root), allocator(root), huge_pages(root), vsock(root)]
}

/// The least memory that AWS lets an enclave have is 64 MiB; the image is unpacked into it.
const MIN_MEMORY_MIB: u64 = 128;

const ALLOCATOR: &str = "/etc/nitro_enclaves/allocator.yaml";
const RESERVE: &str = "systemctl enable --now nitro-enclaves-allocator; after a change of allocator.yaml: \
                       systemctl restart nitro-enclaves-allocator; reboot if memory is fragmented";

async fn nitro_cli() -> Finding {
    const CHECK: &str = "nitro-cli";
    let install = "install it: dnf install aws-nitro-enclaves-cli aws-nitro-enclaves-cli-devel";
    let mut command = Command::new("nitro-cli");
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    match command.output().await {
        Ok(output) if output.status.success() => Finding::ok(CHECK, String::from_utf8_lossy(&output.stdout).trim()),
        Ok(output) => Finding::failed(CHECK, format!("nitro-cli --version ended with {}", output.status), install),
        Err(error) => Finding::failed(CHECK, format!("nitro-cli cannot be run: {error}"), install),
    }
}

fn device(root: &Path) -> Finding {
    const CHECK: &str = "Nitro device";
    let path = below(root, "/dev/nitro_enclaves");
    match OpenOptions::new().read(true).write(true).open(&path) {
        Ok(_) => Finding::ok(CHECK, path.display()),
        // The daemon does not open it; who starts the enclave does.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::warning(
            CHECK,
            format!("{}: {error}", path.display()),
            "whoever runs nitro-cli must be in its group: usermod -aG ne USER",
        ),
        Err(error) => Finding::failed(
            CHECK,
            format!("{}: {error}", path.display()),
            "launch the instance with enclaves (aws ec2 run-instances --enclave-options Enabled=true), and load the \
             driver: modprobe nitro_enclaves",
        ),
    }
}

fn allocator(root: &Path) -> Finding {
    const CHECK: &str = "allocator";
    let path = below(root, ALLOCATOR);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => return Finding::failed(CHECK, format!("{}: {error}", path.display()), RESERVE),
    };
    let found = |name| setting(&text, name).map_or_else(|| "none".to_owned(), |value| value.to_string());
    let found = format!("{ALLOCATOR}: memory_mib {}, cpu_count {}", found("memory_mib"), found("cpu_count"));
    match (setting(&text, "memory_mib"), setting(&text, "cpu_count")) {
        (Some(MIN_MEMORY_MIB..), Some(2..)) => Finding::ok(CHECK, found),
        (Some(MIN_MEMORY_MIB..), _) => {
            Finding::warning(CHECK, found, "cpu_count: 2, a whole core, and systemctl restart nitro-enclaves-allocator")
        }
        _ => Finding::failed(
            CHECK,
            found,
            format!("memory_mib: 256 ({MIN_MEMORY_MIB} at least) in {ALLOCATOR}; {RESERVE}"),
        ),
    }
}

/// A number of the allocator's file, `name: 512`.
fn setting(yaml: &str, name: &str) -> Option<u64> {
    let line = yaml.lines().find_map(|line| line.trim().strip_prefix(name)?.trim_start().strip_prefix(':'))?;
    line.split('#').next()?.trim().parse().ok()
}

fn huge_pages(root: &Path) -> Finding {
    const CHECK: &str = "huge pages";
    let (reserved, free) = (huge_pages_mib(root, "nr_hugepages"), huge_pages_mib(root, "free_hugepages"));
    let found = format!("{reserved} MiB are reserved, {free} MiB of them free");
    let wanted = fs::read_to_string(below(root, ALLOCATOR)).ok().and_then(|text| setting(&text, "memory_mib"));
    match wanted {
        _ if reserved < MIN_MEMORY_MIB => Finding::failed(CHECK, found, RESERVE),
        Some(wanted) if reserved < wanted => {
            Finding::warning(CHECK, format!("{found}; allocator.yaml has {wanted} MiB"), RESERVE)
        }
        _ => Finding::ok(CHECK, found),
    }
}

/// Pages of all sizes, `/sys/kernel/mm/hugepages/hugepages-2048kB`.
fn huge_pages_mib(root: &Path, count: &str) -> u64 {
    let sizes = fs::read_dir(below(root, "/sys/kernel/mm/hugepages")).into_iter().flatten().flatten();
    let kib = sizes.filter_map(|size| {
        let name = size.file_name();
        let kib: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let pages: u64 = fs::read_to_string(size.path().join(count)).ok()?.trim().parse().ok()?;
        Some(kib.saturating_mul(pages))
    });
    kib.sum::<u64>() / 1024
}

fn vsock(root: &Path) -> Finding {
    const CHECK: &str = "vsock";
    let path = below(root, "/dev/vsock");
    match OpenOptions::new().read(true).open(&path) {
        Ok(_) => Finding::ok(CHECK, path.display()),
        Err(error) => Finding::failed(CHECK, format!("{}: {error}", path.display()), "modprobe vsock vhost_vsock"),
    }
}
