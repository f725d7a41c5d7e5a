//! The three stores, each against the real thing or its emulator: what they keep, what they refuse, and
//! what is left when they are away.

mod changes;
mod hosts;
pub(crate) mod place;
mod races;
mod weather;

use serde_json::{Value, json};
use strongroom_tests::api::{Api, Reply};
use tokio::task::JoinSet;

use crate::scene::{Scene, assert_problem, eventually};
use place::Place;

/// Runs each test on each store, under the store's name.
macro_rules! on_each_store {
    ($($test:ident),+ $(,)?) => {
        on_each_store!(@on directory, $($test),+);
        on_each_store!(@on dynamodb, $($test),+);
        on_each_store!(@on secrets_manager, $($test),+);
    };
    (@on $store:ident, $($test:ident),+) => {
        mod $store {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::stores::place::Place::$store(stringify!($test)).await).await;
            })+
        }
    };
}
pub(crate) use on_each_store;

on_each_store!(
    keys_are_listed_in_pages_and_sign_after_a_restart,
    an_existing_key_is_never_overwritten,
    of_two_parents_that_create_one_key_one_wins,
    a_changed_record_is_refused_and_not_kept,
    a_damaged_record_is_named_and_others_are_served,
    while_the_store_is_away_known_keys_sign,
);

async fn keys_are_listed_in_pages_and_sign_after_a_restart(mut it: Place) {
    let ids = ["a", "b", "c", "d", "e"];
    for id in ids {
        it.scene.create(id).await;
    }
    let before = it.scene.api.get("/v1/keys/c").await.expect("a reply").body;
    it.scene.restart_parent().await.expect("restarted");
    assert_eq!(it.scene.api.get("/v1/keys/c").await.expect("a reply").body, before);
    for limit in [1, 2, 5, 100] {
        let mut listed = list(&it.scene.api, limit).await;
        listed.sort();
        assert_eq!(listed, ids, "each key once, {limit} at a time");
    }
    for id in ids {
        it.scene.signs(id).await;
    }
}

/// The ids of all pages of at most `limit` keys.
pub(crate) async fn list(api: &Api, limit: usize) -> Vec<String> {
    let (mut ids, mut query) = (Vec::new(), format!("limit={limit}"));
    loop {
        let page = api.get(&format!("/v1/keys?{query}")).await.expect("a reply");
        assert_eq!(page.status.as_u16(), 200, "{}", page.body);
        let keys = page.body["keys"].as_array().expect("keys");
        assert!(keys.len() <= limit, "{} keys on a page of {limit}", keys.len());
        ids.extend(keys.iter().map(|key| key["key_id"].as_str().expect("an id").to_owned()));
        let Some(cursor) = page.body.get("next_cursor").and_then(Value::as_str) else { return ids };
        let cursor: String = cursor.bytes().map(|c| format!("%{c:02x}")).collect();
        query = format!("limit={limit}&cursor={cursor}");
    }
}

async fn an_existing_key_is_never_overwritten(it: Place) {
    it.scene.create("a").await;
    let stored = it.read("a").await;
    for algorithm in ["ed25519", "secp256k1"] {
        let again = it.scene.try_create(json!({ "key_id": "a", "algorithm": algorithm })).await;
        assert_problem(&again, 409, "key-exists");
    }
    assert_eq!(it.read("a").await, stored);
    // Not even one that cannot be read.
    it.write("a", "{}").await;
    assert_problem(&it.scene.try_create(json!({ "key_id": "a", "algorithm": "ed25519" })).await, 409, "key-exists");
    assert_eq!(it.read("a").await, "{}");
    it.write("a", &stored).await;
    it.scene.signs("a").await;
}

async fn of_two_parents_that_create_one_key_one_wins(it: Place) {
    let other = it.scene.stack.start_another_parent().await.expect("a second parent");
    let parents = [Api::new(&it.scene.stack.url), Api::new(&other.url)];
    for round in 0..4 {
        let key_id = format!("raced-{round}");
        let mut racers = JoinSet::new();
        for n in 0..6 {
            let (api, body) = (parents[n % 2].clone(), json!({ "key_id": key_id, "algorithm": "ed25519" }));
            racers.spawn(async move { api.post("/v1/keys", body).await.expect("a reply") });
        }
        let (won, lost): (Vec<Reply>, Vec<Reply>) =
            racers.join_all().await.into_iter().partition(|reply| reply.status.as_u16() == 201);
        assert_eq!(won.len(), 1, "winners");
        for reply in &lost {
            assert_problem(reply, 409, "key-exists");
        }
        for parent in &parents {
            let shown = parent.get(&format!("/v1/keys/{key_id}")).await.expect("a reply");
            assert_eq!(shown.body["public_key"], won[0].body["public_key"]);
            let payload = json!({ "type": "message", "message": "00" });
            let signed = parent.sign(&key_id, json!({ "payload": payload })).await.expect("a reply");
            assert_eq!(signed.body["public_key"], won[0].body["public_key"], "{}", signed.body);
        }
    }
}

async fn a_changed_record_is_refused_and_not_kept(mut it: Place) {
    it.scene.create("a").await;
    it.scene.create("b").await;
    // Nothing is cached now.
    it.scene.restart_parent().await.expect("restarted");
    let original = it.tamper("a", |record| record["policy"]["hold_seconds"] = 3600.into()).await;
    for _ in 0..2 {
        assert_problem(&it.scene.sign("a").await, 502, "record-refused");
    }
    it.scene.signs("b").await;
    // Had the refused record been kept, the good one would not be seen now.
    it.write("a", &original).await;
    it.scene.signs("a").await;
}

