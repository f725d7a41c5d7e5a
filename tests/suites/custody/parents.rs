//! A parent between a custodian and the enclave: it records, it lies about the enclave, it keeps another key than it
//! was brought. It learns nothing, and the custodian learns of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_nitro_enclaves_nsm_api::api::{Request as NsmRequest, Response as NsmResponse};
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use strongroom_enclave::Attestor as _;
use strongroom_tests::mock_nsm::{Machine, MockNsm};
use strongroom_tests::pki::NitroAuthority;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::files::{import, write};
use super::{importing, listing, stored};
use crate::canary::needles::Needles;
use crate::command_line::said;
use crate::hostile_parent::lying_parent::measured;
use crate::scene::{Scene, assert_problem};

/// What the custodian brings.
const SECRET: &str = "4646464646464646464646464646464646464646464646464646464646464647";

/// A parent in front of the honest one: everything passes through its hands.
pub(super) struct Between {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<std::io::Result<()>>,
}

/// What it does with a request.
pub(super) enum Act {
    /// Passes it on.
    Pass,
    /// Answers itself.
    Answer(StatusCode, Value),
    /// Passes it on, and changes the answer.
    Edit(fn(&mut Value)),
    /// Passes it on, and puts this in place of a field of the answer.
    Replace(&'static str, Value),
    /// Passes it on as another request.
    Redirect(&'static str),
}

type Meddling = Arc<dyn Fn(&Method, &str, &Value) -> Act + Send + Sync>;

#[derive(Clone)]
struct Hands {
    honest: String,
    http: reqwest::Client,
    seen: Arc<Mutex<Vec<u8>>>,
    meddling: Meddling,
}

impl Between {
    pub(super) async fn start(
        it: &Scene,
        meddling: impl Fn(&Method, &str, &Value) -> Act + Send + Sync + 'static,
    ) -> Self {
        let seen = Arc::default();
        let hands = Hands {
            honest: it.stack.url.clone(),
            http: reqwest::Client::new(),
            seen: Arc::clone(&seen),
            meddling: Arc::new(meddling),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let app = Router::new().fallback(pass).with_state(hands);
        Self { url, seen, server: tokio::spawn(axum::serve(listener, app).into_future()) }
    }

    fn seen(&self) -> Vec<u8> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bodies of the imports that it was asked for.
    fn imports(&self) -> usize {
        let seen = String::from_utf8_lossy(&self.seen()).into_owned();
        seen.lines().filter(|line| line.starts_with("POST /v1/keys/")).count()
    }
}

impl Drop for Between {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn pass(State(hands): State<Hands>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let body: Bytes = body.collect().await.expect("a body").to_bytes();
    let note = |bytes: &[u8]| hands.seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
    note(format!("{} {path}\n{:?}\n", parts.method, parts.headers).as_bytes());
    note(&body);
    note(b"\n");
    let json = serde_json::from_slice(&body).unwrap_or_default();
    let act = (hands.meddling)(&parts.method, &path, &json);
    if let Act::Answer(status, answer) = act {
        return (status, Json(answer)).into_response();
    }
    let path = if let Act::Redirect(path) = act { path.to_owned() } else { path };
    let mut request = hands.http.request(parts.method, format!("{}{path}", hands.honest)).body(body);
    if let Some(media_type) = parts.headers.get("content-type") {
        request = request.header("content-type", media_type);
    }
    let reply = request.send().await.expect("the honest parent answers");
    let (status, media_type) = (reply.status(), reply.headers().get("content-type").cloned());
    let body = reply.bytes().await.expect("a body");
    note(&body);
    note(b"\n");
    match (act, media_type) {
        (Act::Edit(edit), _) => {
            let mut answer = serde_json::from_slice(&body).expect("JSON");
            edit(&mut answer);
            (status, Json(answer)).into_response()
        }
        (Act::Replace(field, value), _) => {
            let mut answer: Value = serde_json::from_slice(&body).expect("JSON");
            answer[field] = value;
            (status, Json(answer)).into_response()
        }
        (_, Some(media_type)) => (status, [("content-type", media_type)], body).into_response(),
        (_, None) => (status, body).into_response(),
    }
}

/// A parent that has a key under the name `key_id`, denies it until it is brought another one, and says then that it
/// took that.
pub(super) async fn keeping(it: &Scene, key_id: &str, call: &str) -> Between {
    let view = it.api.get(&format!("/v1/keys/{key_id}")).await.expect("a reply").body;
    let (key, call) = (format!("/v1/keys/{key_id}"), format!("/v1/keys/{key_id}/{call}"));
    let brought = AtomicBool::new(false);
    Between::start(it, move |_, path, _| {
        if path == call {
            brought.store(true, Ordering::Relaxed);
            Act::Answer(StatusCode::CREATED, view.clone())
        } else if path == key && !brought.load(Ordering::Relaxed) {
            let problem = json!({
                "type": "urn:strongroom:problem:key-not-found", "title": "", "status": 404, "detail": "", "instance": "",
            });
            Act::Answer(StatusCode::NOT_FOUND, problem)
        } else {
            Act::Pass
        }
    })
    .await
}

fn arguments(file: &str) -> [&str; 5] {
    ["brought", "--algorithm", "secp256k1", "--file", file]
}

#[tokio::test]
async fn a_parent_that_records_everything_has_nothing_of_the_key() {
    let it = Scene::planned(|plan| {
        listing(&["generate", "sign", "import"])(plan);
        plan.log_level = "trace".to_owned();
    })
    .await;
    let between = Between::start(&it, |_, _, _| Act::Pass).await;
    let file = write(&it, "brought", SECRET);
    let output = import(&it, &between.url, &arguments(&file)).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    std::fs::remove_file(&file).expect("removed");

    let mut needles = Needles::default();
    needles.add("the imported key", &hex::decode(SECRET).expect("hex"));
    let mut seen = between.seen();
    let sealed =
        String::from_utf8_lossy(&seen).lines().find(|line| line.contains("import_key_id\":")).map(str::to_owned);
    assert!(sealed.is_some(), "the control: what was sealed passed through its hands");
    seen.extend(said(&output).into_bytes());
    assert_eq!(needles.found_in(&seen), [""; 0]);
    // Its disk too: the record, and everybody's logs.
    let (found, read) = needles.found_under(it.stack.directory());
    assert!(found.is_empty() && read > 10_000, "{found:?}");

    // Nor does what it recorded serve again, for this name or another.
    let recorded: Value = seen
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .find(|body| body.get("encapsulated_key").is_some())
        .expect("the import's body");
    for key_id in ["brought-again", "renamed"] {
        let reply = it.api.post(&format!("/v1/keys/{key_id}/import"), recorded.clone()).await.expect("a reply");
        assert_problem(&reply, 409, "import-key-unknown");
    }
    assert_eq!(stored(&it), ["brought"]);
}

/// A parent that has a genuine module at hand, in another machine or for another purpose, and shows its document.
async fn shows(it: &Scene, name: &str, words: &str, mut nsm: MockNsm, statement: Statement) {
    let nsm = Arc::new(Mutex::new(move |nonce: Vec<u8>| {
        let request = NsmRequest::Attestation {
            user_data: statement.user_data.clone().map(Into::into),
            nonce: Some(statement.nonce.clone().unwrap_or(nonce).into()),
            public_key: statement.public_key.clone().map(Into::into),
        };
        match nsm.process(request) {
            NsmResponse::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }));
    let between = Between::start(it, move |method, path, body| {
        if (method, path) != (&Method::POST, "/v1/import-keys") {
            return Act::Pass;
        }
        let nonce = hex::decode(body["nonce"].as_str().expect("a nonce")).expect("hex");
        let document = (nsm.lock().unwrap_or_else(PoisonError::into_inner))(nonce);
        let answer = json!({ "import_key_id": "0x00", "document": STANDARD.encode(document), "pcrs": {} });
        Act::Answer(StatusCode::CREATED, answer)
    })
    .await;
    let file = write(it, "brought", SECRET);
    let output = import(it, &between.url, &arguments(&file)).await;
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{name}: {told}");
    assert!(told.contains("REFUSED  the import key") && told.contains(words), "{name}: {told}");
    assert_eq!(between.imports(), 0, "{name}: nothing was sealed to it");
    assert_eq!(stored(it), [""; 0]);
}

/// What its document says.
struct Statement {
    public_key: Option<Vec<u8>>,
    user_data: Option<Vec<u8>>,
    nonce: Option<Vec<u8>>,
}

/// About an import key of the parent's own making.
fn own_key() -> Statement {
    let public_key = hex::decode("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a").expect("hex");
    let id: [u8; 32] = Sha256::digest(&public_key).into();
    let user_data = [&b"strongroom-import-v1"[..], &id].concat();
    Statement { public_key: Some(public_key), user_data: Some(user_data), nonce: None }
}

#[tokio::test]
async fn an_import_key_that_is_not_the_expected_enclaves_is_refused() {
    let it = importing().await;
    let root = || NitroAuthority::open(&it.stack.directory().join("nsm")).expect("the root");
    let configuration = it.stack.directory().join("enclave.json");
    let other = it.stack.directory().join("strongroom.toml");
    let machine = |change: fn(&mut Machine)| {
        let mut machine = Machine::default();
        change(&mut machine);
        machine
    };
    let usual = || Machine::default();
    let nsm = |machine| measured(root(), machine, Some(&configuration));
    let image = machine(|machine| machine.image = "another image".to_owned());
    shows(&it, "another_image", "PCR0", nsm(image), own_key()).await;
    shows(&it, "another_configuration", "PCR16", measured(root(), usual(), Some(&other)), own_key()).await;
    shows(&it, "no_configuration", "PCR16 is not measured", measured(root(), usual(), None), own_key()).await;
    shows(&it, "debug_mode", "debug mode", nsm(machine(|machine| machine.debug_mode = true)), own_key()).await;
    let elsewhere = it.stack.directory().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a folder");
    let foreign = NitroAuthority::open(&elsewhere).expect("a root");
    shows(&it, "another_root", "another root", measured(foreign, usual(), Some(&configuration)), own_key()).await;
    let replayed = Statement { nonce: Some(vec![7; 32]), ..own_key() };
    shows(&it, "replayed", "nonce", nsm(usual()), replayed).await;
    let mut late = nsm(usual());
    late.set_clock_offset(-400);
    shows(&it, "too_old", "too old", late, own_key()).await;
    // Genuine documents of the very enclave, for other purposes.
    let evidence = Statement { public_key: None, ..own_key() };
    shows(&it, "evidence", "not about an import key", nsm(usual()), evidence).await;
    let recipient = Statement { public_key: Some(vec![0x30; 294]), ..own_key() };
    shows(&it, "recipient", "not about an import key", nsm(usual()), recipient).await;
    let unnamed = Statement { user_data: Some(b"strongroom-recipient-v1".to_vec()), ..own_key() };
    shows(&it, "key_that_user_data_does_not_name", "not about an import key", nsm(usual()), unnamed).await;
}

/// The import key's name in the reply counts for nothing: the custodian makes it from the verified document.
#[tokio::test]
async fn a_swapped_name_of_the_import_key_changes_nothing() {
    let it = importing().await;
    let between = Between::start(&it, |_, path, _| match path {
        "/v1/import-keys" => Act::Edit(|offer| offer["import_key_id"] = format!("0x{}", "ab".repeat(32)).into()),
        _ => Act::Pass,
    })
    .await;
    let file = write(&it, "brought", SECRET);
    let output = import(&it, &between.url, &arguments(&file)).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// A parent that says "imported" and has another key under the name: the custodian is told, and told that the
/// import did not do what it should.
#[tokio::test]
async fn a_parent_that_keeps_another_key_is_found_out() {
    let it = importing().await;
    it.create_with(json!({ "key_id": "brought", "algorithm": "secp256k1" })).await;
    let between = keeping(&it, "brought", "import").await;
    let file = write(&it, "brought", SECRET);
    let output = import(&it, &between.url, &arguments(&file)).await;
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("REFUSED  key brought") && told.contains("not the expected key"), "{told}");
}

/// An older record of the very key, under a wider policy, is not what was brought either.
#[tokio::test]
async fn a_parent_that_keeps_the_same_key_under_another_policy_is_found_out() {
    let it = importing().await;
    let file = write(&it, "brought", SECRET);
    let wide =
        import(&it, &it.stack.url, &[&arguments(&file)[..], &["--hold-seconds", "60", "--exportable"]].concat()).await;
    assert_eq!(wide.status.code(), Some(0), "{}", said(&wide));
    let between = keeping(&it, "brought", "import").await;
    let output = import(&it, &between.url, &arguments(&file)).await;
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("origin or policy is another one"), "{told}");
}

/// The answer to the import is lost, or nonsense: the custodian is told that it is not known, and what tells.
#[tokio::test]
async fn an_import_without_an_answer_says_how_to_find_out() {
    let it = importing().await;
    let file = write(&it, "brought", SECRET);
    for (name, status, answer, code) in
        [("nonsense", StatusCode::CREATED, json!("taken"), 1), ("too_late", StatusCode::GATEWAY_TIMEOUT, json!({}), 3)]
    {
        let between = Between::start(&it, move |_, path, _| match path {
            "/v1/keys/brought/import" => Act::Answer(status, answer.clone()),
            _ => Act::Pass,
        })
        .await;
        let output = import(&it, &between.url, &arguments(&file)).await;
        let told = said(&output);
        assert_eq!(output.status.code(), Some(code), "{name}: {told}");
        assert!(
            told.contains("not known") && told.contains("key verify brought --expect-public-key 0x0"),
            "{name}: {told}"
        );
    }
}

/// The custodian's own machine fails in between: not known is said to be not known.
#[tokio::test]
async fn an_import_that_nobody_vouches_for_does_not_end_well() {
    let it = importing().await;
    let between = Between::start(&it, |_, path, _| match path.contains("/attestation") {
        true => Act::Answer(StatusCode::SERVICE_UNAVAILABLE, json!({})),
        false => Act::Pass,
    })
    .await;
    let file = write(&it, "brought", SECRET);
    let output = import(&it, &between.url, &arguments(&file)).await;
    let told = said(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("not known") && told.contains("--expect-public-key 0x0"), "{told}");
    assert_eq!(stored(&it), ["brought"], "it is there, and `key verify` tells");
}
