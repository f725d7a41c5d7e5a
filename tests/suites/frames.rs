//! The enclave's socket in the hands of a hostile parent: garbage, oversize, truncated, stalled and
//! nested frames end their own connection, and everybody else is served on.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use strongroom_protocol::frame::{self, MAX_ENTRIES, MAX_FRAME};
use strongroom_protocol::{ByteString, ErrorCode, Health, Nonce, Payload, Request, RequestFrame, Response, VERSION};
use strongroom_tests::frames::EnclaveSocket;
use tokio::time::{Instant, timeout};

use crate::scene::{Scene, eventually};
use crate::shared::SharedScene;

static SCENE: SharedScene = SharedScene::new(|_| {});

/// Longer than every deadline of the enclave's socket (5 s for a hello, 10 s for a frame or a write).
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The enclave closes the connection without a word.
pub(crate) async fn assert_dropped(mut socket: EnclaveSocket, name: &str) {
    let end = timeout(PATIENCE, socket.reply()).await.unwrap_or_else(|_| panic!("{name}: the connection stays open"));
    assert!(matches!(end, Ok(None)), "{name}: {end:?}");
}

/// A new connection is served, and so is the parent's.
async fn assert_others_are_served(scene: &Scene) {
    let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
    let health = socket.ask(Request::Health).await.expect("a reply").expect("health");
    assert!(matches!(health, Response::Health(Health { configured: true, credentials: true, .. })), "{health:?}");
    let nonce = scene.stack.url.clone() + "/v1/attestation?nonce=0x01";
    let reply = reqwest::get(nonce).await.expect("a reply");
    assert_eq!(reply.status().as_u16(), 200);
}

#[tokio::test]
async fn what_is_no_frame_ends_its_connection_and_no_other() {
    let (scene, _) = SCENE.enter().await;
    for (name, bytes) in [
        ("http", &b"GET / HTTP/1.1\r\nHost: enclave\r\n\r\n"[..]),
        ("all_ones", &[0xff; 64]),
        ("longer_than_a_frame_may_be", &u32::try_from(MAX_FRAME + 1).expect("fits").to_be_bytes()),
        ("empty_item", &[0; 4]),
        ("random", &[0, 0, 0, 8, 0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15]),
    ] {
        for greeted in [false, true] {
            let mut socket = connection(scene.stack.directory(), greeted).await;
            socket.send_bytes(bytes).await.expect("sent");
            assert_dropped(socket, name).await;
        }
        assert_others_are_served(&scene).await;
    }
}

#[tokio::test]
async fn items_beyond_the_contract_end_their_connection_and_no_other() {
    let (scene, _) = SCENE.enter().await;
    let health = |id: u64| serde_cbor::to_vec(&RequestFrame { id, request: Request::Health }).expect("encodes");
    let health_and_more = [health(1), vec![0]].concat();
    let nested = [vec![0x81; 10_000], vec![0]].concat();
    let by_hand = |hex: &str| hex::decode(hex.replace(' ', "")).expect("hex");
    let cbor = |item: serde_json::Value| serde_cbor::to_vec(&item).expect("encodes");
    for (name, item) in [
        ("trailing_byte", health_and_more),
        ("nested_ten_thousand_times", nested),
        ("seventeen_levels", [vec![0x81; 17], vec![0]].concat()),
        ("unknown_request", cbor(json!({ "id": 1, "request": "Reboot" }))),
        ("unknown_field", cbor(json!({ "id": 1, "request": "Health", "as": "root" }))),
        (
            "unknown_field_of_a_request",
            cbor(json!({ "id": 1, "request": { "Attest": { "nonce": [], "public_key": [] } } })),
        ),
        ("negative_id", cbor(json!({ "id": -1, "request": "Health" }))),
        ("no_request", cbor(json!({ "id": 1 }))),
        ("duplicate_id", by_hand("a3 626964 01 626964 02 6772657175657374 664865616c7468")),
        ("indefinite_length", by_hand("bf 626964 01 6772657175657374 664865616c7468 ff")),
        ("not_a_map", by_hand("83010203")),
        ("a_string_longer_than_its_frame", by_hand("5b7fffffffffffffff")),
        ("an_array_longer_than_its_frame", by_hand("9b7fffffffffffffff")),
    ] {
        let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
        socket.send_item(&item).await.expect("sent");
        assert_dropped(socket, name).await;
    }
    assert_others_are_served(&scene).await;
}

