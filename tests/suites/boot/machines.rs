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

fn start(program: &Path, directory: &Path, arguments: &[&str]) -> Killed {
    let log = fs::File::options().create(true).append(true).open(directory.join("machines.log")).expect("a log");
    let child = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn();
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
    let tools = machine::tools().expect("tools");
    parent_ramdisk(directory);

    let guest = |cid, name| format!("guest-cid={cid},socket={name}.sock,uds-path={name}.vsock");
    let (parent, enclave) = (guest(3, "parent"), guest(16, "enclave"));
    let _vsock = start(&tools.join("vsock/vhost-device-vsock"), directory, &["--vm", &parent, "--vm", &enclave]);
    let both = || directory.join("parent.sock").exists() && directory.join("enclave.sock").exists();
    wait_for("vhost-device-vsock", directory, both);

    let qemu = tools.join("qemu/qemu-system-nitro");
    let fw = tools.join("qemu/fw");
    let common = ["-L", fw.to_str().expect("text"), "-accel", "tcg", "-cpu", "max", "-nographic", "-nodefaults"];
    let kernel = image_folder().join("bzImage");
    let arguments = [
        &common[..],
        &["-no-reboot", "-M", "microvm,acpi=off,rtc=on,memory-backend=memory"],
        &["-object", "memory-backend-memfd,id=memory,size=768M,share=on", "-m", "768M"],
        &["-kernel", kernel.to_str().expect("text"), "-initrd", "parent.cpio"],
        &["-append", "reboot=k panic=-1 console=ttyS0 loglevel=4 rdinit=/bin/init"],
        &["-serial", "file:parent.log", "-chardev", "socket,id=vsock,path=parent.sock"],
        &["-global", "virtio-mmio.force-legacy=false", "-device", "vhost-user-vsock-device,chardev=vsock"],
    ]
    .concat();
    let mut parent = start(&qemu, directory, &arguments);
    let said = || fs::read_to_string(directory.join("parent.log")).unwrap_or_default();
    // As on a host: first it, then the enclave. (vhost-device-vsock ends the thread of a machine that is sent something
    // before it is up.)
    wait_for("the parent's machine", directory, || said().contains("waiting for the enclave's heartbeat"));

    let eif = released().eif;
    let machine =
        format!("nitro-enclave,vsock=vsock,id={id}-enc0123456789abcdef,parent-id={id}", id = machine::INSTANCE_ID);
    let arguments = [
        &common[..],
        &["-no-reboot", "-M", &machine, "-kernel", eif.to_str().expect("text"), "-m", machine::MEMORY],
        &["-serial", "file:enclave.log", "-chardev", "socket,id=vsock,path=enclave.sock"],
    ]
    .concat();
    let _enclave = start(&qemu, directory, &arguments);

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
