//! Held to what AWS's own library made (`tests/vectors/image`), and to any damage of it.

use std::fs::File;
use std::io::{Read as _, Seek as _};

use flate2::read::GzDecoder;
use strongroom_protocol::ConfigurationPin;

use super::build::{BuildError, Image, Input};
use super::describe::{DescribeError, Description};
use super::format::{Architecture, FormatError, HEADER_SIZE, Header, SECTION_HEADER_SIZE, SectionKind};
use super::measurements::Pcr;
use super::metadata::Metadata;
use super::ramdisk;
use super::signature::{ImageSignature, SignatureError};

macro_rules! vector {
    ($name:literal) => {
        include_bytes!(concat!("../../../tests/vectors/image/", $name))
    };
}

const TWO_RAMDISKS: &[u8] = vector!("two_ramdisks.eif");
const SIGNED_P256: &[u8] = vector!("signed_p256.eif");
const SIGNED_P384: &[u8] = vector!("signed_p384.eif");
const SIGNED_P521: &[u8] = vector!("signed_p521.eif");

fn image(architecture: Architecture, ramdisks: Vec<Input>) -> Image {
    let mut metadata = Metadata::new("strongroom".to_owned(), "1.2.3".to_owned(), "1970-01-01T00:00:00Z".to_owned());
    // That of the vectors, whatever this program's own is by now.
    metadata.build_metadata.build_tool_version = "0.1.0".to_owned();
    let kernel = Input::from_bytes("kernel", vector!("kernel").to_vec());
    let command_line = "console=ttyS0 reboot=k panic=30 pci=off".to_owned();
    Image { architecture, kernel, command_line, metadata, ramdisks }
}

fn ramdisks() -> Vec<Input> {
    [&vector!("boot")[..], vector!("application"), vector!("more")]
        .map(|bytes| Input::from_bytes("ramdisk", bytes.to_vec()))
        .into()
}

fn described(bytes: &[u8]) -> Result<Description, DescribeError> {
    Description::read(&mut &bytes[..], bytes.len() as u64)
}

#[test]
fn images_are_byte_for_byte_those_of_awss_builder() {
    for (architecture, count, expected) in [
        (Architecture::X86_64, 1, &vector!("one_ramdisk.eif")[..]),
        (Architecture::X86_64, 2, TWO_RAMDISKS),
        (Architecture::Aarch64, 3, vector!("three_ramdisks_aarch64.eif")),
    ] {
        let mut file = tempfile::tempfile().expect("a file");
        let measurements =
            image(architecture, ramdisks().into_iter().take(count).collect()).write(&mut file).expect("written");
        let mut written = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut written)).expect("read");
        assert!(written == expected, "{count} ramdisks");
        assert_eq!(described(&written).expect("an image").measurements, measurements);
    }
}

#[test]
fn what_changes_while_it_is_read_becomes_no_image() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ramdisk");
    for (before, after) in [(&b"four"[..], &b"two"[..]), (b"four", b"longer"), (b"four", b"")] {
        std::fs::write(&path, before).expect("written");
        let ramdisk = Input::open(&path).expect("a file");
        std::fs::write(&path, after).expect("written");
        let written = image(Architecture::X86_64, vec![ramdisk]).write(&mut tempfile::tempfile().expect("a file"));
        assert!(matches!(written, Err(BuildError::Changed(_))), "{written:?}");
    }
}

#[test]
fn an_image_has_32_sections_at_most() {
    let write = |count: usize| {
        let ramdisks = (0..count).map(|_| Input::from_bytes("ramdisk", vec![1])).collect();
        image(Architecture::X86_64, ramdisks).write(&mut tempfile::tempfile().expect("a file"))
    };
    assert!(write(29).is_ok());
    assert!(matches!(write(30), Err(BuildError::TooManyRamdisks)));
}

/// Name, mode, device and content.
type Entry = (String, u32, (u32, u32), Vec<u8>);

/// The entries of a ramdisk; what would make two of the same binary differ is checked here.
fn unpacked(ramdisk: &[u8]) -> Vec<Entry> {
    // RFC 1952, section 2.3: deflate; no flags, so no name; no time; unknown system.
    assert_eq!((&ramdisk[..8], ramdisk[9]), (&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0][..], 255));
    let (mut archive, mut entries) = (GzDecoder::new(ramdisk), Vec::new());
    loop {
        let mut reader = cpio::NewcReader::new(archive).expect("an entry");
        let mut content = Vec::new();
        reader.read_to_end(&mut content).expect("content");
        let entry = reader.entry();
        assert_eq!((entry.uid(), entry.gid(), entry.mtime()), (0, 0, 0));
        if entry.is_trailer() {
            break;
        }
        assert_eq!((entry.ino() as usize, entry.nlink()), (entries.len() + 1, 1));
        entries.push((entry.name().to_owned(), entry.mode(), (entry.rdev_major(), entry.rdev_minor()), content));
        archive = reader.finish().expect("the next");
    }
    assert!(entries.is_sorted());
    entries
}

