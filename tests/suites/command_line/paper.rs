//! What the command line asks of a parent, and what it makes of keys that others change at the same time.

use std::collections::BTreeSet;

use axum::http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::paper_parent::{NEW_ARN, OLD_ARN, Paper, PaperParent, keys};
use super::{Key, said};
use crate::scene::eventually;

const ALL: [&str; 4] = ["rewrap", "--all", "--kms-key-arn", NEW_ARN];

#[tokio::test]
async fn each_change_asks_exactly_what_the_contract_says() {
    let parent = PaperParent::start(Paper { keys: keys(1), ..Paper::default() }).await;
    let key = Key::of(&parent.url);
    let path = "/v1/keys/k-000";
    for (arguments, code, method, asked, body) in [
        (&["disable", "k-000"][..], 0, Method::POST, "/disable", json!({})),
        (&["enable", "k-000", "--generation", "2"], 0, Method::POST, "/enable", json!({ "generation": 2 })),
        (&["enable", "k-000", "--generation", "2"], 5, Method::POST, "/enable", json!({ "generation": 2 })),
        (&["schedule-deletion", "k-000"], 5, Method::POST, "/schedule-deletion", json!({})),
        (
            &["schedule-deletion", "k-000", "--waiting-days", "7", "--generation", "3"],
            5,
            Method::POST,
            "/schedule-deletion",
            json!({ "generation": 3, "waiting_days": 7 }),
        ),
        (&["cancel-deletion", "k-000"], 5, Method::POST, "/cancel-deletion", json!({})),
        (
            &["rewrap", "k-000", "--kms-key-arn", NEW_ARN, "--generation", "3"],
            0,
            Method::POST,
            "/rewrap",
            json!({ "kms_key_arn": NEW_ARN, "generation": 3 }),
        ),
        (&["delete", "k-000", "--yes", "--generation", "4"], 0, Method::DELETE, "?generation=4", Value::Null),
        (&["delete", "k-000", "--yes"], 4, Method::DELETE, "", Value::Null),
    ] {
        key.expect(code, arguments).await;
        let last = parent.paper().asked.pop().expect("it asked");
        assert_eq!(last, (method, format!("{path}{asked}"), body), "{arguments:?}");
    }
}

#[tokio::test]
async fn changes_are_told_as_text_and_as_json() {
    let parent = PaperParent::start(Paper { keys: keys(1), ..Paper::default() }).await;
    let key = Key::of(&parent.url);
    let text = key.expect(0, &["disable", "k-000"]).await;
    assert!(text.contains("k-000, disabled (generation 2), does not sign"), "{text}");
    assert_eq!(key.json(0, &["enable", "k-000"]).await, parent.paper().keys["k-000"]);
    let text = key.expect(0, &["rewrap", "k-000", "--kms-key-arn", NEW_ARN]).await;
    assert!(text.contains("denies Decrypt") && text.contains(NEW_ARN), "{text}");
    assert_eq!(key.json(0, &["delete", "k-000", "--yes"]).await, json!({ "key_id": "k-000", "deleted": true }));
}

#[tokio::test]
async fn all_keys_are_rewrapped_whatever_others_do_meanwhile() {
    let every = |step: usize| -> BTreeSet<String> { (0..120).step_by(step).map(|n| format!("k-{n:03}")).collect() };
    let mut keys = keys(120);
    for key_id in ["k-007", "k-077"] {
        keys.get_mut(key_id).expect("a key")["kms_key_arn"] = NEW_ARN.into();
    }
    let paper = Paper { keys, contended: every(5), answers_lost: every(6), ..Paper::default() };
    let parent = PaperParent::start(paper).await;
    let key = Key::of(&parent.url);
    let told = key.json(0, &[&ALL[..], &["--rate", "1000"]].concat()).await;
    let expected = json!({
        "kms_key_arn": NEW_ARN, "rewrapped": 118, "already_there": 2, "failed": [], "damaged": [], "left": 0,
        "stopped": null, "still_under_other_kms_keys": 0,
    });
    assert_eq!(told, expected);
    assert_eq!(parent.under(NEW_ARN), 120);
    let without_generation = parent
        .paper()
        .asked
        .iter()
        .filter(|(method, _, body)| *method == Method::POST && body["generation"].is_null())
        .count();
    assert_eq!(without_generation, 0, "every change names the generation that was looked at");

    parent.paper().asked.clear();
    let again = key.expect(0, &ALL).await;
    assert!(again.contains("re-wrapped 0") && again.contains("denies Decrypt"), "{again}");
    assert!(parent.paper().asked.iter().all(|(method, ..)| *method == Method::GET), "nothing is left to be done");
}

