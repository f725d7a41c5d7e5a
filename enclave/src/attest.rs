//! The Nitro Secure Module: measuring the configuration, the kinds of attestation document, and entropy. One thread
//! owns the device; it serves one request at a time, so it is never on the executor and never in the path of a
//! signature.

use std::panic::{AssertUnwindSafe, catch_unwind};

use aws_nitro_enclaves_nsm_api::api::{ErrorCode as DeviceError, Request, Response};
use aws_nitro_enclaves_nsm_api::driver::{nsm_init, nsm_process_request};
use sha2::{Digest, Sha256};
use strongroom_protocol::document::{AttestationDocument, DocumentError};
use strongroom_protocol::{
    Binding, ErrorCode, HpkePublicKey, ImportKeyId, Measurement, Nonce, SealedKey, Subject, export_user_data,
    key_user_data,
};
use tokio::sync::{mpsc, oneshot};

use crate::secret::{Secret, on_wiped_stack};

/// A Nitro Secure Module at the level of its device: one request in, one response out. The one trait
/// of the project with two lives: `/dev/nsm`, and the tests' mock.
pub trait Attestor: Send + 'static {
    /// Processes one request, as the `ioctl` on `/dev/nsm` does.
    fn process(&mut self, request: Request) -> Response;
}

/// `/dev/nsm`, opened once and kept.
pub struct NsmDevice(i32);

impl NsmDevice {
    /// Opens the device.
    ///
    /// # Errors
    /// This is not an enclave, or its kernel has no NSM driver.
    pub fn open() -> Result<Self, NsmError> {
        match nsm_init() {
            -1 => Err(NsmError::NoDevice),
            fd => Ok(Self(fd)),
        }
    }
}

impl Attestor for NsmDevice {
    fn process(&mut self, request: Request) -> Response {
        nsm_process_request(self.0, request)
    }
}

/// Why the secure module did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NsmError {
    /// `/dev/nsm` cannot be opened.
    #[error("/dev/nsm cannot be opened: not an enclave, or a kernel without the NSM driver")]
    NoDevice,
    /// The device answered with an error of its own.
    #[error("the NSM refused: {0:?}")]
    Refused(DeviceError),
    /// The device answered something else than was asked.
    #[error("the NSM answered out of place")]
    OutOfPlace,
    /// Its document cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The device's thread is gone.
    #[error("the NSM thread is gone")]
    Gone,
}

impl From<NsmError> for ErrorCode {
    fn from(error: NsmError) -> Self {
        tracing::error!(%error, "the NSM failed");
        Self::AttestationFailed
    }
}

/// The register that the configuration is measured into. An application's registers start at 16.
const CONFIGURATION_PCR: u16 = 16;

/// Requests that may wait for the device.
const QUEUE: usize = 64;

const ENTROPY_DOMAIN: &[u8] = b"strongroom-entropy-v1";

/// A handle to the thread that owns the device.
#[derive(Clone)]
pub(crate) struct Nsm(mpsc::Sender<(Request, oneshot::Sender<Response>)>);

/// Why the configuration was not measured. Final until reboot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MeasureError {
    /// PCR16 does not hold in the document what it was extended by.
    #[error("PCR16 does not hold the configuration's measurement")]
    Mismatch,
    /// The device failed.
    #[error(transparent)]
    Nsm(#[from] NsmError),
}

impl Nsm {
    /// Starts the device's thread.
    pub(crate) fn start(mut attestor: Box<dyn Attestor>) -> std::io::Result<Self> {
        let (requests, mut queue) = mpsc::channel::<(Request, oneshot::Sender<Response>)>(QUEUE);
        std::thread::Builder::new().name("nsm".to_owned()).spawn(move || {
            while let Some((request, reply)) = queue.blocking_recv() {
                // A panic in the device's crate must not take the thread along: nothing would attest again.
                let response = catch_unwind(AssertUnwindSafe(|| attestor.process(request)))
                    .unwrap_or(Response::Error(DeviceError::InternalError));
                // Whoever asked may have given up meanwhile.
                let _ = reply.send(response);
            }
        })?;
        Ok(Self(requests))
    }

    /// Whether this enclave runs in debug mode (PCR0 zero), read from its own document.
    pub(crate) async fn is_debug_mode(&self) -> Result<bool, NsmError> {
        let document = self.attest(None, Some(Subject::Enclave { configuration: None }.user_data()), None).await?;
        Ok(AttestationDocument::parse(&document)?.payload.is_debug_mode())
    }

    /// Whether PCR16 is as it is at boot: zero and unlocked.
    pub(crate) async fn can_measure(&self) -> Result<bool, NsmError> {
        match self.process(Request::DescribePCR { index: CONFIGURATION_PCR }).await? {
            Response::DescribePCR { lock, data } => Ok(!lock && data == [0; 48]),
            other => Err(unexpected(other)),
        }
    }

