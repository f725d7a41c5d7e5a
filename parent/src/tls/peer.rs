//! Which name a client certificate speaks for: its first DNS name, and no other. That its owner holds the
//! key and that an authority of `client_ca` issued it was verified in the handshake; whether the name may
//! call is `auth`'s.

use std::fmt;

use serde::Deserialize;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A DNS name, in lower case: DNS does not tell cases apart (RFC 4343). A wildcard is none.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct DnsName(String);

/// What is kept of a verified client certificate, for the requests of its connection.
#[derive(Debug, Clone)]
pub struct ClientCertificate {
    name: DnsName,
    not_after: OffsetDateTime,
}

impl ClientCertificate {
    /// A certificate that was verified for this name, up to and including `not_after`.
    #[must_use]
    pub const fn new(name: DnsName, not_after: OffsetDateTime) -> Self {
        Self { name, not_after }
    }

    /// Reads a verified certificate (DER). `None` if its first DNS name (subjectAltName, dNSName) is
    /// missing, or is a wildcard or otherwise no name. The subject is not looked at (RFC 9525 section 2).
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = certificate.subject_alternative_name().ok()??;
        let first = names.value.general_names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })?;
        Some(Self::new(DnsName::try_from(first).ok()?, certificate.validity().not_after.to_datetime()))
    }

    /// The name, unless the certificate expired meanwhile: a connection can outlive it.
    #[must_use]
    pub fn name_at(&self, now: OffsetDateTime) -> Option<&DnsName> {
        (now <= self.not_after).then_some(&self.name)
    }
}

impl TryFrom<String> for DnsName {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
        let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(allowed);
        if text.len() <= 253 && text.split('.').all(label) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err("not a DNS name: labels of [A-Za-z0-9_-] between dots, 253 characters at most, no wildcard")
        }
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_by_more_than_case() {
        let name = |text: &str| DnsName::try_from(text.to_owned());
        assert_eq!(name("Payments.Internal"), name("payments.internal"));
        assert_ne!(name("payments.internal"), name("payments.internal2"));
        let long = format!("{}.x", "x".repeat(64));
        for none in ["", ".", "a.", ".a", "a..b", "*", "*.internal", "a b", "a/b", "a\0", "ä.internal", &long] {
            assert!(name(none).is_err(), "{none:?}");
        }
    }
}