#[tokio::test]
async fn what_cannot_be_rewrapped_is_named_and_the_rest_is_done() {
    let paper = Paper {
        keys: keys(30),
        refused: [("k-003", (502, "record-refused")), ("k-021", (422, "kms-key-not-configured"))]
            .map(|(key_id, refusal)| (key_id.to_owned(), refusal))
            .into(),
        damaged: vec!["k-broken".to_owned()],
        ..Paper::default()
    };
    let parent = PaperParent::start(paper).await;
    let key = Key::of(&parent.url);
    let output = key.run(&ALL).await;
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for name in ["failed: k-003", "failed: k-021", "damaged: k-broken", "record-refused", "kms-key-not-configured"] {
        assert!(said.contains(name), "{name}: {said}");
    }
    assert!(said.contains("re-wrapped 28") && said.contains("name another KMS key: 2"), "{said}");

    parent.paper().refused.clear();
    let told = key.json(1, &ALL).await;
    assert_eq!((&told["rewrapped"], &told["damaged"]), (&json!(2), &json!(["k-broken"])));
}

#[tokio::test]
async fn a_prefix_leaves_other_keys_alone() {
    let parent = PaperParent::start(Paper { keys: keys(30), ..Paper::default() }).await;
    let told = Key::of(&parent.url).json(0, &[&ALL[..], &["--prefix", "k-01"]].concat()).await;
    assert_eq!((&told["rewrapped"], &told["still_under_other_kms_keys"]), (&json!(10), &json!(20)));
    assert_eq!((parent.under(NEW_ARN), parent.under(OLD_ARN)), (10, 20));
}

/// A key that was created under the old KMS key after the keys were collected: done is said only when none is left.
#[tokio::test]
async fn a_rotation_is_not_done_while_a_key_names_another_kms_key() {
    let parent = PaperParent::start(Paper { keys: keys(10), change_takes: 100, ..Paper::default() }).await;
    let key = Key::of(&parent.url);
    let created = async {
        eventually("it has begun", async || parent.under(NEW_ARN) > 0).await;
        let late = keys(11).pop_last().expect("an eleventh");
        parent.paper().keys.insert(late.0, late.1);
    };
    let (told, ()) = tokio::join!(key.json(1, &ALL), created);
    assert_eq!((&told["rewrapped"], &told["still_under_other_kms_keys"]), (&json!(10), &json!(1)));
    let told = key.json(0, &ALL).await;
    assert_eq!((&told["rewrapped"], &told["still_under_other_kms_keys"]), (&json!(1), &json!(0)));
}

/// Twice killed, once interrupted: what is done stays done, and the last run does the rest.
#[tokio::test]
async fn a_run_that_ends_anywhere_is_gone_on_with() {
    let paper = Paper { keys: keys(120), change_takes: 20, ..Paper::default() };
    let parent = PaperParent::start(paper).await;
    let key = Key::of(&parent.url);
    for (round, with) in [Signal::KILL, Signal::INT, Signal::KILL].into_iter().enumerate() {
        let before = parent.under(NEW_ARN);
        let mut command = key.command(&[&ALL[..], &["--jobs", "3"]].concat());
        let child =
            command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("runs");
        eventually("some keys are re-wrapped", async || parent.under(NEW_ARN) >= before + 5).await;
        crate::lifecycle::signal(child.id(), with);
        let output = child.wait_with_output().await.expect("it ends");
        assert!(parent.under(NEW_ARN) < 120, "it was stopped before its end");
        if with == Signal::INT {
            assert_eq!(output.status.code(), Some(1), "{round}: {}", said(&output));
            assert!(said(&output).contains("the same command goes on from here"), "{}", said(&output));
        }
    }
    let left = parent.under(OLD_ARN);
    let told = key.json(0, &[&ALL[..], &["--rate", "1000"]].concat()).await;
    assert_eq!((&told["rewrapped"], &told["already_there"]), (&json!(left), &json!(120 - left)));
    assert_eq!(parent.under(NEW_ARN), 120);
    assert!(parent.paper().keys.values().all(|view| view["generation"] == 2), "each key was re-wrapped once");
}
