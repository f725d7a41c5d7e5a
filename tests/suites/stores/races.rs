//! Writers in different processes that race for one key: every update that was accepted is there, and
//! every writer that lost was told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use strongroom_tests::api::Api;
use tokio::task::JoinSet;

use super::on_each_store;
use super::place::Place;
use crate::scene::assert_problem;

on_each_store!(of_two_processes_that_update_one_key_the_loser_is_told);

/// Updates that are to be accepted, by both processes together.
const UPDATES: usize = 1000;

async fn of_two_processes_that_update_one_key_the_loser_is_told(it: Place) {
    it.scene.create("a").await;
    let other = it.scene.stack.start_another_parent().await.expect("a second parent");
    let to_do = Arc::new(AtomicUsize::new(UPDATES));
    let mut writers = JoinSet::new();
    for url in [&it.scene.stack.url, &other.url] {
        writers.spawn(update(Api::new(url), Arc::clone(&to_do)));
    }
    let outcomes = writers.join_all().await;
    let accepted: Vec<u64> = outcomes.iter().flat_map(|(accepted, _)| accepted.clone()).collect();
    let lost: usize = outcomes.iter().map(|(_, lost)| lost).sum();
    // Each generation was made by one update, and none was left out.
    let all: BTreeSet<u64> = accepted.iter().copied().collect();
    assert_eq!(all.len(), accepted.len(), "two updates made one generation");
    assert_eq!(all, (2..=1 + accepted.len() as u64).collect());
    assert!(accepted.len() >= UPDATES);
    assert!(lost > 0, "they did race");
    let shown = it.scene.api.get("/v1/keys/a").await.expect("a reply").body;
    assert_eq!(shown["generation"].as_u64(), all.last().copied());
    change(&it.scene.api, "enable", shown["generation"].as_u64().expect("a generation")).await;
    it.scene.signs("a").await;
}

/// Reads the key and changes what it read, until enough was done; the generations that it made, and how
/// often it lost.
async fn update(api: Api, to_do: Arc<AtomicUsize>) -> (Vec<u64>, usize) {
    let (mut accepted, mut lost) = (Vec::new(), 0);
    while to_do.load(Ordering::Relaxed) > 0 {
        let shown = api.get("/v1/keys/a").await.expect("a reply").body;
        let generation = shown["generation"].as_u64().expect("a generation");
        let name = if shown["state"] == "enabled" { "disable" } else { "enable" };
        match change(&api, name, generation).await {
            Some(made) => {
                assert_eq!(made, generation + 1);
                accepted.push(made);
                let _ = to_do.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
            }
            None => lost += 1,
        }
    }
    (accepted, lost)
}

/// The generation that the change made; `None`: another came first.
async fn change(api: &Api, name: &str, generation: u64) -> Option<u64> {
    let path = format!("/v1/keys/a/{name}");
    let reply = api.post(&path, json!({ "generation": generation })).await.expect("a reply");
    if reply.status.as_u16() == 200 {
        return reply.body["generation"].as_u64();
    }
    assert_problem(&reply, 409, "generation-lost");
    None
}
