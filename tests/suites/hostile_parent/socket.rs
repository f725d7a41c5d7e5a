//! The enclave's own socket, in the hands of a parent who says what no honest one says: requests in the
//! wrong state, two configurations at once, fields that do not exist.

use std::collections::BTreeMap;
use std::process::Stdio;

use serde_cbor::Value;
use strongroom_protocol::document::AttestationDocument;
use strongroom_protocol::{
    Algorithm, ByteString, Credentials, ErrorCode, Measurement, Payload, Policy, Request, Response, SecretString,
    VERSION,
};
use strongroom_tests::frames::{ENCLAVE_SOCKET, EnclaveSocket};
use strongroom_tests::stack::{ACCESS_KEY_ID, KMS_HOST, REGION, SECRET_ACCESS_KEY, binary, test_directory};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::scene::{Scene, eventually};

/// An enclave without a parent: nobody configures it but the test.
struct LoneEnclave {
    _process: Child,
    directory: TempDir,
}

impl LoneEnclave {
    async fn boot() -> Self {
        let directory = test_directory().expect("a folder");
        let process = Command::new(binary("dev-enclave"))
            .args([
                "--listen",
                &format!("unix:{ENCLAVE_SOCKET}"),
                "--kms-proxy",
                "unix:nowhere.sock",
                "--nsm-dir",
                "nsm",
            ])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("dev-enclave starts");
        let listens = async || EnclaveSocket::connect(directory.path()).await.is_ok();
        eventually("the enclave listens", listens).await;
        Self { _process: process, directory }
    }

    async fn connect(&self) -> EnclaveSocket {
        EnclaveSocket::connect(self.directory.path()).await.expect("the enclave listens")
    }

    async fn greeted(&self) -> EnclaveSocket {
        EnclaveSocket::greeted(self.directory.path()).await.expect("the enclave answers")
    }
}

/// A valid configuration, and another for every number.
fn configuration(number: u32) -> Vec<u8> {
    let arn = format!("arn:aws:kms:{REGION}:111122223333:key/1");
    serde_json::to_vec(&serde_json::json!({
        "version": 1, "region": REGION, "kms_host": KMS_HOST, "kms_keys": [arn], "max_hold_seconds": number,
    }))
    .expect("JSON")
}

fn configure(bytes: &[u8]) -> Request {
    Request::Configure { configuration: ByteString::try_from(bytes).expect("short") }
}

fn attest(nonce: &[u8]) -> Request {
    Request::Attest { nonce: ByteString::try_from(nonce).expect("short") }
}

async fn document(socket: &mut EnclaveSocket, nonce: &[u8]) -> AttestationDocument {
    match socket.ask(attest(nonce)).await.expect("a reply") {
        Ok(Response::Document(document)) => AttestationDocument::parse(&document).expect("a document"),
        other => panic!("{other:?}"),
    }
}

/// Everything that needs a configuration.
fn what_needs_a_configuration() -> [Request; 5] {
    let record = || ByteString::try_from(vec![1]).expect("short");
    let secret = || SecretString::new("AKIA".to_owned());
    [
        Request::SetCredentials(Credentials {
            access_key_id: secret(),
            secret_access_key: secret(),
            session_token: None,
            expires_at_ms: None,
        }),
        Request::GenerateKey {
            key_id: "a".parse().expect("an id"),
            algorithm: Algorithm::Ed25519,
            policy: Policy::default(),
            kms_key_arn: None,
        },
        Request::OpenRecord { record: record(), nonce: ByteString::default() },
        Request::Sign { record: record(), scheme: None, path: None, payloads: vec![] },
        Request::Rewrap {
            record: record(),
            kms_key_arn: format!("arn:aws:kms:{REGION}:111122223333:key/1").parse().expect("an ARN"),
        },
    ]
}

#[tokio::test]
async fn before_configure_only_hello_health_and_evidence_are_served() {
    let enclave = LoneEnclave::boot().await;
    let mut socket = enclave.greeted().await;
    for request in what_needs_a_configuration() {
        assert_eq!(socket.ask(request).await.expect("a reply").err(), Some(ErrorCode::NotConfigured));
    }
    match socket.ask(Request::Health).await.expect("a reply") {
        Ok(Response::Health(health)) => assert!(!health.configured),
        other => panic!("{other:?}"),
    }
    let before = document(&mut socket, b"before").await.payload;
    assert_eq!(before.pcr(16), None, "a verifier that demands PCR16 refuses this document");

    assert!(matches!(socket.ask(configure(&configuration(1))).await.expect("a reply"), Ok(Response::Configured)));
    let after = document(&mut socket, b"after").await.payload;
    assert_eq!(after.pcr(16), Some(&Measurement::of(&configuration(1)).pcr16));
}

