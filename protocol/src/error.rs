//! The closed, numbered error codes: all that the enclave ever says of what went wrong. No text
//! crosses the socket. Numbers are never reused.

use serde::{Deserialize, Serialize};

macro_rules! error_codes {
    ($($(#[$doc:meta])+ $name:ident = $number:literal,)+) => {
        /// What went wrong, named by blame.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
        #[serde(into = "u16", try_from = "u16")]
        #[error("enclave error {}: {self:?}", u16::from(*self))]
        pub enum ErrorCode {
            $($(#[$doc])+ $name = $number,)+
        }

        impl From<ErrorCode> for u16 {
            fn from(code: ErrorCode) -> Self {
                match code {
                    $(ErrorCode::$name => $number,)+
                }
            }
        }

        impl TryFrom<u16> for ErrorCode {
            type Error = &'static str;

            fn try_from(number: u16) -> Result<Self, &'static str> {
                match number {
                    $($number => Ok(Self::$name),)+
                    _ => Err("unknown error code"),
                }
            }
        }
    };
}

error_codes! {
    /// The other side speaks another version of this contract.
    UnsupportedVersion = 1,
    /// More requests in flight than the enclave takes.
    Busy = 2,
    /// The enclave's own fault; its log has the reason.
    Internal = 3,

    /// No configuration has been measured yet.
    NotConfigured = 10,
    /// Another configuration is measured and locked: only a restart of the enclave changes it.
    ConfiguredOtherwise = 11,
    /// The configuration's bytes are not a valid configuration. Nothing was measured.
    ConfigurationInvalid = 12,
    /// Measuring failed after PCR16 was touched, or PCR16 was not fresh: final until reboot.
    ConfigurationFailed = 13,
    /// PCR0 is zero (debug mode): no key operation, without exception.
    DebugMode = 14,
    /// The measured configuration does not list this operation.
    OperationNotConfigured = 15,
    /// The KMS key is not one of the measured configuration.
    KmsKeyNotConfigured = 16,
    /// The image accepts one configuration only, and this is another. Nothing was measured.
    ConfigurationNotAccepted = 17,

    /// The parent has not sent AWS credentials.
    CredentialsMissing = 20,
    /// The AWS credentials have expired, or AWS does not take them.
    CredentialsRefused = 21,

    /// The scheme, payload or hash does not fit the key's algorithm.
    PayloadInvalid = 30,
    /// The key's bound policy does not allow this payload.
    PayloadDenied = 31,
    /// The key is a seed, and the request names no path.
    PathRequired = 32,
    /// The key's bound policy does not allow this path.
    PathDenied = 33,
    /// No key lies there: the key is no seed, ed25519 takes hardened steps only, or (once in 2^127) BIP-32 has
    /// no valid key at this index.
    PathInvalid = 34,
    /// No key of this algorithm can have this policy.
    PolicyInvalid = 35,
    /// No import key of this name waits: it has served, has expired, or is another enclave's.
    ImportKeyUnknown = 36,
    /// The sealed key does not open: it was sealed to another key, for another nonce, or for a key that was described
    /// otherwise.
    ImportRefused = 37,
    /// What opened is no key of its algorithm: another length, or a scalar that is zero or not below the order.
    KeyMaterialInvalid = 38,
    /// What opened is another key than the expected one.
    KeyMismatch = 39,

    /// The record is not one that an admitted enclave made in this form: something in it was changed.
    RecordRefused = 40,

    /// What was to be adopted does not open under the KMS key that is named, or is no private key in hex.
    AdoptionRefused = 45,
    /// The key's bound policy does not let it leave the enclave.
    NotExportable = 46,
    /// The measured configuration names no such recipient.
    RecipientUnknown = 47,
    /// As many import keys wait as may. Those that nobody uses expire.
    ImportKeysExhausted = 48,

    /// KMS denies access: key policy, image or configuration.
    KmsDenied = 50,
    /// The KMS key does not exist, is disabled, pending deletion or of the wrong type.
    KmsKeyUnusable = 51,
    /// KMS throttles, also after retries.
    KmsThrottled = 52,
    /// KMS cannot be reached or answers with a fault of its own.
    KmsUnavailable = 53,
    /// KMS did not answer in time.
    KmsTimeout = 54,
    /// KMS's reply is not one that KMS gives: plaintext, another key, a malformed envelope.
    KmsReplyRefused = 55,

    /// The Nitro Secure Module failed.
    AttestationFailed = 60,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_both_ways_and_unknown_ones_are_refused() {
        let mut known = 0;
        for number in 0..=u16::MAX {
            if let Ok(code) = ErrorCode::try_from(number) {
                assert_eq!(u16::from(code), number);
                known += 1;
            }
        }
        assert!(known > 10);
        assert!(ErrorCode::try_from(9999).is_err());
    }
}
