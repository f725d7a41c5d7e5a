//! `strongroom.toml`, and the enclave's configuration that it names. Everything is parsed here, once;
//! whoever gets a [`Loaded`] need not check it again. `strongroom.example.toml` explains every field. Who
//! may call from where is decided in `callers`.

mod callers;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use strongroom_protocol::{Address, Cid, Configuration, ConfigurationError};

use crate::auth::{Identities, Identity};
use crate::kms_proxy::Remote;
use crate::logging::Format;
use crate::tls::{Material, TlsError};
pub use callers::{ClientCertificates, Tls};

/// `strongroom.toml`. Unknown fields are errors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where callers connect. Port 0 takes a free one; the log names it.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The enclave.
    pub enclave: Enclave,
    /// The way to KMS; absent where AWS's `vsock-proxy` or another parent serves it.
    #[serde(default)]
    pub kms_proxy: Option<KmsProxy>,
    /// Where key records are kept.
    pub store: Store,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The log.
    #[serde(default)]
    pub log: Log,
    /// TLS towards callers; absent: plain HTTP.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// Who may call.
    #[serde(default)]
    pub identities: Vec<Identity>,
}

/// `[enclave]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enclave {
    /// Its socket.
    pub address: Address,
    /// The file that is measured into PCR16, sent byte for byte.
    pub configuration: PathBuf,
}

/// `[kms_proxy]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KmsProxy {
    /// Where the enclave connects.
    pub listen: Address,
    /// The one remote that it reaches; absent: the configuration's `kms_host`, port 443.
    #[serde(default)]
    pub remote: Option<Remote>,
}

/// `[store]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Store {
    /// Files named `KEY_ID.json`.
    Directory {
        /// The folder; made if it is missing.
        path: PathBuf,
    },
    /// A DynamoDB table with the partition key `key_id` (S).
    #[serde(rename = "dynamodb")]
    DynamoDb {
        /// Its name or ARN.
        table: String,
    },
    /// AWS Secrets Manager, one secret per key.
    SecretsManager {
        /// What stands before the key id in a secret's name.
        #[serde(default = "default_prefix")]
        prefix: String,
    },
}

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From a request's head to its reply, in seconds (1 to 300).
    pub request_timeout_seconds: u32,
    /// Connections of callers at one time; more wait to be accepted.
    pub connections: u32,
    /// Requests served at one time; more are refused at once. Probes do not count.
    pub requests: u32,
    /// The same of one identity.
    pub requests_per_identity: u32,
    /// Records cached at one time.
    pub cache_records: u32,
    /// How long a cached record is used without asking the store again, in seconds; 0 turns the cache off.
    pub cache_seconds: u32,
    /// How much longer it is used while the store is away, in seconds.
    pub cache_stale_seconds: u32,
}

/// `[log]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `json` or `text`.
    pub format: Format,
}

/// Both configurations and the files of `[tls]`, read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The parent's.
    pub config: Config,
    /// The enclave's, parsed for early errors and for its KMS host and Region.
    pub enclave: Configuration,
    /// The enclave's, as the enclave gets and measures it.
    pub enclave_bytes: Vec<u8>,
    /// What new connections are shown at first.
    pub tls: Option<Material>,
}

/// A configuration with which the parent does not start. Its author is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not TOML of this shape.
    #[error("{path}: {text}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        text: String,
    },
    /// A value that cannot be.
    #[error("{path}: {field}: {mend}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The field, as it is written in the file.
        field: String,
        /// What is wrong and how to mend it.
        mend: &'static str,
    },
    /// The enclave's configuration is not one that an enclave takes.
    #[error("{path}: {source}")]
    Enclave {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigurationError,
    },
    /// The files of `[tls]` cannot be served.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Config {
    /// Reads `strongroom.toml` at `path`, the enclave's configuration and the TLS files that it names.
    /// Relative paths in it start from the folder that it stands in.
    ///
    /// # Errors
    /// Its author's; the text names file, place and mend.
    pub fn load(path: &Path) -> Result<Loaded, ConfigError> {
        let text = String::from_utf8(read(path)?)
            .map_err(|_| ConfigError::Toml { path: path.to_owned(), text: "not UTF-8 text".to_owned() })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|e| ConfigError::Toml { path: path.to_owned(), text: e.to_string().trim_end().to_owned() })?;
        config.check().map_err(|(field, mend)| ConfigError::Value { path: path.to_owned(), field, mend })?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        let file = config.enclave.configuration.clone();
        let enclave_bytes = read(&file)?;
        let enclave =
            Configuration::parse(&enclave_bytes).map_err(|source| ConfigError::Enclave { path: file, source })?;
        let tls = config.tls.as_ref().map(Material::load).transpose()?;
        Ok(Loaded { config, enclave, enclave_bytes, tls })
    }

    /// Who may call, as the configuration has it.
    #[must_use]
    pub fn identities(&self) -> Identities {
        if self.identities.is_empty() {
            Identities::AnyLocalCaller
        } else {
            Identities::Known(self.identities.iter().cloned().map(Into::into).collect())
        }
    }

    fn resolve(&mut self, folder: &Path) {
        self.enclave.configuration = folder.join(&self.enclave.configuration);
        if let Store::Directory { path } = &mut self.store {
            *path = folder.join(&*path);
        }
        if let Some(tls) = &mut self.tls {
            tls.resolve(folder);
        }
    }

    fn check(&self) -> Result<(), (String, &'static str)> {
        if matches!(self.enclave.address, Address::Vsock { cid: Cid::Any | Cid::Parent, .. }) {
            return Err(("enclave.address".to_owned(), "name the enclave's CID: vsock:CID:PORT"));
        }
        if let Some(KmsProxy { listen: Address::Vsock { cid: Cid::Parent, .. }, .. }) = self.kms_proxy {
            return Err((
                "kms_proxy.listen".to_owned(),
                "PARENT is the enclave's word for this side: use vsock:ANY:PORT",
            ));
        }
        self.limits.check()?;
        self.store.check()?;
        callers::check(self)
    }
}