#[tokio::test]
async fn ten_thousand_payloads_are_read_and_one_more_is_not() {
    let (scene, _) = SCENE.enter().await;
    let sign = |payloads: usize| Request::Sign {
        record: ByteString::try_from(vec![0; 3]).expect("short"),
        scheme: None,
        path: None,
        payloads: vec![Payload::Message { message: ByteString::default(), hash: None }; payloads],
    };
    let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
    let refused = socket.ask(sign(MAX_ENTRIES)).await.expect("a reply").err();
    assert_eq!(refused, Some(ErrorCode::RecordRefused), "read, and refused for its record only");
    socket.send(sign(MAX_ENTRIES + 1)).await.expect("sent");
    assert_dropped(socket, "10,001 payloads").await;
    assert_others_are_served(&scene).await;
}

#[tokio::test]
async fn a_truncated_frame_is_dropped_with_its_connection() {
    let (scene, _) = SCENE.enter().await;
    let whole = frame::encode(&RequestFrame { id: 1, request: Request::Health }).expect("encodes");
    for length in 1..whole.len() {
        let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
        socket.send_bytes(&whole[..length]).await.expect("sent");
        socket.half_close().await.expect("closed");
        assert_dropped(socket, &format!("cut after {length} bytes")).await;
    }
    assert_others_are_served(&scene).await;
}

