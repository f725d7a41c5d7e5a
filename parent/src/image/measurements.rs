//! What the hypervisor measures of an image, and what the attestation document of the enclave then says. AWS's guide
//! "Cryptographic attestation" names the registers; metadata and signature are in none of them.

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha384};

use super::format::SectionKind;

/// The registers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub struct Measurements {
    /// Kernel, command line and all ramdisks.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk: what boots.
    pub pcr1: Pcr,
    /// The other ramdisks: what it boots into.
    pub pcr2: Pcr,
}

/// The value of one register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pcr(pub [u8; 48]);

/// Measures an image section by section, in the order in which they stand in the file.
#[derive(Debug, Clone, Default)]
pub struct Measuring {
    image: Sha384,
    boot: Sha384,
    application: Sha384,
    ramdisks: usize,
}

impl Measuring {
    /// The next section begins.
    pub fn begin(&mut self, kind: SectionKind) {
        if kind == SectionKind::Ramdisk {
            self.ramdisks += 1;
        }
    }

    /// More of the section that began last, which is of this kind.
    pub fn update(&mut self, kind: SectionKind, bytes: &[u8]) {
        match kind {
            SectionKind::Signature | SectionKind::Metadata => return,
            SectionKind::Ramdisk if self.ramdisks > 1 => self.application.update(bytes),
            SectionKind::Kernel | SectionKind::CommandLine | SectionKind::Ramdisk => self.boot.update(bytes),
        }
        self.image.update(bytes);
    }

    /// The registers, after the last section.
    #[must_use]
    pub fn finish(self) -> Measurements {
        let [pcr0, pcr1, pcr2] = [self.image, self.boot, self.application].map(Pcr::extended_by);
        Measurements { pcr0, pcr1, pcr2 }
    }
}

impl Pcr {
    /// PCR8: of the certificate, DER, whose key signed the image.
    #[must_use]
    pub fn of_certificate(der: &[u8]) -> Self {
        Self::extended_by(Sha384::new().chain_update(der))
    }

    /// A register that was zero and is extended by a digest, once: SHA-384(48 zero bytes ‖ digest).
    fn extended_by(digest: Sha384) -> Self {
        Self(Sha384::new().chain_update([0; 48]).chain_update(digest.finalize()).finalize().into())
    }
}

impl std::fmt::Display for Pcr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Pcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
