//! The wire contract between strongroom's parent and its enclave: bounded types, the binding that
//! makes a key record believable, messages, error codes, and framing as functions on bytes.
//!
//! It decides what may cross the socket and how large it may be. It does no I/O, knows no clock and
//! no executor, and holds no cryptography but hash functions.

mod address;
pub mod addresses;
mod binding;
mod bytes;
mod configuration;
pub mod cose;
mod custody;
pub mod document;
mod error;
pub mod frame;
mod key;
mod message;
mod path;
mod pin;
mod policy;
mod record;
mod scan;
mod subject;

pub use address::{Address, AddressError, Cid};
pub use binding::{Binding, key_user_data};
pub use bytes::{ByteArray, ByteString, TooLong};
pub use configuration::{
    Configuration, ConfigurationError, ExportRecipient, MAX_CONFIGURATION, Measurement, Operation,
};
pub use custody::{
    ExpectedKey, HpkePublicKey, ImportKeyId, KeyDescription, NotAdoptable, SealedKey, export_info, export_user_data,
};
pub use error::ErrorCode;
pub use key::{Algorithm, Curve, InvalidName, KeyId, KmsKeyArn, Origin, PublicKey, RecipientName, Scheme};
pub use message::{
    Created, Credentials, HashFunction, Health, MAX_MESSAGE, MAX_NONCE, Nonce, Payload, Request, RequestFrame,
    Response, ResponseFrame, SecretString, Signature,
};
pub use path::{DerivationPath, HARDENED, InvalidPath, MAX_COMPONENTS};
pub use pin::{ConfigurationPin, PinError};
pub use policy::{MAX_PATHS, PayloadKind, Policy, PolicyError};
pub use record::{KeyRecord, PresentedRecord, RecordError};
pub use subject::Subject;

/// The version of this contract. Both sides name theirs in the first message of a connection and
/// part if they differ.
pub const VERSION: u16 = 1;