#[tokio::test]
async fn a_frame_may_arrive_byte_by_byte_and_many_at_once() {
    let (scene, _) = SCENE.enter().await;
    let frame = |id, request| frame::encode(&RequestFrame { id, request }).expect("encodes");
    let mut socket = EnclaveSocket::connect(scene.stack.directory()).await.expect("connected");
    for byte in [frame(1, Request::Hello { version: VERSION }), frame(2, Request::Health)].concat() {
        socket.send_bytes(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert!(matches!(socket.reply().await.expect("a reply").expect("hello").result, Ok(Response::Hello { .. })));
    assert!(matches!(socket.reply().await.expect("a reply").expect("health").result, Ok(Response::Health(_))));

    let together: Vec<u8> = (10..510).flat_map(|id| frame(id, Request::Health)).collect();
    socket.send_bytes(&together).await.expect("sent");
    let mut answered = std::collections::BTreeSet::new();
    for _ in 10..510 {
        answered.insert(socket.reply().await.expect("a reply").expect("health").id);
    }
    assert_eq!(answered, (10..510).collect());
}

#[tokio::test]
async fn the_first_frame_is_a_hello_of_this_version() {
    let (scene, _) = SCENE.enter().await;
    let mut socket = EnclaveSocket::connect(scene.stack.directory()).await.expect("connected");
    socket.send(Request::Health).await.expect("sent");
    assert_dropped(socket, "no hello").await;

    let mut socket = EnclaveSocket::connect(scene.stack.directory()).await.expect("connected");
    let reply = socket.ask(Request::Hello { version: VERSION + 1 }).await.expect("a reply");
    assert_eq!(reply.err(), Some(ErrorCode::UnsupportedVersion));
    assert_dropped(socket, "another version").await;
    assert_others_are_served(&scene).await;
}

#[tokio::test]
async fn who_stalls_is_dropped_at_the_deadline_and_nobody_waits_for_it() {
    let (scene, _) = SCENE.enter().await;
    let directory = scene.stack.directory();
    let silent = EnclaveSocket::connect(directory).await.expect("connected");
    let mut half_a_hello = EnclaveSocket::connect(directory).await.expect("connected");
    half_a_hello.send_bytes(&[0, 0]).await.expect("sent");
    let mut half_a_frame = EnclaveSocket::greeted(directory).await.expect("a greeting");
    half_a_frame.send_bytes(&[0, 0x10, 0, 0, 0xa2]).await.expect("sent");

    let started = Instant::now();
    assert_others_are_served(&scene).await;
    assert!(started.elapsed() < Duration::from_secs(4), "others waited");
    tokio::join!(
        assert_dropped(silent, "silent"),
        assert_dropped(half_a_hello, "half a hello"),
        assert_dropped(half_a_frame, "half a frame"),
    );
    assert_others_are_served(&scene).await;
}

#[tokio::test]
async fn an_idle_connection_is_no_stalled_one() {
    let (scene, _) = SCENE.enter().await;
    let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(socket.ask(Request::Health).await.expect("a reply").is_ok());
}

#[tokio::test]
async fn who_does_not_read_its_replies_is_dropped_and_costs_bounded_memory() {
    let it = Scene::start().await;
    it.create("a").await;
    let directory = it.stack.directory();
    let memory = resident_kilobytes(&it);
    let nonce = Nonce::try_from(vec![1; 16]).expect("short");
    // Documents of about 5 KB, which take places among the requests in flight, and health, which takes none.
    let documents = deaf(directory, || Request::Attest { nonce: nonce.clone() }).await;
    let health = deaf(directory, || Request::Health).await;
    let mut other = EnclaveSocket::greeted(directory).await.expect("a greeting");
    let started = Instant::now();
    assert!(other.ask(Request::Health).await.expect("a reply").is_ok());
    it.signs("a").await;
    assert!(started.elapsed() < Duration::from_secs(2), "another waited");
    let grown = resident_kilobytes(&it).saturating_sub(memory);
    assert!(grown < 128 * 1024, "the enclave has grown by {grown} KiB");
    tokio::join!(assert_gone(documents), assert_gone(health));
    it.signs("a").await;
    assert_others_are_served(&it).await;
}

/// A connection whose peer asks without end and reads nothing, at the point where the enclave reads no more
/// of it, or has had enough of it.
async fn deaf(directory: &Path, request: impl Fn() -> Request) -> EnclaveSocket {
    let mut socket = EnclaveSocket::greeted(directory).await.expect("a greeting");
    let until_stalled =
        async { while matches!(timeout(Duration::from_secs(1), socket.send(request())).await, Ok(Ok(_))) {} };
    timeout(PATIENCE, until_stalled).await.expect("the enclave reads for ever");
    socket
}

/// Writing to a connection that its other end has closed is an error; to a stalled one it is a wait.
async fn assert_gone(mut socket: EnclaveSocket) {
    let gone = async {
        while !matches!(timeout(Duration::from_millis(100), socket.send(Request::Health)).await, Ok(Err(_))) {}
    };
    timeout(PATIENCE, gone).await.expect("the enclave drops it");
}

fn resident_kilobytes(it: &Scene) -> u64 {
    let [_, enclave, _] = it.stack.process_ids();
    let status = std::fs::read_to_string(format!("/proc/{}/status", enclave.expect("a process"))).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
    line.trim_end_matches("kB").trim().parse().expect("a number")
}

#[tokio::test]
async fn after_a_half_close_the_replies_still_come() {
    let (scene, _) = SCENE.enter().await;
    let mut socket = EnclaveSocket::greeted(scene.stack.directory()).await.expect("a greeting");
    socket.send(Request::Attest { nonce: Nonce::try_from(vec![7]).expect("short") }).await.expect("sent");
    socket.half_close().await.expect("closed");
    assert!(matches!(socket.reply().await.expect("a reply").expect("a document").result, Ok(Response::Document(_))));
    assert_dropped(socket, "half closed").await;
}

#[tokio::test]
async fn a_hundred_connections_take_nothing_from_those_who_are_served() {
    let it = Scene::start().await;
    it.create("a").await;
    let directory = it.stack.directory();
    let mut established = EnclaveSocket::greeted(directory).await.expect("a greeting");
    let mut greeted = Vec::new();
    for _ in 0..100 {
        if let Ok(socket) = EnclaveSocket::greeted(directory).await {
            greeted.push(socket);
        }
    }
    // 64 at one time: the parent's, one for each core, the established one, and these.
    let cores = std::thread::available_parallelism().expect("a number").get();
    assert_eq!(greeted.len(), 64 - 1 - cores.min(16), "the cap");
    assert!(established.ask(Request::Health).await.expect("a reply").is_ok());
    it.signs("a").await;
    drop(greeted);
    eventually("there is room again", async || EnclaveSocket::greeted(directory).await.is_ok()).await;
}

async fn connection(directory: &Path, greeted: bool) -> EnclaveSocket {
    let socket =
        if greeted { EnclaveSocket::greeted(directory).await } else { EnclaveSocket::connect(directory).await };
    socket.expect("connected")
}
