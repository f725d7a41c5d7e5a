//! Reads an enclave image that somebody made, and finds out what it measures. It may be made to mislead, and as long as
//! a disk: each length is compared with the file's before anything is read, and what is kept of the file is bounded.
//!
//! A file is read if there is one way only to read it: sections lie one behind the other from the header to the file's
//! end, and each says the same of itself as the header does. In any other file, this reader and the one that boots it
//! might measure different bytes. A wrong CRC, signature or metadata are faults of an image that is described
//! nevertheless.

use std::io::{self, Read};

use flate2::Crc;
use serde_json::Value;

use super::format::{CRC_OFFSET, Extent, FormatError, HEADER_SIZE, Header, SECTION_HEADER_SIZE, SectionKind};
use super::measurements::{Measurements, Measuring};
use super::signature::{ImageSignature, SignatureError};

/// What is in an image.
#[derive(Debug)]
pub struct Description {
    /// The file's header.
    pub header: Header,
    /// What its sections are, in the order of `header.sections`.
    pub kinds: Vec<SectionKind>,
    /// The CRC-32 that the header should say.
    pub crc32: u32,
    /// The kernel's command line. Bytes that are no UTF-8 are replaced.
    pub command_line: String,
    /// How the image was made, or that the section is no JSON.
    pub metadata: Option<Result<Value, NotJson>>,
    /// What the image measures.
    pub measurements: Measurements,
    /// Who signed the image, or why nobody can tell.
    pub signature: Option<Result<ImageSignature, SignatureError>>,
}

/// The metadata section is something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the metadata are not JSON")]
pub struct NotJson;

/// Why a file is not described. But for the first, whoever wrote it is to blame. Sections are counted from 0.
#[derive(Debug, thiserror::Error)]
pub enum DescribeError {
    /// The machine's: the file cannot be read, or became shorter.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// One of its headers is none.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A section begins where another one, or the header, has not ended.
    #[error("section {0} overlaps what is before it")]
    Overlap(usize),
    /// Something stands before a section that belongs to none.
    #[error("there are bytes before section {0} that belong to no section")]
    Gap(usize),
    /// The file is cut off, or the header's numbers are made up.
    #[error("section {0} ends behind the file's end")]
    BeyondTheEnd(usize),
    /// Something stands after the last section.
    #[error("{0} bytes after the last section")]
    Trailing(u64),
    /// The file's header and the section's own do not agree.
    #[error("section {place}: {told} bytes according to the file's header, {own} according to its own")]
    Size {
        /// The section.
        place: usize,
        /// Its size in the file's header.
        told: u64,
        /// Its size in its own header.
        own: u64,
    },
    /// Which of them would count?
    #[error("more than one {0}")]
    Twice(SectionKind),
    /// Nothing boots without.
    #[error("no {0}")]
    Missing(SectionKind),
    /// More than this reader keeps in memory, and than anybody writes.
    #[error("the {kind} has {size} bytes, where at most {limit} are read")]
    TooLong {
        /// The section.
        kind: SectionKind,
        /// Its size, in bytes.
        size: u64,
        /// The most that it may have.
        limit: u64,
    },
}

impl Description {
    /// Reads an image of `size` bytes, once, from its beginning to its end.
    ///
    /// # Errors
    /// Whoever wrote the file, mostly.
    pub fn read(file: &mut dyn Read, size: u64) -> Result<Self, DescribeError> {
        if size < HEADER_SIZE as u64 {
            return Err(FormatError::Short.into());
        }
        let (mut crc, mut measuring, mut kept) = (Crc::new(), Measuring::default(), Kept::default());
        let mut bytes = [0; HEADER_SIZE];
        file.read_exact(&mut bytes)?;
        let header = Header::parse(&bytes)?;
        check_layout(&header.sections, size)?;
        crc.update(bytes.get(..CRC_OFFSET).unwrap_or_default());

        let mut kinds = Vec::with_capacity(header.sections.len());
        let mut buffer = vec![0; BUFFER];
        for (place, Extent { size: told, .. }) in header.sections.iter().enumerate() {
            let mut bytes = [0; SECTION_HEADER_SIZE];
            file.read_exact(&mut bytes)?;
            crc.update(&bytes);
            let (kind, own) = SectionKind::parse(&bytes)?;
            if own != *told {
                return Err(DescribeError::Size { place, told: *told, own });
            }
            if kind != SectionKind::Ramdisk && kinds.contains(&kind) {
                return Err(DescribeError::Twice(kind));
            }
            kinds.push(kind);
            measuring.begin(kind);
            let mut keep = kept.place(kind, own)?;
            let mut section = file.take(own);
            let mut left = own;
            while left > 0 {
                let piece = match section.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    read => buffer.get(..read?).unwrap_or_default(),
                };
                if piece.is_empty() {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
                left = left.saturating_sub(piece.len() as u64);
                crc.update(piece);
                measuring.update(kind, piece);
                if let Some(keep) = &mut keep {
                    keep.extend_from_slice(piece);
                }
            }
        }
        for kind in [SectionKind::Kernel, SectionKind::CommandLine, SectionKind::Ramdisk] {
            if !kinds.contains(&kind) {
                return Err(DescribeError::Missing(kind));
            }
        }
        let measurements = measuring.finish();
        let has = |kind| kinds.contains(&kind);
        let metadata = has(SectionKind::Metadata).then(|| serde_json::from_slice(&kept.metadata).map_err(|_| NotJson));
        let signature = has(SectionKind::Signature).then(|| ImageSignature::read(&kept.signature, &measurements.pcr0));
        let command_line = String::from_utf8_lossy(&kept.command_line).into_owned();
        Ok(Self { header, kinds, crc32: crc.sum(), command_line, metadata, measurements, signature })
    }

