//! The double of the VMM itself: that it does what vhost-device-vsock does, with two programs of ours on its
//! two sides.

use std::time::Duration;

use strongroom_tests::stack::test_directory;
use strongroom_tests::vmm::{ENCLAVE_PORT, KMS_PROXY_PORT, SOCKET, Vmm, guest_port};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, timeout};

/// Longer than anything here takes, shorter than any of the guest's deadlines.
const SOON: Duration = Duration::from_secs(1);
/// So long nothing comes where nothing is to come.
const A_WHILE: Duration = Duration::from_millis(200);

struct Bench {
    directory: TempDir,
    vmm: Vmm,
}

impl Bench {
    fn start() -> Self {
        let directory = test_directory().expect("a folder");
        let vmm = Vmm::start(directory.path()).expect("started");
        Self { directory, vmm }
    }

    fn listen(&self, socket: &str) -> UnixListener {
        UnixListener::bind(self.directory.path().join(socket)).expect("bound")
    }

    /// A connection from the host: its own end and the guest's.
    async fn to_guest(&self) -> (UnixStream, UnixStream) {
        let guest = self.listen(&guest_port(ENCLAVE_PORT));
        let (host, accepted) = tokio::join!(self.vmm.call_guest(ENCLAVE_PORT), guest.accept());
        (host.expect("OK"), accepted.expect("accepted").0)
    }
}

/// What is said until the end, which comes soon. A close with bytes unread is an error in place of an end.
async fn rest(stream: &mut UnixStream) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut said)).await.expect("it does not end");
    said
}

/// Writes until nothing more goes in, and returns how much did.
async fn pour(stream: &mut UnixStream) -> usize {
    let mut poured = 0;
    while let Ok(length) = timeout(A_WHILE, stream.write(&[7; 16 * 1024])).await {
        poured += length.expect("written");
    }
    poured
}

async fn hears_nothing(stream: &mut UnixStream) {
    assert!(timeout(A_WHILE, stream.read_u8()).await.is_err(), "it hears something");
}

#[tokio::test]
async fn the_first_line_is_whole_and_what_comes_with_it_is_lost() {
    let it = Bench::start();
    let guest = it.listen(&guest_port(ENCLAVE_PORT));
    for line in ["CONNECT 5005\n", "connect 5005\n", "  Connect\t5005 please\r\n", "CONNECT 5005\nhello"] {
        let mut host = it.vmm.connect().await.expect("connected");
        host.write_all(line.as_bytes()).await.expect("written");
        let mut ok = [0; 8];
        host.read_exact(&mut ok).await.expect("read");
        assert_eq!(&ok, b"OK 5005\n", "{line}");
        let (mut guest, _) = guest.accept().await.expect("accepted");
        host.write_all(b"x").await.expect("written");
        assert_eq!(guest.read_u8().await.expect("read"), b'x', "{line}");
    }
    for line in ["", "\n", "CONNECT\n", "HELLO 5005\n", "CONNECT x\n", "CONNECT 50", "CONNECT 5006\n"] {
        let mut host = it.vmm.connect().await.expect("connected");
        host.write_all(line.as_bytes()).await.expect("written");
        if line.is_empty() {
            host.shutdown().await.expect("shut down");
        }
        assert_eq!(rest(&mut host).await, b"", "{line}");
    }
}

#[tokio::test]
async fn a_guests_call_to_nobody_hears_nothing_for_two_seconds() {
    let it = Bench::start();
    let started = Instant::now();
    let mut guest = it.vmm.call_kms_proxy().await.expect("connected");
    guest.write_all(b"anybody?").await.expect("written");
    let _ = guest.read_to_end(&mut Vec::new()).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    let host = it.listen(&format!("{SOCKET}_{KMS_PROXY_PORT}"));
    let mut guest = it.vmm.call_kms_proxy().await.expect("connected");
    let (mut host, _) = host.accept().await.expect("accepted");
    guest.write_all(b"x").await.expect("written");
    assert_eq!(host.read_u8().await.expect("read"), b'x');
}

#[tokio::test]
async fn a_hosts_half_close_ends_both_directions() {
    let it = Bench::start();
    let (mut host, mut guest) = it.to_guest().await;
    host.write_all(b"last words").await.expect("written");
    host.shutdown().await.expect("shut down");
    assert_eq!(rest(&mut guest).await, b"last words");
    assert_eq!(rest(&mut host).await, b"");
}

#[tokio::test]
async fn a_guests_half_close_is_not_passed_on_and_its_close_is() {
    let it = Bench::start();
    let (mut host, mut guest) = it.to_guest().await;
    guest.write_all(b"last words").await.expect("written");
    guest.shutdown().await.expect("shut down");
    let mut said = [0; 10];
    host.read_exact(&mut said).await.expect("read");
    hears_nothing(&mut host).await;
    host.write_all(b"x").await.expect("written");
    assert_eq!(guest.read_u8().await.expect("read"), b'x');
    drop(guest);
    assert_eq!(rest(&mut host).await, b"");
}

#[tokio::test]
async fn a_host_that_leaves_with_bytes_unread_is_never_told_of() {
    let it = Bench::start();
    let (mut host, mut guest) = it.to_guest().await;
    guest.write_all(b"unread").await.expect("written");
    assert_eq!(host.read_u8().await.expect("read"), b'u');
    drop(host);
    hears_nothing(&mut guest).await;
    let poured = pour(&mut guest).await;
    assert!(poured > 64 * 1024, "its writes vanish, and then they wait: {poured}");
    hears_nothing(&mut guest).await;
}

#[tokio::test]
async fn buffers_are_bounded_and_lose_nothing() {
    let it = Bench::start();
    let (mut host, mut guest) = it.to_guest().await;
    let (inward, outward) = tokio::join!(pour(&mut host), pour(&mut guest));
    for poured in [inward, outward] {
        assert!(poured < 1024 * 1024, "{poured}");
    }
    let (mut to_guest, mut to_host) = (vec![0; inward], vec![0; outward]);
    let read = async { tokio::try_join!(guest.read_exact(&mut to_guest), host.read_exact(&mut to_host)) };
    timeout(SOON, read).await.expect("it stalls").expect("read");
}

#[tokio::test]
async fn a_reset_ends_everything() {
    let it = Bench::start();
    let (mut host, mut guest) = it.to_guest().await;
    it.vmm.reset();
    assert_eq!(rest(&mut host).await, b"");
    assert_eq!(rest(&mut guest).await, b"");
}
