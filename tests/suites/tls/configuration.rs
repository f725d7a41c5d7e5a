//! With which configuration there is an endpoint: what `config check` and `serve` refuse, and in what
//! words.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, SystemTime};

use strongroom_tests::endpoint::Pki;
use strongroom_tests::pki::{CertificateSpec, TlsPair, server_spec};
use strongroom_tests::stack::{CONFIG_FILE, binary, test_directory};
use tokio::process::Command;
use tokio::time::timeout;

const ENCLAVE: &str = include_str!("../../../enclave.example.json");
const REST: &str = "[enclave]\naddress = \"unix:enclave.sock\"\nconfiguration = \"enclave.json\"\n\
                    [store]\ntype = \"directory\"\npath = \"keys\"\n";
const TLS: &str = "[tls]\ncertificate = \"tls/server.pem\"\nkey = \"tls/server.key\"\n";
const CLIENT_CA: &str = "client_ca = \"tls/clients.pem\"\n";
const TOKEN: &str = "[[identities]]\nname = \"token\"\ntoken_sha256 = \
                     \"abababababababababababababababababababababababababababababababab\"\n";
const CERTIFICATE: &str = "[[identities]]\nname = \"certificate\"\nclient_dns_name = \"a.internal\"\n";

/// A folder with the files of a good configuration.
fn folder() -> (tempfile::TempDir, Pki) {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
    let pki = Pki::open(folder.path()).expect("a PKI");
    (folder, pki)
}

async fn strongroom(folder: &Path, arguments: &[&str], toml: &str) -> Output {
    fs::write(folder.join(CONFIG_FILE), toml).expect("written");
    // From elsewhere: the paths start from the file.
    let mut command = Command::new(binary("strongroom"));
    command.args(arguments).arg("--config").arg(folder.join(CONFIG_FILE)).kill_on_drop(true);
    timeout(Duration::from_secs(20), command.output()).await.expect("it ends").expect("it runs")
}

async fn check(folder: &Path, toml: &str) -> Output {
    strongroom(folder, &["config", "check"], toml).await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test]
async fn beyond_loopback_only_with_tls_and_at_least_one_identity() {
    let (folder, _) = folder();
    let with_ca = format!("{TLS}{CLIENT_CA}");
    for (parts, beyond) in [
        ("", None),
        (TOKEN, Some("[tls]")),
        (TLS, Some("[[identities]]")),
        (&with_ca, Some("[[identities]]")),
        (&format!("{TLS}{TOKEN}"), None),
        (&format!("{with_ca}{TOKEN}"), None),
        (&format!("{with_ca}{CERTIFICATE}"), None),
        (&format!("{with_ca}{CERTIFICATE}{TOKEN}"), None),
    ] {
        let beyond = if parts.is_empty() { Some("[tls] and [[identities]]") } else { beyond };
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let output = check(folder.path(), &format!("listen = \"{listen}\"\n{REST}{parts}")).await;
            assert!(output.status.success(), "{listen} {parts}: {}", said(&output));
        }
        for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8443"] {
            let output = check(folder.path(), &format!("listen = \"{listen}\"\n{REST}{parts}")).await;
            assert_eq!(output.status.success(), beyond.is_none(), "{listen} {parts}: {}", said(&output));
            if let Some(needed) = beyond {
                assert!(said(&output).contains("listen: beyond the loopback interface"), "{}", said(&output));
                assert!(said(&output).contains(needed), "{listen} {parts}: {}", said(&output));
            }
        }
    }
}

#[tokio::test]
async fn check_shows_what_will_be_served() {
    let (folder, _) = folder();
    let output = check(folder.path(), &format!("{REST}{TLS}{CLIENT_CA}{CERTIFICATE}")).await;
    let said = said(&output);
    assert!(said.contains("localhost, 127.0.0.1, valid until ") && said.contains("required"), "{said}");
    let plain = check(folder.path(), REST).await;
    assert!(self::said(&plain).contains("plain HTTP"), "{}", self::said(&plain));
}

#[tokio::test]
async fn identities_and_tables_that_contradict_themselves_are_refused() {
    let (folder, _) = folder();
    let both = TOKEN.replace("name = \"token\"", "name = \"token\"\nclient_dns_name = \"a.internal\"");
    for (name, parts, told) in [
        ("certificates_without_ca", format!("{TLS}client_certificates = \"optional\"\n"), "client_ca"),
        ("unknown_demand", format!("{TLS}{CLIENT_CA}client_certificates = \"maybe\"\n"), "maybe"),
        ("name_without_tls", CERTIFICATE.to_owned(), "client_ca"),
        ("name_without_ca", format!("{TLS}{CERTIFICATE}"), "client_ca"),
        ("token_and_name", format!("{TLS}{CLIENT_CA}{both}"), "either token_sha256 or client_dns_name"),
        ("neither", "[[identities]]\nname = \"x\"\n".to_owned(), "either token_sha256 or client_dns_name"),
        ("wildcard", format!("{TLS}{CLIENT_CA}{}", CERTIFICATE.replace("a.int", "*.int")), "not a DNS name"),
        (
            "name_twice",
            format!("{TLS}{CLIENT_CA}{CERTIFICATE}{}", CERTIFICATE.replace("\"certificate\"", "\"other\"")),
            "same client_dns_name",
        ),
        ("half_a_table", "[tls]\ncertificate = \"tls/server.pem\"\n".to_owned(), "key"),
        ("unknown_field", format!("{TLS}ca = \"tls/clients.pem\"\n"), "ca"),
    ] {
        let output = check(folder.path(), &format!("{REST}{parts}")).await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert!(said(&output).contains(told), "{name}: {}", said(&output));
    }
}

