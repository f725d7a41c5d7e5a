//! What callers send in bodies, paths and queries.

use reqwest::Method;
use serde_json::{Value, json};
use strongroom_protocol::document::AttestationDocument;
use strongroom_tests::api::{Api, Reply};

use super::wire::Wire;
use super::{OPEN, assert_ok, assert_problem, header, with_key};
use crate::scene::eventually;

const DIGEST: &str = "0x9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0";

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let (_scene, api) = OPEN.enter().await;
    for (name, body) in [
        ("empty", &b""[..]),
        ("not_json", b"payload"),
        ("unfinished", b"{\"payload\":"),
        ("missing_value", b"{\"payload\":}"),
        ("trailing_text", b"{} {}"),
        ("not_utf8", b"{\"payload\":\"\xff\"}"),
        ("nested_for_ever", &[b'['; 100_000]),
    ] {
        for path in ["/v1/keys", "/v1/keys/anything/sign", "/v1/keys/anything/sign-batch"] {
            let reply = post_raw(&api, path, body.to_vec()).await;
            assert_problem(name, &reply, 400, "malformed-json");
        }
    }
}

#[tokio::test]
async fn json_of_another_form_is_no_sign_request() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "form", "secp256k1").await;
    let message = r#"{"type":"message","message":"00","hash":"sha256"}"#;
    for (name, body) in [
        ("null", "null".to_owned()),
        ("text", "\"payload\"".to_owned()),
        ("array_of_the_fields_values", format!("[{message},\"ecdsa\"]")),
        ("no_payload", "{}".to_owned()),
        ("payload_null", r#"{"payload":null}"#.to_owned()),
        ("unknown_field", format!(r#"{{"payload":{message},"chain_id":1}}"#)),
        ("unknown_field_of_the_payload", r#"{"payload":{"type":"digest","digest":"DIGEST","v":27}}"#.to_owned()),
        ("field_of_another_type", r#"{"payload":{"type":"digest","digest":"DIGEST","hash":"sha256"}}"#.to_owned()),
        ("duplicate_field", format!(r#"{{"payload":{message},"payload":{message}}}"#)),
        ("duplicate_scheme", format!(r#"{{"payload":{message},"scheme":"ecdsa","scheme":"bip340"}}"#)),
        ("duplicate_type", r#"{"payload":{"type":"message","type":"digest","digest":"DIGEST"}}"#.to_owned()),
        ("duplicate_digest", r#"{"payload":{"type":"digest","digest":"DIGEST","digest":"DIGEST"}}"#.to_owned()),
        (
            "duplicate_message",
            r#"{"payload":{"type":"message","message":"00","message":"01","hash":"sha256"}}"#.to_owned(),
        ),
        ("no_type", r#"{"payload":{"digest":"DIGEST"}}"#.to_owned()),
        ("unknown_type", r#"{"payload":{"type":"transaction","digest":"DIGEST"}}"#.to_owned()),
        ("payload_is_a_list", r#"{"payload":["digest","DIGEST"]}"#.to_owned()),
        ("digest_is_a_number", r#"{"payload":{"type":"digest","digest":12}}"#.to_owned()),
        ("digest_is_a_list", r#"{"payload":{"type":"digest","digest":[1,2]}}"#.to_owned()),
        ("message_is_null", r#"{"payload":{"type":"message","message":null,"hash":"sha256"}}"#.to_owned()),
        ("no_message", r#"{"payload":{"type":"message","hash":"sha256"}}"#.to_owned()),
        ("unknown_hash", r#"{"payload":{"type":"message","message":"00","hash":"sha3"}}"#.to_owned()),
        ("hash_in_capitals", r#"{"payload":{"type":"message","message":"00","hash":"SHA256"}}"#.to_owned()),
        ("unknown_scheme", format!(r#"{{"payload":{message},"scheme":"schnorr"}}"#)),
        ("scheme_is_a_number", format!(r#"{{"payload":{message},"scheme":1}}"#)),
    ] {
        let reply = post_raw(&api, "/v1/keys/form/sign", body.replace("DIGEST", DIGEST).into_bytes()).await;
        assert_problem(name, &reply, 422, "invalid-request");
    }
}

#[tokio::test]
async fn hex_that_is_none_or_of_another_length_is_refused() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "hex", "secp256k1").await;
    let digits = &DIGEST[2..];
    for (name, digest) in [
        ("empty", String::new()),
        ("prefix_only", "0x".to_owned()),
        ("odd", digits[1..].to_owned()),
        ("short", digits[2..].to_owned()),
        ("long", format!("{digits}00")),
        ("twice_the_prefix", format!("0x{DIGEST}")),
        ("not_hex", format!("{}zz", &digits[2..])),
        ("white_space", format!(" {DIGEST}")),
        ("line_break", format!("{DIGEST}\n")),
        ("fullwidth_digits", "\u{ff11}".repeat(64)),
        ("base64", "mDSHbc+wXLFnpcJJU+uljErImxrfV/KPL50JrxB+6PA=".to_owned()),
    ] {
        let reply = sign(&api, "hex", json!({ "type": "digest", "digest": digest })).await;
        assert_problem(name, &reply, 422, "invalid-request");
    }
    for (name, message) in [("odd", "0"), ("not_hex", "0xgg"), ("white_space", "00 11"), ("twice_the_prefix", "0x0x00")]
    {
        let reply = sign(&api, "hex", json!({ "type": "message", "message": message, "hash": "sha256" })).await;
        assert_problem(name, &reply, 422, "invalid-request");
    }
}

#[tokio::test]
async fn hex_is_read_in_any_case_with_or_without_its_prefix() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "case", "secp256k1").await;
    let mut signatures = std::collections::BTreeSet::new();
    let digits = &DIGEST[2..];
    for digest in [DIGEST, digits, &digits.to_uppercase(), &format!("0X{}", digits.to_uppercase())] {
        let reply = sign(&api, "case", json!({ "type": "digest", "digest": digest })).await;
        assert_ok(digest, &reply);
        signatures.insert(reply.text("signature").to_owned());
    }
    // RFC 6979: the same digest, the same signature. Written as the contract says.
    assert_eq!(signatures.len(), 1);
    let signature = signatures.first().expect("one");
    assert!(signature.starts_with("0x") && signature.len() == 130 && *signature == signature.to_lowercase());
}

#[tokio::test]
async fn payloads_that_do_not_fit_the_key_are_refused() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "fit-secp256k1", "secp256k1").await;
    with_key(&api, "fit-ed25519", "ed25519").await;
    let digest = json!({ "type": "digest", "digest": DIGEST });
    let hashed = json!({ "type": "message", "message": "0x00", "hash": "sha256" });
    let plain = json!({ "type": "message", "message": "0x00" });
    for (name, key_id, payload, scheme) in [
        ("ed25519_with_a_secp256k1_key", "fit-secp256k1", &hashed, Some("ed25519")),
        ("no_hash", "fit-secp256k1", &plain, None),
        ("bip340_without_a_hash", "fit-secp256k1", &plain, Some("bip340")),
        ("ecdsa_with_an_ed25519_key", "fit-ed25519", &plain, Some("ecdsa")),
        ("bip340_with_an_ed25519_key", "fit-ed25519", &plain, Some("bip340")),
        ("digest_for_ed25519", "fit-ed25519", &digest, None),
        ("hash_for_ed25519", "fit-ed25519", &hashed, None),
    ] {
        let reply = api.sign(key_id, json!({ "payload": payload, "scheme": scheme })).await.expect("a reply");
        assert_problem(name, &reply, 422, "invalid-request");
    }
    for (key_id, payload, scheme) in [
        ("fit-secp256k1", &digest, "ecdsa"),
        ("fit-secp256k1", &digest, "bip340"),
        ("fit-secp256k1", &hashed, "bip340"),
        ("fit-ed25519", &plain, "ed25519"),
    ] {
        let reply = api.sign(key_id, json!({ "payload": payload, "scheme": scheme })).await.expect("a reply");
        assert_ok(scheme, &reply);
        assert_eq!(reply.body.get("recovery_id").is_some(), scheme == "ecdsa", "{scheme}: {}", reply.body);
    }
}

#[tokio::test]
async fn a_policy_without_digests_denies_digests() {
    let (_scene, api) = OPEN.enter().await;
    let create = json!({ "key_id": "messages-only", "algorithm": "secp256k1" });
    let key = api.post("/v1/keys", create).await.expect("a reply");
    assert_eq!(key.body["policy"], json!({ "payloads": ["message"], "hold_seconds": 0 }), "written out");
    let reply = sign(&api, "messages-only", json!({ "type": "digest", "digest": DIGEST })).await;
    assert_problem("digest", &reply, 403, "policy-denied");
    let reply = sign(&api, "messages-only", json!({ "type": "message", "message": "0x", "hash": "keccak256" })).await;
    assert_ok("message", &reply);
}

#[tokio::test]
async fn json_of_another_form_is_no_create_request() {
    let (_scene, api) = OPEN.enter().await;
    let other_kms_key = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let policy = |policy: Value| json!({ "key_id": "new", "algorithm": "ed25519", "policy": policy });
    for (name, body, slug) in [
        ("no_algorithm", json!({ "key_id": "new" }), "invalid-request"),
        ("no_key_id", json!({ "algorithm": "ed25519" }), "invalid-request"),
        ("unknown_algorithm", json!({ "key_id": "new", "algorithm": "p256" }), "invalid-request"),
        ("unknown_field", json!({ "key_id": "new", "algorithm": "ed25519", "exportable": true }), "invalid-request"),
        ("a_secret", json!({ "key_id": "new", "algorithm": "ed25519", "secret": "00" }), "invalid-request"),
        ("no_payloads", policy(json!({ "payloads": [] })), "invalid-request"),
        ("payload_twice", policy(json!({ "payloads": ["message", "message"] })), "invalid-request"),
        ("unknown_payload", policy(json!({ "payloads": ["transaction"] })), "invalid-request"),
        ("payloads_missing", policy(json!({ "hold_seconds": 1 })), "invalid-request"),
        ("negative_hold", policy(json!({ "payloads": ["message"], "hold_seconds": -1 })), "invalid-request"),
        ("hold_of_a_half", policy(json!({ "payloads": ["message"], "hold_seconds": 0.5 })), "invalid-request"),
        (
            "hold_beyond_32_bits",
            policy(json!({ "payloads": ["message"], "hold_seconds": 1_u64 << 32 })),
            "invalid-request",
        ),
        ("unknown_policy_field", policy(json!({ "payloads": ["message"], "max_value": 1 })), "invalid-request"),
        ("kms_alias", create_under("alias/hot"), "invalid-request"),
        ("kms_key_id_alone", create_under("1234abcd-12ab-34cd-56ef-1234567890ab"), "invalid-request"),
        ("kms_key_not_configured", create_under(other_kms_key), "kms-key-not-configured"),
    ] {
        let reply = api.post("/v1/keys", body).await.expect("a reply");
        assert_problem(name, &reply, 422, slug);
    }
    assert_problem("nothing_was_made", &api.get("/v1/keys/new").await.expect("a reply"), 404, "key-not-found");
}

fn create_under(kms_key_arn: &str) -> Value {
    json!({ "key_id": "new", "algorithm": "ed25519", "kms_key_arn": kms_key_arn })
}

#[tokio::test]
async fn key_ids_outside_the_grammar_are_refused_in_bodies_and_paths() {
    let (scene, api) = OPEN.enter().await;
    let long = "x".repeat(65);
    for key_id in
        ["", ".", "..", ".hidden", "-a", "_a", "a/b", "../a", "a b", "a\0", "a\n", "ä", "K\u{212a}", "a*", &long]
    {
        let body = json!({ "key_id": key_id, "algorithm": "ed25519" });
        assert_problem(key_id, &api.post("/v1/keys", body).await.expect("a reply"), 422, "invalid-request");
    }
    let wire = Wire::of(&scene.stack.url);
    for segment in [
        ".",
        "..",
        "%2e%2e",
        "%2E",
        "a%2fb",
        "..%2f..%2fetc%2fpasswd",
        "%00",
        "a%00",
        "%ff",
        "a%0d%0ax",
        "a%20b",
        "%c3%a4",
        "a%252fb",
        "-a",
        "a*",
        "a;b",
        "a,b",
        "a@b",
        "a:b",
        "%",
        &long,
    ] {
        for (method, rest) in [("GET", ""), ("POST", "/sign"), ("GET", "/attestation?nonce=00")] {
            let reply = wire.call(method, &format!("/v1/keys/{segment}{rest}")).await;
            assert_problem(segment, &reply, 422, "invalid-request");
        }
    }
    for key_id in ["0", "A.b_c-d", &"x".repeat(64)] {
        let reply = api.get(&format!("/v1/keys/{key_id}")).await.expect("a reply");
        assert_problem(key_id, &reply, 404, "key-not-found");
    }
}

#[tokio::test]
async fn unknown_and_existing_keys_have_their_own_problems() {
    let (scene, api) = OPEN.enter().await;
    let sign_unknown = sign(&api, "unknown", json!({ "type": "message", "message": "00" })).await;
    assert_problem("sign", &sign_unknown, 404, "key-not-found");
    assert_problem("show", &api.get("/v1/keys/unknown").await.expect("a reply"), 404, "key-not-found");
    let attest = api.get("/v1/keys/unknown/attestation?nonce=00").await.expect("a reply");
    assert_problem("attest", &attest, 404, "key-not-found");

    with_key(&api, "existing", "ed25519").await;
    let before = scene.stored("existing");
    for algorithm in ["ed25519", "secp256k1"] {
        let again =
            api.post("/v1/keys", json!({ "key_id": "existing", "algorithm": algorithm })).await.expect("a reply");
        assert_problem(algorithm, &again, 409, "key-exists");
    }
    assert_eq!(scene.stored("existing"), before, "never overwritten");
}

#[tokio::test]
async fn a_disabled_key_does_not_sign_and_says_so() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "disabled", "ed25519").await;
    let payload = json!({ "type": "message", "message": "00" });
    let original = scene.tamper("disabled", |record| record["state"] = "disabled".into());
    assert_problem("disabled", &sign(&api, "disabled", payload.clone()).await, 403, "key-disabled");
    scene.store("disabled", &original);
    assert_ok("enabled", &sign(&api, "disabled", payload).await);
}

#[tokio::test]
async fn routes_and_methods_that_do_not_exist_are_problems_too() {
    let (scene, _api) = OPEN.enter().await;
    let wire = Wire::of(&scene.stack.url);
    for (method, path) in [
        ("GET", "/"),
        ("POST", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/keys"),
        ("GET", "/v1/keys/"),
        ("GET", "/v1/keys/a/"),
        ("GET", "//v1/keys"),
        ("GET", "/v1/./keys"),
        ("GET", "/V1/KEYS"),
        ("POST", "/v1/keys/a/b/sign"),
        ("GET", "/metrics"),
        ("POST", "/api/v1/eth1/sign/00"),
        ("POST", "/v1/transit/sign/a"),
        ("GET", "/.well-known/x"),
    ] {
        assert_problem(path, &wire.call(method, path).await, 404, "not-found");
    }
    for (method, path) in [
        ("DELETE", "/v1/keys"),
        ("PUT", "/v1/keys/a"),
        ("PATCH", "/v1/keys/a"),
        ("GET", "/v1/keys/a/sign"),
        ("GET", "/v1/keys/a/sign-batch"),
        ("POST", "/v1/attestation"),
        ("POST", "/healthz"),
        ("PATCH", "/openapi.json"),
    ] {
        let reply = wire.call(method, path).await;
        assert_problem(path, &reply, 405, "method-not-allowed");
        // RFC 9110 section 15.5.6.
        assert!(!header(&reply, "allow").is_empty(), "{method} {path}: no Allow");
    }
}

#[tokio::test]
async fn a_nonce_has_one_to_512_bytes_of_hex_and_stands_alone() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "nonce", "ed25519").await;
    for route in ["/v1/attestation", "/v1/keys/nonce/attestation"] {
        for (name, query) in [
            ("missing", String::new()),
            ("empty", "?nonce=".to_owned()),
            ("prefix_only", "?nonce=0x".to_owned()),
            ("odd", "?nonce=0x1".to_owned()),
            ("not_hex", "?nonce=zz".to_owned()),
            ("too_long", format!("?nonce={}", "00".repeat(513))),
            ("twice", "?nonce=00&nonce=01".to_owned()),
            ("public_key", "?nonce=00&public_key=00".to_owned()),
            ("user_data", "?nonce=00&user_data=00".to_owned()),
        ] {
            let reply = api.get(&format!("{route}{query}")).await.expect("a reply");
            assert_problem(name, &reply, 422, "invalid-request");
        }
        for nonce in [vec![0], vec![0xa5; 512]] {
            let reply = api.get(&format!("{route}?nonce=0X{}", hex::encode_upper(&nonce))).await.expect("a reply");
            assert_ok(route, &reply);
            let payload = document(&reply).payload;
            assert_eq!(payload.nonce.as_deref(), Some(&nonce[..]), "verbatim");
            assert!(payload.public_key.is_none(), "{route}: evidence has no public key");
        }
    }
}

fn document(reply: &Reply) -> AttestationDocument {
    use base64::Engine as _;
    let document = base64::engine::general_purpose::STANDARD.decode(reply.text("document")).expect("base64");
    AttestationDocument::parse(&document).expect("a document")
}

#[tokio::test]
async fn pages_have_a_limit_and_a_cursor_that_was_given_out() {
    let (_scene, api) = OPEN.enter().await;
    for n in 0..3 {
        with_key(&api, &format!("page-{n}"), "ed25519").await;
    }
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=1.5",
        "limit=x",
        "limit=",
        "cursor=..%2fa",
        "offset=1",
        "limit=1&limit=2",
    ] {
        let reply = api.get(&format!("/v1/keys?{query}")).await.expect("a reply");
        assert_problem(query, &reply, 422, "invalid-request");
    }
    let mut seen = Vec::new();
    let mut query = "limit=1".to_owned();
    loop {
        let page = api.get(&format!("/v1/keys?{query}")).await.expect("a reply");
        assert_ok(&query, &page);
        let keys = page.body["keys"].as_array().expect("keys");
        assert!(keys.len() <= 1);
        seen.extend(keys.iter().map(|key| key["key_id"].as_str().expect("an id").to_owned()));
        match page.body.get("next_cursor").and_then(Value::as_str) {
            Some(cursor) => query = format!("limit=1&cursor={cursor}"),
            None => break,
        }
    }
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(seen, once, "each key once, in order");
    for n in 0..3 {
        assert!(seen.contains(&format!("page-{n}")), "{seen:?}");
    }
}

#[tokio::test]
async fn a_body_says_that_it_is_json() {
    let (_scene, api) = OPEN.enter().await;
    with_key(&api, "media", "ed25519").await;
    let body = r#"{"payload":{"type":"message","message":"00"}}"#;
    let send = async |media_type: Option<&str>| {
        let request = api.request(Method::POST, "/v1/keys/media/sign").body(body);
        let request = media_type.into_iter().fold(request, |request, value| request.header("content-type", value));
        Reply::to(request).await.expect("a reply")
    };
    for media_type in
        [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("application/jsonp"), Some("")]
    {
        assert_problem("media type", &send(media_type).await, 415, "unsupported-media-type");
    }
    for media_type in ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON"] {
        assert_ok(media_type, &send(Some(media_type)).await);
    }
}

#[tokio::test]
async fn a_body_beyond_two_mebibytes_is_too_large_and_its_sender_reads_that() {
    let (_scene, api) = OPEN.enter().await;
    let limit = 2 * 1024 * 1024;
    // White space is JSON's, so a body of exactly the limit is read to its end.
    let fits = post_raw(&api, "/v1/keys", [b"{}", &vec![b' '; limit - 2][..]].concat()).await;
    assert_problem("two mebibytes", &fits, 422, "invalid-request");
    for length in [limit + 1, 3 * 1024 * 1024] {
        let reply = post_raw(&api, "/v1/keys", vec![b' '; length]).await;
        assert_problem(&length.to_string(), &reply, 413, "body-too-large");
    }
    assert_ok("afterwards", &api.get("/v1/keys").await.expect("a reply"));
}

#[tokio::test]
async fn a_request_has_the_callers_id_or_a_new_one() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "named", "ed25519").await;
    let send = async |id: &str| {
        let body = json!({ "payload": { "type": "message", "message": "00" } });
        let request = api.request(Method::POST, "/v1/keys/named/sign").header("x-request-id", id).json(&body);
        Reply::to(request).await.expect("a reply")
    };
    for id in ["a", "order-17_b.2", &"x".repeat(64)] {
        let reply = send(id).await;
        assert_eq!((header(&reply, "x-request-id"), reply.text("request_id")), (id, id));
    }
    let mut made = std::collections::BTreeSet::new();
    for id in ["", "a b", "a\"b", "{x}", "a,b", &"x".repeat(65)] {
        let reply = send(id).await;
        assert_eq!(header(&reply, "x-request-id"), reply.text("request_id"));
        let digits = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        assert!(reply.text("request_id").len() == 32 && reply.text("request_id").bytes().all(digits), "{id:?}");
        made.insert(reply.text("request_id").to_owned());
    }
    assert_eq!(made.len(), 6, "each request its own");
    let names = async || {
        let log = std::fs::read_to_string(scene.stack.directory().join("parent.log")).expect("a log");
        log.contains("order-17_b.2") && made.iter().all(|id| log.contains(id))
    };
    eventually("the log names the requests", names).await;
}

async fn sign(api: &Api, key_id: &str, payload: Value) -> Reply {
    api.sign(key_id, json!({ "payload": payload })).await.expect("a reply")
}

async fn post_raw(api: &Api, path: &str, body: Vec<u8>) -> Reply {
    let request = api.request(Method::POST, path).header("content-type", "application/json").body(body);
    Reply::to(request).await.expect("a reply")
}
