//! The client against an enclave that misbehaves on request, over real sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use strongroom_protocol::frame::{self, HEADER};
use strongroom_protocol::{
    Address, ByteArray, ByteString, ErrorCode, Health, Payload, Request, RequestFrame, Response, ResponseFrame, Scheme,
    Signature,
};
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
    credentials: usize,
    kept: Vec<u64>,
}

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    client: EnclaveClient,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("enclave");
        let credentials = AwsCredentials::new("AKIA", "secret", None, None, "test");
        let feed = CredentialFeed::new(SharedCredentialsProvider::new(credentials));
        let client = EnclaveClient::start(Address::Unix(path.clone()), b"{}".to_vec(), feed).expect("short");
        Self { _folder: folder, path, client }
    }

    async fn sign(&self, patience: Duration) -> Result<Signature, CallError> {
        let record = ByteString::try_from(vec![1]).expect("short");
        let payload = Payload::Digest(ByteArray([2; 32]));
        self.client.sign(record, Scheme::Ecdsa, payload, Instant::now() + patience).await
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
            converse(stream, behaviour, &mut memory).await;
        }
    }))
}

async fn converse(mut stream: UnixStream, behaviour: Behaviour, memory: &mut Memory) {
    let mut header = [0; HEADER];
    while stream.read_exact(&mut header).await.is_ok() {
        let mut item = vec![0; frame::announced(&header).expect("bounded").expect("whole")];
        stream.read_exact(&mut item).await.expect("whole");
        let Some(replies) = behaviour(frame::decode_item(&item).expect("a request"), memory) else { return };
        for reply in replies {
            stream.write_all(&frame::encode(&reply).expect("encodes")).await.expect("written");
        }
    }
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
    let signature = Signature { bytes: ByteArray([9; 64]), recovery_id: Some(0) };
    ResponseFrame { id, result: Ok(Response::Signed(vec![Ok(signature)])) }
}

fn signs(request: RequestFrame, memory: &mut Memory) -> Option<Vec<ResponseFrame>> {
    Some(vec![well_behaved(request, memory).unwrap_or_else(|request| signed(request.id))])
}

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
    assert!(matches!(bench.client.status(), Status::Ready { connection, .. } if connection.is_open()));
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
