//! Certificates are replaced while callers sign: nobody notices, but that new connections are shown the
//! new one. What cannot be used stays out of service, and is told once.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use strongroom_tests::api::{Api, tls_client};
use strongroom_tests::endpoint::{CERTIFICATE_FILE, CLIENT_CA_FILE, Demand, KEY_FILE, Pki};
use strongroom_tests::pki::{TlsAuthority, TlsPair, client_spec};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;

use super::{keeper, log, pki, sign, with_identities};
use crate::scene::{Scene, eventually};

const UNUSABLE: &str = "the TLS files cannot be used";

async fn scene() -> Scene {
    Scene::planned(|plan| with_identities(plan, Demand::Required)).await
}

/// A keeper whose connections are all new, or are kept.
fn client(scene: &Scene, pki: &Pki, authority: &TlsAuthority, kept: bool) -> Api {
    let pair = authority.pair(&client_spec(&["keeper.internal"]));
    let client = tls_client(&pki.servers.root_pem(), Some(&pair)).expect("PEM").tls_info(true);
    let client = if kept { client } else { client.pool_max_idle_per_host(0) };
    Api::over(&scene.stack.url, client.build().expect("a client"))
}

/// The certificate that a new connection is shown.
async fn shown(api: &Api) -> Vec<u8> {
    let reply = api.request(reqwest::Method::GET, "/healthz").send().await.expect("a reply");
    let info = reply.extensions().get::<reqwest::tls::TlsInfo>().expect("TLS");
    info.peer_certificate().expect("a certificate").to_vec()
}

fn der(pair: &TlsPair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).expect("PEM").to_vec()
}

async fn eventually_shown(api: &Api, pair: &TlsPair) {
    let expected = der(pair);
    eventually("new connections are shown the new certificate", async || shown(api).await == expected).await;
}

fn hang_up(scene: &Scene) {
    let [_, _, parent] = scene.stack.process_ids();
    let parent = parent.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw).expect("a process");
    kill_process(parent, Signal::HUP).expect("it is there");
}

fn complaints(scene: &Scene) -> usize {
    log(scene).matches(UNUSABLE).count()
}

#[tokio::test]
async fn sixteen_callers_sign_through_rotations_without_one_failure() {
    let scene = scene().await;
    let pki = pki(&scene);
    keeper(&scene, &["a"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = JoinSet::new();
    let mut counts = Vec::new();
    for n in 0..16 {
        let api = client(&scene, &pki, &pki.clients, n % 2 == 0);
        let (stop, count) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        counts.push(Arc::clone(&count));
        callers.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let reply = sign(&api, "a").await.expect("every request is answered");
                assert_eq!(reply.status, 200, "{}", reply.body);
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    let new = client(&scene, &pki, &pki.clients, false);
    let successor = TlsAuthority::new();
    let both = pki.clients.root_pem() + &successor.root_pem();
    for round in 0..4 {
        let pair = pki.server();
        match round {
            // By renaming, as careful tools do.
            0 => pki.install(&pair).expect("installed"),
            // In place, slowly, as careless ones do.
            1 => {
                for (file, text) in [(KEY_FILE, &pair.key), (CERTIFICATE_FILE, &pair.certificate)] {
                    let path = pki.directory().join(file);
                    fs::write(&path, &text[..text.len() / 2]).expect("written");
                    sleep(Duration::from_millis(300)).await;
                    fs::write(&path, text).expect("written");
                }
            }
            // With another authority of clients.
            2 => {
                pki.believe(&both).expect("written");
                pki.install(&pair).expect("installed");
            }
            // At once.
            _ => {
                pki.install(&pair).expect("installed");
                hang_up(&scene);
            }
        }
        eventually_shown(&new, &pair).await;
    }
    let newcomer = client(&scene, &pki, &successor, false);
    assert_eq!(sign(&newcomer, "a").await.expect("a reply").status, 200);

    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.expect("no failure");
    }
    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) > 0), "{counts:?}");
}

#[tokio::test]
async fn an_authority_that_is_taken_away_lets_nobody_in_any_more() {
    let scene = scene().await;
    let pki = pki(&scene);
    keeper(&scene, &["a"]).await;
    let (kept, new) = (client(&scene, &pki, &pki.clients, true), client(&scene, &pki, &pki.clients, false));
    let successor = TlsAuthority::new();
    let newcomer = client(&scene, &pki, &successor, false);
    for api in [&kept, &new] {
        assert_eq!(sign(api, "a").await.expect("a reply").status, 200);
    }
    assert!(sign(&newcomer, "a").await.is_err());
    pki.believe(&successor.root_pem()).expect("written");
    eventually("the old authority is refused", async || sign(&new, "a").await.is_err()).await;
    assert_eq!(sign(&newcomer, "a").await.expect("a reply").status, 200);
    // A connection that is open stays as it was accepted.
    assert_eq!(sign(&kept, "a").await.expect("a reply").status, 200);
}

#[tokio::test]
async fn what_cannot_be_used_stays_out_of_service_and_is_told_once_per_change() {
    let scene = scene().await;
    let pki = pki(&scene);
    let new = client(&scene, &pki, &pki.clients, false);
    let first = pki.server();
    pki.install(&first).expect("installed");
    eventually_shown(&new, &first).await;
    assert_eq!(complaints(&scene), 0, "{}", log(&scene));

    let second = pki.server();
    let path = |file: &str| pki.directory().join(file);
    let half = &second.certificate[..second.certificate.len() / 2];
    let mut told = 0;
    for (name, file, text) in [
        ("half_a_certificate", CERTIFICATE_FILE, Some(half)),
        ("of_another_key", CERTIFICATE_FILE, Some(second.certificate.as_str())),
        ("empty", CERTIFICATE_FILE, Some("")),
        ("half_a_key", KEY_FILE, Some(&second.key[..second.key.len() / 2])),
        ("no_authority", CLIENT_CA_FILE, Some("nobody\n")),
        ("gone", KEY_FILE, None),
    ] {
        let before = fs::read(path(file)).expect("read");
        match text {
            Some(text) => fs::write(path(file), text).expect("written"),
            None => fs::remove_file(path(file)).expect("removed"),
        }
        told += 1;
        eventually(name, async || complaints(&scene) == told).await;
        let complaint = log(&scene).lines().rfind(|line| line.contains(UNUSABLE)).expect("told").to_owned();
        assert!(complaint.contains(file), "{name}: {complaint}");
        assert_eq!(shown(&new).await, der(&first), "{name}");
        fs::write(path(file), before).expect("written");
        // Some looks later nothing more has been said; and what is right again is no news of harm.
        sleep(Duration::from_millis(2500)).await;
        assert_eq!(complaints(&scene), told, "{name}");
    }
    assert!(!log(&scene).contains("PRIVATE KEY"));
    pki.install(&second).expect("installed");
    eventually_shown(&new, &second).await;
    assert_eq!(complaints(&scene), told);
}

#[tokio::test]
async fn a_hangup_ends_nobody() {
    let plain = Scene::start().await;
    hang_up(&plain);
    let tls = scene().await;
    hang_up(&tls);
    let loaded = async || log(&tls).matches("TLS files loaded").count() == 2;
    eventually("the files are loaded again", loaded).await;
    for api in [&plain.api, &tls.api] {
        assert_eq!(api.get("/healthz").await.expect("a reply").status, 200);
    }
}
