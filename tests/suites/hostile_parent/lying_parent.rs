//! A parent that serves whatever it likes: a key view and evidence of its own making, over the same REST
//! paths as an honest one. Its documents come from modules of the genuine root, in machines that it set
//! up as it pleased.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use strongroom_enclave::Attestor;
use strongroom_protocol::Measurement;
use strongroom_tests::mock_nsm::{Machine, MockNsm};
use strongroom_tests::pki::NitroAuthority;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A module whose machine booted `machine` and measured this file, if any, into PCR16.
pub(crate) fn measured(authority: NitroAuthority, machine: Machine, configuration: Option<&Path>) -> MockNsm {
    let mut nsm = MockNsm::new(authority, machine);
    if let Some(configuration) = configuration {
        let data = Measurement::of(&std::fs::read(configuration).expect("a file")).digest.to_vec();
        assert!(matches!(nsm.process(Request::ExtendPCR { index: 16, data }), Response::ExtendPCR { .. }));
        assert!(matches!(nsm.process(Request::LockPCR { index: 16 }), Response::LockPCR));
    }
    nsm
}

/// What the parent lies with.
pub(super) struct Lie {
    /// The key view.
    pub(super) view: Value,
    /// Who signs the evidence.
    pub(super) nsm: MockNsm,
    /// What the evidence is about.
    pub(super) user_data: Option<Vec<u8>>,
    /// A public key in the evidence.
    pub(super) public_key: Option<Vec<u8>>,
    /// A nonce in place of the asker's.
    pub(super) nonce: Option<Vec<u8>>,
}

/// A running liar. Ends when dropped.
pub(super) struct LyingParent {
    pub(super) url: String,
    server: JoinHandle<std::io::Result<()>>,
}

impl LyingParent {
    pub(super) async fn start(key_id: &str, lie: Lie) -> Self {
        let routes = Router::new()
            .route(&format!("/v1/keys/{key_id}"), get(view))
            .route(&format!("/v1/keys/{key_id}/attestation"), get(evidence))
            .with_state(Arc::new(Mutex::new(lie)));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        Self { url, server: tokio::spawn(axum::serve(listener, routes).into_future()) }
    }
}

impl Drop for LyingParent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

type Shared = State<Arc<Mutex<Lie>>>;

#[derive(Deserialize)]
struct Asked {
    nonce: String,
}

async fn view(State(lie): Shared) -> Json<Value> {
    Json(lie.lock().unwrap_or_else(PoisonError::into_inner).view.clone())
}

async fn evidence(State(lie): Shared, Query(Asked { nonce }): Query<Asked>) -> Json<Value> {
    let mut lie = lie.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = hex::decode(nonce).expect("hex");
    let request = Request::Attestation {
        user_data: lie.user_data.clone().map(Into::into),
        nonce: Some(lie.nonce.clone().unwrap_or(asked).into()),
        public_key: lie.public_key.clone().map(Into::into),
    };
    match lie.nsm.process(request) {
        Response::Attestation { document } => Json(json!({ "document": BASE64_STANDARD.encode(document), "pcrs": {} })),
        other => panic!("{other:?}"),
    }
}
