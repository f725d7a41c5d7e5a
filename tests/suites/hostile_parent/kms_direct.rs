//! The parent's role at KMS itself, past the enclave: he has its credentials and may ask what he likes.

use std::net::IpAddr;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};
use strongroom_tests::mock_kms::{Principal, TLS_ROOT_FILE};
use strongroom_tests::stack::{ACCESS_KEY_ID, ADMINISTRATOR_ARN, KMS_HOST, REGION, SECRET_ACCESS_KEY, Stack};

/// A plain SDK client with the parent's credentials.
pub(super) fn as_parent(stack: &Stack) -> Client {
    client(stack, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
}

/// The same with those of the key administrator.
pub(super) async fn as_administrator(stack: &Stack) -> Client {
    let (id, secret) = ("AKIAADMINISTRATOR001", "test-only/administrator");
    let administrator = Principal {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
        arn: ADMINISTRATOR_ARN.to_owned(),
        expires_at_ms: None,
    };
    stack.control.add_principal(&administrator).await.expect("added");
    client(stack, id, secret)
}

fn client(stack: &Stack, id: &str, secret: &str) -> Client {
    let root = std::fs::read(stack.directory().join("kms").join(TLS_ROOT_FILE)).expect("the TLS root");
    let trust = TrustStore::empty().with_pem_certificate(root);
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(TlsContext::builder().with_trust_store(trust).build().expect("a TLS context"))
        .build_with_resolver(Loopback);
    Client::from_conf(
        Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(Credentials::new(id, secret, None, None, "test"))
            .endpoint_url(format!("https://{KMS_HOST}:{}", stack.kms_address().port()))
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .build(),
    )
}

#[derive(Debug, Clone)]
struct Loopback;

impl ResolveDns for Loopback {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![IpAddr::from([127, 0, 0, 1])]))
    }
}