    /// What is wrong with the image, in words; nothing is, if this is empty.
    #[must_use]
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.crc32 != self.header.crc32 {
            faults.push("the CRC-32 is wrong: the file is damaged".to_owned());
        }
        // Where one section ends and the next begins is not measured: bytes of the kernel could have come here.
        if !self.command_line.bytes().all(|c| c == b' ' || c.is_ascii_graphic()) {
            faults.push("the command line has other characters than visible ASCII".to_owned());
        }
        if let Some(Err(error)) = &self.metadata {
            faults.push(error.to_string());
        }
        if let Some(Err(error) | Ok(ImageSignature { verdict: Err(error), .. })) = &self.signature {
            faults.push(error.to_string());
        }
        faults
    }
}

/// Whether the sections fill the file from the header to the end.
fn check_layout(sections: &[Extent], size: u64) -> Result<(), DescribeError> {
    let mut end = HEADER_SIZE as u64;
    for (place, Extent { offset, size: length }) in sections.iter().enumerate() {
        match offset.cmp(&end) {
            std::cmp::Ordering::Less => return Err(DescribeError::Overlap(place)),
            std::cmp::Ordering::Greater if *offset > size => return Err(DescribeError::BeyondTheEnd(place)),
            std::cmp::Ordering::Greater => return Err(DescribeError::Gap(place)),
            std::cmp::Ordering::Equal => {}
        }
        let next = offset.checked_add(SECTION_HEADER_SIZE as u64).and_then(|start| start.checked_add(*length));
        end = next.filter(|next| *next <= size).ok_or(DescribeError::BeyondTheEnd(place))?;
    }
    match size.saturating_sub(end) {
        0 => Ok(()),
        trailing => Err(DescribeError::Trailing(trailing)),
    }
}

/// The sections that are looked into.
#[derive(Default)]
struct Kept {
    command_line: Vec<u8>,
    metadata: Vec<u8>,
    signature: Vec<u8>,
}

impl Kept {
    /// Where a section of this kind and size is kept, if it is.
    fn place(&mut self, kind: SectionKind, size: u64) -> Result<Option<&mut Vec<u8>>, DescribeError> {
        let (place, limit) = match kind {
            SectionKind::Kernel | SectionKind::Ramdisk => return Ok(None),
            SectionKind::CommandLine => (&mut self.command_line, MAX_COMMAND_LINE),
            SectionKind::Metadata => (&mut self.metadata, MAX_METADATA),
            SectionKind::Signature => (&mut self.signature, MAX_SIGNATURE),
        };
        if size > limit {
            return Err(DescribeError::TooLong { kind, size, limit });
        }
        Ok(Some(place))
    }
}

/// The kernel takes 2 KiB (`COMMAND_LINE_SIZE` of both architectures).
const MAX_COMMAND_LINE: u64 = 64 * 1024;
/// What Docker says of an image is in it: some ten KiB. Printed, it can be a hundred times as long.
const MAX_METADATA: u64 = 128 * 1024;
/// A certificate of 2 KiB takes 4 KiB in it.
const MAX_SIGNATURE: u64 = 256 * 1024;
const BUFFER: usize = 64 * 1024;
