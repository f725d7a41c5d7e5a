//! TLS as the command line speaks it, against a TLS server made by hand: only the authority that was named is
//! believed, and a client certificate is shown where one was given.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;
use strongroom_tests::pki::TlsAuthority;
use strongroom_tests::stack::test_directory;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Key;
use super::paper_parent::view;

/// Serves the key `a` to whoever shows a certificate of `clients`, or to everybody; its URL.
async fn serve(authority: &TlsAuthority, clients: Option<&ClientAuthority>) -> String {
    let (chain, key) = authority.issue("127.0.0.1");
    let config = match clients {
        None => ServerConfig::builder().with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.certificate.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
            ServerConfig::builder().with_client_cert_verifier(verifier)
        }
    };
    let config = config.with_single_cert(chain, key).expect("a certificate with its key");
    let (listener, acceptor) =
        (TcpListener::bind("127.0.0.1:0").await.expect("a port"), TlsAcceptor::from(Arc::new(config)));
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let body = view("a").to_string();
                let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    url
}

/// Issues client certificates.
struct ClientAuthority {
    params: CertificateParams,
    key: KeyPair,
    certificate: rcgen::Certificate,
}

impl ClientAuthority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a root");
        Self { params, key, certificate }
    }

    /// Writes `NAME.pem`, `NAME.key` and, of both, `NAME.both`.
    fn issue(&self, folder: &Path, name: &str) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["payments.internal".to_owned()]).expect("a name");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate").pem();
        fs::write(folder.join(format!("{name}.both")), format!("{certificate}{}", key.serialize_pem()))
            .expect("written");
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
        fs::write(folder.join(format!("{name}.pem")), certificate).expect("written");
    }
}

#[tokio::test]
async fn only_the_named_authority_is_believed() {
    let folder = test_directory().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (authority, stranger) = (TlsAuthority::new(), TlsAuthority::new());
    fs::write(path("ca.pem"), authority.root_pem()).expect("written");
    fs::write(path("stranger.pem"), stranger.root_pem()).expect("written");
    fs::write(path("both.pem"), stranger.root_pem() + &authority.root_pem()).expect("written");
    let url = serve(&authority, None).await;
    let key = Key { token: Some("srt_x".to_owned()), ..Key::of(&url) };
    assert_eq!(key.json(0, &["show", "a", "--ca", &path("ca.pem")]).await["key_id"], json!("a"));
    key.expect(0, &["show", "a", "--ca", &path("both.pem")]).await;
    key.expect(3, &["show", "a", "--ca", &path("stranger.pem")]).await;
    key.expect(3, &["show", "a"]).await;
    // The certificate is for the address, not for its other names.
    let by_name = Key::of(&url.replace("127.0.0.1", "localhost"));
    by_name.expect(3, &["show", "a", "--ca", &path("ca.pem")]).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_one_is_given() {
    let folder = test_directory().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (authority, clients, others) = (TlsAuthority::new(), ClientAuthority::new(), ClientAuthority::new());
    fs::write(path("ca.pem"), authority.root_pem()).expect("written");
    clients.issue(folder.path(), "known");
    others.issue(folder.path(), "unknown");
    let key = Key::of(&serve(&authority, Some(&clients)).await);
    let ca = path("ca.pem");
    let show = ["show", "a", "--ca", &ca];
    for (name, code) in [("known", 0), ("unknown", 3)] {
        let (certificate, private, both) =
            (path(&format!("{name}.pem")), path(&format!("{name}.key")), path(&format!("{name}.both")));
        let apart = ["--client-certificate", &certificate, "--client-key", &private];
        key.expect(code, &[&show[..], &apart].concat()).await;
        key.expect(code, &[&show[..], &["--client-certificate", &both]].concat()).await;
    }
    key.expect(3, &show).await;
    key.expect(2, &[&show[..], &["--client-certificate", &path("known.pem")]].concat()).await;
    key.expect(2, &[&show[..], &["--client-certificate", &path("known.pem"), "--client-key", &ca]].concat()).await;
}
