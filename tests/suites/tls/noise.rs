//! Connections that never become any: old versions, plain HTTP, garbage, silence. They get nothing, harm
//! nobody, and fill no log.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{REQUIRED, address, keeper, log, sign, with_identities};
use crate::scene::{Scene, eventually};
use strongroom_tests::endpoint::Demand;

/// More than any deadline of the server.
const PATIENCE: Duration = Duration::from_secs(60);

/// Alerts (RFC 5246 section 7.2).
const HANDSHAKE_FAILURE: u8 = 40;
const PROTOCOL_VERSION: u8 = 70;

/// signature_algorithms (RFC 5246 section 7.4.1.4.1) with ECDSA and RSA over SHA-256.
const SIGNATURE_ALGORITHMS: [u8; 10] = [0x00, 0x0d, 0, 6, 0, 4, 4, 3, 4, 1];

/// A ClientHello (RFC 4346 section 7.4.1.2) of version 3.`minor`, with suites and groups of the time before
/// 1.2, and these extensions besides.
fn client_hello(minor: u8, extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, minor];
    body.extend([0x5a; 32]);
    body.extend([0]);
    // ECDHE_ECDSA and ECDHE_RSA with AES_128_CBC_SHA, RSA with AES_128_CBC_SHA.
    body.extend([0, 6, 0xc0, 0x09, 0xc0, 0x13, 0x00, 0x2f]);
    body.extend([1, 0]);
    // Extensions: supported_groups with P-256, ec_point_formats with uncompressed.
    let length = u8::try_from(14 + extensions.len()).expect("short");
    body.extend([0, length, 0x00, 0x0a, 0, 4, 0, 2, 0x00, 0x17, 0x00, 0x0b, 0, 2, 1, 0]);
    body.extend(extensions);
    let length = u8::try_from(body.len()).expect("short");
    [vec![22, 3, 1, 0, length + 4, 1, 0, 0, length], body].concat()
}

/// Says this and listens to the end.
async fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The other side may have heard enough before the end, and hang up.
    let _ = stream.write_all(bytes).await;
    let mut heard = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("the connection ends");
    heard
}

#[tokio::test]
async fn versions_before_1_2_are_refused_by_an_alert() {
    let (scene, _) = REQUIRED.enter().await;
    for (name, minor) in [("ssl_3", 0), ("tls_1_0", 1), ("tls_1_1", 2)] {
        // What only 1.2 has is missed first where it is missing.
        for (extensions, alert) in [(&SIGNATURE_ALGORITHMS[..], PROTOCOL_VERSION), (&[], HANDSHAKE_FAILURE)] {
            let heard = say(address(&scene), &client_hello(minor, extensions)).await;
            assert_eq!(heard.len(), 7, "{name}: {heard:?}");
            assert_eq!((heard[0], &heard[3..]), (21, [0, 2, 2, alert].as_slice()), "{name}: {heard:?}");
        }
    }
}

#[tokio::test]
async fn plain_http_gets_no_reply_and_does_no_harm() {
    let (scene, _) = REQUIRED.enter().await;
    let keeper = keeper(&scene, &["noise"]).await;
    for request in [
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(),
        "POST /v1/keys/noise/sign HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(100_000)),
    ] {
        let heard = say(address(&scene), request.as_bytes()).await;
        // An alert at most.
        assert!(heard.len() <= 7 && heard.first().is_none_or(|&kind| kind == 21), "{heard:?}");
        assert_eq!(sign(&keeper, "noise").await.expect("a reply").status, 200);
    }
}

#[tokio::test]
async fn a_flood_of_garbage_leaves_the_service_and_the_log_alone() {
    let (scene, _) = REQUIRED.enter().await;
    let keeper = keeper(&scene, &["noise"]).await;
    let address = address(&scene);
    let hello = client_hello(3, &SIGNATURE_ALGORITHMS);
    let mut floods = JoinSet::new();
    for n in 0..300_usize {
        let mut bytes = match n % 6 {
            0 => vec![0; 1 + n],
            1 => vec![0xff; 20_000],
            // Right at first.
            2 => hello[..n % hello.len()].to_vec(),
            3 => [hello.clone(), vec![0xaa; n]].concat(),
            4 => vec![22, 3, 1, 0xff, 0xff],
            _ => [[22, 3, 1, 0x40, 0x00].as_slice(), &vec![1; 0x4000]].concat(),
        };
        bytes.extend(n.to_be_bytes());
        floods.spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("the connection ends");
        });
    }
    while let Some(flood) = floods.join_next().await {
        flood.expect("no panic");
        assert_eq!(sign(&keeper, "noise").await.expect("a reply").status, 200);
    }
    assert!(!log(&scene).contains("handshake"), "failed handshakes are no news");
}

#[tokio::test]
async fn a_stalled_handshake_is_cut_and_its_place_is_free_again() {
    let scene = Scene::planned(|plan| {
        with_identities(plan, Demand::Required);
        plan.parent_toml += "[limits]\nconnections = 3\n";
    })
    .await;
    let stalled = [Vec::new(), client_hello(3, &SIGNATURE_ALGORITHMS)[..20].to_vec(), vec![22, 3, 1, 0x40, 0x00, 1]];
    let mut stallers = JoinSet::new();
    for bytes in stalled {
        let address = address(&scene);
        stallers.spawn(async move { say(address, &bytes).await });
    }
    // There are places for three; a caller may wait for one, and gets it.
    let keeper = keeper(&scene, &["noise"]).await;
    assert_eq!(sign(&keeper, "noise").await.expect("a reply").status, 200);
    while let Some(heard) = stallers.join_next().await {
        assert_eq!(heard.expect("no panic"), b"", "silence is answered by the end");
    }
    eventually("the keeper signs", async || sign(&keeper, "noise").await.is_ok_and(|reply| reply.status == 200)).await;
}
