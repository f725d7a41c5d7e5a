//! What is in the released image: one kernel, one process, and nothing that could be another.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::Command;

use cpio::newc::Reader;
use flate2::read::GzDecoder;
use serde_json::Value;
use strongroom_tests::stack::binary;

use super::released;

/// Before each section's data.
const SECTION_HEADER: usize = 12;

/// The files of an image's ramdisks with their modes, and the contents of those that have some.
fn files() -> BTreeMap<String, (u32, Vec<u8>)> {
    let described =
        Command::new(binary("strongroom")).args(["image", "describe", "--json"]).arg(released().eif).output();
    let described: Value = serde_json::from_slice(&described.expect("runs").stdout).expect("JSON");
    let eif = std::fs::read(released().eif).expect("an image");
    let mut files = BTreeMap::new();
    for section in described["Sections"].as_array().expect("sections") {
        if section["Type"] != "ramdisk" {
            continue;
        }
        let number = |name: &str| usize::try_from(section[name].as_u64().expect("a number")).expect("fits");
        let data = &eif[number("Offset") + SECTION_HEADER..][..number("Size")];
        let mut archive = Vec::new();
        GzDecoder::new(data).read_to_end(&mut archive).expect("gzip");
        let mut rest = &archive[..];
        loop {
            let mut reader = Reader::new(rest).expect("cpio");
            if reader.entry().is_trailer() {
                break;
            }
            let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
            let mut content = Vec::new();
            reader.read_to_end(&mut content).expect("read");
            files.insert(name, (mode, content));
            rest = reader.finish().expect("the next");
        }
    }
    files
}

#[test]
#[ignore = "reads what make image has built: make test-boot"]
fn the_released_image_has_one_program_and_no_mock() {
    let files = files();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["dev", "dev/console", "dev/null", "init", "proc"], "no shell, no package manager, no other");
    let executable: Vec<&str> = files
        .iter()
        .filter(|(_, (mode, _))| mode & 0o170_000 == 0o100_000 && mode & 0o111 != 0)
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(executable, ["init"]);
    let (_, init) = &files["init"];
    for word in ["mock-nsm", "nsm-dir", "strongroom_tests", "/bin/sh"] {
        assert!(!init.windows(word.len()).any(|window| window == word.as_bytes()), "the enclave has {word}");
    }
}

#[test]
#[ignore = "reads what make image has built: make test-boot"]
fn the_released_image_has_at_most_twelve_megabytes() {
    let size = std::fs::metadata(released().eif).expect("an image").len();
    println!("the image has {size} bytes");
    assert!(size <= 12_000_000, "{size}");
}
