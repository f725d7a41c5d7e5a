//! How an enclave image file is laid out, version 4: a header of fixed size, then sections, each behind a header of
//! its own. Numbers are big-endian. Reads and writes the two headers; whether they fit a file is not decided here.

use std::fmt;

/// Length of the file's header, in bytes.
pub const HEADER_SIZE: usize = 548;
/// Where in it the CRC-32 stands: at the end. It covers the whole file but for itself.
pub const CRC_OFFSET: usize = HEADER_SIZE - 4;
/// Length of a section's header, in bytes.
pub const SECTION_HEADER_SIZE: usize = 12;
/// Most sections that the header has room for.
pub const MAX_SECTIONS: usize = 32;
/// The version that is written.
pub const VERSION: u16 = 4;

/// The file's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The format's version.
    pub version: u16,
    /// For which processors the kernel is.
    pub architecture: Architecture,
    /// Memory of the enclave, in bytes, if whoever starts it does not say.
    pub default_memory: u64,
    /// Its CPUs, likewise.
    pub default_cpus: u64,
    /// Where the sections are: at most [`MAX_SECTIONS`].
    pub sections: Vec<Extent>,
    /// The CRC-32 (IEEE 802.3) of everything but itself.
    pub crc32: u32,
}

/// Where a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where its header begins, from the file's beginning.
    pub offset: u64,
    /// How long it is, in bytes, without its header.
    pub size: u64,
}

/// For which processors an image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Intel's and AMD's.
    X86_64,
    /// Graviton.
    Aarch64,
}

/// What a section is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SectionKind {
    /// The Linux kernel.
    Kernel = 1,
    /// Its command line.
    CommandLine = 2,
    /// A part of the initial file system. They are unpacked one over the other.
    Ramdisk = 3,
    /// Who signed PCR0.
    Signature = 4,
    /// How the image was made, as JSON. Not measured.
    Metadata = 5,
}

impl Header {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => FLAG_AARCH64,
        };
        let count = u16::try_from(self.sections.len()).unwrap_or(u16::MAX);
        let places = |number: fn(&Extent) -> u64| {
            (0..MAX_SECTIONS).flat_map(move |place| self.sections.get(place).map_or(0, number).to_be_bytes())
        };
        let mut bytes = Vec::with_capacity(HEADER_SIZE);
        bytes.extend(MAGIC);
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(flags.to_be_bytes());
        bytes.extend(self.default_memory.to_be_bytes());
        bytes.extend(self.default_cpus.to_be_bytes());
        bytes.extend(RESERVED);
        bytes.extend(count.to_be_bytes());
        bytes.extend(places(|section| section.offset));
        bytes.extend(places(|section| section.size));
        bytes.extend(UNUSED);
        bytes.extend(self.crc32.to_be_bytes());
        bytes
    }
}

impl SectionKind {
    /// The header of a section of this kind and size.
    #[must_use]
    pub fn header(self, size: u64) -> Vec<u8> {
        [&(self as u16).to_be_bytes()[..], &SECTION_FLAGS, &size.to_be_bytes()].concat()
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        })
    }
}

const MAGIC: [u8; 4] = *b".eif";
const FLAG_AARCH64: u16 = 1;
const RESERVED: [u8; 2] = [0; 2];
const UNUSED: [u8; 4] = [0; 4];
const SECTION_FLAGS: [u8; 2] = [0; 2];
