//! Whatever a parent may answer: every row of the table of exit codes, and answers that are none. What comes from
//! elsewhere reaches no terminal as it is.

use std::net::SocketAddr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use strongroom_parent::problem::Kind;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::paper_parent::{problem, view};
use super::{Key, said};

/// A parent that always answers the same. Ends when dropped.
struct Always {
    key: Key,
    server: JoinHandle<std::io::Result<()>>,
}

impl Always {
    async fn answering(answer: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address: SocketAddr = listener.local_addr().expect("an address");
        let routes = Router::new().fallback(async move || answer());
        let server = tokio::spawn(axum::serve(listener, routes).into_future());
        Self { key: Key::of(&format!("http://{address}")), server }
    }
}

impl Drop for Always {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tokio::test]
async fn every_problem_of_the_parent_has_its_exit_code() {
    for kind in Kind::ALL {
        let (status, slug) = (kind.status().as_u16(), kind.slug());
        let parent = Always::answering(move || problem(status, slug, "so it is")).await;
        let expected = match (status, slug) {
            (403, "key-disabled" | "key-pending-deletion") => 5,
            (401 | 403, _) => 6,
            (404, "key-not-found") => 4,
            (409, _) => 5,
            (408 | 429 | 503 | 504, _) => 3,
            _ => 1,
        };
        let output = parent.key.run(&["show", "a"]).await;
        assert_eq!(output.status.code(), Some(expected), "{slug}: {}", said(&output));
        assert!(said(&output).contains(slug) && said(&output).contains("so it is"), "{slug}: {}", said(&output));
    }
}

#[tokio::test]
async fn answers_that_are_none_are_failures() {
    let plain = |status: u16, body: &'static str| {
        move || (StatusCode::from_u16(status).expect("a status"), body).into_response()
    };
    for (name, parent, code) in [
        ("no_json", Always::answering(plain(200, "<html>")).await, 1),
        ("another_json", Always::answering(plain(200, "{}")).await, 1),
        ("a_proxy_in_between", Always::answering(plain(502, "<html>bad gateway")).await, 3),
        ("a_web_server", Always::answering(plain(404, "<html>not found")).await, 1),
        ("endless", Always::answering(|| " ".repeat(5 * 1024 * 1024).into_response()).await, 1),
        (
            "a_redirect",
            Always::answering(|| (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response())
                .await,
            1,
        ),
    ] {
        let output = parent.key.run(&["show", "a"]).await;
        assert_eq!(output.status.code(), Some(code), "{name}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{name}: {}", said(&output));
    }
}

#[tokio::test]
async fn a_list_that_goes_round_in_circles_ends() {
    let parent = Always::answering(|| json!({ "keys": [], "next_cursor": "again" }).to_string().into_response()).await;
    parent.key.expect(1, &["list"]).await;
}

#[tokio::test]
async fn damaged_records_are_named_and_the_others_listed() {
    let page = json!({ "keys": [view("good")], "damaged": ["bad", "\u{1b}[2Jworse\u{202e}"] }).to_string();
    let parent = Always::answering(move || page.clone().into_response()).await;
    for arguments in [&["list"][..], &["list", "--json"]] {
        let output = parent.key.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(String::from_utf8_lossy(&output.stdout).contains("good"), "{}", said(&output));
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(complaints.contains("damaged: bad") && complaints.contains(r"\u{1b}[2Jworse\u{202e}"), "{complaints}");
    }
}

#[tokio::test]
async fn what_a_parent_says_cannot_move_the_cursor() {
    let evil = "\u{1b}]0;title\u{7}\u{9b}2J\u{202e}\r\n";
    let mut key = view("a");
    key["created_at"] = evil.into();
    key["public_key"] = evil.into();
    key["addresses"] = json!({ evil: evil });
    let (single, list) = (key.to_string(), json!({ "keys": [key] }).to_string());
    let parent = Always::answering(move || single.clone().into_response()).await;
    let lister = Always::answering(move || list.clone().into_response()).await;
    let refuser = Always::answering(move || problem(409, "key-exists", evil)).await;
    for (parent, arguments) in [
        (&parent, &["show", "a"][..]),
        (&parent, &["show", "a", "--json"]),
        (&parent, &["schedule-deletion", "a"]),
        (&lister, &["list"]),
        (&lister, &["list", "--json"]),
        (&refuser, &["show", "a"]),
    ] {
        let output = parent.key.run(arguments).await;
        let told = said(&output);
        assert!(told.chars().all(|c| c == '\n' || c == ' ' || c.is_ascii_graphic()), "{arguments:?}: {told:?}");
        assert!(told.contains("title"), "{arguments:?}: {told}");
    }
}
