//! Processes that are killed at random points while keys are created, re-wrapped and changed: no key is
//! lost, none is half-written, and whoever asks again gets it done.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use strongroom_parent::stored_record::StoredRecord;
use strongroom_tests::api::{Api, Reply};
use strongroom_tests::stack::{KmsKeyKind, Plan, binary};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::stores::list;
use crate::stores::place::Place;

/// Workers at one time, each with keys of its own.
const WORKERS: usize = 3;

fn ceremony(plan: &mut Plan) {
    plan.kms_keys = vec![KmsKeyKind::SingleRegion; 2];
    plan.configuration.insert("operations".to_owned(), json!(["generate", "sign", "rewrap"]));
    // Every kill costs a warning or more.
    plan.log_level = "error".to_owned();
}

#[tokio::test]
async fn killed_two_hundred_times_over_a_folder_nothing_is_lost() {
    let it = kill(Place::directory_planned(ceremony).await, 200, 200).await;
    // Whole files, each of the key that it is named after.
    for entry in std::fs::read_dir(it.scene.stack.directory().join("keys")).expect("a folder").flatten() {
        let name = entry.file_name().into_string().expect("text");
        let Some(id) = name.strip_suffix(".json") else { continue };
        let bytes = std::fs::read(entry.path()).expect("read");
        StoredRecord::from_json(&id.parse().expect("an id"), &bytes).expect("whole");
    }
}

#[tokio::test]
async fn killed_over_dynamodb_nothing_is_lost() {
    kill(Place::dynamodb_planned("killed", ceremony).await, 40, 600).await;
}

#[tokio::test]
async fn killed_over_secrets_manager_nothing_is_lost() {
    kill(Place::secrets_manager_planned("killed", ceremony).await, 40, 600).await;
}

/// Kills the parent, and now and then the enclave, while the workers work; each time after at most so many
/// milliseconds.
async fn kill(mut it: Place, times: u32, longest_ms: u64) -> Place {
    let mut random = Random::seeded();
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = JoinSet::new();
    for n in 0..WORKERS {
        let worker = Worker {
            api: Api::new(&it.scene.stack.url),
            name: format!("w{n}"),
            kms_keys: it.scene.stack.kms_keys.clone(),
            random: Random(random.next()),
            keys: BTreeMap::new(),
            interrupted: 0,
        };
        workers.spawn(worker.work(Arc::clone(&stop)));
    }
    let bulk = Bulk { url: it.scene.stack.url.clone(), kms_key: it.scene.stack.kms_keys[1].clone() };
    let bulk = tokio::spawn(bulk.work(Random(random.next()), Arc::clone(&stop)));
    for n in 1..=times {
        sleep(Duration::from_millis(random.below(longest_ms))).await;
        if n % 10 == 0 {
            it.scene.stack.restart_enclave().await.expect("restarted");
        }
        it.scene.restart_parent().await.expect("restarted");
    }
    stop.store(true, Ordering::Relaxed);
    it.scene.stack.wait_ready().await.expect("ready");
    let workers = workers.join_all().await;
    let interrupted: usize = workers.iter().map(|worker| worker.interrupted).sum();
    let changes: u64 = workers.iter().flat_map(|worker| worker.keys.values()).map(|key| key.generation - 1).sum();
    let created: usize = workers.iter().map(|worker| worker.keys.len()).sum();
    report(&format!("{times} kills: {created} keys, {changes} changes, {interrupted} interrupted"));
    assert!(interrupted > times as usize / 4 && created > 10 && changes > 10, "the kills hit something");

    let (mut all, bulk_kills) = bulk.await.expect("no panic");
    assert!(bulk_kills > 0, "the bulk command was killed too");
    let last = all.last().expect("keys").clone();
    assert_eq!(it.scene.sign(&last).await.status.as_u16(), 200);
    for key_id in &all {
        let shown = it.scene.api.get(&format!("/v1/keys/{key_id}")).await.expect("a reply").body;
        assert_eq!(shown["kms_key_arn"], it.scene.stack.kms_keys[1], "{key_id}");
    }
    for worker in workers {
        for (key_id, expected) in &worker.keys {
            assert_eq!(worker.shown(key_id).await.as_ref(), Some(expected), "{key_id}");
            if expected.state == "disabled" {
                let reply = it.scene.api.post(&format!("/v1/keys/{key_id}/enable"), json!({})).await;
                assert_eq!(reply.expect("a reply").status.as_u16(), 200);
            }
            let signed = it.scene.sign(key_id).await;
            assert_eq!(signed.text("public_key"), expected.public_key, "{key_id}: {}", signed.body);
        }
        all.extend(worker.keys.into_keys());
    }
    let mut listed = list(&it.scene.api, 100).await;
    listed.sort();
    all.sort();
    assert_eq!(listed, all, "the keys that were created, and no others");
    it
}

/// Somebody at a command line, who creates many keys and re-wraps them all, and is killed now and then.
struct Bulk {
    url: String,
    kms_key: String,
}

/// Keys that it makes. The rate keeps it busy for a while.
const BULK: usize = 60;

