//! Whether KMS refuses what an attacker on this host would try: to use a key of ours without an attestation document. A dry
//! run, which makes nothing. The only file of this crate that speaks to KMS itself.

use std::net::IpAddr;

use aws_config::SdkConfig;
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Config;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::error::ProvideErrorMetadata as _;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use strongroom_protocol::KmsKeyArn;
use tokio::net::lookup_host;

use super::clock::remote;
use super::{Finding, bounded};
use crate::config::Loaded;
use crate::kms_proxy::Remote;

const CHECK: &str = "KMS keys";

/// One finding per key that may wrap records.
pub(super) async fn keys(loaded: &Loaded, aws: &SdkConfig) -> Vec<Finding> {
    let Some(client) = client(loaded, aws) else {
        let mend = "tls_roots of the enclave's configuration: certificates in PEM";
        return vec![Finding::failed(CHECK, "there is no way to believe KMS", mend)];
    };
    let mut findings = Vec::new();
    for key in &loaded.enclave.kms_keys {
        findings.push(bounded(CHECK, unattested_use(&client, key)).await);
    }
    findings
}

/// A client that goes the proxy's way, under the name and the roots that the enclave demands.
fn client(loaded: &Loaded, aws: &SdkConfig) -> Option<Client> {
    let remote = remote(loaded);
    let trust = match &loaded.enclave.tls_roots {
        Some(roots) => TrustStore::empty().with_pem_certificate(roots.as_bytes()),
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build().ok()?;
    let endpoint = format!("https://{}:{}", loaded.enclave.kms_host, remote.port());
    let http = Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_with_resolver(ProxysWay(remote));
    let config = Config::from(aws)
        .to_builder()
        .region(aws_config::Region::new(loaded.enclave.region.clone()))
        .endpoint_url(endpoint)
        .http_client(http)
        .retry_config(RetryConfig::disabled())
        .build();
    Some(Client::from_conf(config))
}

/// Asks for a data key as whoever holds this host's credentials could: with an encryption context of our form, and without
/// a recipient. What is wanted is a refusal.
async fn unattested_use(client: &Client, key: &KmsKeyArn) -> Finding {
    let asked = client
        .generate_data_key()
        .key_id(key.to_string())
        .key_spec(DataKeySpec::Aes256)
        .encryption_context("strongroom:v", "1")
        .encryption_context("strongroom:key_id", "doctor")
        .encryption_context("strongroom:binding", "00".repeat(32))
        .dry_run(true)
        .send()
        .await;
    let error = match asked {
        Ok(_) => return open(key),
        Err(error) => error,
    };
    let (found, mend) = match error.code() {
        Some("AccessDeniedException") => return Finding::ok(CHECK, format!("{key}: unattested use is denied")),
        Some("DryRunOperationException") => return open(key),
        Some("NotFoundException") => (
            "there is no such key".to_owned(),
            "kms_keys of the enclave's configuration: is it the right account and Region? aws kms describe-key --key-id ARN",
        ),
        Some("DisabledException") => ("the key is disabled".to_owned(), "aws kms enable-key --key-id ARN"),
        Some("KMSInvalidStateException") => (
            "the key cannot be used in its state".to_owned(),
            "if it is to be deleted: aws kms cancel-key-deletion --key-id ARN, and enable-key; aws kms describe-key tells",
        ),
        Some("KeyUnavailableException") => {
            ("its key store is not available".to_owned(), "aws kms describe-custom-key-stores")
        }
        Some(code @ ("UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException")) => {
            (format!("KMS does not know these credentials ({code})"), "see credentials and clock above")
        }
        Some(code) => (format!("KMS answered {code}"), "aws kms describe-key --key-id ARN"),
        None => ("KMS was not reached".to_owned(), "see the way to KMS, clock and credentials above"),
    };
    Finding::failed(CHECK, format!("{key}: {found}"), mend)
}

fn open(key: &KmsKeyArn) -> Finding {
    Finding::failed(
        CHECK,
        format!("{key}: THE KEY POLICY LETS ANYONE WITH THIS ROLE USE THE KEY WITHOUT ATTESTATION"),
        "allow it only where kms:RecipientAttestation:PCR0 and PCR16 are those of the enclave, and deny it otherwise: \
         strongroom kms-policy lint",
    )
}

/// Resolves every name as the proxy's remote: the name stays that of KMS's certificate.
#[derive(Debug, Clone)]
struct ProxysWay(Remote);

impl ResolveDns for ProxysWay {
    fn resolve_dns<'a>(&'a self, _name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async {
            let addresses = lookup_host((self.0.host(), self.0.port())).await.map_err(ResolveDnsError::new)?;
            Ok(addresses.map(|address| address.ip()).collect::<Vec<IpAddr>>())
        })
    }
}
