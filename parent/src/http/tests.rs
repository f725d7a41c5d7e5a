//! The interface over a real connection, with a directory store and no enclave: everything that is
//! decided before the enclave is asked. With an enclave, the workspace's suites take over.

use std::net::SocketAddr;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use strongroom_protocol::frame::MAX_ENTRIES;
use strongroom_protocol::{Address, Algorithm, HashFunction, Origin, Scheme};
use strongroom_runtime::Workers;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{Admission, App, BodyRoom, Parts, StoreReadiness};
use crate::auth::{Identities, Identity, TokenHash};
use crate::config::Limits;
use crate::credentials::CredentialFeed;
use crate::enclave_client::EnclaveClient;
use crate::key_state::StateName;
use crate::key_store::{Directory, KeyStore};
use crate::records::Records;
use crate::stored_record::tests::sample;

struct Bench {
    folder: tempfile::TempDir,
    app: App,
    address: SocketAddr,
    client: Client,
}

impl Bench {
    async fn new(identities: Identities) -> Self {
        Self::with_body_room(identities, BodyRoom::default()).await
    }

    async fn with_body_room(identities: Identities, body_room: BodyRoom) -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let store = KeyStore::Directory(Directory::open(&folder.path().join("keys")).expect("opens"));
        let provider = SharedCredentialsProvider::new(Credentials::new("AKIA", "secret", None, None, "test"));
        let credentials = CredentialFeed::new(provider);
        let nobody = Address::Unix(folder.path().join("enclave"));
        let app = App::new(Parts {
            admission: Admission::new(&Limits::default(), &identities),
            identities,
            enclave: EnclaveClient::start(nobody, b"{}".to_vec(), credentials.clone(), Workers::here(1))
                .expect("short"),
            records: Records::new(store, &Limits::default()),
            credentials,
            request_timeout: Duration::from_millis(500),
            body_room,
            store_readiness: StoreReadiness::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(super::serve(listener, app.clone().router(), 100, Duration::from_secs(1), std::future::pending()));
        Self { folder, app, address, client: Client::new() }
    }

    fn store(&self, id: &str, change: impl Fn(String) -> String) {
        let json = change(sample(id).to_json().expect("encodes"));
        std::fs::write(self.folder.path().join(format!("keys/{id}.json")), json).expect("written");
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address))
    }

    async fn problem(&self, request: RequestBuilder) -> (u16, String) {
        let reply = request.send().await.expect("answered");
        let id = reply.headers()["x-request-id"].to_str().expect("text").to_owned();
        assert_eq!(reply.headers()["content-type"], "application/problem+json");
        let status = reply.status().as_u16();
        let problem: Value = reply.json().await.expect("JSON");
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(status), &json!(id)));
        assert!(problem["title"].is_string() && problem["detail"].is_string());
        let slug = problem["type"].as_str().and_then(|t| t.strip_prefix("urn:strongroom:problem:"));
        (status, slug.expect("a type of ours").to_owned())
    }
}

fn post(bench: &Bench, path: &str, body: &str) -> RequestBuilder {
    bench.request(Method::POST, path).header("content-type", "application/json").body(body.to_owned())
}

const MESSAGE: &str = r#"{"type":"message","message":"00"}"#;