impl Store {
    fn check(&self) -> Result<(), (String, &'static str)> {
        let prefix_char = |c: u8| c.is_ascii_alphanumeric() || b"/_+=.@-".contains(&c);
        match self {
            Self::DynamoDb { table } if table.is_empty() => Err(("store.table".to_owned(), "must be named")),
            // The characters of a secret's name; 512 at most, of which a key id takes 64.
            Self::SecretsManager { prefix } if prefix.len() > 400 || !prefix.bytes().all(prefix_char) => {
                Err(("store.prefix".to_owned(), "at most 400 of [A-Za-z0-9/_+=.@-]"))
            }
            _ => Ok(()),
        }
    }
}

impl Limits {
    /// From a request's head to its reply.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds.into())
    }

    /// How long cached records are used while the store is away.
    #[must_use]
    pub fn cache_stale(&self) -> Duration {
        Duration::from_secs(self.cache_stale_seconds.into())
    }

    fn check(&self) -> Result<(), (String, &'static str)> {
        if !(1..=300).contains(&self.request_timeout_seconds) {
            return Err(("limits.request_timeout_seconds".to_owned(), "must be 1 to 300"));
        }
        if !(1..=100_000).contains(&self.connections) {
            return Err(("limits.connections".to_owned(), "must be 1 to 100000"));
        }
        if !(1..=4096).contains(&self.requests) {
            return Err(("limits.requests".to_owned(), "must be 1 to 4096, which is what the enclave takes"));
        }
        if !(1..=4096).contains(&self.requests_per_identity) {
            return Err(("limits.requests_per_identity".to_owned(), "must be 1 to 4096"));
        }
        Ok(())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_timeout_seconds: 10,
            connections: 1024,
            requests: 1024,
            requests_per_identity: 768,
            cache_records: 100_000,
            cache_seconds: 60,
            cache_stale_seconds: 86_400,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ConfigError> {
    std::fs::read(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn default_prefix() -> String {
    "strongroom/".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "[enclave]\naddress = \"vsock:16:5005\"\nconfiguration = \"enclave.json\"\n\
                           [store]\ntype = \"directory\"\npath = \"keys\"\n";
    const ENCLAVE: &str = include_str!("../../enclave.example.json");

    fn load(toml: &str) -> Result<Loaded, String> {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("strongroom.toml");
        std::fs::write(&path, toml).expect("written");
        std::fs::write(folder.path().join("enclave.json"), ENCLAVE).expect("written");
        Config::load(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn the_examples_are_valid() {
        let example =
            include_str!("../../strongroom.example.toml").replace("/etc/strongroom/enclave.json", "enclave.json");
        let loaded = load(&example).expect("valid");
        assert_eq!(loaded.enclave_bytes, ENCLAVE.as_bytes());
        assert!(!loaded.config.identities.is_empty());
    }

    #[test]
    fn a_minimal_file_binds_loopback_and_resolves_paths_from_its_folder() {
        let loaded = load(MINIMAL).expect("valid");
        assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:8080");
        assert!(matches!(loaded.config.identities(), Identities::AnyLocalCaller));
        assert!(matches!(loaded.config.store, Store::Directory { path } if path.is_absolute()));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (name, text, told) in [
            ("unknown_field", format!("lisen = \"127.0.0.1:1\"\n{MINIMAL}"), "line 1"),
            ("no_cid", MINIMAL.replace("16", "ANY"), "enclave.address"),
            ("not_an_address", MINIMAL.replace("vsock:16:5005", "16:5005"), "line 2"),
            ("unknown_store", MINIMAL.replace("directory", "floppy"), "floppy"),
            ("store_field", format!("{MINIMAL}table = \"t\"\n"), "table"),
            ("no_configuration", MINIMAL.replace("enclave.json", "missing.json"), "missing.json"),
            ("timeout", format!("{MINIMAL}[limits]\nrequest_timeout_seconds = 0\n"), "limits.request_timeout_seconds"),
            ("hash", format!("{MINIMAL}[[identities]]\nname = \"a\"\ntoken_sha256 = \"12\"\n"), "token new"),
        ] {
            let error = load(&text).expect_err(name);
            assert!(error.contains(told), "{name}: {error}");
        }
    }
}
