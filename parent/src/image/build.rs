//! Writes an enclave image: kernel, command line, metadata, ramdisks, in the order in which `nitro-cli` writes them.
//! Knows no files but those that it is given, and reads each once.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use flate2::Crc;

use super::format::{
    Architecture, CRC_OFFSET, Extent, HEADER_SIZE, Header, MAX_SECTIONS, SECTION_HEADER_SIZE, SectionKind, VERSION,
};
use super::measurements::{Measurements, Measuring};
use super::metadata::Metadata;
use super::open_file;

/// What an image is made of.
#[derive(Debug)]
pub struct Image {
    /// For which processors.
    pub architecture: Architecture,
    /// The kernel, as the architecture's boot loaders take it.
    pub kernel: Input,
    /// Its command line.
    pub command_line: String,
    /// How the image was made.
    pub metadata: Metadata,
    /// The ramdisks. The first is measured into PCR1, the others into PCR2.
    pub ramdisks: Vec<Input>,
}

/// Something to put into an image: read once, and of a size that is known before.
pub struct Input {
    name: String,
    size: u64,
    content: Box<dyn Read>,
}

/// Why no image was made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The caller's: an input cannot be read.
    #[error("{name}: {source}")]
    Input {
        /// The input.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The caller's: a folder, or something else without a size.
    #[error("{0}: not a file")]
    NotAFile(String),
    /// The caller's: there is nothing in it.
    #[error("{0}: empty")]
    Empty(String),
    /// The caller's: longer than the format allows.
    #[error("{0}: too long")]
    TooLong(String),
    /// Somebody else's: it became shorter or longer while it was read.
    #[error("{0}: changed while it was read")]
    Changed(String),
    /// The caller's: too many.
    #[error("at most {} ramdisks fit into an image", MAX_SECTIONS - OTHER_SECTIONS)]
    TooManyRamdisks,
    /// The machine's: the image cannot be written.
    #[error(transparent)]
    Output(io::Error),
}

impl Image {
    /// Writes the image to an empty file and says what it measures.
    ///
    /// # Errors
    /// An input's owner's, or the machine's. What is in the file then is no image.
    pub fn write(self, file: &mut File) -> Result<Measurements, BuildError> {
        let Self { architecture, kernel, command_line, metadata, ramdisks } = self;
        if ramdisks.len() > MAX_SECTIONS - OTHER_SECTIONS {
            return Err(BuildError::TooManyRamdisks);
        }
        let metadata = serde_json::to_vec(&metadata).map_err(|error| BuildError::Output(error.into()))?;
        let sections: Vec<(SectionKind, Input)> = [
            (SectionKind::Kernel, kernel),
            (SectionKind::CommandLine, Input::from_bytes("the command line", command_line.into_bytes())),
            (SectionKind::Metadata, Input::from_bytes("the metadata", metadata)),
        ]
        .into_iter()
        .chain(ramdisks.into_iter().map(|ramdisk| (SectionKind::Ramdisk, ramdisk)))
        .collect();
        let header = Header {
            version: VERSION,
            architecture,
            default_memory: DEFAULT_MEMORY,
            default_cpus: DEFAULT_CPUS,
            sections: extents(&sections)?,
            crc32: 0,
        }
        .encode();

        let (mut crc, mut measuring) = (Crc::new(), Measuring::default());
        // The CRC covers everything but itself, which stands at the header's end.
        crc.update(header.get(..CRC_OFFSET).unwrap_or_default());
        file.write_all(&header).map_err(BuildError::Output)?;
        for (kind, input) in sections {
            let section_header = kind.header(input.size);
            crc.update(&section_header);
            file.write_all(&section_header).map_err(BuildError::Output)?;
            measuring.begin(kind);
            input.copy(&mut |bytes| {
                crc.update(bytes);
                measuring.update(kind, bytes);
                file.write_all(bytes)
            })?;
        }
        file.seek(SeekFrom::Start(CRC_OFFSET as u64))
            .and_then(|_| file.write_all(&crc.sum().to_be_bytes()))
            .map_err(BuildError::Output)?;
        Ok(measuring.finish())
    }
}

impl Input {
    /// A file that is there and not empty.
    ///
    /// # Errors
    /// The caller's: it is not.
    pub fn open(path: &Path) -> Result<Self, BuildError> {
        let name = path.display().to_string();
        let failed = |source| BuildError::Input { name: name.clone(), source };
        let Some((file, size)) = open_file(path).map_err(failed)? else {
            return Err(BuildError::NotAFile(name));
        };
        if size == 0 {
            return Err(BuildError::Empty(name));
        }
        Ok(Self { name, size, content: Box::new(file) })
    }

    /// These bytes; the name is for messages.
    #[must_use]
    pub fn from_bytes(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.to_owned(), size: bytes.len() as u64, content: Box::new(io::Cursor::new(bytes)) }
    }

    /// What it is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long it is, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hands out all of it, piece by piece.
    pub(super) fn copy(mut self, to: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), BuildError> {
        let mut buffer = vec![0; BUFFER];
        let mut left = self.size;
        loop {
            let read = match self.content.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read.map_err(|source| BuildError::Input { name: self.name.clone(), source })?,
            };
            // The size is in headers that are written already.
            match (read, left.checked_sub(read as u64)) {
                (0, Some(0)) => return Ok(()),
                (0, _) | (_, None) => return Err(BuildError::Changed(self.name)),
                (_, Some(rest)) => left = rest,
            }
            to(buffer.get(..read).unwrap_or_default()).map_err(BuildError::Output)?;
        }
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Input({:?}, {} bytes)", self.name, self.size)
    }
}

/// Where the sections go: one behind the other, without gaps.
fn extents(sections: &[(SectionKind, Input)]) -> Result<Vec<Extent>, BuildError> {
    let mut offset = HEADER_SIZE as u64;
    let mut extents = Vec::with_capacity(sections.len());
    for (_, Input { name, size, .. }) in sections {
        extents.push(Extent { offset, size: *size });
        let end = offset.checked_add(SECTION_HEADER_SIZE as u64).and_then(|start| start.checked_add(*size));
        offset = end.ok_or_else(|| BuildError::TooLong(name.clone()))?;
    }
    Ok(extents)
}

/// What is in each image besides ramdisks.
const OTHER_SECTIONS: usize = 3;
/// What `nitro-cli` writes. Whoever starts an enclave says otherwise.
const DEFAULT_MEMORY: u64 = 1 << 30;
const DEFAULT_CPUS: u64 = 2;
const BUFFER: usize = 64 * 1024;