#[tokio::test]
async fn files_that_cannot_be_served_are_named_by_check_and_serve() {
    let (folder, pki) = folder();
    let (good, other) = (pki.server(), pki.server());
    let read = |file: &str| fs::read_to_string(pki.directory().join(file)).expect("read");
    let clients = read("clients.pem");
    let broken = |pem: &str| pem.replace("-----END", "----END");
    for (name, file, text, told) in [
        ("other_key", "server.key", other.key.clone(), "not the key of the first certificate in"),
        ("no_certificate", "server.pem", good.key.clone(), "no certificate in it"),
        ("no_key", "server.key", good.certificate.clone(), "no private key in it"),
        ("encrypted_key", "server.key", good.key.replace("PRIVATE", "ENCRYPTED PRIVATE"), "not encrypted"),
        ("half_a_certificate", "server.pem", broken(&good.certificate), "not whole PEM"),
        ("half_a_key", "server.key", broken(&good.key), "not whole PEM"),
        (
            "not_base64",
            "server.key",
            "-----BEGIN PRIVATE KEY-----\n!!!!\n-----END PRIVATE KEY-----\n".to_owned(),
            "not base64",
        ),
        (
            "not_x509",
            "server.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "cannot be read",
        ),
        (
            "no_key_inside",
            "server.key",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_owned(),
            "the key cannot be used",
        ),
        ("issuer_first", "server.pem", pki.servers.root_pem() + &good.certificate, "own certificate first"),
        ("no_authority", "clients.pem", String::new(), "no certificate in it"),
        ("half_an_authority", "clients.pem", clients.clone() + &broken(&clients), "not whole PEM"),
        ("endless", "clients.pem", "#".repeat(5 * 1024 * 1024), "longer than"),
    ] {
        pki.install(&good).expect("installed");
        pki.believe(&clients).expect("written");
        fs::write(pki.directory().join(file), text).expect("written");
        let toml = format!("listen = \"127.0.0.1:0\"\n{REST}{TLS}{CLIENT_CA}{CERTIFICATE}");
        for command in [&["config", "check"][..], &["serve"]] {
            let output = strongroom(folder.path(), command, &toml).await;
            assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
            assert!(said(&output).contains(&format!("tls/{file}: ")), "{name}: {}", said(&output));
            assert!(said(&output).contains(told), "{name}: {}", said(&output));
            assert!(!said(&output).contains(good.key.lines().nth(1).expect("a line")), "{name}");
        }
    }
    fs::remove_file(pki.directory().join("server.key")).expect("removed");
    let output = check(folder.path(), &format!("{REST}{TLS}")).await;
    assert!(said(&output).contains("tls/server.key: cannot be read"), "{}", said(&output));
}

#[tokio::test]
async fn dates_are_warned_of_and_served() {
    const HOUR: Duration = Duration::from_secs(3600);
    let expire = |spec: &mut CertificateSpec| spec.params.not_after = (SystemTime::now() - HOUR).into();
    let soon = |spec: &mut CertificateSpec| spec.params.not_after = (SystemTime::now() + 24 * HOUR).into();
    let later = |spec: &mut CertificateSpec| spec.params.not_before = (SystemTime::now() + HOUR).into();
    for (change, told) in [
        (&expire as &dyn Fn(&mut CertificateSpec), "has expired"),
        (&soon, "expires in less than 14 days"),
        (&later, "is not valid yet"),
    ] {
        let (folder, pki) = folder();
        let mut spec = server_spec(&["localhost"]);
        change(&mut spec);
        pki.install(&pki.servers.pair(&spec)).expect("installed");
        let toml = format!("listen = \"127.0.0.1:0\"\n{REST}{TLS}");
        assert!(check(folder.path(), &toml).await.status.success());
        let log = log_of_serve(folder.path()).await;
        assert!(log.contains(told), "{told}: {log}");
        assert!(log.contains("WARN"), "{log}");
    }
}

/// What `serve` logs until it listens.
async fn log_of_serve(folder: &Path) -> String {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let mut command = Command::new(binary("strongroom"));
    command.args(["serve", "--config", CONFIG_FILE]).current_dir(folder).kill_on_drop(true);
    command.env("AWS_EC2_METADATA_DISABLED", "true").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut log = String::new();
    while !log.contains("listening") {
        let line = timeout(Duration::from_secs(20), lines.next_line()).await.expect("a line in time");
        log += &line.expect("text").expect("it listens before it ends");
    }
    log
}

#[tokio::test]
async fn keys_of_every_usual_kind_are_served() {
    let (folder, pki) = folder();
    let mut ed25519 = server_spec(&["localhost"]);
    ed25519.key = &rcgen::PKCS_ED25519;
    let mut p384 = server_spec(&["localhost"]);
    p384.key = &rcgen::PKCS_ECDSA_P384_SHA384;
    for spec in [ed25519, p384] {
        let pair = pki.servers.pair(&spec);
        // What stands around is not looked at, and a chain may follow.
        let pair = TlsPair {
            certificate: format!("subject=/CN=localhost\n{}{}", pair.certificate, pki.servers.root_pem()),
            key: format!("Bag attributes\n{}", pair.key),
        };
        pki.install(&pair).expect("installed");
        let output = check(folder.path(), &format!("{REST}{TLS}")).await;
        assert!(output.status.success(), "{}", said(&output));
    }
}
