//! `make dev`'s contract, held by the program that it runs.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use strongroom_tests::api::Api;
use strongroom_tests::stack::{binary, test_directory};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::{create, signal};
use crate::scene::eventually;

const PROCESSES: [&str; 3] = ["enclave", "parent", "mock-kms"];

/// `dev-stack dev`, as `make dev` starts it.
struct DevStack {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl DevStack {
    fn start(listen: SocketAddr, directory: &Path) -> Self {
        let mut child = Command::new(binary("dev-stack"))
            .arg("dev")
            .env("LISTEN", listen.to_string())
            .env("DEV_DIR", directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("dev-stack starts");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, output }
    }

    /// Waits for `ready http://…` and returns the URL.
    async fn ready(&mut self) -> String {
        loop {
            let line = timeout(Duration::from_secs(60), self.output.next_line()).await.expect("in time");
            match line.expect("text") {
                Some(line) if line.starts_with("ready ") => return line["ready ".len()..].to_owned(),
                Some(_) => {}
                None => panic!("it ended without being ready"),
            }
        }
    }

    async fn stop(mut self) {
        signal(self.child.id(), Signal::TERM);
        let status = timeout(Duration::from_secs(40), self.child.wait()).await.expect("in time").expect("waited for");
        assert_eq!(status.code(), Some(0));
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

fn process_id(directory: &Path, name: &str) -> u32 {
    let text = fs::read_to_string(directory.join(format!("{name}.pid"))).expect(name);
    text.trim().parse().expect("a process id")
}

/// Whether it runs; a zombie that nobody has waited for does not.
fn runs(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[tokio::test]
async fn it_prints_ready_has_its_files_keeps_its_keys_and_leaves_nothing_running() {
    let folder = test_directory().expect("a folder");
    let directory = folder.path().join("new/dev");
    let listen = free_address();
    let mut first = DevStack::start(listen, &directory);
    let url = first.ready().await;
    assert_eq!(url, format!("http://{listen}"));
    let api = Api::new(&url);
    assert_eq!(api.get("/readyz").await.expect("a reply").status.as_u16(), 200, "ready means ready");

    let processes = PROCESSES.map(|name| process_id(&directory, name));
    assert!(processes.into_iter().all(runs));
    let root = fs::read_to_string(directory.join("mock-nsm-root.pem")).expect("the root");
    assert!(root.starts_with("-----BEGIN CERTIFICATE-----"));
    assert_flat_registers(&directory);

    let created = create(&api, "kept").await;
    assert_eq!(created.status.as_u16(), 201, "no token needed: {}", created.body);
    assert!(directory.join("keys/kept.json").is_file());
    first.stop().await;
    assert!(!processes.into_iter().any(runs), "something still runs");

    let mut second = DevStack::start(listen, &directory);
    let api = Api::new(&second.ready().await);
    let kept = api.get("/v1/keys/kept").await.expect("a reply");
    assert_eq!(kept.body, created.body);
    let signed = api.sign("kept", json!({ "payload": { "type": "message", "message": "00" } })).await.expect("a reply");
    assert_eq!(signed.status.as_u16(), 200, "{}", signed.body);
    second.stop().await;
}

fn assert_flat_registers(directory: &Path) {
    let registers: Value =
        serde_json::from_slice(&fs::read(directory.join("pcrs.json")).expect("a file")).expect("JSON");
    let registers = registers.as_object().expect("an object");
    let names: Vec<&str> = registers.keys().map(String::as_str).collect();
    assert_eq!(names, ["PCR0", "PCR1", "PCR16", "PCR2"]);
    for (name, value) in registers {
        let bytes = hex::decode(value.as_str().expect("text")).expect("hex");
        assert!(bytes.len() == 48 && bytes != [0; 48], "{name}: SHA-384, and not zero");
    }
}

#[tokio::test]
async fn whoever_of_it_is_killed_comes_back() {
    let folder = test_directory().expect("a folder");
    let mut stack = DevStack::start(free_address(), folder.path());
    let api = Api::new(&stack.ready().await);
    assert_eq!(create(&api, "a").await.status.as_u16(), 201);
    for name in PROCESSES {
        let killed = process_id(folder.path(), name);
        signal(Some(killed), Signal::KILL);
        eventually(&format!("another {name} runs"), async || {
            let successor = process_id(folder.path(), name);
            successor != killed && runs(successor)
        })
        .await;
        eventually(&format!("it signs after the {name} was killed"), async || {
            let sign = json!({ "payload": { "type": "message", "message": "00" } });
            api.sign("a", sign).await.is_ok_and(|reply| reply.status.is_success())
        })
        .await;
    }
    stack.stop().await;
}

#[tokio::test]
async fn an_address_in_use_is_said_at_once() {
    let folder = test_directory().expect("a folder");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let listen = taken.local_addr().expect("an address");
    let mut stack = DevStack::start(listen, folder.path());
    let status = timeout(Duration::from_secs(10), stack.child.wait()).await.expect("at once").expect("waited for");
    assert_eq!(status.code(), Some(1));
    let mut said = String::new();
    stack.child.stderr.take().expect("piped").read_to_string(&mut said).await.expect("text");
    assert!(said.contains(&listen.to_string()) && said.contains("in use"), "{said}");
}