#[tokio::test]
async fn two_configures_racing() {
    let enclave = LoneEnclave::boot().await;
    const RACERS: u32 = 8;
    let mut sockets = Vec::new();
    for _ in 0..RACERS {
        sockets.push(enclave.greeted().await);
    }
    for (number, socket) in (0..).zip(&mut sockets) {
        socket.send(configure(&configuration(number))).await.expect("sent");
    }
    let mut winners = Vec::new();
    for (number, socket) in (0..).zip(&mut sockets) {
        match socket.reply().await.expect("a frame").expect("open").result {
            Ok(Response::Configured) => winners.push(number),
            Err(code) => assert_eq!(code, ErrorCode::ConfiguredOtherwise),
            other => panic!("{other:?}"),
        }
    }
    let [winner] = winners[..] else { panic!("{winners:?}") };
    for (number, socket) in (0..).zip(&mut sockets) {
        let pcr16 = *document(socket, b"after").await.payload.pcr(16).expect("measured");
        assert_eq!(pcr16, Measurement::of(&configuration(winner)).pcr16);
        let again = socket.ask(configure(&configuration(number))).await.expect("a reply");
        assert_eq!(again.is_ok(), number == winner, "the same bytes are accepted, others are not");
    }
}

#[tokio::test]
async fn a_configure_that_is_no_configuration_measures_nothing() {
    let enclave = LoneEnclave::boot().await;
    let mut socket = enclave.greeted().await;
    let good = String::from_utf8(configuration(1)).expect("text");
    for (name, bad) in [
        ("empty", String::new()),
        ("not_json", "{".to_owned()),
        ("trailing_bytes", format!("{good}{{}}")),
        ("unknown_field", good.replacen('{', "{\"debug\":true,", 1)),
        ("duplicate_field", good.replacen('{', "{\"version\":1,", 1)),
        ("roots_that_are_none", good.replacen('{', "{\"tls_roots\":\"none\",", 1)),
        ("key_of_another_region", good.replace(":key/1", ":key/1\",\"arn:aws:kms:us-east-1:111122223333:key/1")),
    ] {
        let refused = socket.ask(configure(bad.as_bytes())).await.expect("a reply");
        assert_eq!(refused.err(), Some(ErrorCode::ConfigurationInvalid), "{name}");
        assert_eq!(document(&mut socket, b"nonce").await.payload.pcr(16), None, "{name}");
    }
    assert!(matches!(socket.ask(configure(good.as_bytes())).await.expect("a reply"), Ok(Response::Configured)));
    let bad = socket.ask(configure(b"{")).await.expect("a reply");
    assert_eq!(bad.err(), Some(ErrorCode::ConfiguredOtherwise), "whatever other bytes");
}

#[tokio::test]
async fn hello_of_another_version_is_told_ours_is_another_and_parts() {
    let enclave = LoneEnclave::boot().await;
    for version in [0, VERSION + 1, u16::MAX] {
        let mut socket = enclave.connect().await;
        let refused = socket.ask(Request::Hello { version }).await.expect("a reply");
        assert_eq!(refused.err(), Some(ErrorCode::UnsupportedVersion));
        assert!(socket.reply().await.expect("an end").is_none());
    }
    enclave.greeted().await;
}

#[tokio::test]
async fn a_connection_that_does_not_begin_with_hello_is_dropped() {
    let enclave = LoneEnclave::boot().await;
    for first in [Request::Health, configure(&configuration(1)), attest(b"nonce")] {
        let mut socket = enclave.connect().await;
        socket.send(first).await.expect("sent");
        assert!(socket.reply().await.expect("an end").is_none());
    }
    let mut socket = enclave.greeted().await;
    assert_eq!(document(&mut socket, b"nonce").await.payload.pcr(16), None, "nothing was configured");
}

#[tokio::test]
async fn a_second_hello_changes_nothing() {
    let enclave = LoneEnclave::boot().await;
    let mut socket = enclave.greeted().await;
    assert!(matches!(
        socket.ask(Request::Hello { version: VERSION }).await.expect("a reply"),
        Ok(Response::Hello { version: VERSION })
    ));
    let other = socket.ask(Request::Hello { version: VERSION + 1 }).await.expect("a reply");
    assert_eq!(other.err(), Some(ErrorCode::UnsupportedVersion));
    assert!(matches!(socket.ask(Request::Health).await.expect("a reply"), Ok(Response::Health(_))));
}

/// An item as CBOR, from text keys and values.
fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| (Value::Text((*key).to_owned()), value.clone())).collect())
}

fn attest_item(fields: &[(&str, Value)]) -> Vec<u8> {
    let request = map(&[("Attest", map(fields))]);
    serde_cbor::to_vec(&map(&[("id", Value::Integer(7)), ("request", request)])).expect("CBOR")
}

