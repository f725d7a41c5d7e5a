//! Keys that come in and keys that leave. `imports`: sealed by another implementation of HPKE, and what of it the
//! enclave refuses; `files`: the command of a custodian, from every format; `parents`: what a parent can do to it;
//! `adoption`: what AWS's samples left; `exports`: the way home, and the recovery drill.

mod adoption;
mod exports;
mod files;
mod imports;
mod parents;

use serde_json::{Value, json};
use strongroom_tests::api::Reply;
use strongroom_tests::scripts;
use strongroom_tests::stack::Plan;

use crate::scene::Scene;

/// The same enclave, but for the operations that its configuration lists.
fn listing(operations: &'static [&'static str]) -> impl FnOnce(&mut Plan) {
    move |plan| drop(plan.configuration.insert("operations".to_owned(), json!(operations)))
}

/// A stack whose enclave imports keys.
async fn importing() -> Scene {
    Scene::planned(listing(&["generate", "sign", "import"])).await
}

/// The answers of one of the scripts beside the suites, one per question.
async fn asked(script: &str, questions: &[Value]) -> Vec<Value> {
    let input: String = questions.iter().map(|question| format!("{question}\n")).collect();
    let output = scripts::run(script, &input).await.expect("the script runs");
    let answers: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), questions.len(), "{script}");
    answers
}

/// Replies to every call of custody, and to some that are refused, by the call's path.
pub(crate) async fn replies() -> Vec<(&'static str, Reply)> {
    let mut replies = imports::replies().await;
    replies.extend(adoption::replies().await.map(|reply| ("/v1/keys/{key_id}/adopt", reply)));
    replies.extend(exports::replies().await.map(|reply| ("/v1/keys/{key_id}/export", reply)));
    replies
}

/// The names of the keys that are stored.
fn stored(it: &Scene) -> Vec<String> {
    let entries = std::fs::read_dir(it.stack.directory().join("keys")).expect("the store");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort_unstable();
    names
}
