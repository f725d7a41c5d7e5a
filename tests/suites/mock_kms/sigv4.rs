//! Requests signed wrong in each way, made by hand: a plain SDK client cannot be made to.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::{Certificate, StatusCode};
use serde_json::Value;
use strongroom_tests::mock_kms::Principal;

use super::running::{ACCESS_KEY_ID, HOST, MockKms, REGION, SECRET_ACCESS_KEY, SESSION, milliseconds_since_1970};

/// A request for random bytes, right in every respect until a test changes one.
struct Forger<'a> {
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: Option<&'a str>,
    region: &'a str,
    service: &'a str,
    at: SystemTime,
    target: &'a str,
    body: &'a str,
    /// Sent in place of the body that was signed.
    body_sent: Option<&'a str>,
    /// Changes the `Authorization` header after signing; `None` leaves the header out.
    authorization: fn(String) -> Option<String>,
}

impl Default for Forger<'_> {
    fn default() -> Self {
        Self {
            access_key_id: ACCESS_KEY_ID,
            secret_access_key: SECRET_ACCESS_KEY,
            session_token: None,
            region: REGION,
            service: "kms",
            at: SystemTime::now(),
            target: "TrentService.GenerateRandom",
            body: r#"{"NumberOfBytes":32}"#,
            body_sent: None,
            authorization: Some,
        }
    }
}

impl Forger<'_> {
    /// Sends the request; returns the status and the reply's JSON.
    async fn send(&self, kms: &MockKms) -> (StatusCode, Value) {
        let authority = format!("{HOST}:{}", kms.endpoint.kms.port());
        let headers = [
            ("host", authority.as_str()),
            ("content-type", "application/x-amz-json-1.1"),
            ("x-amz-target", self.target),
        ];
        let identity = Credentials::new(
            self.access_key_id,
            self.secret_access_key,
            self.session_token.map(Into::into),
            None,
            "test",
        )
        .into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(self.at)
            .settings(SigningSettings::default())
            .build()
            .expect("parameters");
        let body = SignableBody::Bytes(self.body.as_bytes());
        let request = SignableRequest::new("POST", "/", headers.into_iter(), body).expect("a request");
        let (signing, _) = sign(request, &params.into()).expect("signed").into_parts();

        let mut request =
            client(kms).post(format!("https://{authority}/")).body(self.body_sent.unwrap_or(self.body).to_owned());
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        for (name, value) in signing.headers() {
            let value =
                if name == "authorization" { (self.authorization)(value.to_owned()) } else { Some(value.to_owned()) };
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request.send().await.expect("answered");
        assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.1");
        assert_eq!(response.headers()["x-amzn-requestid"].len(), 36);
        (response.status(), response.json().await.expect("JSON"))
    }

    async fn expect(&self, kms: &MockKms, name: &str, code: &str) {
        let (status, reply) = self.send(kms).await;
        assert_eq!((status, reply["__type"].as_str()), (StatusCode::BAD_REQUEST, Some(code)), "{name}: {reply}");
    }
}

fn client(kms: &MockKms) -> reqwest::Client {
    let root = Certificate::from_pem(&kms.tls_root()).expect("a certificate");
    reqwest::Client::builder().tls_certs_only([root]).resolve(HOST, kms.endpoint.kms).build().expect("a client")
}

#[tokio::test]
async fn a_request_signed_by_hand_is_accepted() {
    let kms = MockKms::start().await;
    let (status, reply) = Forger::default().send(&kms).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    assert!(reply["Plaintext"].is_string());
}

