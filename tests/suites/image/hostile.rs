//! Images that are damaged, or made to mislead whoever looks at them: each is refused, or described and called wrong, and
//! none gets anything but text to the terminal.

use std::fs;

use strongroom_tests::stack::test_directory;

use super::{image, vector};
use crate::command_line::said;

const HEADER: usize = 548;
const SECTION_HEADER: usize = 12;
const COUNT: usize = 26;
const OFFSETS: usize = 28;
const SIZES: usize = OFFSETS + 32 * 8;

/// An image of AWS's library that is changed from here on.
#[derive(Clone)]
struct Forgery(Vec<u8>);

impl Forgery {
    fn of(name: &str) -> Self {
        Self(vector(name))
    }

    fn with(mut self, place: usize, bytes: &[u8]) -> Self {
        self.0[place..place + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn number(&self, place: usize) -> usize {
        usize::try_from(u64::from_be_bytes(self.0[place..place + 8].try_into().expect("eight"))).expect("small")
    }

    /// Where the header of a section is.
    fn section(&self, place: usize) -> usize {
        self.number(OFFSETS + 8 * place)
    }

    /// Another section in a section's place; those after it move.
    fn with_content(mut self, place: usize, content: &[u8]) -> Self {
        let (start, old) = (self.section(place) + SECTION_HEADER, self.number(SIZES + 8 * place));
        self.0.splice(start..start + old, content.iter().copied());
        let size = (content.len() as u64).to_be_bytes();
        let mut this = self.with(SIZES + 8 * place, &size).with(start - 8, &size);
        for later in place + 1..usize::from(this.0[COUNT + 1]) {
            let moved = this.section(later) + content.len() - old;
            this = this.with(OFFSETS + 8 * later, &(moved as u64).to_be_bytes());
        }
        this
    }

    /// With the CRC-32 (IEEE 802.3) that such a file must have.
    fn crc(self) -> Vec<u8> {
        let covered = self.0[..HEADER - 4].iter().chain(&self.0[HEADER..]);
        let crc = !covered.fold(u32::MAX, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        });
        self.with(HEADER - 4, &crc.to_be_bytes()).0
    }
}

/// Describes it: nothing on standard output if it is refused, and in any case 1 and why.
async fn assert_wrong(name: &str, bytes: &[u8], described: bool, told: &str) {
    let folder = test_directory().expect("a folder");
    fs::write(folder.path().join("a.eif"), bytes).expect("written");
    for json in [&[][..], &["--json"]] {
        let output = image(folder.path(), &[&["describe", "a.eif"], json].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert_eq!(!output.stdout.is_empty(), described, "{name}: {}", said(&output));
        let complaint = String::from_utf8(output.stderr.clone()).expect("text");
        assert!(complaint.contains(told), "{name}: {complaint}");
        assert_printable(name, &output.stdout);
        assert_printable(name, &output.stderr);
    }
}

fn assert_printable(name: &str, printed: &[u8]) {
    assert!(printed.iter().all(|c| *c == b'\n' || *c == b' ' || c.is_ascii_graphic()), "{name}: {printed:?}");
}

#[tokio::test]
async fn the_forgeries_are_good_ones() {
    let folder = test_directory().expect("a folder");
    let control = Forgery::of("two_ramdisks.eif");
    assert_eq!(control.clone().crc(), control.0);
    let longer = control.with_content(1, b"another command line, which is longer than the old one").crc();
    fs::write(folder.path().join("a.eif"), longer).expect("written");
    let output = image(folder.path(), &["describe", "a.eif"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("another command line"), "{}", said(&output));
}

#[tokio::test]
async fn cut_off_images_are_refused() {
    let whole = Forgery::of("signed_p384.eif");
    let sections: Vec<usize> = (0..7).map(|place| whole.section(place)).collect();
    assert_eq!(whole.0[COUNT + 1], 7);
    for (name, length) in
        [("empty", 0), ("in_the_magic", 3), ("in_the_table", 300), ("before_the_header_ends", HEADER - 1)]
    {
        assert_wrong(name, &whole.0[..length], false, "shorter than the header").await;
    }
    for (place, section) in sections.into_iter().enumerate() {
        for length in [section, section + SECTION_HEADER - 1, section + SECTION_HEADER] {
            let name = format!("at {length}");
            assert_wrong(&name, &whole.0[..length], false, &format!("section {place} ends behind the file's end"))
                .await;
        }
    }
    let all_but_one = &whole.0[..whole.0.len() - 1];
    assert_wrong("all_but_one", all_but_one, false, "section 6 ends behind the file's end").await;
}

#[tokio::test]
async fn headers_that_lie_are_refused() {
    let whole = Forgery::of("two_ramdisks.eif");
    let (most, next) = ([0xff; 8], |number: usize| (number as u64 + 1).to_be_bytes());
    let own_size = |place: usize| whole.section(place) + 4;
    let kind = |place: usize| whole.section(place);
    let previous = |number: usize| (number as u64 - 1).to_be_bytes();
    for (name, changed, told) in [
        ("not_an_image", whole.clone().with(0, b"\x7fELF"), "not an enclave image"),
        ("from_the_future", whole.clone().with(4, &[0, 5]), "version 5"),
        ("unknown_flags", whole.clone().with(6, &[0x80, 0]), "unknown flags: 0x8000"),
        ("33_sections", whole.clone().with(COUNT, &[0, 33]), "33 sections"),
        ("65535_sections", whole.clone().with(COUNT, &[0xff, 0xff]), "65535 sections"),
        ("no_sections", whole.clone().with(COUNT, &[0, 0]), "bytes after the last section"),
        ("a_section_less", whole.clone().with(COUNT, &[0, 4]), "bytes after the last section"),
        ("a_section_more", whole.clone().with(COUNT, &[0, 6]), "section 5 overlaps"),
        ("endless_section", whole.clone().with(SIZES, &most), "section 0 ends behind"),
        ("endless_last_section", whole.clone().with(SIZES + 4 * 8, &most), "section 4 ends behind"),
        ("own_size_endless", whole.clone().with(own_size(0), &most), "section 0: 3001 bytes"),
        (
            "own_size_another",
            whole.clone().with(own_size(3), &next(257)),
            "257 bytes according to the file's header, 258",
        ),
        ("offset_endless", whole.clone().with(OFFSETS, &most), "section 0 ends behind"),
        ("offset_zero", whole.clone().with(OFFSETS, &[0; 8]), "section 0 overlaps"),
        ("sections_overlap", whole.clone().with(OFFSETS + 8, &previous(whole.section(1))), "section 1 overlaps"),
        ("two_are_the_same", whole.clone().with(OFFSETS + 8, &(HEADER as u64).to_be_bytes()), "section 1 overlaps"),
        ("sections_leave_a_gap", whole.clone().with(OFFSETS + 8, &next(whole.section(1))), "bytes before section 1"),
        ("trailing_byte", Forgery([&whole.0[..], &[0]].concat()), "1 bytes after the last section"),
        ("unknown_section", whole.clone().with(kind(3), &[0, 6]), "section type 6"),
        ("invalid_section", whole.clone().with(kind(3), &[0, 0]), "section type 0"),
        ("section_with_flags", whole.clone().with(kind(3) + 2, &[0, 1]), "unknown flags: 0x0001"),
        ("two_kernels", whole.clone().with(kind(3), &[0, 1]), "more than one kernel"),
        ("two_command_lines", whole.clone().with(kind(2), &[0, 2]), "more than one command line"),
        ("no_kernel", whole.clone().with(kind(0), &[0, 3]), "no kernel"),
        ("no_command_line", whole.clone().with(kind(1), &[0, 3]), "no command line"),
        ("endless_command_line", whole.clone().with_content(1, &[b'a'; 65_537]), "at most 65536 are read"),
        ("endless_metadata", whole.clone().with_content(2, &vec![b' '; (1 << 17) + 1]), "at most 131072 are read"),
    ] {
        // As whoever makes such a file would: with the right CRC.
        assert_wrong(name, &changed.crc(), false, told).await;
    }
    let no_ramdisk = Forgery::of("one_ramdisk.eif");
    let place = no_ramdisk.section(3);
    assert_wrong("no_ramdisk", &no_ramdisk.with(place, &[0, 4]).crc(), false, "no ramdisk").await;
}

#[tokio::test]
async fn wrong_images_are_described_and_called_wrong() {
    let (plain, signed) = (Forgery::of("two_ramdisks.eif"), Forgery::of("signed_p256.eif"));
    let changed = |forgery: &Forgery, place: usize| forgery.clone().with(place, &[forgery.0[place] ^ 1]);
    let last = signed.0.len() - 1;
    let kernel = HEADER + SECTION_HEADER;
    for (name, bytes, told) in [
        ("wrong_crc", changed(&plain, HEADER - 1).0, "the CRC-32 is wrong"),
        ("another_kernel_and_the_old_crc", changed(&plain, kernel).0, "the CRC-32 is wrong"),
        ("more_memory_and_the_old_crc", changed(&plain, 8).0, "the CRC-32 is wrong"),
        ("another_kernel_and_the_old_signature", changed(&signed, kernel).crc(), "over another image"),
        ("signature_of_another_image", Forgery::of("signature_of_another_image.eif").0, "over another image"),
        ("another_signature", changed(&signed, last).crc(), "the signature is wrong"),
        ("signature_is_none", signed.clone().with_content(5, b"").crc(), "the signature section"),
        ("signature_too_deep", signed.clone().with_content(5, &[0x81; 100_000]).crc(), "the signature section"),
        ("kernel_in_the_command_line", plain.clone().with_content(1, b"\0console=ttyS0").crc(), "visible ASCII"),
        ("metadata_are_none", plain.clone().with_content(2, b"").crc(), "the metadata are not JSON"),
        ("metadata_too_deep", plain.clone().with_content(2, &[b'['; 100_000]).crc(), "the metadata are not JSON"),
    ] {
        assert_wrong(name, &bytes, true, told).await;
    }
}

/// Nested, a hundred bytes of indentation are printed for each of them.
#[tokio::test]
async fn metadata_that_print_a_hundred_times_as_long_are_too_long() {
    let nested = [&b"["[..], &b"[0],".repeat(260_000), b"0]"].concat();
    let bytes = Forgery::of("two_ramdisks.eif").with_content(2, &nested).crc();
    assert_wrong("nested", &bytes, false, "metadata").await;
}

/// To open it waits for a writer.
#[tokio::test]
async fn a_pipe_is_no_image_and_no_part_of_one() {
    let folder = test_directory().expect("a folder");
    let path = folder.path().join("a.eif");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    let build = ["build", "--kernel", "a.eif", "--command-line", "", "--ramdisk", "a.eif", "--output", "b.eif"];
    for arguments in [&["describe", "a.eif"][..], &build] {
        let output = image(folder.path(), arguments).await;
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("not a file"), "{}", said(&output));
    }
}

/// A CRC over other bytes than the signature: both are said.
#[tokio::test]
async fn each_fault_is_named() {
    let signed = Forgery::of("signed_p256.eif");
    let place = HEADER + SECTION_HEADER;
    let both = signed.clone().with(place, &[signed.0[place] ^ 1]);
    assert_wrong("crc", &both.0, true, "the CRC-32 is wrong").await;
    assert_wrong("signature", &both.0, true, "over another image").await;
}

#[tokio::test]
async fn nothing_of_an_image_speaks_to_the_terminal() {
    let folder = test_directory().expect("a folder");
    let hostile = Forgery::of("two_ramdisks.eif").with_content(1, b"\x1b]0;title\x07\r\n\xff\x9b2J").with_content(
        2,
        "{\"ImageName\":\"\u{9b}2J\u{202e}\\u001b[2J\",\"\u{1b}\":1}".replace('\u{1b}', "\u{7f}").as_bytes(),
    );
    fs::write(folder.path().join("a.eif"), hostile.crc()).expect("written");
    for json in [&[][..], &["--json"]] {
        let output = image(folder.path(), &[&["describe", "a.eif"], json].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_printable("hostile", &output.stdout);
        assert_printable("hostile", &output.stderr);
    }
}
