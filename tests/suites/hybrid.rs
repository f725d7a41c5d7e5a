//! The enclave in a VM whose vsock is Unix sockets on the host: the parent speaks to the VMM, and keys are
//! made, used and lost sight of through it. No half-close, small pieces, bounded buffers: what others see
//! of that is documented errors within a bounded time.

mod buffers;
mod double;
mod ports;

use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use rustix::process::Signal;
use serde_json::json;
use strongroom_protocol::frame::{self, MAX_ENTRIES, MAX_FRAME};
use strongroom_protocol::{MAX_MESSAGE, Nonce, Payload, Request, RequestFrame, Response};
use strongroom_tests::api::Reply;
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::mock_kms::{Fault, FaultKind};
use strongroom_tests::stack::Plan;
use strongroom_tests::vmm::{ENCLAVE_PORT, Vmm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::frames::{PATIENCE, assert_dropped};
use crate::scene::{Scene, assert_problem, eventually};

/// After what was away is back. The parent tries every two seconds, and the machine of the tests is busy.
const BEFORE_LONG: Duration = Duration::from_secs(30);

/// What nobody has to wait longer for.
const PROMPTLY: Duration = Duration::from_secs(3);

fn vmm(it: &Scene) -> &Vmm {
    it.stack.vmm.as_ref().expect("a VMM")
}

/// A host's connection to the enclave that is past its hello.
async fn greeted(it: &Scene) -> EnclaveSocket {
    let stream = vmm(it).call_guest(ENCLAVE_PORT).await.expect("OK");
    EnclaveSocket::over(stream).greet().await.expect("a greeting")
}

fn signal_enclave(it: &Scene, signal: Signal) {
    let [_, enclave, _] = it.stack.process_ids();
    signal_process(enclave, signal);
}

fn signal_process(id: Option<u32>, signal: Signal) {
    let id = id.and_then(|id| rustix::process::Pid::from_raw(id.try_into().expect("a process id")));
    rustix::process::kill_process(id.expect("a process"), signal).expect("it is there");
}

#[tokio::test]
async fn keys_are_created_and_sign() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    let created = it.create("a").await;
    let signed = it.sign("a").await;
    assert_signed(&created, b"hi", &signed);
    it.create_with(json!({ "key_id": "b", "algorithm": "secp256k1" })).await;
    let evidence = it.api.get("/v1/keys/b/attestation?nonce=0x01").await.expect("a reply");
    assert_eq!(evidence.status.as_u16(), 200, "{}", evidence.body);
    assert_eq!(it.outcomes("a").await, ["GenerateDataKey Success", "Decrypt Success", "Decrypt Success"]);
    it.restart().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("a").await;
}

#[tokio::test]
async fn the_largest_message_of_a_caller_crosses() {
    let it = Scene::planned(Plan::in_a_vm).await;
    let created = it.create("a").await;
    // In hex, a little less than the two MiB that a body may have.
    let message: Vec<u8> = (0..MAX_MESSAGE - 100).map(|n| (n % 251) as u8).collect();
    let body = json!({ "payload": { "type": "message", "message": format!("0x{}", hex::encode(&message)) } });
    assert_signed(&created, &message, &it.api.sign("a", body).await.expect("a reply"));
}