#[tokio::test]
async fn a_public_key_or_user_data_smuggled_into_a_request_ends_the_connection() {
    let it = Scene::start().await;
    it.create("a").await;
    let nonce = ("nonce", Value::Bytes(b"nonce".to_vec()));
    let mut honest = it.enclave().await;
    honest.send_item(&attest_item(std::slice::from_ref(&nonce))).await.expect("sent");
    assert!(matches!(honest.reply().await.expect("a frame").expect("open").result, Ok(Response::Document(_))));

    for field in ["public_key", "user_data"] {
        let mut socket = it.enclave().await;
        let smuggled = (field, Value::Bytes(vec![0x30; 294]));
        socket.send_item(&attest_item(&[nonce.clone(), smuggled])).await.expect("sent");
        assert!(socket.reply().await.expect("an end").is_none(), "{field}");
    }
    // Others are not affected.
    honest.send_item(&attest_item(&[nonce])).await.expect("sent");
    assert!(matches!(honest.reply().await.expect("a frame").expect("open").result, Ok(Response::Document(_))));
    it.signs("a").await;
}

/// What a caller chooses of a document is its nonce: it stands there verbatim and nowhere else.
#[tokio::test]
async fn a_nonce_that_looks_like_a_key_stays_a_nonce() {
    let it = Scene::start().await;
    it.create("a").await;
    let record = it.record("a");
    let spki_like = vec![0x30; 294];
    let mut socket = it.enclave().await;
    let nonce = ByteString::try_from(spki_like.clone()).expect("short");
    let of_key = Request::OpenRecord { record: record.present().expect("encodes"), nonce: nonce.clone() };
    for (request, domain) in [(Request::Attest { nonce }, "strongroom-enclave-v1"), (of_key, "strongroom-key-v1")] {
        let document = match socket.ask(request).await.expect("a reply") {
            Ok(Response::Document(document)) => AttestationDocument::parse(&document).expect("a document").payload,
            other => panic!("{other:?}"),
        };
        assert!(document.public_key.is_none());
        assert_eq!(document.nonce.as_deref(), Some(&spki_like[..]));
        let user_data = document.user_data.expect("user data");
        assert!(user_data.starts_with(domain.as_bytes()), "{}", String::from_utf8_lossy(&user_data));
    }
    let too_long = Value::Bytes(vec![0; 513]);
    socket.send_item(&attest_item(&[("nonce", too_long)])).await.expect("sent");
    assert!(socket.reply().await.expect("an end").is_none(), "longer than the module takes");
    it.signs("a").await;
}

/// The parent's credentials are its own to break; the next good ones work.
#[tokio::test]
async fn credentials_that_are_nonsense() {
    let it = Scene::start().await;
    it.create("a").await;
    let mut socket = it.enclave().await;
    let secret = |text: &str| SecretString::new(text.to_owned());
    for (id, key, token, expires_at_ms, code) in [
        ("", "", None, None, ErrorCode::CredentialsRefused),
        ("AKIANOBODY", "nothing", Some(""), None, ErrorCode::CredentialsRefused),
        (ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, Some(1), ErrorCode::CredentialsRefused),
        // Not even a header's value: no call can be made with it.
        ("AKIANOBODY", "nothing", Some("\r\nx-injected: 1"), None, ErrorCode::KmsUnavailable),
    ] {
        let credentials = Credentials {
            access_key_id: secret(id),
            secret_access_key: secret(key),
            session_token: token.map(secret),
            expires_at_ms,
        };
        let set = socket.ask(Request::SetCredentials(credentials)).await.expect("a reply");
        assert!(matches!(set, Ok(Response::CredentialsSet)));
        let payload = Payload::Message { message: ByteString::default(), hash: None };
        let record = it.record("a").present().expect("encodes");
        let signed = socket
            .ask(Request::Sign { record, scheme: None, path: None, payloads: vec![payload] })
            .await
            .expect("a reply");
        assert_eq!(signed.err(), Some(code), "{id:?} {token:?}");
    }
    let good = Credentials {
        access_key_id: secret(ACCESS_KEY_ID),
        secret_access_key: secret(SECRET_ACCESS_KEY),
        session_token: None,
        expires_at_ms: None,
    };
    assert!(socket.ask(Request::SetCredentials(good)).await.expect("a reply").is_ok());
    it.signs("a").await;
}

/// Registers are the only thing that two enclaves of one image differ in, and only by configuration.
#[tokio::test]
async fn the_same_configuration_measures_the_same_and_another_does_not() {
    let mut measured = BTreeMap::new();
    for number in [1, 1, 2] {
        let enclave = LoneEnclave::boot().await;
        let mut socket = enclave.greeted().await;
        assert!(socket.ask(configure(&configuration(number))).await.expect("a reply").is_ok());
        let payload = document(&mut socket, b"nonce").await.payload;
        let pcr16 = *payload.pcr(16).expect("measured");
        assert_eq!(measured.entry(number).or_insert(pcr16), &pcr16);
    }
    assert_ne!(measured[&1], measured[&2]);
}
