//! An honest double of the Nitro Secure Module at the level of its device: the same requests, limits,
//! error codes, registers and documents, under a root of its own. It signs what a real one would sign
//! and nothing else; documents that no NSM makes are built by the suites with [`cose_sign1`].

#![expect(clippy::expect_used, reason = "a double that cannot sign has nothing to go on with")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use aws_nitro_enclaves_nsm_api::api::{Digest, ErrorCode, Request, Response};
use serde_cbor::Value;
use sha2::{Digest as _, Sha384};
use strongroom_enclave::Attestor;

use crate::pki::{NitroAuthority, NitroChain};

/// A register's value: SHA-384.
pub type Pcr = [u8; 48];

/// How the simulated machine is.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The image that runs, named; PCR0-2 follow from it.
    pub image: String,
    /// The ARN of the parent's role; PCR3 follows from it.
    pub role: String,
    /// The parent's instance id; PCR4 follows from it.
    pub instance: String,
    /// Started with `--debug-mode`: PCR0-2 are zero, as on Nitro.
    pub debug_mode: bool,
    /// What somebody did to PCR16 before the application ran; on an honest machine: nothing.
    pub used_pcr16: Option<UsedPcr16>,
    /// How long each request takes.
    pub latency: Duration,
    /// How far the module's clock is from the system's, in seconds.
    pub clock_offset_seconds: i64,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            image: "strongroom-dev".to_owned(),
            role: "arn:aws:iam::111122223333:role/strongroom-parent".to_owned(),
            instance: "i-0123456789abcdef0".to_owned(),
            debug_mode: false,
            used_pcr16: None,
            latency: Duration::ZERO,
            clock_offset_seconds: 0,
        }
    }
}

/// How PCR16, which is the application's, was used by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UsedPcr16 {
    /// Extended, so that no later extension gives what it should; documents do not show it.
    Extended,
    /// Locked at zero: documents show zeroes.
    Locked,
    /// Both: documents show a value that is nobody's configuration.
    ExtendedAndLocked,
}

/// PCR0-2 of an image: what a build would print for it.
#[must_use]
pub fn image_pcrs(label: &str) -> [Pcr; 3] {
    ["image", "kernel and boot ramfs", "application"].map(|part| extended(&ZERO, &measured(part, label)))
}

/// The module. One request at a time, as the driver's mutex has it.
pub struct MockNsm {
    machine: Machine,
    module_id: String,
    authority: NitroAuthority,
    registers: [Register; REGISTERS],
    framing: Framing,
}

impl MockNsm {
    /// A module of a machine that just booted: PCR0-15 measured and locked, the others zero (but for
    /// [`Machine::used_pcr16`]).
    #[must_use]
    pub fn new(authority: NitroAuthority, machine: Machine) -> Self {
        let mut registers = [Register { value: ZERO, locked: false }; REGISTERS];
        let [image, kernel, application] = if machine.debug_mode { [ZERO; 3] } else { image_pcrs(&machine.image) };
        let role = extended(&ZERO, machine.role.as_bytes());
        let instance = extended(&ZERO, machine.instance.as_bytes());
        for (register, value) in registers.iter_mut().zip([image, kernel, application, role, instance]) {
            register.value = value;
        }
        registers.iter_mut().take(BOOT_REGISTERS).for_each(|register| register.locked = true);
        if let (Some(used), Some(register)) = (machine.used_pcr16, registers.get_mut(BOOT_REGISTERS)) {
            if used != UsedPcr16::Locked {
                register.value = extended(&ZERO, b"somebody else");
            }
            register.locked = used != UsedPcr16::Extended;
        }
        let module_id = format!("{}-enc0123456789abcdef", machine.instance);
        Self { machine, module_id, authority, registers, framing: Framing::Definite }
    }

