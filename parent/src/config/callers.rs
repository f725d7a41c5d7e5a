//! Who may call from where: `[tls]`, `[[identities]]`, and what they demand of each other and of `listen`.
//! What the files of `[tls]` must hold is decided in `tls`.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Config;
use crate::auth::{Identity, Proof};

/// `[tls]`. The files are read again when they change, and on SIGHUP.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The server's certificate and its issuers', PEM.
    pub certificate: PathBuf,
    /// The certificate's key, PEM.
    pub key: PathBuf,
    /// The authorities that issue client certificates, PEM; absent: no client certificate is looked at.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a caller must have one; absent: the default.
    #[serde(default)]
    pub client_certificates: Option<ClientCertificates>,
}

/// Whether callers must have a client certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Without one there is no connection, not even for who has a token.
    #[default]
    Required,
    /// Callers with a token need none.
    Optional,
}

impl Tls {
    pub(super) fn resolve(&mut self, folder: &Path) {
        for path in [Some(&mut self.certificate), Some(&mut self.key), self.client_ca.as_mut()].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }
}

impl fmt::Display for ClientCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optional => "optional",
        })
    }
}

pub(super) fn check(config: &Config) -> Result<(), (String, &'static str)> {
    check_listen(config)?;
    let client_ca = config.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    if !client_ca && config.tls.as_ref().is_some_and(|tls| tls.client_certificates.is_some()) {
        return Err(("tls.client_certificates".to_owned(), "needs client_ca: the authorities that issue them"));
    }
    check_identities(&config.identities, client_ca)
}

/// Beyond this machine, a token must not travel in clear, and being able to connect proves nothing.
fn check_listen(config: &Config) -> Result<(), (String, &'static str)> {
    if config.listen.ip().is_loopback() {
        return Ok(());
    }
    let mend = match (&config.tls, config.identities.is_empty()) {
        (Some(_), false) => return Ok(()),
        (None, false) => {
            "beyond the loopback interface, callers are served over TLS only: add [tls], or listen on 127.0.0.1 or [::1]"
        }
        (Some(_), true) => {
            "beyond the loopback interface, only known callers are served: add [[identities]], or listen on 127.0.0.1 or [::1]"
        }
        (None, true) => {
            "beyond the loopback interface, only known callers are served, over TLS: add [tls] and [[identities]], or listen on 127.0.0.1 or [::1]"
        }
    };
    Err(("listen".to_owned(), mend))
}

fn check_identities(identities: &[Identity], client_ca: bool) -> Result<(), (String, &'static str)> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let (mut names, mut proofs) = (HashSet::new(), HashSet::new());
    for Identity { name, proof, .. } in identities {
        let field = || format!("identities: {name:?}");
        if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
            return Err((field(), "a name is 1 to 64 of [A-Za-z0-9._-]"));
        }
        if !names.insert(name) {
            return Err((field(), "the name stands twice: the log could not tell them apart"));
        }
        match proof {
            Proof::Certificate(_) if !client_ca => {
                return Err((field(), "client_dns_name needs [tls] with client_ca: the authorities that may issue it"));
            }
            _ if proofs.insert(proof) => {}
            Proof::Token(_) => {
                return Err((field(), "another identity has the same token: make one with `strongroom token new`"));
            }
            Proof::Certificate(_) => return Err((field(), "another identity has the same client_dns_name")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "[[identities]]\nname = \"a\"\ntoken_sha256 = \"00\"\n";
    const CLIENT: &str = "[[identities]]\nname = \"b\"\nclient_dns_name = \"b.internal\"\n";
    const TLS: &str = "[tls]\ncertificate = \"server.pem\"\nkey = \"/keys/server.key\"\n";
    const CLIENT_CA: &str = "client_ca = \"clients.pem\"\n";

    fn config(listen: &str, parts: &[&str]) -> Config {
        let rest = parts.concat().replace("\"00\"", &format!("\"{}\"", "00".repeat(32)));
        toml::from_str(&format!(
            "listen = \"{listen}\"\n[enclave]\naddress = \"vsock:16:5005\"\nconfiguration = \"enclave.json\"\n\
             [store]\ntype = \"directory\"\npath = \"keys\"\n{rest}"
        ))
        .expect("TOML of this shape")
    }

    #[test]
    fn beyond_loopback_callers_need_tls_and_identities() {
        for (parts, needed) in [
            (vec![], vec!["[tls]", "[[identities]]"]),
            (vec![TOKEN], vec!["[tls]"]),
            (vec![TLS], vec!["[[identities]]"]),
            (vec![TLS, TOKEN], vec![]),
            (vec![TLS, CLIENT_CA, CLIENT], vec![]),
        ] {
            for loopback in ["127.0.0.1:8080", "127.0.0.2:8080", "[::1]:8080"] {
                assert_eq!(check(&config(loopback, &parts)), Ok(()), "{loopback} {parts:?}");
            }
            for beyond in ["0.0.0.0:8443", "[::]:8443", "10.0.0.1:8443", "[::ffff:127.0.0.1]:8443"] {
                match check(&config(beyond, &parts)) {
                    Ok(()) => assert!(needed.is_empty(), "{beyond} {parts:?}"),
                    Err((field, mend)) => {
                        assert!(field == "listen" && !needed.is_empty(), "{beyond} {parts:?}: {mend}");
                        assert!(needed.iter().all(|needed| mend.contains(needed)), "{beyond} {parts:?}: {mend}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_told() {
        let other = |table: &str| table.replace("name = \"a\"", "name = \"c\"").replace("name = \"b\"", "name = \"d\"");
        for (name, parts, told) in [
            ("certificates_without_ca", [TLS, "client_certificates = \"optional\"\n", ""], "client_ca"),
            ("name_without_tls", [CLIENT, "", ""], "client_ca"),
            ("name_without_ca", [TLS, CLIENT, ""], "client_ca"),
            ("name_twice", [TOKEN, TOKEN, ""], "stands twice"),
            ("token_twice", [TOKEN, &other(TOKEN), ""], "the same token"),
            ("dns_name_twice", [&[TLS, CLIENT_CA].concat(), CLIENT, &other(CLIENT)], "the same client_dns_name"),
            (
                "dns_name_twice_but_for_case",
                [&[TLS, CLIENT_CA].concat(), CLIENT, &other(CLIENT).replace("b.internal", "B.Internal")],
                "the same client_dns_name",
            ),
        ] {
            let (field, mend) = check(&config("127.0.0.1:1", &parts)).expect_err(name);
            assert!(mend.contains(told), "{name}: {field}: {mend}");
        }
    }

    #[test]
    fn paths_start_from_the_folder_of_the_file() {
        let mut tls = config("127.0.0.1:1", &[TLS, CLIENT_CA]).tls.expect("a table");
        tls.resolve(Path::new("/etc/strongroom"));
        assert_eq!(tls.certificate, Path::new("/etc/strongroom/server.pem"));
        assert_eq!(tls.key, Path::new("/keys/server.key"));
        assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/etc/strongroom/clients.pem")));
    }
}