#[tokio::test]
async fn wrong_signatures_are_refused_by_name() {
    let kms = MockKms::start().await;
    let now = SystemTime::now();
    let minutes = |n: u64| Duration::from_secs(n * 60);
    let row = Forger::default;
    for (name, code, forger) in [
        ("no_authorization", "MissingAuthenticationTokenException", Forger { authorization: |_| None, ..row() }),
        (
            "unknown_access_key",
            "UnrecognizedClientException",
            Forger { access_key_id: "AKIAI44QH8DHBEXAMPLE", ..row() },
        ),
        ("uninvited_session_token", "UnrecognizedClientException", Forger { session_token: Some("x"), ..row() }),
        ("wrong_secret", "InvalidSignatureException", Forger { secret_access_key: "wrong", ..row() }),
        ("wrong_region", "InvalidSignatureException", Forger { region: "us-east-1", ..row() }),
        ("wrong_service", "InvalidSignatureException", Forger { service: "s3", ..row() }),
        ("too_old", "InvalidSignatureException", Forger { at: now - minutes(6), ..row() }),
        ("too_early", "InvalidSignatureException", Forger { at: now + minutes(6), ..row() }),
        ("body_changed", "InvalidSignatureException", Forger { body_sent: Some(r#"{"NumberOfBytes":33}"#), ..row() }),
        (
            "signature_changed",
            "InvalidSignatureException",
            Forger { authorization: |it| Some(it.replace("Signature=", "Signature=0")), ..row() },
        ),
        (
            "host_not_signed",
            "InvalidSignatureException",
            Forger { authorization: |it| Some(it.replace("host;", "")), ..row() },
        ),
        (
            "target_not_signed",
            "InvalidSignatureException",
            Forger { authorization: |it| Some(it.replace(";x-amz-target", "")), ..row() },
        ),
        (
            "no_signed_headers",
            "IncompleteSignatureException",
            Forger { authorization: |it| Some(it.replace("SignedHeaders", "Headers")), ..row() },
        ),
        (
            "other_algorithm",
            "IncompleteSignatureException",
            Forger { authorization: |it| Some(it.replace("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256")), ..row() },
        ),
    ] {
        forger.expect(&kms, name, code).await;
    }
    for (name, at) in [("nearly_too_old", now - minutes(4)), ("nearly_too_early", now + minutes(4))] {
        assert_eq!(Forger { at, ..row() }.send(&kms).await.0, StatusCode::OK, "{name}");
    }
}

#[tokio::test]
async fn sessions_need_their_token_and_end() {
    let kms = MockKms::start().await;
    let principal = Principal {
        access_key_id: "ASIAIOSFODNN7EXAMPLE".to_owned(),
        secret_access_key: "another secret".to_owned(),
        session_token: Some("a token".to_owned()),
        arn: SESSION.to_owned(),
        expires_at_ms: Some(milliseconds_since_1970(SystemTime::now() + Duration::from_secs(3600))),
    };
    kms.control.add_principal(&principal).await.expect("added");
    let with = |session_token| Forger {
        access_key_id: "ASIAIOSFODNN7EXAMPLE",
        secret_access_key: "another secret",
        session_token,
        ..Forger::default()
    };
    assert_eq!(with(Some("a token")).send(&kms).await.0, StatusCode::OK);
    with(None).expect(&kms, "token_missing", "UnrecognizedClientException").await;
    with(Some("another")).expect(&kms, "token_of_another", "UnrecognizedClientException").await;
    kms.control.expire_principal(&principal.access_key_id).await.expect("expired");
    with(Some("a token")).expect(&kms, "session_over", "ExpiredTokenException").await;
    kms.control.remove_principal(&principal.access_key_id).await.expect("removed");
    with(Some("a token")).expect(&kms, "principal_removed", "UnrecognizedClientException").await;
}

#[tokio::test]
async fn what_is_no_action_is_no_operation() {
    let kms = MockKms::start().await;
    for target in ["TrentService.Sign", "TrentService.", "Decrypt", "DynamoDB.Decrypt"] {
        Forger { target, ..Forger::default() }.expect(&kms, target, "UnknownOperationException").await;
    }
}

#[tokio::test]
async fn what_is_not_the_actions_json_is_refused() {
    let kms = MockKms::start().await;
    for body in ["", "{", "[]", r#"{"NumberOfBytes":"1"}"#, r#"{"NumberOfBytes":-1}"#] {
        Forger { body, ..Forger::default() }.expect(&kms, body, "SerializationException").await;
    }
}