    /// The root that verifies this module's documents, as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        self.authority.root_pem()
    }

    /// Sets the module's clock to this far from the system's.
    pub fn set_clock_offset(&mut self, seconds: i64) {
        self.machine.clock_offset_seconds = seconds;
    }

    fn describe(&self, index: u16) -> Result<Response, ErrorCode> {
        let register = self.registers.get(usize::from(index)).ok_or(ErrorCode::InvalidIndex)?;
        Ok(Response::DescribePCR { lock: register.locked, data: register.value.to_vec() })
    }

    fn extend(&mut self, index: u16, data: &[u8]) -> Result<Response, ErrorCode> {
        let register = self.unlocked(index)?;
        register.value = extended(&register.value, data);
        Ok(Response::ExtendPCR { data: register.value.to_vec() })
    }

    fn lock(&mut self, index: u16) -> Result<Response, ErrorCode> {
        self.unlocked(index)?.locked = true;
        Ok(Response::LockPCR)
    }

    fn lock_range(&mut self, range: u16) -> Result<Response, ErrorCode> {
        let registers = self.registers.get_mut(..usize::from(range)).ok_or(ErrorCode::InvalidIndex)?;
        registers.iter_mut().for_each(|register| register.locked = true);
        Ok(Response::LockPCRs)
    }

    fn describe_module(&self) -> Response {
        Response::DescribeNSM {
            version_major: 1,
            version_minor: 0,
            version_patch: 0,
            module_id: self.module_id.clone(),
            max_pcrs: 32,
            locked_pcrs: self.locked().map(|(index, _)| index).collect::<BTreeSet<_>>(),
            digest: Digest::SHA384,
        }
    }

    fn attest(
        &mut self,
        user_data: Option<Vec<u8>>,
        nonce: Option<Vec<u8>>,
        public_key: Option<Vec<u8>>,
    ) -> Result<Response, ErrorCode> {
        for (field, limit) in [(&user_data, 512), (&nonce, 512), (&public_key, 1024)] {
            if field.as_ref().is_some_and(|bytes| bytes.len() > limit) {
                return Err(ErrorCode::InputTooLarge);
            }
        }
        let now = shifted(SystemTime::now(), self.machine.clock_offset_seconds);
        let pcrs = self.locked().map(|(index, value)| (u8::try_from(index).unwrap_or(u8::MAX), value)).collect();
        let chain = self.authority.chain_at(now);
        let mut statement = Statement::new(&self.module_id, now, pcrs, chain);
        statement.user_data = user_data;
        statement.nonce = nonce;
        statement.public_key = public_key;
        let document = cose_sign1(&statement.encode(self.framing), chain.leaf_key());
        // Both framings are in the field; a reader that knows one only fails on every second document.
        self.framing = match self.framing {
            Framing::Definite => Framing::Indefinite,
            Framing::Indefinite => Framing::Definite,
        };
        Ok(Response::Attestation { document })
    }

    fn unlocked(&mut self, index: u16) -> Result<&mut Register, ErrorCode> {
        let register = self.registers.get_mut(usize::from(index)).ok_or(ErrorCode::InvalidIndex)?;
        if register.locked { Err(ErrorCode::ReadOnlyIndex) } else { Ok(register) }
    }

    fn locked(&self) -> impl Iterator<Item = (u16, Pcr)> {
        (0..).zip(&self.registers).filter(|(_, register)| register.locked).map(|(index, r)| (index, r.value))
    }
}

impl Attestor for MockNsm {
    fn process(&mut self, request: Request) -> Response {
        std::thread::sleep(self.machine.latency);
        // The driver's limit (`NSM_REQUEST_MAX_SIZE` of the kernel's and of AWS's driver).
        if serde_cbor::to_vec(&request).map_or(true, |encoded| encoded.len() > 4096) {
            return Response::Error(ErrorCode::InputTooLarge);
        }
        let response = match request {
            Request::DescribePCR { index } => self.describe(index),
            Request::ExtendPCR { index, data } => self.extend(index, &data),
            Request::LockPCR { index } => self.lock(index),
            Request::LockPCRs { range } => self.lock_range(range),
            Request::DescribeNSM => Ok(self.describe_module()),
            Request::Attestation { user_data, nonce, public_key } => self.attest(
                user_data.map(|bytes| bytes.into_vec()),
                nonce.map(|bytes| bytes.into_vec()),
                public_key.map(|bytes| bytes.into_vec()),
            ),
            Request::GetRandom => random(),
            _ => Err(ErrorCode::InvalidOperation),
        };
        response.unwrap_or_else(Response::Error)
    }
}

/// How a payload's map begins: documents before September 2025 are definite, later ones are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `A9`: a map of nine entries.
    Definite,
    /// `BF … FF`: a map that ends with a break.
    Indefinite,
}

