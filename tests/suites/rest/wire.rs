//! HTTP itself, byte by byte: what no well-behaved client would send, and how long a caller may dawdle.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use strongroom_tests::api::Reply;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{OPEN, assert_ok, assert_problem, header, with_key};
use crate::scene::Scene;

/// Where a server listens.
pub(super) struct Wire(String);

/// A connection on which nothing is said for us.
pub(super) struct Conversation {
    stream: TcpStream,
    received: Vec<u8>,
}

const PATIENCE: Duration = Duration::from_secs(20);

impl Wire {
    pub(super) fn of(url: &str) -> Self {
        Self(url.trim_start_matches("http://").to_owned())
    }

    pub(super) async fn open(&self) -> Conversation {
        Conversation { stream: TcpStream::connect(&self.0).await.expect("connected"), received: Vec::new() }
    }

    /// A request without a body, its path exactly as given.
    pub(super) async fn call(&self, method: &str, path: &str) -> Reply {
        self.call_with(method, path, &[]).await
    }

    /// The same with more header lines.
    pub(super) async fn call_with(&self, method: &str, path: &str, headers: &[&str]) -> Reply {
        let mut conversation = self.open().await;
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n{lines}\r\n", self.0);
        conversation.say(head.as_bytes()).await;
        conversation.reply().await
    }
}

impl Conversation {
    /// Says this; that the other side has hung up meanwhile shows in what it said.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next reply, which has a content length as all of ours have.
    pub(super) async fn reply(&mut self) -> Reply {
        loop {
            if let Some((reply, length)) = parse(&self.received) {
                self.received.drain(..length);
                return reply;
            }
            assert!(self.receive().await, "the connection ended: {}", String::from_utf8_lossy(&self.received));
        }
    }

    /// All that is said until the connection ends.
    pub(super) async fn rest(mut self) -> String {
        while self.receive().await {}
        String::from_utf8_lossy(&self.received).into_owned()
    }

    async fn receive(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.expect("something in time");
        read.is_ok_and(|length| length > 0)
    }
}

/// A reply at the front of `bytes`, and how long it is.
fn parse(bytes: &[u8]) -> Option<(Reply, usize)> {
    let head_length = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&bytes[..head_length]).expect("text");
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok().and_then(|code| StatusCode::from_u16(code).ok())?;
    let headers: HeaderMap = lines.filter_map(|line| line.split_once(": ")).map(parse_header).collect();
    let length: usize =
        headers.get("content-length").map_or(0, |n| n.to_str().expect("text").parse().expect("a number"));
    let body = bytes.get(head_length..head_length + length)?;
    let body = serde_json::from_slice(body).unwrap_or_default();
    Some((Reply { status, headers, body }, head_length + length))
}

fn parse_header((name, value): (&str, &str)) -> (HeaderName, HeaderValue) {
    (name.parse().expect("a header name"), value.parse().expect("a header value"))
}