#[tokio::test]
async fn the_longest_frame_and_the_longest_batch_cross() {
    let it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    let record = it.record("a").present().expect("encodes");
    let sign = |lengths: Vec<usize>| {
        let payload = |length| Payload::Message { message: vec![7; length].try_into().expect("fits"), hash: None };
        let payloads = lengths.into_iter().map(payload).collect();
        Request::Sign { record: record.clone(), scheme: None, path: None, payloads }
    };
    let whole = |last: usize| sign(vec![MAX_MESSAGE, MAX_MESSAGE, MAX_MESSAGE, last]);
    let length = |request| frame::encode(&RequestFrame { id: 2, request }).expect("encodes").len();
    // The longest in which all but the last message are as long as they may be.
    let last = MAX_MESSAGE - (length(whole(MAX_MESSAGE - 10_000)) + 10_000 - frame::HEADER - MAX_FRAME);
    assert_eq!(length(whole(last)), frame::HEADER + MAX_FRAME);

    let mut socket = greeted(&it).await;
    for (name, request, signatures) in
        [("frame", whole(last), 4), ("batch", sign((0..MAX_ENTRIES).map(|n| n % 100).collect()), MAX_ENTRIES)]
    {
        match timeout(PATIENCE, socket.ask(request)).await.expect(name).expect("a reply") {
            Ok(Response::Signed(all)) => assert!(all.len() == signatures && all.iter().all(Result::is_ok), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_half_close_ends_both_directions_and_frees_the_place() {
    let it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    // More than the enclave has places. A busy one learns of an end a little later than we do.
    let greeted_soon = async || loop {
        let stream = vmm(&it).call_guest(ENCLAVE_PORT).await.expect("OK");
        match EnclaveSocket::over(stream).greet().await {
            Ok(socket) => return socket,
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    };
    for _ in 0..100 {
        let mut socket = timeout(PATIENCE, greeted_soon()).await.expect("a place");
        socket.send(Request::Attest { nonce: Nonce::try_from(vec![7]).expect("short") }).await.expect("sent");
        socket.half_close().await.expect("closed");
        // The reply may have come first.
        let end = async { while let Ok(Some(_)) = socket.reply().await {} };
        timeout(PROMPTLY, end).await.expect("the other direction stays open");
    }
    it.signs("a").await;
}

#[tokio::test]
async fn requests_in_flight_on_a_lost_connection_fail_and_the_next_is_served() {
    let mut it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    it.create("b").await;

    // All connections at once, as when the device is reset.
    lost_in_flight(&it, "a", || vmm(&it).reset()).await;
    it.signs("a").await;

    // The guest with all its connections.
    lost_in_flight(&it, "b", || signal_enclave(&it, Signal::KILL)).await;
    it.stack.restart_enclave().await.expect("restarted");
    it.stack.wait_ready().await.expect("ready");
    it.signs("b").await;
}

/// Two requests that wait for KMS while the enclave is lost: what becomes of them is known soon.
async fn lost_in_flight(it: &Scene, key_id: &str, lose: impl FnOnce()) {
    let calls = it.outcomes(key_id).await.len();
    it.set_fault(Fault::always(FaultKind::Hang)).await;
    let (first, second, lost) = tokio::join!(it.sign(key_id), it.sign(key_id), async {
        eventually("they wait for KMS", async || it.outcomes(key_id).await.len() > calls).await;
        lose();
        Instant::now()
    });
    assert!(lost.elapsed() < PROMPTLY, "they waited for {:?}", lost.elapsed());
    for reply in [first, second] {
        assert_problem(&reply, 503, "enclave-unavailable");
        assert_eq!(reply.headers["retry-after"], "1");
    }
    it.clear_faults().await;
}

#[tokio::test]
async fn an_enclave_in_the_vmms_place_serves_the_parent_and_refuses_other_first_lines() {
    let it = Scene::planned(|plan| {
        // vm.sock towards the guest's port 5005, vm.sock_8000 from the guest to the host's port 8000.
        plan.enclave_address = "unix-hybrid:vm.sock:5005".to_owned();
        plan.kms_proxy_address = "unix-hybrid:vm.sock:8000".to_owned();
    })
    .await;
    it.create("a").await;
    it.signs("a").await;

    let connect = async || UnixStream::connect(it.stack.directory().join("vm.sock")).await.expect("connected");
    for (name, line) in [
        ("another_port", &b"CONNECT 5006\n"[..]),
        ("garbage", b"\xff\xfe\n"),
        ("no_line_end", &[b'C'; 64]),
        ("carriage_return", b"CONNECT 5005\r\n"),
        ("a_frame", &[0, 0, 0, 1, 0]),
    ] {
        let mut stream = connect().await;
        stream.write_all(line).await.expect("sent");
        let mut said = Vec::new();
        // A close with unread bytes is a reset.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("dropped");
        assert_eq!(said, b"", "{name}");
    }
    let mut stream = connect().await;
    stream.write_all(b"CONNECT 5005\n").await.expect("sent");
    let mut ok = [0; 8];
    stream.read_exact(&mut ok).await.expect("read");
    assert_eq!(&ok, b"OK 5005\n");
    it.signs("a").await;
}

#[tokio::test]
async fn what_is_no_frame_ends_its_connection_and_no_other() {
    let it = Scene::planned(Plan::in_a_vm).await;
    it.create("a").await;
    let mut other = greeted(&it).await;
    for (name, bytes) in [("http", &b"GET / HTTP/1.1\r\n\r\n"[..]), ("too_long", &[0xff; 64])] {
        let mut socket = greeted(&it).await;
        socket.send_bytes(bytes).await.expect("sent");
        assert_dropped(socket, name).await;
    }
    assert!(other.ask(Request::Health).await.expect("a reply").is_ok());
    it.signs("a").await;
}

#[track_caller]
fn assert_signed(created: &Reply, message: &[u8], signed: &Reply) {
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
    let key = UnparsedPublicKey::new(&ED25519, created.bytes("public_key").expect("hex"));
    key.verify(message, &signed.bytes("signature").expect("hex")).expect("a signature of this message");
}
