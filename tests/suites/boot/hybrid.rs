//! The faults of the hybrid transport, on the VMM that the double of the suite `hybrid` is made after.

use std::time::Duration;

use serde_json::json;
use strongroom_tests::machine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::booted;

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
#[ignore = "boots a machine: make test-boot"]
async fn ports_that_nobody_serves_and_peers_that_break_off_harm_nobody() {
    let mut it = booted().await;
    it.create("a").await;
    let socket = it.stack.directory().join(machine::SOCKET);

    // The guest's: closed without an OK.
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    stream.write_all(b"CONNECT 5006\n").await.expect("sent");
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("closed");
    assert_eq!(said, b"");

    // A half-close ends it all, and nobody else.
    let mut stream = UnixStream::connect(&socket).await.expect("connected");
    stream.write_all(b"CONNECT 5005\n").await.expect("sent");
    stream.shutdown().await.expect("half closed");
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("closed");
    it.signs("a").await;

    // The host's: nobody answers the guest, and the guest does not wait for ever.
    let proxy = it.stack.directory().join(format!("{}_8000", machine::SOCKET));
    let hidden = proxy.with_extension("hidden");
    std::fs::rename(&proxy, &hidden).expect("renamed");
    it.stack.restart_kms().await.expect("no connection is left");
    let create = json!({ "key_id": "unreachable", "algorithm": "ed25519" });
    let reply = timeout(PATIENCE, it.try_create(create)).await.expect("an answer in time");
    // Nobody refuses the guest's connection: it is tried until its time is over, or the caller's.
    assert!(matches!(reply.status.as_u16(), 503 | 504), "{}", reply.body);
    std::fs::rename(&hidden, &proxy).expect("renamed back");
    it.create("b").await;
    it.signs("b").await;
}