fn batch(payloads: &[&str], rest: &str) -> String {
    format!(r#"{{"payloads":[{}]{rest}}}"#, payloads.join(","))
}

#[tokio::test]
async fn bad_input_gets_its_status() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    let message = r#""payload":{"type":"message","message":"00"}"#;
    let nonce = "00".repeat(513);
    for (name, request, expected) in [
        ("no_route", bench.request(Method::GET, "/v1/nothing"), (404, "not-found")),
        ("metrics_later", bench.request(Method::GET, "/metrics"), (404, "not-found")),
        ("no_method", bench.request(Method::PATCH, "/v1/keys/a"), (405, "method-not-allowed")),
        ("not_to_be_deleted", bench.request(Method::DELETE, "/v1/keys/a"), (409, "key-state-conflict")),
        ("nothing_to_cancel", bench.request(Method::POST, "/v1/keys/a/cancel-deletion"), (409, "key-state-conflict")),
        ("another_generation", post(&bench, "/v1/keys/a/disable", r#"{"generation":2}"#), (409, "generation-lost")),
        (
            "waiting_days",
            post(&bench, "/v1/keys/a/schedule-deletion", r#"{"waiting_days":31}"#),
            (422, "invalid-request"),
        ),
        ("change_field", post(&bench, "/v1/keys/a/enable", r#"{"force":true}"#), (422, "invalid-request")),
        ("change_of_no_key", bench.request(Method::POST, "/v1/keys/b/enable"), (404, "key-not-found")),
        ("no_key", bench.request(Method::GET, "/v1/keys/b"), (404, "key-not-found")),
        ("bad_key_id", bench.request(Method::GET, "/v1/keys/..%2Fa"), (422, "invalid-request")),
        ("key_id_not_utf8", bench.request(Method::GET, "/v1/keys/%ff"), (422, "invalid-request")),
        ("no_nonce", bench.request(Method::GET, "/v1/attestation"), (422, "invalid-request")),
        ("empty_nonce", bench.request(Method::GET, "/v1/attestation?nonce=0x"), (422, "invalid-request")),
        ("long_nonce", bench.request(Method::GET, &format!("/v1/attestation?nonce={nonce}")), (422, "invalid-request")),
        ("odd_nonce", bench.request(Method::GET, "/v1/keys/a/attestation?nonce=0"), (422, "invalid-request")),
        ("user_data", bench.request(Method::GET, "/v1/attestation?nonce=00&user_data=00"), (422, "invalid-request")),
        ("public_key", bench.request(Method::GET, "/v1/attestation?nonce=00&public_key=00"), (422, "invalid-request")),
        ("limit", bench.request(Method::GET, "/v1/keys?limit=0"), (422, "invalid-request")),
        ("cursor", bench.request(Method::GET, "/v1/keys?cursor=.."), (422, "invalid-request")),
        ("no_media_type", bench.request(Method::POST, "/v1/keys").body("{}"), (415, "unsupported-media-type")),
        ("not_json", post(&bench, "/v1/keys", "{"), (400, "malformed-json")),
        ("empty", post(&bench, "/v1/keys", ""), (400, "malformed-json")),
        ("two_documents", post(&bench, "/v1/keys", "{}{}"), (400, "malformed-json")),
        ("array", post(&bench, "/v1/keys", r#"["b","ed25519",null,null]"#), (422, "invalid-request")),
        ("missing", post(&bench, "/v1/keys", "{}"), (422, "invalid-request")),
        (
            "unknown_field",
            post(&bench, "/v1/keys", r#"{"key_id":"b","algorithm":"ed25519","curve":"x"}"#),
            (422, "invalid-request"),
        ),
        (
            "unknown_algorithm",
            post(&bench, "/v1/keys", r#"{"key_id":"b","algorithm":"rsa"}"#),
            (422, "invalid-request"),
        ),
        (
            "alias",
            post(&bench, "/v1/keys", r#"{"key_id":"b","algorithm":"ed25519","kms_key_arn":"alias/hot"}"#),
            (422, "invalid-request"),
        ),
        ("exists", post(&bench, "/v1/keys", r#"{"key_id":"a","algorithm":"ed25519"}"#), (409, "key-exists")),
        (
            "unknown_payload",
            post(&bench, "/v1/keys/a/sign", r#"{"payload":{"type":"psbt"}}"#),
            (422, "invalid-request"),
        ),
        (
            "payload_field",
            post(&bench, "/v1/keys/a/sign", r#"{"payload":{"type":"message","message":"00","chain_id":1}}"#),
            (422, "invalid-request"),
        ),
        (
            "duplicate_field",
            post(&bench, "/v1/keys/a/sign", r#"{"payload":{"type":"message","message":"00","message":"01"}}"#),
            (422, "invalid-request"),
        ),
        (
            "short_digest",
            post(&bench, "/v1/keys/a/sign", r#"{"payload":{"type":"digest","digest":"0x00"}}"#),
            (422, "invalid-request"),
        ),
        (
            "digest_for_ed25519",
            post(
                &bench,
                "/v1/keys/a/sign",
                &format!(r#"{{"payload":{{"type":"digest","digest":"{}"}}}}"#, "00".repeat(32)),
            ),
            (422, "invalid-request"),
        ),
        (
            "hash_for_ed25519",
            post(&bench, "/v1/keys/a/sign", r#"{"payload":{"type":"message","message":"00","hash":"sha256"}}"#),
            (422, "invalid-request"),
        ),
        (
            "scheme_of_another_algorithm",
            post(&bench, "/v1/keys/a/sign", &format!(r#"{{{message},"scheme":"ecdsa"}}"#)),
            (422, "invalid-request"),
        ),
        ("no_payloads", post(&bench, "/v1/keys/a/sign-batch", "{}"), (422, "invalid-request")),
        ("empty_batch", post(&bench, "/v1/keys/a/sign-batch", r#"{"payloads":[]}"#), (422, "invalid-request")),
        (
            "single_in_a_batch",
            post(&bench, "/v1/keys/a/sign-batch", &format!("{{{message}}}")),
            (422, "invalid-request"),
        ),
        (
            "scheme_of_another_algorithm_in_a_batch",
            post(&bench, "/v1/keys/a/sign-batch", &batch(&[MESSAGE], r#","scheme":"ecdsa""#)),
            (422, "invalid-request"),
        ),
        ("no_key_for_a_batch", post(&bench, "/v1/keys/b/sign-batch", &batch(&[MESSAGE], "")), (404, "key-not-found")),
        (
            "no_enclave_for_a_batch",
            post(&bench, "/v1/keys/a/sign-batch", &batch(&[MESSAGE], "")),
            (503, "enclave-unavailable"),
        ),
        ("no_key_to_sign", post(&bench, "/v1/keys/b/sign", &format!("{{{message}}}")), (404, "key-not-found")),
        ("no_enclave", post(&bench, "/v1/keys/a/sign", &format!("{{{message}}}")), (503, "enclave-unavailable")),
    ] {
        let (status, slug) = bench.problem(request).await;
        assert_eq!((status, slug.as_str()), expected, "{name}");
    }
}

#[tokio::test]
async fn every_request_has_one_form() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    let digest = "11".repeat(32);
    let sign = |rest: &str| format!(r#"{{"payload":{{"type":"message","message":"00"}}{rest}}}"#);
    let create = |rest: &str| format!(r#"{{"key_id":"b","algorithm":"ed25519"{rest}}}"#);
    for (name, path, body) in [
        ("request_as_an_array", "/v1/keys", r#"["b","ed25519",null,null]"#.to_owned()),
        ("payload_as_an_array", "/v1/keys/a/sign", format!(r#"{{"payload":["digest","{digest}"]}}"#)),
        ("payload_as_an_array_of_a_map", "/v1/keys/a/sign", r#"{"payload":["message",{"message":"00"}]}"#.to_owned()),
        ("scheme_as_an_object", "/v1/keys/a/sign", sign(r#","scheme":{"ed25519":null}"#)),
        (
            "hash_as_an_object",
            "/v1/keys/a/sign",
            r#"{"payload":{"type":"message","message":"00","hash":{"sha256":null}}}"#.to_owned(),
        ),
        ("algorithm_as_an_object", "/v1/keys", r#"{"key_id":"b","algorithm":{"ed25519":null}}"#.to_owned()),
        ("policy_as_an_array", "/v1/keys", create(r#","policy":[["message"],5]"#)),
        ("payload_kind_as_an_object", "/v1/keys", create(r#","policy":{"payloads":[{"message":null}]}"#)),
        ("payload_kind_twice", "/v1/keys", create(r#","policy":{"payloads":["message","message"]}"#)),
        ("no_payload_kind", "/v1/keys", create(r#","policy":{"payloads":[]}"#)),
        ("unknown_field_of_the_policy", "/v1/keys", create(r#","policy":{"payloads":["message"],"export":true}"#)),
        ("duplicate_field_of_the_policy", "/v1/keys", create(r#","policy":{"payloads":["message"],"payloads":[]}"#)),
    ] {
        let answer = bench.problem(post(&bench, path, &body)).await;
        assert_eq!(answer, (422, "invalid-request".to_owned()), "{name}");
    }
    // The forms that there are get as far as the enclave, which is away.
    for (name, path, body) in [
        ("sign", "/v1/keys/a/sign", sign(r#","scheme":"ed25519""#)),
        ("null_is_absent", "/v1/keys/a/sign", sign(r#","scheme":null"#)),
        ("policy", "/v1/keys", create(r#","policy":{"hold_seconds":5,"payloads":["message","digest"]}"#)),
        ("null_policy", "/v1/keys", create(r#","policy":null"#)),
    ] {
        let answer = bench.problem(post(&bench, path, &body)).await;
        assert_eq!(answer, (503, "enclave-unavailable".to_owned()), "{name}");
    }
}

#[tokio::test]
async fn a_batch_says_which_of_its_payloads_is_none() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    let detail = async |body: String| {
        let reply = post(&bench, "/v1/keys/a/sign-batch", &body).send().await.expect("answered");
        let problem: Value = reply.json().await.expect("JSON");
        (problem["status"].clone(), problem["detail"].as_str().expect("text").to_owned())
    };
    for (name, wrong, said) in [
        ("unknown_field", r#"{"type":"message","message":"00","v":1}"#, "payloads[2]: unknown field `v`"),
        ("short_digest", r#"{"type":"digest","digest":"00"}"#, "payloads[2]: digest: must have 32 bytes, not 1"),
        ("no_hex", r#"{"type":"message","message":"0"}"#, "payloads[2]: message: not an even number of hex digits"),
        ("as_an_array", r#"["message","00"]"#, "payloads[2]: invalid type: sequence, expected an object"),
        ("null", "null", "payloads[2]: invalid type: null, expected an object"),
    ] {
        let (status, detail) = detail(batch(&[MESSAGE, MESSAGE, wrong, MESSAGE], "")).await;
        assert_eq!(status, 422, "{name}");
        assert!(detail.starts_with(said) && detail.contains(" at line 1 column "), "{name}: {detail}");
    }
    let (status, said) = detail(batch(&[MESSAGE; 10_001], "")).await;
    assert!(status == 422 && said.starts_with("payloads: more than 10000"), "{said}");
    // Broken JSON is the graver fault, wherever it stands.
    for broken in [r#"{"type":"message","message":}"#, r#"{"type":"message","#] {
        assert_eq!(detail(batch(&[MESSAGE, broken], "")).await.0, 400, "{broken}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_payload_is_told_as_if_it_had_come_alone() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    bench.store("digests", |json| json.replace("\"message\"", "\"digest\""));
    let digest = format!(r#"{{"type":"digest","digest":"{}"}}"#, "00".repeat(32));
    let hashed = r#"{"type":"message","message":"00","hash":"sha256"}"#;
    for (key, payloads) in [("a", vec![digest.as_str(), hashed, &digest]), ("digests", vec![MESSAGE])] {
        let reply = post(&bench, &format!("/v1/keys/{key}/sign-batch"), &batch(&payloads, ""))
            .header("x-request-id", "same")
            .send()
            .await
            .expect("answered");
        assert_eq!(reply.status(), StatusCode::OK);
        let reply: Value = reply.json().await.expect("JSON");
        let mut alone = Vec::new();
        for payload in payloads {
            let body = format!(r#"{{"payload":{payload}}}"#);
            let request = post(&bench, &format!("/v1/keys/{key}/sign"), &body).header("x-request-id", "same");
            let problem: Value = request.send().await.expect("answered").json().await.expect("JSON");
            alone.push(json!({ "error": problem }));
        }
        let public_key = format!("0x{}", "07".repeat(32));
        assert_eq!(reply, json!({ "results": alone, "public_key": public_key, "request_id": "same" }), "{key}");
    }
}

#[tokio::test]
async fn results_take_room_as_bodies_do() {
    let bench = Bench::with_body_room(Identities::AnyLocalCaller, BodyRoom::of(1_000_000)).await;
    bench.store("digests", |json| json.replace("\"message\"", "\"digest\""));
    let ask = |payloads| post(&bench, "/v1/keys/digests/sign-batch", &batch(&vec![MESSAGE; payloads], ""));
    assert_eq!(bench.problem(ask(10_000)).await, (503, "overloaded".to_owned()));
    for _ in 0..2 {
        assert_eq!(ask(2000).send().await.expect("answered").status(), StatusCode::OK, "the room comes back");
    }
}

#[tokio::test]
async fn bodies_beyond_the_memory_for_them_are_refused_at_once() {
    let bench = Bench::with_body_room(Identities::AnyLocalCaller, BodyRoom::of(100_000)).await;
    let large = || post(&bench, "/v1/keys", &" ".repeat(60_000));
    assert_eq!(bench.problem(large()).await, (400, "malformed-json".to_owned()));
    // One that is held up on its way leaves no room for another.
    let mut slow = tokio::net::TcpStream::connect(bench.address).await.expect("connected");
    let head =
        "POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 60001\r\n\r\n";
    slow.write_all(format!("{head}{}", " ".repeat(60_000)).as_bytes()).await.expect("written");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let refused = large().send().await.expect("answered");
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(bench.problem(large()).await, (503, "overloaded".to_owned()));
    // With its end, the room is there again.
    let mut reply = vec![0; 4096];
    let length = slow.read(&mut reply).await.expect("answered");
    assert!(reply[..length].starts_with(b"HTTP/1.1 408 "));
    assert_eq!(bench.problem(large()).await, (400, "malformed-json".to_owned()));
}

#[tokio::test]
async fn a_damaged_record_costs_nobody_the_list() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    bench.store("b", |json| json.replace("version", "vers"));
    bench.store("c", |json| json);
    let page: Value =
        bench.request(Method::GET, "/v1/keys").send().await.expect("answered").json().await.expect("JSON");
    let ids: Vec<_> = page["keys"].as_array().expect("keys").iter().map(|key| key["key_id"].clone()).collect();
    assert_eq!(ids, [json!("a"), json!("c")]);
    assert_eq!(bench.problem(bench.request(Method::GET, "/v1/keys/b")).await, (502, "record-damaged".to_owned()));
}

#[tokio::test]
async fn stored_state_and_damage_have_their_own_problems() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("off", |json| json.replace("enabled", "disabled"));
    bench.store("damaged", |json| json.replace("version", "vers"));
    bench.store("digests", |json| json.replace("\"message\"", "\"digest\""));
    bench.store("other", |json| json.replace("\"other\"", "\"another\""));
    let body = r#"{"payload":{"type":"message","message":"0xAB"}}"#;
    for (key, expected) in [
        ("off", (403, "key-disabled")),
        ("damaged", (502, "record-damaged")),
        ("other", (502, "record-damaged")),
        ("digests", (403, "policy-denied")),
    ] {
        let (status, slug) = bench.problem(post(&bench, &format!("/v1/keys/{key}/sign"), body)).await;
        assert_eq!((status, slug.as_str()), expected, "{key}");
    }
    let (status, slug) = bench.problem(post(&bench, "/v1/keys", r#"{"key_id":"damaged","algorithm":"ed25519"}"#)).await;
    assert_eq!((status, slug.as_str()), (409, "key-exists"), "a damaged record is still a key");
}

#[tokio::test]
async fn identities_get_what_they_were_given_and_no_hint_of_more() {
    let identity: Identity = toml::from_str(&format!(
        "name = \"hot\"\ntoken_sha256 = \"{}\"\noperations = [\"read\", \"sign\"]\nkeys = [\"hot-*\"]",
        TokenHash::of(b"token")
    ))
    .expect("valid");
    let bench = Bench::new(Identities::Known(vec![identity.into()])).await;
    bench.store("hot-1", |json| json);
    bench.store("cold-1", |json| json);
    let get = |path: &str| bench.request(Method::GET, path);
    assert_eq!(bench.problem(get("/v1/keys/hot-1")).await, (401, "unauthorized".to_owned()));
    assert_eq!(bench.problem(get("/v1/keys/hot-1").bearer_auth("other")).await, (401, "unauthorized".to_owned()));
    let denied = get("/v1/keys").send().await.expect("answered");
    assert_eq!(denied.headers()["www-authenticate"], "Bearer realm=\"strongroom\"");
    for hidden in ["/v1/keys/cold-1", "/v1/keys/cold-2", "/v1/keys/cold-1/attestation?nonce=00"] {
        assert_eq!(bench.problem(get(hidden).bearer_auth("token")).await, (403, "forbidden".to_owned()), "{hidden}");
    }
    let create = post(&bench, "/v1/keys", "not even JSON").bearer_auth("token");
    assert_eq!(bench.problem(create).await, (403, "forbidden".to_owned()), "refused before the body is read");
    let page: Value = get("/v1/keys").bearer_auth("token").send().await.expect("ok").json().await.expect("JSON");
    let ids: Vec<_> = page["keys"].as_array().expect("keys").iter().map(|key| key["key_id"].clone()).collect();
    assert_eq!(ids, [json!("hot-1")]);
    for open in ["/healthz", "/openapi.json"] {
        assert_eq!(get(open).send().await.expect("answered").status(), StatusCode::OK, "{open}");
    }
}

#[tokio::test]
async fn the_key_view_is_the_documented_one() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    let reply = bench.request(Method::GET, "/v1/keys/a").send().await.expect("answered");
    let view: Value = reply.json().await.expect("JSON");
    assert_eq!(
        view,
        json!({
            "key_id": "a",
            "algorithm": "ed25519",
            "public_key": format!("0x{}", "07".repeat(32)),
            "origin": "generated",
            "policy": {"payloads": ["message"], "hold_seconds": 0},
            "kms_key_arn": "arn:aws:kms:eu-central-1:111122223333:key/1",
            "state": "enabled",
            "generation": 1,
            "created_at": "1970-01-01T00:00:00Z",
            "addresses": {"solana": "11111"},
        })
    );
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_its_sender_reads_so() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    for length in [2 * 1024 * 1024 + 1, 3 * 1024 * 1024] {
        let request = post(&bench, "/v1/keys", &" ".repeat(length));
        assert_eq!(bench.problem(request).await, (413, "body-too-large".to_owned()), "{length}");
    }
    let request = post(&bench, "/v1/keys", &" ".repeat(2 * 1024 * 1024));
    assert_eq!(bench.problem(request).await, (400, "malformed-json".to_owned()));
    // Batches alone have more.
    for (length, expected) in [
        (8 * 1024 * 1024, (400, "malformed-json".to_owned())),
        (8 * 1024 * 1024 + 1, (413, "body-too-large".to_owned())),
        (9 * 1024 * 1024, (413, "body-too-large".to_owned())),
    ] {
        let request = post(&bench, "/v1/keys/a/sign-batch", &" ".repeat(length));
        assert_eq!(bench.problem(request).await, expected, "{length}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let mut stream = tokio::net::TcpStream::connect(bench.address).await.expect("connected");
    let head =
        "POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut reply = vec![0; 4096];
    let length = stream.read(&mut reply).await.expect("answered");
    assert!(reply[..length].starts_with(b"HTTP/1.1 408 "));
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_server_stops() {
    use axum::routing::get;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let slow = axum::Router::new().route(
        "/",
        get(async || {
            tokio::time::sleep(Duration::from_millis(200)).await;
            "done"
        }),
    );
    let stopping = async {
        let _ = stopped.await;
    };
    let server = tokio::spawn(super::serve(listener, slow, 10, Duration::from_secs(5), stopping));
    let request = tokio::spawn(reqwest::get(format!("http://{address}/")));
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).expect("the server runs");
    let reply = request.await.expect("no panic").expect("answered");
    assert_eq!(reply.text().await.expect("whole"), "done");
    server.await.expect("the server ends");
    assert!(reqwest::get(format!("http://{address}/")).await.is_err(), "nothing new is accepted");
}

#[tokio::test]
async fn a_panic_costs_its_own_request_only() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let app = bench.app.clone();
    let router = axum::Router::new()
        .route("/", axum::routing::get(async || -> &'static str { panic!("on purpose") }))
        .layer(axum::middleware::from_fn_with_state(app, super::surround));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(super::serve(listener, router, 10, Duration::from_secs(1), std::future::pending()));
    for _ in 0..2 {
        let request = bench.client.get(format!("http://{address}/"));
        assert_eq!(bench.problem(request).await, (500, "internal".to_owned()));
    }
}

#[tokio::test]
async fn a_page_in_a_browser_is_no_local_caller() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    bench.store("a", |json| json);
    let rebound = bench.request(Method::GET, "/v1/keys/a").header("host", "rebound.example:8080");
    assert_eq!(bench.problem(rebound).await, (403, "forbidden".to_owned()));
    for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
        let reply = bench.request(Method::GET, "/v1/keys/a").header("host", host).send().await.expect("answered");
        assert_eq!(reply.status(), StatusCode::OK, "{host}");
    }
}

#[tokio::test]
async fn request_ids_are_the_callers_if_they_can_stand_in_a_log() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let ask = async |id: &str| {
        let reply = bench.request(Method::GET, "/healthz").header("x-request-id", id).send().await.expect("answered");
        reply.headers()["x-request-id"].to_str().expect("text").to_owned()
    };
    assert_eq!(ask("abc-1.2_3").await, "abc-1.2_3");
    for bad in ["", "a b", "a\"b", &"x".repeat(65)] {
        let id = ask(bad).await;
        assert_eq!(id.len(), 32, "{bad:?} {id}");
    }
}

#[tokio::test]
async fn a_wrong_method_learns_the_right_ones() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let reply = bench.request(Method::PUT, "/v1/keys").send().await.expect("answered");
    let allow = reply.headers()["allow"].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn readiness_gives_reasons() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let reply = bench.request(Method::GET, "/readyz").send().await.expect("answered");
    assert_eq!(reply.status(), StatusCode::SERVICE_UNAVAILABLE);
    let readiness: Value = reply.json().await.expect("JSON");
    assert_eq!(readiness["ready"], json!(false));
    assert_eq!(readiness["checks"]["store"], json!({"ok": true}));
    assert_eq!(readiness["checks"]["enclave"]["ok"], json!(false));
    assert!(readiness["checks"]["enclave"]["reason"].is_string());
}

#[tokio::test]
async fn the_description_knows_every_call_and_its_problems() {
    let bench = Bench::new(Identities::AnyLocalCaller).await;
    let reply = bench.request(Method::GET, "/openapi.json").send().await.expect("answered");
    let api: Value = reply.json().await.expect("JSON");
    for (path, method) in [
        ("/v1/keys", "post"),
        ("/v1/keys", "get"),
        ("/v1/keys/{key_id}", "get"),
        ("/v1/keys/{key_id}/sign", "post"),
        ("/v1/keys/{key_id}/sign-batch", "post"),
        ("/v1/keys/{key_id}/attestation", "get"),
        ("/v1/attestation", "get"),
    ] {
        let call = &api["paths"][path][method];
        assert_eq!(call["security"], json!([{ "bearer": [] }, { "client_certificate": [] }]), "{method} {path}");
        let denied = &call["responses"]["401"]["content"]["application/problem+json"]["schema"];
        assert_eq!(denied["$ref"], json!("#/components/schemas/Problem"), "{method} {path}");
    }
    let schemas = &api["components"]["schemas"];
    assert_eq!(schemas["Problem"]["required"].as_array().map(Vec::len), Some(5));
    assert_eq!(schemas["CreateKey"]["required"], json!(["key_id", "algorithm"]));
    assert_eq!(schemas["BatchRequest"]["properties"]["payloads"]["maxItems"], json!(MAX_ENTRIES));
    // The described names are the protocol's own.
    fn name(value: impl serde::Serialize) -> Value {
        serde_json::to_value(value).expect("encodes")
    }
    let algorithms =
        [Algorithm::Secp256k1, Algorithm::Ed25519, Algorithm::Bip32Secp256k1, Algorithm::Slip10Ed25519].map(name);
    let schemes = [Scheme::Ecdsa, Scheme::Bip340, Scheme::Ed25519].map(name);
    let hashes = [HashFunction::Keccak256, HashFunction::Sha256, HashFunction::Sha256d].map(name);
    let origins = [Origin::Generated, Origin::Imported, Origin::Adopted].map(name);
    let states = [StateName::Enabled, StateName::Disabled, StateName::PendingDeletion].map(name);
    for (schema, names) in [
        ("Algorithm", algorithms.to_vec()),
        ("Scheme", schemes.to_vec()),
        ("HashFunction", hashes.to_vec()),
        ("Origin", origins.to_vec()),
        ("State", states.to_vec()),
    ] {
        assert_eq!(schemas[schema]["enum"], json!(names), "{schema}");
    }
}
