//! Parent and enclave in a machine each, on AF_VSOCK as on a Nitro host: the binaries that are shipped, unmodified.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use strongroom_tests::machine;
use strongroom_tests::stack::test_directory;

use super::{image_folder, released};

const PATIENCE: Duration = Duration::from_secs(180);

/// Gone with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(mut command: Command, directory: &Path) -> Killed {
    let log = fs::File::options().create(true).append(true).open(directory.join("machines.log")).expect("a log");
    let child =
        command.current_dir(directory).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log).spawn();
    Killed(child.expect("starts"))
}

/// The parent's machine, as a ramdisk: busybox, the static binaries, the script that is its first process.
fn parent_ramdisk(directory: &Path) {
    let root = directory.join("root");
    for folder in ["bin", "dev", "etc/ssl/certs", "proc", "tmp"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let binaries = repository.join("target/x86_64-unknown-linux-musl/image");
    for name in ["strongroom", "mock-kms", "dev-stack"] {
        fs::copy(binaries.join(name), root.join("bin").join(name)).expect("make test-boot builds it");
    }
    // TLS clients do not start without any authority.
    let authorities = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(authorities), root.join(authorities)).expect("ca-certificates");
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static");
    for name in ["init", "sh", "mount", "ip", "reboot", "tail"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("linked");
    }
    fs::copy(repository.join("tests/boot/parent-machine"), root.join("parent-machine")).expect("the script");
    // The kernel runs no scripts.
    fs::write(root.join("etc/inittab"), "::sysinit:/bin/sh /parent-machine\n").expect("written");
    fs::copy(image_folder().join("pcrs.json"), root.join("pcrs.json")).expect("the measurements");
    let archive = fs::File::create(directory.join("parent.cpio")).expect("a file");
    let mut cpio = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(&root)
        .stdin(Stdio::piped())
        .stdout(archive)
        .spawn()
        .expect("cpio runs");
    let list = Command::new("find").arg(".").current_dir(&root).output().expect("find runs").stdout;
    cpio.stdin.take().expect("a pipe").write_all(&list).expect("listed");
    assert!(cpio.wait().expect("cpio ends").success());
}

#[test]
#[ignore = "boots two machines: make test-boot"]
fn parent_and_enclave_meet_on_af_vsock() {
    let directory = test_directory().expect("a folder");
    let directory = directory.path();
    parent_ramdisk(directory);

    let guest = |cid, name| format!("guest-cid={cid},socket={name}.sock,uds-path={name}.vsock");
    let (parent, enclave) = (guest(3, "parent"), guest(16, "enclave"));
    let mut vsock = Command::new(machine::tools().expect("tools").join("vsock/vhost-device-vsock"));
    vsock.args(["--vm", &parent, "--vm", &enclave]);
    let _vsock = start(vsock, directory);
    let both = || directory.join("parent.sock").exists() && directory.join("enclave.sock").exists();
    wait_for("vhost-device-vsock", directory, both);

    let mut qemu = machine::qemu("parent.sock", "parent.log").expect("QEMU");
    qemu.args(["-M", "microvm,acpi=off,rtc=on,memory-backend=memory", "-m", "768M"])
        .args(["-object", "memory-backend-memfd,id=memory,size=768M,share=on"])
        .args(["-global", "virtio-mmio.force-legacy=false", "-device", "vhost-user-vsock-device,chardev=vsock"])
        .arg("-kernel")
        .arg(image_folder().join("bzImage"))
        .args(["-initrd", "parent.cpio"])
        .args(["-append", "reboot=k panic=-1 console=ttyS0 loglevel=4 rdinit=/bin/init"]);
    let mut parent = start(qemu, directory);
    let said = || fs::read_to_string(directory.join("parent.log")).unwrap_or_default();
    // As on a host: first it, then the enclave. (vhost-device-vsock ends the thread of a machine that is sent something
    // before it is up.)
    wait_for("the parent's machine", directory, || said().contains("waiting for the enclave's heartbeat"));

    let _enclave = start(machine::enclave(&released(), "enclave.sock", "enclave.log").expect("QEMU"), directory);

    let mut ended = false;
    wait_for("the parent's machine", directory, || {
        ended = ended || parent.0.try_wait().expect("a status").is_some();
        ended || said().contains("THE DEMO")
    });
    let said = said();
    let others =
        ["enclave.log", "machines.log"].map(|name| fs::read_to_string(directory.join(name)).unwrap_or_default());
    assert!(said.contains("THE DEMO PASSED"), "{said}\n==\n{}", others.join("\n==\n"));
    println!("{said}");
}

fn wait_for(what: &str, directory: &Path, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        let logs = ["machines.log", "parent.log", "enclave.log"]
            .map(|name| fs::read_to_string(directory.join(name)).unwrap_or_default());
        assert!(started.elapsed() < PATIENCE, "{what}: not in time\n{}", logs.join("\n==\n"));
        std::thread::sleep(Duration::from_millis(50));
    }
}
