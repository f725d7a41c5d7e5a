//! A running mock-kms, the clients that speak to it, and an enclave's side of an attested call.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use aws_nitro_enclaves_nsm_api::api::{Request, Response};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Credentials;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyEncryptionMechanism, RecipientInfo};
use strongroom_enclave::Attestor;
use strongroom_protocol::Measurement;
use strongroom_tests::mock_kms::{Control, Endpoint, TLS_ROOT_FILE, sdk_client};
use strongroom_tests::mock_nsm::{Machine, MockNsm};
use strongroom_tests::pki::NitroAuthority;
pub(crate) use strongroom_tests::stack::{KMS_HOST as HOST, REGION};
use tempfile::TempDir;

pub(crate) const ACCESS_KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const SECRET_ACCESS_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(crate) const ROLE: &str = "arn:aws:iam::111122223333:role/strongroom-parent";
pub(crate) const SESSION: &str = "arn:aws:sts::111122223333:assumed-role/strongroom-parent/mock";
pub(crate) const ADMINISTRATOR: &str = "arn:aws:iam::111122223333:role/administrator";

/// A process, its state directory and its controls. Dropped: killed and removed.
pub(crate) struct MockKms {
    process: Child,
    options: &'static [&'static str],
    pub(crate) state: TempDir,
    pub(crate) endpoint: Endpoint,
    pub(crate) control: Control,
}

impl MockKms {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub(crate) async fn start_with(options: &'static [&'static str]) -> Self {
        let state = TempDir::new().expect("a directory");
        let process = spawn(&state, options);
        let endpoint = await_endpoint(&state).await;
        Self { process, options, state, endpoint, control: Control::new(endpoint.control) }
    }

    /// Kills the process, as `kill -9` does, and starts another on the same state.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        std::fs::remove_file(self.state.path().join("endpoint.json")).expect("endpoint.json was there");
        self.process = spawn(&self.state, self.options);
        self.endpoint = await_endpoint(&self.state).await;
        self.control = Control::new(self.endpoint.control);
    }

    /// Makes the root of `nsm` the one that this KMS believes.
    pub(crate) fn trust(&self, nsm: &MockNsm) {
        std::fs::write(self.state.path().join("nsm-root.pem"), nsm.root_pem()).expect("written");
    }

    /// A plain SDK client with the credentials that exist from the start.
    pub(crate) fn client(&self) -> Client {
        self.client_as(Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test"))
    }

    pub(crate) fn client_as(&self, credentials: Credentials) -> Client {
        sdk_client(self.endpoint.kms, self.state.path(), credentials).expect("it runs")
    }

    pub(crate) fn tls_root(&self) -> Vec<u8> {
        std::fs::read(self.state.path().join(TLS_ROOT_FILE)).expect("the TLS root")
    }

    fn stop(&mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }
}

impl Drop for MockKms {
    fn drop(&mut self) {
        self.stop();
    }
}

fn spawn(state: &TempDir, options: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_mock-kms"))
        .arg("--state")
        .arg(state.path())
        .arg("--attestation-root")
        .arg(state.path().join("nsm-root.pem"))
        .args(["--access-key-id", ACCESS_KEY_ID, "--secret-access-key", SECRET_ACCESS_KEY])
        .args(options)
        .stderr(Stdio::null())
        .spawn()
        .expect("mock-kms starts")
}

async fn await_endpoint(state: &TempDir) -> Endpoint {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Endpoint::read(state.path()) {
            Ok(endpoint) => return endpoint,
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("mock-kms does not serve: {error}"),
        }
    }
}

/// What went wrong, as the SDK's user sees it: code and text.
pub(crate) fn refusal<T: std::fmt::Debug, E>(result: Result<T, SdkError<E>>) -> (String, String)
where
    SdkError<E>: ProvideErrorMetadata + std::fmt::Debug,
{
    let error = result.expect_err("the call must fail");
    let code = error.code().unwrap_or_else(|| panic!("no code: {error:?}")).to_owned();
    (code, error.message().unwrap_or_default().to_owned())
}

/// An enclave, as far as KMS can see: a measured and configured module, and an RSA key.
pub(crate) struct Enclave {
    pub(crate) nsm: MockNsm,
    pub(crate) key: PrivateDecryptingKey,
}

impl Enclave {
    /// An enclave of this machine, configured with these bytes.
    pub(crate) fn boot(machine: Machine, configuration: &[u8]) -> Self {
        Self::boot_under(NitroAuthority::new(), machine, configuration)
    }

    pub(crate) fn boot_under(authority: NitroAuthority, machine: Machine, configuration: &[u8]) -> Self {
        let mut enclave = Self::unconfigured(authority, machine);
        let (nsm, data) = (&mut enclave.nsm, Measurement::of(configuration).digest.to_vec());
        assert!(matches!(nsm.process(Request::ExtendPCR { index: 16, data }), Response::ExtendPCR { .. }));
        assert!(matches!(nsm.process(Request::LockPCR { index: 16 }), Response::LockPCR));
        enclave
    }

    pub(crate) fn unconfigured(authority: NitroAuthority, machine: Machine) -> Self {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
        Self { nsm: MockNsm::new(authority, machine), key }
    }

    /// A recipient with a document made now.
    pub(crate) fn recipient(&mut self) -> RecipientInfo {
        recipient(self.document(Some(spki(&self.key))))
    }

    pub(crate) fn document(&mut self, public_key: Option<Vec<u8>>) -> Vec<u8> {
        let public_key = public_key.map(Into::into);
        match self.nsm.process(Request::Attestation { user_data: None, nonce: None, public_key }) {
            Response::Attestation { document } => document,
            other => panic!("{other:?}"),
        }
    }
}

/// The key's SubjectPublicKeyInfo, DER.
pub(crate) fn spki(key: &PrivateDecryptingKey) -> Vec<u8> {
    key.public_key().as_der().expect("DER").as_ref().to_vec()
}

pub(crate) fn recipient(document: Vec<u8>) -> RecipientInfo {
    RecipientInfo::builder()
        .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
        .attestation_document(Blob::new(document))
        .build()
}

pub(crate) fn milliseconds_since_1970(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("this era")
}