impl Bulk {
    /// The ids of its keys, all created and all re-wrapped; and how often it was killed on the way.
    async fn work(self, mut random: Random, stop: Arc<AtomicBool>) -> (Vec<String>, usize) {
        let count = BULK.to_string();
        let create = ["create", "--algorithm", "ed25519", "--count", &count, "--prefix", "bulk-", "--rate", "20"];
        let rewrap = ["rewrap", "--all", "--prefix", "bulk-", "--kms-key-arn", &self.kms_key, "--rate", "20"];
        let mut kills = 0;
        while !stop.load(Ordering::Relaxed) {
            let command: &[&str] = if random.below(2) == 0 { &create } else { &rewrap };
            let mut process = self.command(command).spawn().expect("started");
            let lifetime = Duration::from_millis(200 + random.below(2000));
            if timeout(lifetime, process.wait()).await.is_err() {
                process.kill().await.expect("killed");
                kills += 1;
            }
        }
        for command in [&create[..], &rewrap] {
            let output = self.command(command).stderr(Stdio::piped()).output().await.expect("run");
            assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        ((1..=BULK).map(|n| format!("bulk-{n:06}")).collect(), kills)
    }

    fn command(&self, command: &[&str]) -> Command {
        let mut process = Command::new(binary("strongroom"));
        process.arg("key").args(command).args(["--url", &self.url]).kill_on_drop(true);
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        process
    }
}

/// What a worker knows of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    public_key: String,
    state: String,
    kms_key: String,
    generation: u64,
}

/// Creates keys and changes them, one operation after another, and follows each until it is done.
struct Worker {
    api: Api,
    name: String,
    kms_keys: Vec<String>,
    random: Random,
    keys: BTreeMap<String, Key>,
    interrupted: usize,
}

impl Worker {
    async fn work(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            if self.keys.len() < 2 || self.random.below(4) == 0 {
                self.create().await;
            } else {
                self.change().await;
            }
        }
        self
    }

    async fn create(&mut self) {
        let key_id = format!("{}-{:04}", self.name, self.keys.len());
        loop {
            let reply = self.api.post("/v1/keys", json!({ "key_id": key_id, "algorithm": "ed25519" })).await;
            if let Some(view) = self.outcome(reply, 201) {
                self.keys.insert(key_id, Key::of(&view));
                return;
            }
            if let Some(key) = self.shown(&key_id).await {
                assert_eq!((key.generation, key.state.as_str()), (1, "enabled"));
                self.keys.insert(key_id, key);
                return;
            }
        }
    }

    async fn change(&mut self) {
        let nth = usize::try_from(self.random.below(self.keys.len() as u64)).expect("small");
        let (key_id, before) = self.keys.iter().nth(nth).map(|(id, key)| (id.clone(), key.clone())).expect("a key");
        let mut after = Key { generation: before.generation + 1, ..before.clone() };
        let (name, mut body) = match (before.state.as_str(), self.random.below(3)) {
            (_, 0) => {
                after.kms_key = self.kms_keys.iter().find(|key| **key != before.kms_key).expect("another").clone();
                ("rewrap", json!({ "kms_key_arn": after.kms_key }))
            }
            ("enabled", _) => {
                after.state = "disabled".to_owned();
                ("disable", json!({}))
            }
            (_, _) => {
                after.state = "enabled".to_owned();
                ("enable", json!({}))
            }
        };
        body["generation"] = before.generation.into();
        loop {
            let reply = self.api.post(&format!("/v1/keys/{key_id}/{name}"), body.clone()).await;
            if let Some(view) = self.outcome(reply, 200) {
                assert_eq!(Key::of(&view), after, "{name} {key_id}");
                break;
            }
            let shown = self.shown(&key_id).await.expect("the key is lost");
            if shown == after {
                break;
            }
            assert_eq!(shown, before, "{name} {key_id} was made half");
        }
        self.keys.insert(key_id, after);
    }

    /// What a reply says; `None` if it is not known whether the operation was carried out.
    fn outcome(&mut self, reply: std::io::Result<Reply>, done: u16) -> Option<Value> {
        let Ok(reply) = reply else {
            self.interrupted += 1;
            return None;
        };
        match (reply.status.as_u16(), reply.problem()) {
            (status, _) if status == done => Some(reply.body),
            // The operation before, which a killed process had sent, arrived late; or this one is too early.
            (409, "generation-lost" | "key-exists") | (502..=504, _) => None,
            _ => panic!("{}", reply.body),
        }
    }

    /// The key, once there is somebody to ask; `None` if there is no such key.
    async fn shown(&self, key_id: &str) -> Option<Key> {
        loop {
            match self.api.get(&format!("/v1/keys/{key_id}")).await {
                Ok(reply) if reply.status.as_u16() == 200 => return Some(Key::of(&reply.body)),
                Ok(reply) if reply.status.as_u16() == 404 => return None,
                Ok(reply) => assert_eq!(reply.status.as_u16(), 503, "{}", reply.body),
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Key {
    fn of(view: &Value) -> Self {
        let text = |field: &str| view[field].as_str().expect("text").to_owned();
        Self {
            public_key: text("public_key"),
            state: text("state"),
            kms_key: text("kms_key_arn"),
            generation: view["generation"].as_u64().expect("a generation"),
        }
    }
}

#[expect(clippy::print_stdout, reason = "for whoever looks at a failure, or asks what was hit")]
fn report(text: &str) {
    println!("{text}");
}

/// Xorshift, seeded by the clock.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let seed = now.as_nanos() as u64 | 1;
        report(&format!("seed {seed}"));
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
