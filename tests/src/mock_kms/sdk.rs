//! A plain KMS client as anybody has one: aws-sdk-kms over TLS, to a mock-kms on loopback that answers
//! to KMS's name. What is asked with it, and as whom, is the suites' matter.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Config, Credentials, Region};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns};

use super::TLS_ROOT_FILE;
use crate::stack::{KMS_HOST, REGION};

/// A client of the mock-kms at `address` whose state is in `state`. It asks once and waits five seconds.
///
/// # Errors
/// mock-kms has not written its TLS root yet.
pub fn sdk_client(address: SocketAddr, state: &Path, credentials: Credentials) -> io::Result<Client> {
    let trust = TrustStore::empty().with_pem_certificate(std::fs::read(state.join(TLS_ROOT_FILE))?);
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(TlsContext::builder().with_trust_store(trust).build().map_err(io::Error::other)?)
        .build_with_resolver(Loopback);
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(REGION))
        .credentials_provider(credentials)
        // The name in the certificate, so that the client's check of it is real.
        .endpoint_url(format!("https://{KMS_HOST}:{}", address.port()))
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(TIMEOUT).build())
        .build();
    Ok(Client::from_conf(config))
}

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
struct Loopback;

impl ResolveDns for Loopback {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::ready(Ok(vec![IpAddr::from([127, 0, 0, 1])]))
    }
}
