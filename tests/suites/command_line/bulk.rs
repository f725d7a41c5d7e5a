//! Many keys at once, against a whole appliance: a run that ends anywhere, by whatever, is gone on with by the same
//! command, and no key is lost or made twice.

use std::collections::BTreeSet;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::{Value, json};
use strongroom_tests::mock_kms::{Fault, FaultKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{Key, said};
use crate::lifecycle::signal;
use crate::scene::{Scene, eventually};

const CREATE: [&str; 5] = ["create", "--algorithm", "ed25519", "--prefix", "b-"];

fn create<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&CREATE[..], arguments].concat()
}

fn told(created: u32, already_there: u32) -> Value {
    json!({ "created": created, "already_there": already_there, "failed": [], "left": 0, "stopped": null })
}

fn stored(it: &Scene) -> BTreeSet<String> {
    let names = std::fs::read_dir(it.stack.directory().join("keys")).expect("the store");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect()
}

fn numbered(count: u32) -> BTreeSet<String> {
    (1..=count).map(|number| format!("b-{number:06}")).collect()
}

#[tokio::test]
async fn keys_are_created_once_and_found_there_by_every_further_run() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    assert_eq!(key.json(0, &create(&["--count", "20"])).await, told(20, 0));
    assert_eq!(stored(&it), numbered(20));
    let text = key.expect(0, &create(&["--count", "25"])).await;
    assert_eq!(text, "created 5, there already 20, failed 0, of 25\n");
    assert_eq!(key.json(0, &create(&["--count", "3", "--first", "24"])).await, told(1, 2));
    assert_eq!(stored(&it), numbered(26));

    // Each new key costs KMS what the help says: one data key, opened once.
    let calls = it.outcomes("b-000001").await;
    assert_eq!(calls, ["GenerateDataKey Success", "Decrypt Success"]);
}

#[tokio::test]
async fn a_key_that_is_there_but_not_as_asked_is_named() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    it.create_with(json!({ "key_id": "b-000002", "algorithm": "secp256k1" })).await;
    it.create_held("b-000003", 60).await;
    let output = key.run(&create(&["--count", "4"])).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    for line in [
        "created 2, there already 0, failed 2, of 4",
        "b-000002: exists with another algorithm",
        "b-000003: exists with another policy",
    ] {
        assert!(said(&output).contains(line), "{line}: {}", said(&output));
    }
    let other = format!("{}0", it.stack.kms_key);
    let output = key.json(1, &create(&["--count", "1", "--kms-key-arn", &other])).await;
    assert_eq!(output["failed"][0]["reason"], "exists with another KMS key");
}

#[tokio::test]
async fn a_refusal_that_concerns_all_keys_ends_the_run_at_once() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    let other = format!("{}0", it.stack.kms_key);
    let output = key.json(1, &create(&["--count", "100", "--kms-key-arn", &other])).await;
    assert_eq!((&output["created"], &output["left"]), (&json!(0), &json!(100)));
    assert!(output["stopped"].as_str().is_some_and(|why| why.contains("kms-key-not-configured")), "{output}");
}

/// Killed twice and interrupted once, each time in the middle.
#[tokio::test]
async fn a_run_that_ends_anywhere_is_gone_on_with() {
    let it = Scene::start().await;
    let key = Key::of(&it.stack.url);
    for with in [Signal::KILL, Signal::INT, Signal::KILL] {
        let before = stored(&it).len();
        let arguments = create(&["--count", "90", "--rate", "40", "--json"]);
        let mut command = key.command(&arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        eventually("some keys are created", async || stored(&it).len() >= before + 5).await;
        signal(child.id(), with);
        let output = child.wait_with_output().await.expect("it ends");
        assert!(stored(&it).len() < 90, "it was stopped before its end");
        if with == Signal::INT {
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(summary["stopped"], "interrupted");
            let done =
                summary["created"].as_u64().expect("a number") + summary["already_there"].as_u64().expect("a number");
            assert_eq!(summary["left"], 90 - done);
            assert!(said(&output).contains("the same command goes on from here"), "{}", said(&output));
        }
    }
    // What the killed ones had asked for may still arrive.
    eventually("nothing is in flight", async || {
        let before = stored(&it).len();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stored(&it).len() == before
    })
    .await;
    let left = 90 - u32::try_from(stored(&it).len()).expect("few");
    assert_eq!(key.json(0, &create(&["--count", "90"])).await, told(left, 90 - left));
    assert_eq!(stored(&it), numbered(90));
    for key_id in ["b-000001", "b-000045", "b-000090"] {
        it.signs(key_id).await;
    }
}

#[tokio::test]
async fn a_throttled_kms_is_waited_for() {
    let it = Scene::start().await;
    it.set_fault(Fault::next(6, FaultKind::Throttle).on("GenerateDataKey")).await;
    assert_eq!(Key::of(&it.stack.url).json(0, &create(&["--count", "10", "--jobs", "4"])).await, told(10, 0));
}

#[tokio::test]
async fn a_parent_that_stays_away_is_given_up() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr()).expect("a port");
    let output = Key::of(&format!("http://{nobody}")).run(&create(&["--count", "5", "--patience", "1"])).await;
    assert_eq!(output.status.code(), Some(3), "{}", said(&output));
    for line in ["waiting: the parent cannot be reached", "nothing was done for 1 s", "5 of 5 keys are left"] {
        assert!(said(&output).contains(line), "{line}: {}", said(&output));
    }
}

/// The connection breaks when the answer comes: whether the key was made is not known until it is asked for.
#[tokio::test]
async fn lost_answers_lose_no_key_and_make_none_twice() {
    let it = Scene::start().await;
    let relay = forgetful_relay(it.stack.url.trim_start_matches("http://").to_owned()).await;
    let output = Key::of(&relay).json(0, &create(&["--count", "30"])).await;
    assert_eq!(output["failed"], json!([]), "{output}");
    let done = output["created"].as_u64().expect("a number") + output["already_there"].as_u64().expect("a number");
    assert_eq!((done, stored(&it)), (30, numbered(30)));
    assert!(output["already_there"].as_u64().is_some_and(|there| there > 0), "answers were lost: {output}");
}

/// Forwards connections to `to`, and cuts each one off when its third answer comes.
async fn forgetful_relay(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&to).await.expect("the parent is there");
            let (mut near_read, mut near_write) = near.into_split();
            let (mut far_read, mut far_write) = far.into_split();
            let up = tokio::spawn(async move { tokio::io::copy(&mut near_read, &mut far_write).await });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                for _ in 0..2 {
                    let Ok(length @ 1..) = far_read.read(&mut buffer).await else { break };
                    near_write.write_all(&buffer[..length]).await.expect("somebody waits for it");
                }
                let _ = far_read.read(&mut buffer).await;
                up.abort();
            });
        }
    });
    url
}
