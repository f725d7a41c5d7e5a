//! The way to KMS, as the proxy goes it, and this machine's clock beside KMS's: signatures of calls and certificates need
//! both to agree.

use std::net::SocketAddr;
use std::time::SystemTime;

use reqwest::header::DATE;
use reqwest::{Certificate, Client};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::net::{TcpStream, lookup_host};

use super::Finding;
use crate::config::Loaded;
use crate::kms_proxy::Remote;

pub(super) async fn way(loaded: &Loaded) -> Finding {
    const CHECK: &str = "way to KMS";
    let remote = remote(loaded);
    let route = "the host needs a route to it: a VPC endpoint (com.amazonaws.REGION.kms) or NAT, and a security group that \
                 lets port 443 out";
    let Ok(addresses) = lookup_host((remote.host(), remote.port())).await else {
        let mend = "is kms_host right, and the host's resolver? getent hosts NAME";
        return Finding::failed(CHECK, format!("{remote} does not resolve"), mend);
    };
    match TcpStream::connect(&*addresses.collect::<Vec<_>>()).await {
        Ok(_) => Finding::ok(CHECK, format!("{remote} accepts connections")),
        Err(error) => Finding::failed(CHECK, format!("{remote}: {error}"), route),
    }
}

/// More than this makes AWS refuse a call's signature sooner or later; its own limit is five minutes.
const MAX_SKEW: i64 = 60;

pub(super) async fn clock(loaded: &Loaded) -> Finding {
    const CHECK: &str = "clock";
    const MEND: &str = "chronyc makestep; systemctl enable --now chronyd (Amazon's time service is 169.254.169.123)";
    let remote = remote(loaded);
    let client = match client(loaded, &remote).await {
        Some(client) => client,
        None => return Finding::skipped(CHECK, "KMS cannot be reached"),
    };
    let answer = match client.get(format!("https://{}:{}/", loaded.enclave.kms_host, remote.port())).send().await {
        Ok(answer) => answer,
        Err(_) => {
            let mend = "tls_roots or the host's authorities, kms_host, or a clock that is far out: date -u";
            return Finding::warning(CHECK, "not compared: there is no TLS with KMS", mend);
        }
    };
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    // RFC 9110 section 5.6.7: of RFC 2822's form, always in GMT.
    let date = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(date) = date else { return Finding::skipped(CHECK, "KMS did not say what time it is") };
    let skew = (OffsetDateTime::from(SystemTime::now()) - date).whole_seconds();
    let found = match skew {
        0.. => format!("{skew} s ahead of KMS's"),
        _ => format!("{} s behind KMS's", skew.unsigned_abs()),
    };
    if skew.abs() > MAX_SKEW { Finding::failed(CHECK, found, MEND) } else { Finding::ok(CHECK, found) }
}

/// What the KMS proxy reaches; without one, what another's has to.
pub(super) fn remote(loaded: &Loaded) -> Remote {
    let configured = loaded.config.kms_proxy.as_ref().and_then(|proxy| proxy.remote.clone());
    configured.unwrap_or_else(|| Remote::https(loaded.enclave.kms_host.clone()))
}

/// Speaks to the remote by the name that the enclave demands of its certificate.
async fn client(loaded: &Loaded, remote: &Remote) -> Option<Client> {
    let address: SocketAddr = lookup_host((remote.host(), remote.port())).await.ok()?.next()?;
    let mut client = Client::builder().no_proxy().resolve(&loaded.enclave.kms_host, address);
    if let Some(roots) = &loaded.enclave.tls_roots {
        client = client.tls_certs_only(Certificate::from_pem_bundle(roots.as_bytes()).ok()?);
    }
    client.build().ok()
}
