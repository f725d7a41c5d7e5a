//! A store that is down, slow, throttling or talks nonsense: keys that the parent knows sign, others get
//! an honest answer, readiness tells, nothing is lost, and all of it passes without a restart.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::place::{Place, Weather, short_cache};
use crate::scene::{assert_problem, eventually};

/// Longer than the cache's expiry, so that the store has to be asked about what is known too.
const SPELL: Duration = Duration::from_millis(2500);

async fn any_weather_passes(it: Place) {
    for (n, weather) in
        [Weather::Shut, Weather::Stalled, Weather::Slow, Weather::Throttling, Weather::Garbage].into_iter().enumerate()
    {
        let (known, fresh) = (format!("known-{n}"), format!("fresh-{n}"));
        it.scene.create(&known).await;
        let other = it.scene.stack.start_another_parent().await.expect("a second parent");
        let other = strongroom_tests::api::Api::new(&other.url);
        let create = |id: &str| json!({ "key_id": id, "algorithm": "ed25519" });
        assert_eq!(other.post("/v1/keys", create(&fresh)).await.expect("a reply").status.as_u16(), 201);

        it.set_weather(weather);
        let end = Instant::now() + SPELL;
        while Instant::now() < end {
            it.scene.signs(&known).await;
            sleep(Duration::from_millis(50)).await;
        }
        if weather == Weather::Slow {
            it.scene.signs(&fresh).await;
        } else {
            let new = format!("new-{n}");
            let (unknown, missing, created, changed) = tokio::join!(
                it.scene.sign(&fresh),
                it.scene.sign("missing"),
                it.scene.try_create(create(&new)),
                async { it.scene.api.post(&format!("/v1/keys/{known}/disable"), json!({})).await.expect("a reply") },
            );
            for reply in [unknown, missing, created, changed] {
                assert_problem(&reply, 503, "store-unavailable");
                assert!(reply.headers.contains_key("retry-after"), "{weather:?}");
            }
            eventually("/readyz names the store", async || {
                let reply = it.scene.api.get("/readyz").await.expect("a reply");
                reply.status.as_u16() == 503 && reply.body["checks"]["store"]["ok"] == false
            })
            .await;
            it.scene.signs(&known).await;
            let shown = it.scene.api.get(&format!("/v1/keys/{known}")).await.expect("a reply");
            assert_eq!((shown.status.as_u16(), shown.text("state")), (200, "enabled"), "{weather:?}");
        }

        it.set_weather(Weather::Clear);
        it.scene.signs(&fresh).await;
        let created = it.scene.try_create(create(&format!("new-{n}"))).await;
        assert_eq!(created.status.as_u16(), 201, "{weather:?}: {}", created.body);
        let disabled = it.scene.api.post(&format!("/v1/keys/{known}/disable"), json!({})).await.expect("a reply");
        assert_eq!(disabled.status.as_u16(), 200, "{weather:?}: {}", disabled.body);
        assert_problem(&it.scene.sign(&known).await, 403, "key-disabled");
        eventually("it is ready again", async || {
            it.scene.api.get("/readyz").await.expect("a reply").status.is_success()
        })
        .await;
    }
    assert_eq!(super::list(&it.scene.api, 100).await.len(), 15, "nothing is lost");
}

#[tokio::test]
async fn any_weather_passes_over_dynamodb() {
    any_weather_passes(Place::dynamodb_planned("weather", short_cache).await).await;
}

#[tokio::test]
async fn any_weather_passes_over_secrets_manager() {
    any_weather_passes(Place::secrets_manager_planned("weather", short_cache).await).await;
}

#[tokio::test]
async fn a_record_that_is_cached_signs_although_it_was_damaged_and_is_named_to_who_looks() {
    let it = Place::dynamodb_planned("damaged_meanwhile", short_cache).await;
    it.scene.create("a").await;
    let stored = it.read("a").await;
    it.write("a", "damaged").await;
    let end = Instant::now() + SPELL;
    while Instant::now() < end {
        it.scene.signs("a").await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_problem(&it.scene.api.get("/v1/keys/a").await.expect("a reply"), 502, "record-damaged");
    it.write("a", &stored).await;
    it.scene.signs("a").await;
}
