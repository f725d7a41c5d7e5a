//! The client against an enclave that misbehaves on request, over real sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use strongroom_protocol::frame::{self, HEADER, MAX_ENTRIES};
use strongroom_protocol::{
    Address, ByteArray, ByteString, ErrorCode, Health, MAX_MESSAGE, Payload, Request, RequestFrame, Response,
    ResponseFrame, Scheme, Signature,
};
use strongroom_runtime::Workers;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{CallError, EnclaveClient, Status};
use crate::credentials::CredentialFeed;

/// What the enclave does with a frame: answers to send, or `None` to hang up.
type Behaviour = fn(RequestFrame, &mut Memory) -> Option<Vec<ResponseFrame>>;

/// What one enclave process remembers.
#[derive(Default)]
struct Memory {
    connections: usize,
    credentials: usize,
    kept: Vec<u64>,
}

type Results = Vec<Result<Signature, ErrorCode>>;

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    feed: CredentialFeed,
    client: EnclaveClient,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("enclave");
        let credentials = AwsCredentials::new("AKIA", "secret", None, None, "test");
        let feed = CredentialFeed::new(SharedCredentialsProvider::new(credentials));
        let address = Address::Unix(path.clone());
        let client = EnclaveClient::start(address, b"{}".to_vec(), feed.clone(), Workers::here(1)).expect("short");
        Self { _folder: folder, path, feed, client }
    }

    /// Signs one payload.
    async fn sign(&self, patience: Duration) -> Result<Results, CallError> {
        self.sign_all(vec![Payload::Digest(ByteArray([2; 32]))], patience).await
    }

    async fn sign_all(&self, mut payloads: Vec<Payload>, patience: Duration) -> Result<Results, CallError> {
        let record = ByteString::try_from(vec![1]).expect("short");
        let before = payloads.clone();
        let outcome = self.client.sign(record, Scheme::Ecdsa, None, &mut payloads, Instant::now() + patience).await;
        assert_eq!(payloads, before, "the payloads were lent");
        outcome
    }

    async fn until(&self, wanted: fn(&Status) -> bool) {
        let mut status = self.client.status.clone();
        let reached = status.wait_for(wanted);
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("in time").expect("supervised");
    }
}

/// An enclave process. Stopping it closes its connections.
struct Process(JoinHandle<()>);

impl Process {
    async fn stop(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

fn enclave(path: &Path, behaviour: Behaviour) -> Process {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).expect("bound");
    Process(tokio::spawn(async move {
        let mut memory = Memory::default();
        loop {
            let (stream, _) = listener.accept().await.expect("accepted");
            memory.connections += 1;
            converse(stream, behaviour, &mut memory).await;
        }
    }))
}

async fn converse(mut stream: UnixStream, behaviour: Behaviour, memory: &mut Memory) {
    while let Some(request) = next_request(&mut stream).await {
        let Some(replies) = behaviour(request, memory) else { return };
        for reply in replies {
            answer(&mut stream, &reply).await;
        }
    }
}

async fn next_request(stream: &mut UnixStream) -> Option<RequestFrame> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.ok()?;
    let mut item = vec![0; frame::announced(&header).expect("bounded").expect("whole")];
    stream.read_exact(&mut item).await.expect("whole");
    Some(frame::decode_item(&item).expect("a request"))
}

async fn answer(stream: &mut UnixStream, reply: &ResponseFrame) {
    stream.write_all(&frame::encode(reply).expect("encodes")).await.expect("written");
}

/// The handshake as it should be; `Err` with the request for anything else.
fn well_behaved(request: RequestFrame, memory: &mut Memory) -> Result<ResponseFrame, RequestFrame> {
    let response = match request.request {
        Request::Hello { version } => Response::Hello { version },
        Request::Configure { .. } => Response::Configured,
        Request::SetCredentials(_) => {
            memory.credentials += 1;
            Response::CredentialsSet
        }
        Request::Health => {
            let credentials = memory.credentials > 0;
            Response::Health(Health { configured: true, credentials, debug_mode: false, held_keys: 0 })
        }
        _ => return Err(request),
    };
    Ok(ResponseFrame { id: request.id, result: Ok(response) })
}

fn signed(id: u64) -> ResponseFrame {
    ResponseFrame { id, result: Ok(Response::Signed(vec![Ok(SIGNATURE)])) }
}

fn signs(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
    Some(vec![well_behaved(request, memory).unwrap_or_else(|request| signed(request.id))])
}

const SIGNATURE: Signature = Signature { bytes: ByteArray([9; 64]), recovery_id: Some(0) };

const SECONDS: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_call_waits_for_the_enclave_and_survives_its_restart() {
    let bench = Bench::new();
    let early = bench.sign(SECONDS);
    let (early, process) = tokio::join!(early, async { enclave(&bench.path, signs) });
    assert!(early.is_ok(), "{early:?}");
    process.stop().await;
    bench.until(|status| matches!(status, Status::Away { .. })).await;
    let (late, _process) = tokio::join!(bench.sign(SECONDS), async { enclave(&bench.path, signs) });
    assert!(late.is_ok(), "{late:?}");
}

