//! Whom a client certificate speaks for: its first DNS name and nobody else; and what a token beside it
//! means.

use std::time::{Duration, SystemTime};

use rcgen::{SanType, string::Ia5String};
use strongroom_tests::api::Reply;
use strongroom_tests::pki::client_spec;
use tokio::time::sleep;

use super::{OPTIONAL, REQUIRED, TOKEN, caller, keeper, log, named, pki, sign};
use crate::scene::{assert_problem, eventually};

fn ia5(text: &str) -> Ia5String {
    Ia5String::try_from(text).expect("ASCII")
}

#[tokio::test]
async fn a_certificates_identity_has_its_operations_and_patterns_and_no_others() {
    for shared in [&REQUIRED, &OPTIONAL] {
        let (scene, _) = shared.enter().await;
        keeper(&scene, &["hot-1", "cold-1"]).await;
        let payments = named(&scene, &["payments.internal"]);
        assert_eq!(sign(&payments, "hot-1").await.expect("a reply").status, 200);
        for key_id in ["cold-1", "unknown"] {
            assert_problem(&sign(&payments, key_id).await.expect("a reply"), 403, "forbidden");
        }
        for path in ["/v1/keys", "/v1/keys/hot-1", "/v1/attestation?nonce=00"] {
            assert_problem(&payments.get(path).await.expect("a reply"), 403, "forbidden");
        }
        let create = serde_json::json!({ "key_id": "hot-2", "algorithm": "ed25519" });
        assert_problem(&payments.post("/v1/keys", create).await.expect("a reply"), 403, "forbidden");
        eventually("the log names who called", async || log(&scene).contains("\"identity\":\"payments\"")).await;
    }
}

#[tokio::test]
async fn the_first_dns_name_counts_whole_and_in_any_case() {
    let (scene, _) = REQUIRED.enter().await;
    keeper(&scene, &["hot-1"]).await;
    for (names, expected) in [
        (vec!["payments.internal"], 200),
        (vec!["PAYMENTS.internal"], 200),
        // The first of two; an address is no DNS name.
        (vec!["payments.internal", "stranger.internal"], 200),
        (vec!["10.0.0.1", "payments.internal"], 200),
        (vec!["stranger.internal"], 401),
        (vec!["stranger.internal", "payments.internal"], 401),
        (vec!["*.internal"], 401),
        (vec!["*.internal", "payments.internal"], 401),
        (vec!["x.payments.internal"], 401),
        (vec!["internal"], 401),
        (vec!["payments"], 401),
    ] {
        let reply = sign(&named(&scene, &names), "hot-1").await.expect("a reply");
        assert_eq!(reply.status.as_u16(), expected, "{names:?}: {}", reply.body);
        if expected == 401 {
            assert_problem(&reply, 401, "unauthorized");
            assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"strongroom\"");
        }
    }
}

#[tokio::test]
async fn a_certificate_without_a_dns_name_speaks_for_nobody() {
    let (scene, _) = REQUIRED.enter().await;
    keeper(&scene, &["hot-1"]).await;
    let uri = SanType::URI(ia5("spiffe://payments.internal"));
    let mail = SanType::Rfc822Name(ia5("payments@payments.internal"));
    for (name, alternatives) in [
        ("only_a_subject", vec![]),
        ("address", vec![SanType::IpAddress([127, 0, 0, 1].into())]),
        ("uri_and_mail", vec![uri, mail]),
        ("trailing_dot", vec![SanType::DnsName(ia5("payments.internal."))]),
        ("nul", vec![SanType::DnsName(ia5("payments.internal\0.evil"))]),
        ("empty", vec![SanType::DnsName(ia5(""))]),
    ] {
        // The subject's common name is the right one.
        let mut spec = client_spec(&["payments.internal"]);
        spec.params.subject_alt_names = alternatives;
        let api = caller(&scene, Some(&pki(&scene).clients.pair(&spec)));
        // Whether such a name is refused in the handshake or afterwards is all the same.
        match sign(&api, "hot-1").await {
            Ok(reply) => assert_problem(&reply, 401, "unauthorized"),
            Err(error) => assert!(["empty", "nul"].contains(&name), "{name}: {error}"),
        }
        if name == "only_a_subject" {
            let reply = api.with_token(TOKEN).get("/v1/keys").await.expect("a reply");
            assert_eq!(reply.status, 200, "{name}: a token needs no name");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_expires_speaks_for_nobody_on_open_connections_either() {
    let (scene, _) = REQUIRED.enter().await;
    keeper(&scene, &["hot-1"]).await;
    let mut spec = client_spec(&["payments.internal"]);
    spec.params.not_after = (SystemTime::now() + Duration::from_secs(10)).into();
    let payments = caller(&scene, Some(&pki(&scene).clients.pair(&spec)));
    let mut reply = sign(&payments, "hot-1").await.expect("a connection");
    assert_eq!(reply.status, 200, "{}", reply.body);
    // That there is a reply at all shows that the connection is still the first: no new one would be made.
    while reply.status == 200 {
        sleep(Duration::from_millis(100)).await;
        reply = sign(&payments, "hot-1").await.expect("the same connection");
    }
    assert_problem(&reply, 401, "unauthorized");
}

#[tokio::test]
async fn a_token_is_judged_alone_whatever_the_certificate() {
    for shared in [&REQUIRED, &OPTIONAL] {
        let (scene, _) = shared.enter().await;
        let keeper = keeper(&scene, &["hot-1"]).await;
        let get = async |values: &[&str]| {
            let mut request = keeper.request(reqwest::Method::GET, "/v1/keys");
            for value in values {
                request = request.header("authorization", *value);
            }
            Reply::to(request).await.expect("a reply")
        };
        assert_eq!(get(&[]).await.status, 200);
        let good = format!("Bearer {TOKEN}");
        for wrong in [
            vec!["Bearer srt_unknown"],
            vec!["Bearer "],
            vec![""],
            vec!["Basic a2VlcGVyOg=="],
            vec![&good, "Bearer srt_unknown"],
            vec![&good, &good],
        ] {
            assert_problem(&get(&wrong).await, 401, "unauthorized");
        }
        // The robot may read and nothing else, also over the keeper's connection.
        let robot = keeper.with_token(TOKEN);
        assert_eq!(robot.get("/v1/keys").await.expect("a reply").status, 200);
        assert_problem(&sign(&robot, "hot-1").await.expect("a reply"), 403, "forbidden");
        let stranger = named(&scene, &["stranger.internal"]);
        assert_problem(&stranger.get("/v1/keys").await.expect("a reply"), 401, "unauthorized");
        assert_eq!(stranger.with_token(TOKEN).get("/v1/keys").await.expect("a reply").status, 200);
    }
}
