//! The scene of a suite: a running stack, a caller, and the hands of somebody who owns the parent's
//! disk. What is shown on it is the suites' matter.

use std::io;
use std::path::PathBuf;

use serde_json::{Value, json};
use strongroom_parent::stored_record::StoredRecord;
use strongroom_protocol::KeyRecord;
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::frames::EnclaveSocket;
use strongroom_tests::mock_kms::{Call, Fault};
use strongroom_tests::stack::{Plan, Stack, test_directory};
use tempfile::TempDir;

/// A stack of its own, in a folder that vanishes with it.
pub(crate) struct Scene {
    pub(crate) api: Api,
    pub(crate) stack: Stack,
    // Last, so that the processes are gone before their folder.
    _directory: TempDir,
}

impl Scene {
    /// The usual stack.
    pub(crate) async fn start() -> Self {
        Self::planned(|_| {}).await
    }

    /// The usual stack, but for what `change` does to its plan.
    pub(crate) async fn planned(change: impl FnOnce(&mut Plan)) -> Self {
        let scene = Self::unready(change).await;
        scene.stack.wait_ready().await.expect("the stack gets ready");
        scene
    }

    /// A stack that is not meant to get ready.
    pub(crate) async fn unready(change: impl FnOnce(&mut Plan)) -> Self {
        let directory = test_directory().expect("a folder");
        let mut plan = Plan::new(directory.path());
        change(&mut plan);
        let stack = plan.start_unready().await.expect("the stack starts");
        Self { api: stack.caller().expect("a caller"), stack, _directory: directory }
    }

    /// Creates an ed25519 key with the default policy.
    pub(crate) async fn create(&self, key_id: &str) -> Reply {
        self.create_with(json!({ "key_id": key_id, "algorithm": "ed25519" })).await
    }

    /// Creates an ed25519 key that is held for this long.
    pub(crate) async fn create_held(&self, key_id: &str, seconds: u32) -> Reply {
        let policy = json!({ "payloads": ["message"], "hold_seconds": seconds });
        self.create_with(json!({ "key_id": key_id, "algorithm": "ed25519", "policy": policy })).await
    }

    /// Creates a key, which must succeed.
    pub(crate) async fn create_with(&self, body: Value) -> Reply {
        let reply = self.try_create(body).await;
        assert_eq!(reply.status.as_u16(), 201, "{}", reply.body);
        reply
    }

    pub(crate) async fn try_create(&self, body: Value) -> Reply {
        self.api.post("/v1/keys", body).await.expect("a reply")
    }

    /// Asks an ed25519 key for a signature.
    pub(crate) async fn sign(&self, key_id: &str) -> Reply {
        self.api.sign(key_id, json!({ "payload": { "type": "message", "message": "0x6869" } })).await.expect("a reply")
    }

    /// The next good request is served: the same key signs.
    pub(crate) async fn signs(&self, key_id: &str) {
        let reply = self.sign(key_id).await;
        assert_eq!(reply.status.as_u16(), 200, "{key_id}: {}", reply.body);
    }

    /// A key's stored record.
    pub(crate) fn stored(&self, key_id: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.record_path(key_id)).expect("a record")).expect("JSON")
    }

    /// Stores this in place of a key's record.
    pub(crate) fn store(&self, key_id: &str, record: &Value) {
        let bytes = serde_json::to_vec_pretty(record).expect("JSON");
        // Renamed into place: the parent must see all of it or nothing, like an attacker would want.
        let new = self.record_path(key_id).with_extension("new");
        std::fs::write(&new, bytes).expect("written");
        std::fs::rename(&new, self.record_path(key_id)).expect("renamed");
    }

    /// Changes a key's stored record and returns what it was.
    pub(crate) fn tamper(&self, key_id: &str, change: impl FnOnce(&mut Value)) -> Value {
        let original = self.stored(key_id);
        let mut record = original.clone();
        change(&mut record);
        assert_ne!(record, original, "nothing was changed");
        self.store(key_id, &record);
        original
    }

    /// A key's record in the form that is presented to the enclave.
    pub(crate) fn record(&self, key_id: &str) -> KeyRecord {
        let bytes = std::fs::read(self.record_path(key_id)).expect("a record");
        StoredRecord::from_json(&key_id.parse().expect("an id"), &bytes).expect("a stored record").record
    }

    /// A connection of our own to the enclave, once it listens.
    pub(crate) async fn enclave(&self) -> EnclaveSocket {
        let connect = async || EnclaveSocket::greeted(self.stack.directory()).await;
        eventually("the enclave answers", async || connect().await.is_ok()).await;
        connect().await.expect("the enclave answers")
    }

    /// The calls about one key that KMS has logged.
    pub(crate) async fn calls_about(&self, key_id: &str) -> Vec<Call> {
        let calls = self.stack.control.calls(0).await.expect("the log");
        let about = |call: &Call| call.encryption_context.get("strongroom:key_id").is_some_and(|id| id == key_id);
        calls.into_iter().filter(about).collect()
    }

    /// The calls about one key, as `Action outcome`. Calls that KMS refused before it read them are about
    /// no key.
    pub(crate) async fn outcomes(&self, key_id: &str) -> Vec<String> {
        self.calls_about(key_id).await.into_iter().map(outcome).collect()
    }

    /// How many calls KMS has logged.
    pub(crate) async fn calls(&self) -> u64 {
        self.stack.control.calls(0).await.expect("the log").len() as u64
    }

    /// All calls but the first `calls`, as `Action outcome`.
    pub(crate) async fn outcomes_after(&self, calls: u64) -> Vec<String> {
        self.stack.control.calls(calls).await.expect("the log").into_iter().map(outcome).collect()
    }

    pub(crate) async fn set_fault(&self, fault: Fault) {
        self.stack.control.set_fault(&fault).await.expect("the fault is set");
    }

    pub(crate) async fn clear_faults(&self) {
        self.stack.control.clear_faults().await.expect("the faults are cleared");
    }

    /// Restarts the parent and waits until it answers at all.
    /// Restarts both, with another configuration. The parent comes first: one that has the old configuration still
    /// would give that to the new enclave.
    pub(crate) async fn restart(&mut self) -> io::Result<()> {
        self.restart_parent().await?;
        self.stack.restart_enclave().await
    }

    pub(crate) async fn restart_parent(&mut self) -> io::Result<()> {
        self.stack.restart_parent().await?;
        let alive = async || self.api.get("/healthz").await.is_ok_and(|reply| reply.status.is_success());
        eventually("the parent answers", alive).await;
        Ok(())
    }

    fn record_path(&self, key_id: &str) -> PathBuf {
        self.stack.directory().join(format!("keys/{key_id}.json"))
    }
}

fn outcome(call: Call) -> String {
    format!("{} {}", call.action.unwrap_or_default(), call.outcome)
}

/// The caller sees this problem.
#[track_caller]
pub(crate) fn assert_problem(reply: &Reply, status: u16, slug: &str) {
    assert_eq!((reply.status.as_u16(), reply.problem()), (status, slug), "{}", reply.body);
}

/// Waits for a condition, at most ten seconds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "in ten seconds it never came true that {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