#[tokio::test]
async fn replies_come_in_any_order() {
    fn reversed(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        match well_behaved(request, memory) {
            Ok(reply) => Some(vec![reply]),
            Err(request) => {
                memory.kept.push(request.id);
                let all = memory.kept.len() == 3;
                Some(if all { memory.kept.drain(..).rev().map(signed).collect() } else { Vec::new() })
            }
        }
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, reversed);
    let (a, b, c) = tokio::join!(bench.sign(SECONDS), bench.sign(SECONDS), bench.sign(SECONDS));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
}

#[tokio::test]
async fn many_payloads_have_their_results_in_order_and_as_many() {
    fn refuses_every_other(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        Some(vec![well_behaved(request, memory).unwrap_or_else(|request| {
            let Request::Sign { payloads, .. } = request.request else { panic!("another request") };
            let refused = Err(ErrorCode::PayloadDenied);
            let results = (0..payloads.len()).map(|n| if n % 2 == 0 { Ok(SIGNATURE) } else { refused }).collect();
            ResponseFrame { id: request.id, result: Ok(Response::Signed(results)) }
        })])
    }
    let bench = Bench::new();
    let process = enclave(&bench.path, refuses_every_other);
    let digests = |n| vec![Payload::Digest(ByteArray([2; 32])); n];
    let all = bench.sign_all(digests(MAX_ENTRIES), SECONDS).await.expect("they and their results fit into frames");
    assert_eq!(all.len(), MAX_ENTRIES);
    let denied = Err(ErrorCode::PayloadDenied);
    assert!(all.chunks(2).all(|pair| pair == [Ok(SIGNATURE), denied]));
    process.stop().await;
    // One result, whatever is asked.
    let _process = enclave(&bench.path, signs);
    bench.until(|status| matches!(status, Status::Away { .. })).await;
    for wrong in [0, 2] {
        assert_eq!(bench.sign_all(digests(wrong), SECONDS).await.err(), Some(CallError::Unexpected), "{wrong}");
    }
}

#[tokio::test]
async fn more_than_a_frame_takes_is_not_sent() {
    let bench = Bench::new();
    let _process = enclave(&bench.path, signs);
    let megabyte = Payload::Message { message: vec![0; MAX_MESSAGE].try_into().expect("fits"), hash: None };
    assert_eq!(bench.sign_all(vec![megabyte.clone(); 4], SECONDS).await.err(), Some(CallError::TooLarge));
    assert!(bench.sign_all(vec![megabyte], SECONDS).await.is_ok());
}

#[tokio::test]
async fn a_late_reply_is_dropped_and_the_connection_stays() {
    fn one_late(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        match well_behaved(request, memory) {
            Ok(reply) => Some(vec![reply]),
            Err(request) => {
                memory.kept.push(request.id);
                // The first is answered together with the second.
                Some(if memory.kept.len() == 1 {
                    Vec::new()
                } else {
                    memory.kept.iter().copied().map(signed).collect()
                })
            }
        }
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, one_late);
    bench.until(|status| matches!(status, Status::Ready { .. })).await;
    assert_eq!(bench.sign(Duration::from_millis(50)).await.err(), Some(CallError::Deadline));
    assert!(bench.sign(SECONDS).await.is_ok());
    assert!(matches!(bench.client.status(), Status::Ready { lanes, .. } if lanes.here().is_open()));
}

#[tokio::test]
async fn a_reply_to_nobody_costs_the_connection() {
    fn babbles(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        Some(vec![well_behaved(request, memory).unwrap_or_else(|request| signed(request.id + 1000))])
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, babbles);
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Lost));
}

#[tokio::test]
async fn a_request_that_was_sent_and_lost_is_not_sent_again() {
    fn hangs_up(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        well_behaved(request, memory).ok().map(|reply| vec![reply])
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, hangs_up);
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Lost));
}

#[tokio::test]
async fn refused_credentials_are_renewed_once() {
    fn wants_credentials(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        Some(vec![well_behaved(request, memory).unwrap_or_else(|request| match memory.credentials {
            0 => ResponseFrame { id: request.id, result: Err(ErrorCode::CredentialsMissing) },
            _ => signed(request.id),
        })])
    }
    fn never_content(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        let refused =
            |request: RequestFrame| ResponseFrame { id: request.id, result: Err(ErrorCode::CredentialsRefused) };
        Some(vec![well_behaved(request, memory).unwrap_or_else(refused)])
    }
    let bench = Bench::new();
    let process = enclave(&bench.path, wants_credentials);
    assert!(bench.sign(SECONDS).await.is_ok());
    process.stop().await;
    let _process = enclave(&bench.path, never_content);
    bench.until(|status| matches!(status, Status::Away { .. })).await;
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Refused(ErrorCode::CredentialsRefused)));
}