#[tokio::test]
async fn what_is_no_http_is_turned_away_and_others_are_served() {
    let (scene, api) = OPEN.enter().await;
    let wire = Wire::of(&scene.stack.url);
    for (name, bytes) in [
        ("tls", &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..]),
        ("zeros", &[0; 100]),
        ("text", b"hello\r\n\r\n"),
        ("no_version", b"GET /v1/keys\r\n\r\n"),
        (
            "two_lengths",
            b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ",
        ),
        ("length_no_number", b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0x2\r\n\r\n{}"),
        ("header_without_colon", b"GET /v1/keys HTTP/1.1\r\nhost localhost\r\n\r\n"),
        ("space_before_colon", b"GET /v1/keys HTTP/1.1\r\nhost : localhost\r\n\r\n"),
        ("unknown_coding", b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\n\r\n{}"),
    ] {
        let mut conversation = wire.open().await;
        conversation.say(bytes).await;
        let said = conversation.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{name}: {said}");
        assert!(!said.contains("200 OK") && !said.contains("\"keys\""), "{name}: {said}");
    }
    assert_ok("afterwards", &api.get("/v1/keys").await.expect("a reply"));
}

#[tokio::test]
async fn a_head_has_bounds() {
    let (scene, _) = OPEN.enter().await;
    let wire = Wire::of(&scene.stack.url);
    for head in [
        format!("GET /v1/keys HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(300_000)),
        format!("GET /v1/keys/{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(300_000)),
        format!("GET /v1/keys HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000)),
    ] {
        let mut conversation = wire.open().await;
        conversation.say(head.as_bytes()).await;
        let said = conversation.rest().await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (scene, _) = OPEN.enter().await;
    let mut conversation = Wire::of(&scene.stack.url).open().await;
    let request =
        |n: u8| format!("GET /v1/keys/pipelined-{n} HTTP/1.1\r\nhost: localhost\r\nx-request-id: {n}\r\n\r\n");
    conversation.say([request(1), request(2), request(3)].concat().as_bytes()).await;
    for n in 1..=3 {
        let reply = conversation.reply().await;
        assert_problem("pipelined", &reply, 404, "key-not-found");
        assert_eq!(reply.text("instance"), n.to_string());
    }
}

#[tokio::test]
async fn what_follows_an_unread_body_is_no_request() {
    let (scene, api) = OPEN.enter().await;
    let mut conversation = Wire::of(&scene.stack.url).open().await;
    // Refused before its body is read; the body is a request of its own.
    let smuggled = "POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 45\r\n\r\n{\"key_id\":\"smuggled\",\"algorithm\":\"ed25519\"}  ";
    let outer = format!(
        "POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{smuggled}",
        smuggled.len()
    );
    conversation.say(outer.as_bytes()).await;
    assert_problem("outer", &conversation.reply().await, 415, "unsupported-media-type");
    conversation.say(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    let rest = conversation.rest().await;
    assert!(rest.is_empty() || rest.contains("alive"), "{rest}");
    let smuggled = api.get("/v1/keys/smuggled").await.expect("a reply");
    assert_problem("smuggled", &smuggled, 404, "key-not-found");
}

#[tokio::test]
async fn a_chunked_body_is_bounded_like_any_other() {
    let (scene, _) = OPEN.enter().await;
    let mut conversation = Wire::of(&scene.stack.url).open().await;
    conversation
        .say(b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..40 {
        conversation.say(&chunk).await;
    }
    conversation.say(b"0\r\n\r\n").await;
    assert_problem("chunked", &conversation.reply().await, 413, "body-too-large");
}

#[tokio::test]
async fn a_head_that_dawdles_holds_up_nobody() {
    let (scene, api) = OPEN.enter().await;
    let wire = Wire::of(&scene.stack.url);
    let mut dawdling = Vec::new();
    for _ in 0..100 {
        let mut conversation = wire.open().await;
        conversation.say(b"GET /v1/keys HTTP/1.1\r\nhost: loc").await;
        dawdling.push(conversation);
    }
    let started = Instant::now();
    assert_ok("others", &api.get("/v1/keys").await.expect("a reply"));
    assert!(started.elapsed() < Duration::from_secs(2), "others waited");
    let mut first = dawdling.swap_remove(0);
    first.say(b"alhost\r\n\r\n").await;
    assert_ok("in the end", &first.reply().await);
}

#[tokio::test]
async fn a_body_that_dawdles_times_out() {
    let it = Scene::planned(|plan| plan.parent_toml = "[limits]\nrequest_timeout_seconds = 1\n".to_owned()).await;
    let wire = Wire::of(&it.stack.url);
    let mut conversation = wire.open().await;
    conversation
        .say(b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"key_id\":")
        .await;
    let started = Instant::now();
    assert_problem("body", &conversation.reply().await, 408, "request-timeout");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());

    // One that ends early is told so, or finds the connection closed.
    let mut conversation = wire.open().await;
    conversation
        .say(b"POST /v1/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}")
        .await;
    drop(conversation);
    it.create("afterwards").await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let it = Scene::planned(|plan| plan.parent_toml = "[limits]\nconnections = 2\n".to_owned()).await;
    let wire = Wire::of(&it.stack.url);
    let get = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut served = Vec::new();
    // The harness's own readiness probes may still have a place for a moment; two of these come in.
    for _ in 0..2 {
        let mut conversation = wire.open().await;
        conversation.say(get.as_bytes()).await;
        assert_ok("within the limit", &conversation.reply().await);
        served.push(conversation);
    }
    let mut waiting = wire.open().await;
    waiting.say(get.as_bytes()).await;
    let early = timeout(Duration::from_millis(300), waiting.reply()).await;
    assert!(early.is_err(), "a third was served beside two");
    served.pop();
    assert_ok("once there is a place", &waiting.reply().await);
}

#[tokio::test]
async fn without_identities_only_this_machines_own_names_are_served() {
    let (scene, api) = OPEN.enter().await;
    with_key(&api, "host", "ed25519").await;
    let port = scene.stack.url.rsplit(':').next().expect("a port").to_owned();
    let wire = Wire::of(&scene.stack.url);
    // A page that a browser on this machine loaded from elsewhere, by DNS rebinding.
    for host in
        ["evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""]
    {
        let mut conversation = wire.open().await;
        conversation.say(format!("GET /v1/keys HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await;
        let reply = conversation.reply().await;
        assert_problem(host, &reply, 403, "forbidden");
    }
    // A page from elsewhere that names this machine in its own requests.
    for header in ["origin: https://evil.example", "origin: null", "sec-fetch-site: cross-site"] {
        for (method, path) in [("POST", "/v1/keys/host/disable"), ("GET", "/v1/keys")] {
            assert_problem(header, &wire.call_with(method, path, &[header]).await, 403, "forbidden");
        }
    }
    assert_eq!(api.get("/v1/keys/host").await.expect("a reply").text("state"), "enabled");
    assert_ok("typed into the address bar", &wire.call_with("GET", "/v1/keys", &["sec-fetch-site: none"]).await);
    for host in ["localhost", "LOCALHOST", &format!("127.0.0.1:{port}"), "[::1]:80"] {
        let mut conversation = wire.open().await;
        conversation.say(format!("GET /v1/keys HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await;
        assert_ok(host, &conversation.reply().await);
    }
}

#[tokio::test]
async fn a_header_that_must_stand_once_is_not_chosen_from() {
    let (scene, _) = OPEN.enter().await;
    let wire = Wire::of(&scene.stack.url);
    // RFC 9112 section 3.2: a proxy in front may have believed the other one.
    let reply = wire.call_with("GET", "/v1/keys", &["host: evil.example"]).await;
    assert!(reply.status.is_client_error(), "{}: {}", reply.status, header(&reply, "content-type"));
    let reply =
        wire.call_with("POST", "/v1/keys", &["content-type: application/json", "content-type: text/plain"]).await;
    assert_problem("two media types", &reply, 415, "unsupported-media-type");
}
