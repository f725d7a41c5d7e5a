//! Who gets a connection, on both sides, and how it is protected.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::ExtendedKeyUsagePurpose;
use strongroom_tests::api::{Api, tls_client};
use strongroom_tests::pki::{CertificateSpec, TlsAuthority, TlsPair, client_spec};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tokio_rustls::{TlsConnector, rustls};

use super::{OPTIONAL, REQUIRED, TOKEN, address, caller, keeper, pki, sign};
use crate::scene::{Scene, assert_problem};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Certificates that name the keeper, and are worth nothing.
fn worthless(authority: &TlsAuthority) -> Vec<(&'static str, TlsPair)> {
    let spec = |change: fn(&mut CertificateSpec)| {
        let mut spec = client_spec(&["keeper.internal"]);
        change(&mut spec);
        authority.pair(&spec)
    };
    vec![
        ("other_authority", TlsAuthority::new().pair(&client_spec(&["keeper.internal"]))),
        ("expired", spec(|spec| spec.params.not_after = (SystemTime::now() - Duration::from_secs(5)).into())),
        ("not_yet_valid", spec(|spec| spec.params.not_before = (SystemTime::now() + DAY).into())),
        ("signed_by_a_stranger", spec(|spec| spec.signed_by_stranger = true)),
        ("of_a_server", spec(|spec| spec.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth])),
    ]
}

#[tokio::test]
async fn a_worthless_client_certificate_gets_no_connection_not_even_with_a_token() {
    for shared in [&REQUIRED, &OPTIONAL] {
        let (scene, _) = shared.enter().await;
        for (name, pair) in worthless(&pki(&scene).clients) {
            let api = caller(&scene, Some(&pair));
            for api in [api.with_token(TOKEN), api] {
                for path in ["/healthz", "/v1/keys"] {
                    assert!(api.get(path).await.is_err(), "{name} {path}");
                }
            }
        }
        assert_eq!(keeper(&scene, &[]).await.get("/v1/keys").await.expect("a reply").status, 200);
    }
}

#[tokio::test]
async fn where_a_certificate_is_required_there_is_no_connection_without_one() {
    let (scene, _) = REQUIRED.enter().await;
    let api = caller(&scene, None);
    for api in [api.with_token(TOKEN), api] {
        for path in ["/healthz", "/v1/keys"] {
            assert!(api.get(path).await.is_err(), "{path}");
        }
    }
}

#[tokio::test]
async fn where_a_certificate_is_optional_one_without_it_needs_a_token() {
    let (scene, _) = OPTIONAL.enter().await;
    let api = caller(&scene, None);
    assert_eq!(api.get("/healthz").await.expect("a reply").status, 200);
    assert_problem(&api.get("/v1/keys").await.expect("a reply"), 401, "unauthorized");
    assert_eq!(api.with_token(TOKEN).get("/v1/keys").await.expect("a reply").status, 200);
}

#[tokio::test]
async fn a_caller_refuses_a_server_of_another_authority_or_name() {
    let (scene, _) = OPTIONAL.enter().await;
    let other = tls_client(&TlsAuthority::new().root_pem(), None).expect("PEM").build().expect("a client");
    assert!(Api::over(&scene.stack.url, other).get("/healthz").await.is_err());
    let elsewhere = scene.stack.url.replace("127.0.0.1", "127.0.0.2");
    let right = tls_client(&pki(&scene).servers.root_pem(), None).expect("PEM").build().expect("a client");
    assert!(Api::over(&elsewhere, right).get("/healthz").await.is_err());
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_http_1_1_or_http_2_inside() {
    let (scene, _) = REQUIRED.enter().await;
    keeper(&scene, &["versions"]).await;
    let pair = pki(&scene).client(&["keeper.internal"]);
    for (version, negotiated, reqwest) in [
        (&TLS12, ProtocolVersion::TLSv1_2, reqwest::tls::Version::TLS_1_2),
        (&TLS13, ProtocolVersion::TLSv1_3, reqwest::tls::Version::TLS_1_3),
    ] {
        for (offered, chosen) in [(&["http/1.1", "h2"] as &[_], "h2"), (&["http/1.1"], "http/1.1")] {
            let stream = connect(&scene, &pair, version, offered).await.expect("a connection");
            let (_, session) = stream.get_ref();
            assert_eq!(session.protocol_version(), Some(negotiated));
            assert_eq!(session.alpn_protocol(), Some(chosen.as_bytes()));
        }

        let client = tls_client(&pki(&scene).servers.root_pem(), Some(&pair)).expect("PEM");
        let client = client.tls_version_min(reqwest).tls_version_max(reqwest).build().expect("a client");
        let reply = sign(&Api::over(&scene.stack.url, client), "versions").await.expect("a reply");
        assert_eq!(reply.status, 200, "{negotiated:?}: {}", reply.body);
    }
    let refusal = connect(&scene, &pair, &TLS13, &["h3"]).await.expect_err("HTTP/3 is not spoken");
    assert!(refusal.to_string().contains("NoApplicationProtocol"), "{refusal}");
}

#[tokio::test]
async fn no_session_is_resumed_past_the_look_at_its_certificate() {
    let (scene, _) = REQUIRED.enter().await;
    let pair = pki(&scene).client(&["keeper.internal"]);
    for version in [&TLS12, &TLS13] {
        let connector = connector(&scene, &pair, version, &[]);
        for _ in 0..3 {
            let mut stream = shake(&scene, &connector).await.expect("a connection");
            // What a client of TLS 1.3 could resume with comes after the handshake.
            request(&mut stream).await;
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Full));
        }
    }
}

async fn request(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.expect("an orderly end");
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

/// A handshake of our own, to see what was agreed on.
async fn connect(
    scene: &Scene,
    pair: &TlsPair,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    shake(scene, &connector(scene, pair, version, protocols)).await
}

fn connector(
    scene: &Scene,
    pair: &TlsPair,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = pki(scene).servers.root_pem();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).expect("PEM")).expect("a root");
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a pair");
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn shake(scene: &Scene, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address(scene)).await?;
    connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await
}