async fn a_damaged_record_is_named_and_others_are_served(mut it: Place) {
    it.scene.create("a").await;
    it.scene.create("b").await;
    it.scene.restart_parent().await.expect("restarted");
    let original = it.read("a").await;
    let half = original[..original.len() / 2].to_owned();
    let doubled = original.replacen('{', "{\"version\": 1,", 1);
    let long = format!("{original}{}", " ".repeat(64 * 1024));
    let of_b = it.read("b").await;
    for (name, text) in [
        ("not_json", "damaged"),
        ("another_object", "{}"),
        ("half", &half),
        ("duplicate_field", &doubled),
        ("longer_than_a_record", &long),
        ("the_record_of_another_key", &of_b),
    ] {
        it.write("a", text).await;
        for reply in [it.scene.sign("a").await, it.scene.api.get("/v1/keys/a").await.expect("a reply")] {
            assert_eq!((reply.status.as_u16(), reply.problem()), (502, "record-damaged"), "{name}: {}", reply.body);
            assert!(reply.text("detail").contains("key a "), "{name} names the key: {}", reply.body);
        }
        it.scene.signs("b").await;
        let page = it.scene.api.get("/v1/keys").await.expect("a reply").body;
        assert_eq!((&page["keys"][0]["key_id"], &page["damaged"]), (&json!("b"), &json!(["a"])), "{name}");
    }
    it.write("a", &original).await;
    it.scene.signs("a").await;
}

async fn while_the_store_is_away_known_keys_sign(mut it: Place) {
    it.scene.create("known").await;
    it.scene.create("not-seen").await;
    it.scene.restart_parent().await.expect("restarted");
    it.scene.signs("known").await;
    it.take_away();
    it.scene.signs("known").await;
    for reply in [it.scene.sign("not-seen").await, it.scene.sign("unknown").await] {
        assert_problem(&reply, 503, "store-unavailable");
        assert!(reply.headers.contains_key("retry-after"));
    }
    let create = json!({ "key_id": "new", "algorithm": "ed25519" });
    assert_problem(&it.scene.try_create(create).await, 503, "store-unavailable");
    eventually("/readyz names the store", async || {
        let reply = it.scene.api.get("/readyz").await.expect("a reply");
        reply.status.as_u16() == 503 && reply.body["checks"]["store"]["ok"] == false
    })
    .await;
    it.bring_back();
    it.scene.signs("not-seen").await;
    it.scene.create("new").await;
    eventually("it is ready again", async || it.scene.api.get("/readyz").await.expect("a reply").status.is_success())
        .await;
}

#[tokio::test]
async fn a_file_edited_by_hand_is_seen_at_once() {
    let it = Place::directory("").await;
    it.scene.create("a").await;
    it.scene.signs("a").await;
    for _ in 0..3 {
        let original = it.tamper("a", |record| record["state"] = "disabled".into()).await;
        assert_problem(&it.scene.sign("a").await, 403, "key-disabled");
        it.write("a", &original).await;
        it.scene.signs("a").await;
        it.tamper("a", |record| record["policy"]["hold_seconds"] = 1.into()).await;
        assert_problem(&it.scene.sign("a").await, 502, "record-refused");
        it.write("a", &original).await;
        it.scene.signs("a").await;
    }
    std::fs::remove_file(it.scene.stack.directory().join("keys/a.json")).expect("removed");
    assert_problem(&it.scene.sign("a").await, 404, "key-not-found");
}

#[tokio::test]
async fn files_that_are_no_keys_are_nobodys() {
    let it = Place::directory("").await;
    it.scene.create("a").await;
    let keys = it.scene.stack.directory().join("keys");
    let stored = it.read("a").await;
    // What a parent leaves that was killed while it wrote, and what people leave.
    for name in [".b.12345.0.tmp", ".b.json", "b.json.bak", "README", "b.JSON", "-b.json"] {
        std::fs::write(keys.join(name), &stored).expect("written");
    }
    assert_eq!(list(&it.scene.api, 100).await, ["a"]);
    it.scene.create("b").await;
    assert_eq!(list(&it.scene.api, 100).await, ["a", "b"]);
    it.scene.signs("b").await;
}

#[tokio::test]
async fn where_nothing_can_be_written_nothing_is_created() {
    // A folder that refuses new files even to root.
    let it = Scene::planned(|plan| plan.store = "type = \"directory\"\npath = \"/sys/kernel\"\n".to_owned()).await;
    let reply = it.try_create(json!({ "key_id": "a", "algorithm": "ed25519" })).await;
    assert_problem(&reply, 503, "store-unavailable");
    assert_problem(&it.sign("a").await, 404, "key-not-found");
    assert_eq!(list(&it.api, 100).await, [""; 0]);
}

#[tokio::test]
async fn what_in_a_table_is_no_key_is_not_listed() {
    let it = Place::dynamodb("not_only_keys").await;
    it.scene.create("a").await;
    it.write(".settings", "not a record").await;
    assert_eq!(list(&it.scene.api, 100).await, ["a"]);
}

#[tokio::test]
async fn a_store_that_does_not_exist_is_not_ready() {
    let it = Place::dynamodb("existing").await;
    let missing = Scene::unready(|plan| {
        plan.store = "type = \"dynamodb\"\ntable = \"missing\"\n".to_owned();
        plan.parent_environment.clone_from(&it.scene.stack.plan.parent_environment);
    })
    .await;
    eventually("only the store is missing", async || {
        let Ok(reply) = missing.api.get("/readyz").await else { return false };
        let checks = reply.body["checks"].as_object().expect("checks");
        let bad: Vec<&String> = checks.iter().filter(|(_, check)| check["ok"] == false).map(|(name, _)| name).collect();
        reply.status.as_u16() == 503 && bad == ["store"]
    })
    .await;
    assert_problem(&missing.sign("a").await, 503, "store-unavailable");
}