#[test]
fn the_ramdisks_hold_what_boots_and_nothing_else() {
    let skeleton = unpacked(&ramdisk::skeleton().expect("written"));
    let folder = |name: &str| (name.to_owned(), 0o040_755, (0, 0), vec![]);
    let console = ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]);
    let null = ("dev/null".to_owned(), 0o020_666, (1, 3), vec![]);
    assert_eq!(skeleton, [folder("dev"), console, null, folder("proc")]);

    let binary = || Input::from_bytes("binary", b"binary".to_vec());
    let init = ("init".to_owned(), 0o100_755, (0, 0), b"binary".to_vec());
    assert_eq!(unpacked(&ramdisk::enclave(binary(), None).expect("written")), std::slice::from_ref(&init));
    let pin = ConfigurationPin::parse(("ab".repeat(48) + "\n").as_bytes()).expect("a pin");
    let file = ("configuration.sha384".to_owned(), 0o100_444, (0, 0), ("ab".repeat(48) + "\n").into_bytes());
    assert_eq!(unpacked(&ramdisk::enclave(binary(), Some(pin)).expect("written")), [file, init]);
}

#[test]
fn no_prefix_of_an_image_is_one() {
    for vector in [TWO_RAMDISKS, SIGNED_P384] {
        for length in 0..vector.len() {
            let error = described(&vector[..length]).expect_err("cut off");
            match length {
                0..HEADER_SIZE => {
                    assert!(matches!(error, DescribeError::Format(FormatError::Short)), "{length}: {error}")
                }
                _ => assert!(matches!(error, DescribeError::BeyondTheEnd(_)), "{length}: {error}"),
            }
            // The file was that long when it was asked for its size.
            let shrunk = Description::read(&mut &vector[..length], vector.len() as u64).expect_err("cut off");
            assert!(matches!(shrunk, DescribeError::Read(_)), "{length}: {shrunk}");
        }
    }
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    for vector in [TWO_RAMDISKS, SIGNED_P256] {
        let mut changed = vector.to_vec();
        for place in 0..vector.len() {
            changed[place] ^= 1 << (place % 8);
            if let Ok(description) = described(&changed) {
                assert!(!description.faults().is_empty(), "byte {place}");
            }
            changed[place] = vector[place];
        }
    }
}

/// The signature section of a vector, in front of and behind the end of its certificate.
fn signature_section(vector: &[u8]) -> (&[u8], &[u8]) {
    let header = Header::parse(&vector[..HEADER_SIZE]).expect("a header");
    let start = usize::try_from(header.sections.last().expect("sections").offset).expect("small");
    let (kind, size) = SectionKind::parse(&vector[start..start + SECTION_HEADER_SIZE]).expect("a section");
    let section = &vector[start + SECTION_HEADER_SIZE..];
    assert_eq!((kind, size), (SectionKind::Signature, section.len() as u64));
    let name = b"\x69signature";
    let end = section.windows(name.len()).rposition(|window| window == name).expect("a signature");
    section.split_at(end)
}

fn pcr0(vector: &[u8]) -> Pcr {
    described(vector).expect("an image").measurements.pcr0
}

#[test]
fn signatures_of_each_curve_are_right_and_no_other_curves() {
    let vectors = [SIGNED_P256, SIGNED_P384, SIGNED_P521];
    for (i, certified) in vectors.iter().enumerate() {
        for (j, signed) in vectors.iter().enumerate() {
            let section = [signature_section(certified).0, signature_section(signed).1].concat();
            let read = ImageSignature::read(&section, &pcr0(signed)).expect("a signature");
            let expected = [-7, -35, -36][j];
            assert_eq!(read.verdict, if i == j { Ok(()) } else { Err(SignatureError::Algorithm(expected)) }, "{i} {j}");
        }
    }
}