#[tokio::test]
async fn an_enclave_that_holds_another_configuration_is_told_from_one_that_is_away() {
    fn configured_otherwise(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        let id = request.id;
        Some(vec![match request.request {
            Request::Configure { .. } => ResponseFrame { id, result: Err(ErrorCode::ConfiguredOtherwise) },
            _ => well_behaved(request, memory).ok()?,
        }])
    }
    let bench = Bench::new();
    let process = enclave(&bench.path, configured_otherwise);
    bench.until(|status| matches!(status, Status::ConfigurationRefused(_))).await;
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Refused(ErrorCode::ConfiguredOtherwise)));
    process.stop().await;
    let _process = enclave(&bench.path, signs);
    bench.until(|status| matches!(status, Status::Ready { .. })).await;
    assert!(bench.sign(SECONDS).await.is_ok(), "it was restarted, and nothing else was");
}

#[tokio::test]
async fn another_version_and_nonsense_are_errors() {
    fn other_version(request: RequestFrame, _: &mut Memory) -> Option<Vec<ResponseFrame>> {
        Some(vec![ResponseFrame { id: request.id, result: Ok(Response::Hello { version: 2 }) }])
    }
    fn nonsense(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        let configured = |request: RequestFrame| ResponseFrame { id: request.id, result: Ok(Response::Configured) };
        Some(vec![well_behaved(request, memory).unwrap_or_else(configured)])
    }
    let bench = Bench::new();
    let process = enclave(&bench.path, other_version);
    bench.until(|status| matches!(status, Status::OtherVersion)).await;
    process.stop().await;
    let _process = enclave(&bench.path, nonsense);
    bench.until(|status| matches!(status, Status::Ready { .. })).await;
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Unexpected));
}

#[tokio::test]
async fn an_enclave_that_is_too_busy_to_say_how_it_is_lives() {
    fn busy_after_the_first_time(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        let id = request.id;
        let busy = ResponseFrame { id, result: Err(ErrorCode::Busy) };
        Some(vec![match request.request {
            Request::Health if memory.credentials > 0 => busy,
            Request::Sign { .. } if memory.connections == 1 => signed(id),
            _ => well_behaved(request, memory).unwrap_or(busy),
        }])
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, busy_after_the_first_time);
    bench.until(|status| matches!(status, Status::Ready { .. })).await;
    // News to push, and then the question.
    bench.feed.renew().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(bench.sign(SECONDS).await.is_ok(), "on the first connection");
}

#[tokio::test]
async fn callers_without_number_leave_room_for_the_supervisor() {
    fn never_signs(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        Some(well_behaved(request, memory).into_iter().collect())
    }
    let bench = Bench::new();
    let _process = enclave(&bench.path, never_signs);
    bench.until(|status| matches!(status, Status::Ready { .. })).await;
    let calls = (0..5000).map(|_| bench.client.clone()).map(|client| async move {
        let record = ByteString::try_from(vec![1]).expect("short");
        let mut payloads = vec![Payload::Digest(ByteArray([2; 32]))];
        client.sign(record, Scheme::Ecdsa, None, &mut payloads, Instant::now() + Duration::from_secs(1)).await
    });
    let outcomes = calls.collect::<tokio::task::JoinSet<_>>().join_all().await;
    assert!(outcomes.contains(&Err(CallError::Busy)) && outcomes.contains(&Err(CallError::Deadline)));
    assert_eq!(bench.sign(SECONDS).await.err(), Some(CallError::Busy), "and still, for the replies that never came");
    bench.feed.renew().await;
    bench.until(|status| matches!(status, Status::Ready { health, .. } if health.credentials)).await;
}

#[tokio::test]
async fn credentials_that_are_published_during_the_handshake_reach_the_enclave() {
    let bench = Bench::new();
    let listener = UnixListener::bind(&bench.path).expect("bound");
    let (mut stream, _) = listener.accept().await.expect("accepted");
    let mut memory = Memory::default();
    loop {
        let request = next_request(&mut stream).await.expect("a request");
        let last = matches!(request.request, Request::Health);
        if last {
            // The push is over, and there was nothing to push.
            bench.feed.renew().await;
        }
        answer(&mut stream, &well_behaved(request, &mut memory).expect("of the handshake")).await;
        if last {
            break;
        }
    }
    let pushed = async {
        loop {
            let request = next_request(&mut stream).await.expect("a request");
            if matches!(request.request, Request::SetCredentials(_)) {
                break;
            }
            answer(&mut stream, &well_behaved(request, &mut memory).expect("a question about health")).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3), pushed).await.expect("in time");
}

#[tokio::test]
async fn credentials_that_the_enclave_did_not_take_are_pushed_again() {
    fn busy_at_first(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
        let id = request.id;
        if matches!(request.request, Request::SetCredentials(_)) && memory.kept.len() < 2 {
            memory.kept.push(id);
            return Some(vec![ResponseFrame { id, result: Err(ErrorCode::Busy) }]);
        }
        Some(vec![well_behaved(request, memory).ok()?])
    }
    let bench = Bench::new();
    bench.feed.renew().await;
    let _process = enclave(&bench.path, busy_at_first);
    bench.until(|status| matches!(status, Status::Ready { health, .. } if health.credentials)).await;
}
