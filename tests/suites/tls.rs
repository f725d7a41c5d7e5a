//! TLS on the REST endpoint: who gets a connection (`handshakes`), what connections do that never become
//! one (`noise`), whom a client certificate speaks for (`identities`), that certificates are replaced
//! without anyone noticing (`rotation`), and with which configuration there is an endpoint at all
//! (`configuration`). `independent`: a client of another language.

mod configuration;
mod handshakes;
mod identities;
mod independent;
mod noise;
mod rotation;

use std::net::SocketAddr;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use strongroom_tests::api::{Api, Reply, tls_client};
use strongroom_tests::endpoint::{Demand, Pki};
use strongroom_tests::pki::TlsPair;
use strongroom_tests::stack::Plan;

use crate::scene::Scene;
use crate::shared::SharedScene;

/// Callers must have a certificate.
static REQUIRED: SharedScene = SharedScene::new(|plan| with_identities(plan, Demand::Required));

/// Callers may have one.
static OPTIONAL: SharedScene = SharedScene::new(|plan| with_identities(plan, Demand::Optional));

const TOKEN: &str = "srt_of-the-robot";

/// `keeper` may everything, `payments` sign with `hot-*`; both have certificates. `robot` has a token and
/// may read.
fn with_identities(plan: &mut Plan, demand: Demand) {
    plan.tls = Some(demand);
    plan.parent_toml = format!(
        "[[identities]]\nname = \"keeper\"\nclient_dns_name = \"keeper.internal\"\n\
         operations = [\"read\", \"sign\", \"manage\"]\nkeys = [\"*\"]\n\
         [[identities]]\nname = \"payments\"\nclient_dns_name = \"Payments.Internal\"\n\
         operations = [\"sign\"]\nkeys = [\"hot-*\"]\n\
         [[identities]]\nname = \"robot\"\ntoken_sha256 = \"{}\"\noperations = [\"read\"]\nkeys = [\"*\"]\n",
        hex::encode(Sha256::digest(TOKEN))
    );
}

/// The issuing side of a scene.
fn pki(scene: &Scene) -> Pki {
    Pki::open(scene.stack.directory()).expect("a PKI")
}

/// A caller who believes the scene's authority and shows this certificate.
fn caller(scene: &Scene, pair: Option<&TlsPair>) -> Api {
    let http = tls_client(&pki(scene).servers.root_pem(), pair).expect("PEM").build().expect("a client");
    Api::over(&scene.stack.url, http)
}

/// A caller whose certificate is for these names.
fn named(scene: &Scene, names: &[&str]) -> Api {
    caller(scene, Some(&pki(scene).client(names)))
}

/// The keeper, having made these keys. They are held: what is tried here is not KMS.
async fn keeper(scene: &Scene, keys: &[&str]) -> Api {
    let keeper = named(scene, &["keeper.internal"]);
    for key_id in keys {
        let policy = json!({ "payloads": ["message"], "hold_seconds": 3600 });
        let create = json!({ "key_id": key_id, "algorithm": "ed25519", "policy": policy });
        let created = keeper.post("/v1/keys", create).await.expect("a reply");
        assert!([201, 409].contains(&created.status.as_u16()), "{}", created.body);
    }
    keeper
}

async fn sign(api: &Api, key_id: &str) -> std::io::Result<Reply> {
    api.sign(key_id, json!({ "payload": { "type": "message", "message": "0x6869" } })).await
}

fn address(scene: &Scene) -> SocketAddr {
    scene.stack.url.trim_start_matches("https://").parse().expect("an address")
}

fn log(scene: &Scene) -> String {
    std::fs::read_to_string(scene.stack.directory().join("parent.log")).expect("a log")
}
