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
/// The versions that are read. The second brought the CRC, the third signatures, the fourth metadata.
pub const VERSIONS: std::ops::RangeInclusive<u16> = 2..=VERSION;

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

/// Bytes are no header of this format, or of one that is not known here. Whoever wrote the file is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The file's header is cut off.
    #[error("shorter than the header of an enclave image")]
    Short,
    /// The file begins with something else.
    #[error("not an enclave image: it does not begin with \".eif\"")]
    Magic,
    /// From the future, or from before there was a CRC.
    #[error("version {0} of the format; versions {first} to {last} are known here", first = VERSIONS.start(), last = VERSIONS.end())]
    Version(u16),
    /// There is one flag, the architecture.
    #[error("unknown flags: {0:#06x}")]
    Flags(u16),
    /// The header has no room for them.
    #[error("{0} sections, where the format allows {MAX_SECTIONS}")]
    TooManySections(u16),
    /// Not a kind of section.
    #[error("section type {0} is not known")]
    SectionKind(u16),
    /// Sections have no flags.
    #[error("a section has unknown flags: {0:#06x}")]
    SectionFlags(u16),
}

impl Header {
    /// Reads a header. Where its sections are is only what it says.
    ///
    /// # Errors
    /// Whoever wrote it.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut rest = bytes;
        if next(&mut rest)? != MAGIC {
            return Err(FormatError::Magic);
        }
        let version = u16::from_be_bytes(next(&mut rest)?);
        if !VERSIONS.contains(&version) {
            return Err(FormatError::Version(version));
        }
        let architecture = match u16::from_be_bytes(next(&mut rest)?) {
            0 => Architecture::X86_64,
            FLAG_AARCH64 => Architecture::Aarch64,
            flags => return Err(FormatError::Flags(flags)),
        };
        let default_memory = u64::from_be_bytes(next(&mut rest)?);
        let default_cpus = u64::from_be_bytes(next(&mut rest)?);
        let _reserved: [u8; RESERVED.len()] = next(&mut rest)?;
        let count = u16::from_be_bytes(next(&mut rest)?);
        if usize::from(count) > MAX_SECTIONS {
            return Err(FormatError::TooManySections(count));
        }
        let mut table = [0_u64; 2 * MAX_SECTIONS];
        for place in &mut table {
            *place = u64::from_be_bytes(next(&mut rest)?);
        }
        let (offsets, sizes) = table.split_at(MAX_SECTIONS);
        let extents = offsets.iter().zip(sizes).map(|(&offset, &size)| Extent { offset, size });
        let sections = extents.take(count.into()).collect();
        let _unused: [u8; UNUSED.len()] = next(&mut rest)?;
        let crc32 = u32::from_be_bytes(next(&mut rest)?);
        Ok(Self { version, architecture, default_memory, default_cpus, sections, crc32 })
    }
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
    /// Reads a section's header: its kind, and how long it says that it is.
    ///
    /// # Errors
    /// Whoever wrote it.
    pub fn parse(header: &[u8]) -> Result<(Self, u64), FormatError> {
        let mut rest = header;
        let kind = match u16::from_be_bytes(next(&mut rest)?) {
            1 => Self::Kernel,
            2 => Self::CommandLine,
            3 => Self::Ramdisk,
            4 => Self::Signature,
            5 => Self::Metadata,
            other => return Err(FormatError::SectionKind(other)),
        };
        let flags = next(&mut rest)?;
        if flags != SECTION_FLAGS {
            return Err(FormatError::SectionFlags(u16::from_be_bytes(flags)));
        }
        Ok((kind, u64::from_be_bytes(next(&mut rest)?)))
    }
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

impl fmt::Display for SectionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        })
    }
}

/// The next bytes of a header.
fn next<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (bytes, tail) = rest.split_first_chunk().ok_or(FormatError::Short)?;
    *rest = tail;
    Ok(*bytes)
}

const MAGIC: [u8; 4] = *b".eif";
const FLAG_AARCH64: u16 = 1;
const RESERVED: [u8; 2] = [0; 2];
const UNUSED: [u8; 4] = [0; 4];
const SECTION_FLAGS: [u8; 2] = [0; 2];

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let sections = vec![Extent { offset: 548, size: 1 }, Extent { offset: 561, size: u64::MAX }];
        let (default_memory, default_cpus) = (1 << 30, 2);
        Header { version: 4, architecture: Architecture::Aarch64, default_memory, default_cpus, sections, crc32: 7 }
    }

    #[test]
    fn headers_are_read_as_they_were_written() {
        let bytes = header().encode();
        assert_eq!(bytes.len(), HEADER_SIZE);
        assert_eq!(bytes[..28], *b".eif\0\x04\0\x01\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x02");
        assert_eq!(bytes[CRC_OFFSET..], [0, 0, 0, 7]);
        assert_eq!(Header::parse(&bytes), Ok(header()));
        let section = SectionKind::Metadata.header(258);
        assert_eq!(section, [0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(section.len(), SECTION_HEADER_SIZE);
        assert_eq!(SectionKind::parse(&section), Ok((SectionKind::Metadata, 258)));
    }

    #[test]
    fn other_headers_are_refused() {
        for (name, place, bytes, error) in [
            ("magic", 0, &b".elf"[..], FormatError::Magic),
            ("without_crc", 4, &[0, 1], FormatError::Version(1)),
            ("from_the_future", 4, &[0, 5], FormatError::Version(5)),
            ("flags", 6, &[0, 3], FormatError::Flags(3)),
            ("33_sections", 26, &[0, 33], FormatError::TooManySections(33)),
        ] {
            let mut header = header().encode();
            header[place..place + bytes.len()].copy_from_slice(bytes);
            assert_eq!(Header::parse(&header), Err(error), "{name}");
        }
        let header = header().encode();
        for length in 0..HEADER_SIZE {
            assert_eq!(Header::parse(&header[..length]), Err(FormatError::Short), "{length} bytes");
        }
        for (bytes, error) in [
            ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FormatError::SectionKind(0)),
            ([0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FormatError::SectionKind(6)),
            ([0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], FormatError::SectionFlags(256)),
        ] {
            assert_eq!(SectionKind::parse(&bytes), Err(error));
        }
    }
}
