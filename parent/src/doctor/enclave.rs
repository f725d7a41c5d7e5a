//! What runs already: the enclave, asked how it is, and the parent, asked whether it is ready. Neither is disturbed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::{Client, StatusCode};
use serde::Deserialize;
use strongroom_protocol::{Address, Health};

use super::{DEADLINE, Finding};
use crate::config::Config;
use crate::enclave_client::probe;

pub(super) async fn enclave(address: &Address) -> Finding {
    const CHECK: &str = "enclave";
    match probe(address, DEADLINE).await {
        Ok(Health { debug_mode: true, .. }) => Finding::failed(
            CHECK,
            format!("{address} runs in debug mode and performs no key operation"),
            "nitro-cli terminate-enclave, and run-enclave without --debug-mode",
        ),
        Ok(Health { configured, .. }) => {
            let has = if configured { "has a configuration" } else { "waits for its configuration" };
            Finding::ok(CHECK, format!("{address} answers, and {has}"))
        }
        Err(error) => Finding::failed(
            CHECK,
            format!("{address}: {error}"),
            "nitro-cli run-enclave --eif-path IMAGE --memory 256 --cpu-count 2 --enclave-cid CID, with the CID of \
             enclave.address; nitro-cli describe-enclaves shows what runs",
        ),
    }
}

#[derive(Deserialize)]
struct Readiness {
    checks: BTreeMap<String, Check>,
}

#[derive(Deserialize)]
struct Check {
    ok: bool,
    reason: Option<String>,
}

pub(super) async fn parent(config: &Config) -> Finding {
    const CHECK: &str = "parent";
    let address = local(config.listen);
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    // Its certificate is for another name than the address. Nothing is sent to it, and its word decides nothing.
    let client = Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build();
    let Ok(client) = client else { return Finding::skipped(CHECK, "this machine has no TLS") };
    let answer = match client.get(format!("{scheme}://{address}/readyz")).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() && tokio::net::TcpStream::connect(address).await.is_err() => {
            return Finding::skipped(CHECK, format!("none listens at {address}; systemctl start strongroom starts it"));
        }
        Err(_) => {
            let mend = "if it demands client certificates: curl --cert … --key … --cacert … https://…/readyz";
            return Finding::warning(
                CHECK,
                format!("what listens at {address} does not tell whether it is ready"),
                mend,
            );
        }
    };
    let status = answer.status();
    let readiness = match answer.bytes().await.ok().and_then(|body| serde_json::from_slice::<Readiness>(&body).ok()) {
        Some(readiness) if matches!(status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) => readiness,
        _ => {
            let mend = format!(
                "end what listens there, or change listen in strongroom.toml: ss -ltnp 'sport = {}'",
                address.port()
            );
            return Finding::failed(CHECK, format!("what listens at {address} is no parent"), mend);
        }
    };
    let trouble = readiness.checks.iter().filter(|(_, check)| !check.ok);
    let trouble: Vec<String> =
        trouble.map(|(name, check)| format!("{name}: {}", check.reason.as_deref().unwrap_or("not ready"))).collect();
    if trouble.is_empty() {
        Finding::ok(CHECK, format!("ready at {address}"))
    } else {
        let found = format!("not ready at {address}: {}", trouble.join("; "));
        Finding::failed(CHECK, found, "its log says more: journalctl -u strongroom")
    }
}

/// Where something that listens everywhere is reached.
fn local(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, listen.port())
}