/// What a document states: the nine fields of its payload.
#[derive(Debug, Clone)]
pub struct Statement {
    /// The enclave's id.
    pub module_id: String,
    /// The digest of the registers: `SHA384`.
    pub digest: String,
    /// Milliseconds since 1970.
    pub timestamp: u64,
    /// The registers.
    pub pcrs: BTreeMap<u8, Pcr>,
    /// The leaf certificate, DER.
    pub certificate: Vec<u8>,
    /// The certificates from the root to the leaf's issuer, DER.
    pub cabundle: Vec<Vec<u8>>,
    /// Null if `None`, like the two that follow.
    pub public_key: Option<Vec<u8>>,
    /// What the document is about.
    pub user_data: Option<Vec<u8>>,
    /// The caller's nonce.
    pub nonce: Option<Vec<u8>>,
}

impl Statement {
    /// What a module says of these registers at this time; the three optional fields are null.
    #[must_use]
    pub fn new(module_id: &str, at: SystemTime, pcrs: BTreeMap<u8, Pcr>, chain: &NitroChain) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            module_id: module_id.to_owned(),
            digest: "SHA384".to_owned(),
            timestamp: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            pcrs,
            certificate: chain.leaf().to_vec(),
            cabundle: chain.cabundle().to_vec(),
            public_key: None,
            user_data: None,
            nonce: None,
        }
    }

    /// The payload's bytes. All nine keys are there, in the order that real documents have.
    #[must_use]
    pub fn encode(&self, framing: Framing) -> Vec<u8> {
        let optional = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytes);
        let pcrs = self.pcrs.iter().map(|(index, pcr)| (Value::Integer((*index).into()), Value::Bytes(pcr.to_vec())));
        let fields = [
            ("module_id", Value::Text(self.module_id.clone())),
            ("digest", Value::Text(self.digest.clone())),
            ("timestamp", Value::Integer(self.timestamp.into())),
            ("pcrs", Value::Map(pcrs.collect())),
            ("certificate", Value::Bytes(self.certificate.clone())),
            ("cabundle", Value::Array(self.cabundle.iter().cloned().map(Value::Bytes).collect())),
            ("public_key", optional(&self.public_key)),
            ("user_data", optional(&self.user_data)),
            ("nonce", optional(&self.nonce)),
        ];
        let mut payload = match framing {
            Framing::Definite => vec![0xa9],
            Framing::Indefinite => vec![0xbf],
        };
        for (name, value) in fields {
            payload.extend(cbor(&Value::Text(name.to_owned())));
            payload.extend(cbor(&value));
        }
        if framing == Framing::Indefinite {
            payload.push(0xff);
        }
        payload
    }
}

/// An untagged COSE_Sign1 (RFC 9052, section 4.2) with ES384 around `payload`. `key` is a P-384 key.
#[must_use]
pub fn cose_sign1(payload: &[u8], key: &rcgen::KeyPair) -> Vec<u8> {
    const PROTECTED: [u8; 4] = [0xa1, 0x01, 0x38, 0x22];
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    let signed =
        Value::Array(vec![Value::Text("Signature1".to_owned()), bytes(&PROTECTED), bytes(&[]), bytes(payload)]);
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der()).expect("a P-384 key");
    let signature = key.sign(&SystemRandom::new(), &cbor(&signed)).expect("a signature");
    let no_header = Value::Map(BTreeMap::new());
    cbor(&Value::Array(vec![bytes(&PROTECTED), no_header, bytes(payload), bytes(signature.as_ref())]))
}

#[derive(Clone, Copy)]
struct Register {
    value: Pcr,
    locked: bool,
}

/// PCR_new = SHA-384(PCR_old ‖ data).
fn extended(old: &Pcr, data: &[u8]) -> Pcr {
    Sha384::new().chain_update(old).chain_update(data).finalize().into()
}

/// Stands for the hash of the files that a part of an image consists of.
fn measured(part: &str, label: &str) -> Pcr {
    Sha384::digest(format!("{part} of {label}")).into()
}

fn random() -> Result<Response, ErrorCode> {
    let mut random = vec![0; 256];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| ErrorCode::InternalError)?;
    Ok(Response::GetRandom { random })
}

fn shifted(at: SystemTime, seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { at - distance } else { at + distance }
}

fn cbor(value: &Value) -> Vec<u8> {
    serde_cbor::to_vec(value).expect("values are encodable")
}

const REGISTERS: usize = 32;
/// PCR0-15 are measured and locked before the application runs.
const BOOT_REGISTERS: usize = 16;
const ZERO: Pcr = [0; 48];