    /// Extends PCR16 by the measurement, locks it, and reads it back from a document. Once it has
    /// begun, failure is final until reboot.
    pub(crate) async fn measure(&self, measurement: &Measurement) -> Result<(), MeasureError> {
        let extend = Request::ExtendPCR { index: CONFIGURATION_PCR, data: measurement.digest.to_vec() };
        match self.process(extend).await? {
            Response::ExtendPCR { .. } => {}
            other => return Err(unexpected(other).into()),
        }
        match self.process(Request::LockPCR { index: CONFIGURATION_PCR }).await? {
            Response::LockPCR => {}
            other => return Err(unexpected(other).into()),
        }
        let document = self.enclave_evidence(Some(measurement), Nonce::default()).await?;
        let payload = AttestationDocument::parse(&document).map_err(NsmError::from)?.payload;
        if payload.pcr(16) == Some(&measurement.pcr16) { Ok(()) } else { Err(MeasureError::Mismatch) }
    }

    /// For KMS: carries the enclave's RSA key; leaves only inside TLS to KMS.
    pub(crate) async fn recipient_document(&self, public_key_der: &[u8]) -> Result<Vec<u8>, NsmError> {
        let subject = Subject::Recipient { public_key: Sha256::digest(public_key_der).into() };
        self.attest(Some(public_key_der.to_vec()), Some(subject.user_data()), None).await
    }

    /// For custodians: carries an import key, which is an HPKE key and never one that KMS would encrypt to.
    pub(crate) async fn import_document(
        &self,
        public_key: &HpkePublicKey,
        id: &ImportKeyId,
        nonce: Nonce,
    ) -> Result<Vec<u8>, NsmError> {
        self.attest(Some(public_key.to_vec()), Some(id.user_data()), Some(nonce.into_vec())).await
    }

    /// Evidence about the enclave: `public_key` null; `user_data` names the measured configuration.
    pub(crate) async fn enclave_evidence(
        &self,
        configuration: Option<&Measurement>,
        nonce: Nonce,
    ) -> Result<Vec<u8>, NsmError> {
        let subject = Subject::Enclave { configuration: configuration.map(|measurement| measurement.digest) };
        self.attest(None, Some(subject.user_data()), Some(nonce.into_vec())).await
    }

    /// Evidence about an export: `public_key` null; `user_data` is what was sealed, for whom.
    pub(crate) async fn export_evidence(
        &self,
        info: &[u8],
        sealed: &SealedKey,
        nonce: Nonce,
    ) -> Result<Vec<u8>, NsmError> {
        self.attest(None, Some(export_user_data(info, sealed)), Some(nonce.into_vec())).await
    }

    /// Evidence about a key: `public_key` null; `user_data` is the digest of the binding.
    pub(crate) async fn key_evidence(&self, binding: &Binding, nonce: Nonce) -> Result<Vec<u8>, NsmError> {
        self.attest(None, Some(key_user_data(binding)), Some(nonce.into_vec())).await
    }

    /// 32 new secret bytes: the NSM's randomness and the kernel's, mixed so that neither alone decides.
    pub(crate) async fn new_secret(&self) -> Result<Secret<32>, NsmError> {
        let Response::GetRandom { random } = self.process(Request::GetRandom).await? else {
            return Err(NsmError::OutOfPlace);
        };
        if random.len() < 32 {
            return Err(NsmError::OutOfPlace);
        }
        let kernel = Secret::<64>::fill(|bytes| getrandom::fill(bytes)).map_err(|_| NsmError::OutOfPlace)?;
        Secret::fill(|secret| {
            on_wiped_stack(|| {
                let mixed =
                    Sha256::new().chain_update(ENTROPY_DOMAIN).chain_update(&random).chain_update(kernel.expose());
                mixed.finalize_into(secret.into());
                Ok(())
            })
        })
    }

    async fn attest(
        &self,
        public_key: Option<Vec<u8>>,
        user_data: Option<Vec<u8>>,
        nonce: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, NsmError> {
        let request = Request::Attestation {
            user_data: user_data.map(Into::into),
            nonce: nonce.filter(|nonce| !nonce.is_empty()).map(Into::into),
            public_key: public_key.map(Into::into),
        };
        match self.process(request).await? {
            Response::Attestation { document } => Ok(document),
            other => Err(unexpected(other)),
        }
    }

    async fn process(&self, request: Request) -> Result<Response, NsmError> {
        let (reply, response) = oneshot::channel();
        self.0.send((request, reply)).await.map_err(|_| NsmError::Gone)?;
        response.await.map_err(|_| NsmError::Gone)
    }
}

fn unexpected(response: Response) -> NsmError {
    match response {
        Response::Error(error) => NsmError::Refused(error),
        _ => NsmError::OutOfPlace,
    }
}