#[test]
fn a_signature_is_of_one_key_and_one_image() {
    let verdict = |section: &[u8], pcr0: &Pcr| ImageSignature::read(section, pcr0).map(|read| read.verdict);
    let (certificate, signature) = signature_section(SIGNED_P384);
    let (another_key, _) = signature_section(vector!("signed_afterwards.eif"));
    let own = pcr0(SIGNED_P384);
    assert_eq!(verdict(&[certificate, signature].concat(), &own), Ok(Ok(())));
    assert_eq!(verdict(&[another_key, signature].concat(), &own), Ok(Err(SignatureError::Forged)));
    let other_image = Ok(Err(SignatureError::OtherImage(own)));
    assert_eq!(verdict(&[certificate, signature].concat(), &Pcr([1; 48])), other_image);

    let transplanted = described(vector!("signature_of_another_image.eif")).expect("an image");
    let read = transplanted.signature.expect("signed").expect("a certificate");
    assert_eq!(read.verdict, Err(SignatureError::OtherImage(pcr0(vector!("three_ramdisks_aarch64.eif")))));
}

/// What some readers of PEM take for the certificate, and others pass over.
fn preceded(label: &str, certificate: &[u8]) -> Vec<u8> {
    const HEAD: usize = b"\x81\xa2\x73signing_certificate\x99".len();
    let block = format!("-----BEGIN {label}-----\nMAA=\n-----END {label}-----\n");
    let (head, rest) = certificate.split_at(HEAD);
    let (length, items) = rest.split_at(2);
    let length = u16::from_be_bytes(length.try_into().expect("two")) + u16::try_from(block.len()).expect("short");
    let block = block.bytes().flat_map(|c| if c < 24 { vec![c] } else { vec![0x18, c] });
    head.iter().copied().chain(length.to_be_bytes()).chain(block).chain(items.iter().copied()).collect()
}

fn unsure() -> SignatureError {
    SignatureError::Certificate
}

#[test]
fn other_signature_sections_are_refused() {
    let (certificate, signature) = signature_section(SIGNED_P384);
    let section = [certificate, signature].concat();
    // Past the array's one byte.
    let map = &section[1..];
    let no_certificate = b"\x81\xa2\x73signing_certificate\x80";
    for (name, bad, error) in [
        ("empty", vec![], SignatureError::Section),
        ("no_signatures", vec![0x80], SignatureError::Count(0)),
        ("two_signatures", [&[0x82], map, map].concat(), SignatureError::Count(2)),
        ("no_array", map.to_vec(), SignatureError::Section),
        ("trailing_byte", [&section[..], &[0]].concat(), SignatureError::Section),
        ("cut_off", section[..section.len() - 1].to_vec(), SignatureError::Section),
        ("array_beyond_the_limit", b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff".to_vec(), SignatureError::Section),
        ("too_deep", [0x81; 100_000].to_vec(), SignatureError::Section),
        ("certificate_is_none", [no_certificate, signature].concat(), SignatureError::Certificate),
        ("another_block_before_it", [&preceded("X509 CERTIFICATE", certificate)[..], signature].concat(), unsure()),
        ("another_certificate_before_it", [&preceded("CERTIFICATE", certificate)[..], signature].concat(), unsure()),
    ] {
        assert_eq!(ImageSignature::read(&bad, &pcr0(SIGNED_P384)).err(), Some(error), "{name}");
    }
    let no_signature = [certificate, b"\x69signature\x80"].concat();
    let read = ImageSignature::read(&no_signature, &pcr0(SIGNED_P384)).expect("a certificate");
    assert!(matches!(read.verdict, Err(SignatureError::Cose(_))), "{:?}", read.verdict);
}

/// A disk's worth of image is read in little memory: its size is only a number.
#[test]
fn sizes_are_believed_only_as_far_as_the_file_reaches() {
    let file = File::open("/dev/zero").expect("zeros");
    let error = Description::read(&mut &file, u64::MAX).expect_err("not an image");
    assert!(matches!(error, DescribeError::Format(FormatError::Magic)), "{error}");
    let mut header = Header::parse(TWO_RAMDISKS).expect("a header");
    for (place, section) in header.sections.clone().into_iter().enumerate() {
        header.sections[place].size = u64::MAX - section.offset - SECTION_HEADER_SIZE as u64;
        let bytes = [&header.encode(), &TWO_RAMDISKS[HEADER_SIZE..]].concat();
        // Whoever says that the file is that long is told that it is not.
        let error = Description::read(&mut &bytes[..], u64::MAX).expect_err("no such file");
        assert!(matches!(error, DescribeError::Overlap(_) | DescribeError::Size { .. }), "{place}: {error}");
        header.sections[place] = section;
    }
}
