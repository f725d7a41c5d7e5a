//! `strongroom image …`, a process: the images that it makes and what it says of images. The judge is AWS's own library
//! (`tests/image-oracle`): by what it said when the vectors in `tests/vectors/image` were made, and itself where it is
//! built. `hostile`: images that are made to mislead.

mod hostile;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};
use strongroom_parent::attestation::ExpectedPcrs;
use strongroom_protocol::Measurement;
use strongroom_tests::stack::{binary, test_directory};

use crate::command_line::{command, ended, said};

const CONFIGURATION: &str = include_str!("../../enclave.example.json");
const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=30 pci=off";

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/image")
}

fn vector(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).expect("a vector")
}

async fn image(folder: &Path, arguments: &[&str]) -> Output {
    ended(command(folder, &[&["image"], arguments].concat()).env_remove("SOURCE_DATE_EPOCH")).await
}

/// A folder with what an image is made of.
fn workshop() -> tempfile::TempDir {
    let folder = test_directory().expect("a folder");
    for name in ["kernel", "boot", "application", "more"] {
        fs::write(folder.path().join(name), vector(name)).expect("written");
    }
    fs::write(folder.path().join("enclave"), vector("application").repeat(1000)).expect("written");
    fs::write(folder.path().join("enclave.json"), CONFIGURATION).expect("written");
    folder
}

/// `image build` of the workshop's kernel; its JSON.
async fn build(folder: &Path, arguments: &[&str]) -> Value {
    let common = ["build", "--kernel", "kernel", "--command-line", COMMAND_LINE, "--output", "a.eif", "--json"];
    let output = image(folder, &[&common, arguments].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// `image describe` as JSON, with the exit code that its signature deserves.
async fn describe(path: &Path) -> Value {
    let output = image(Path::new("."), &["describe", path.to_str().expect("text"), "--json"]).await;
    let described: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let good = described["SignatureCheck"] != json!(false);
    assert_eq!(output.status.code(), Some(if good { 0 } else { 1 }), "{path:?}: {}", said(&output));
    described
}

/// Whether AWS's reader finds in an image what `image describe` prints.
fn assert_agrees(name: &str, described: &Value, reading: &Value) {
    let column = |field: &str| {
        let sections = described["Sections"].as_array().expect("sections");
        Value::from(sections.iter().map(|section| section[field].clone()).collect::<Vec<_>>())
    };
    let (measured, certificate) = (&described["Measurements"], &described["SigningCertificate"]);
    let flags = if described["Architecture"] == "aarch64" { 1 } else { 0 };
    for (field, ours) in [
        ("version", described["EifVersion"].clone()),
        ("flags", flags.into()),
        ("default_memory", described["DefaultMemory"].clone()),
        ("default_cpus", described["DefaultCpus"].clone()),
        ("offsets", column("Offset")),
        ("sizes", column("Size")),
        ("crc_is_right", described["CheckCRC"].clone()),
        ("metadata", described["Metadata"].clone()),
        ("pcr0", measured["PCR0"].clone()),
        ("pcr1", measured["PCR1"].clone()),
        ("pcr2", measured["PCR2"].clone()),
        ("pcr8", measured.get("PCR8").cloned().unwrap_or_default()),
        ("signature_is_right", described["SignatureCheck"].clone()),
    ] {
        assert_eq!(ours, reading[field], "{name}: {field}");
    }
    assert_eq!(described["IsSigned"], json!(!reading["pcr8"].is_null()), "{name}");
    if !reading["issuer"].is_null() {
        for part in ["organizationName", "commonName"] {
            let part = reading["issuer"][part].as_str().expect("text");
            assert!(certificate["Issuer"].as_str().expect("text").contains(part), "{name}: {certificate}");
        }
        // Both are the same dates, in the two programs' ways.
        assert_eq!(reading["not_before"], "Jan  1 00:00:00 2026 GMT");
        assert_eq!(reading["not_after"], "Jan  1 00:00:00 2126 GMT");
        assert_eq!(certificate["NotBefore"], "2026-01-01T00:00:00Z", "{name}");
        assert_eq!(certificate["NotAfter"], "2126-01-01T00:00:00Z", "{name}");
    }
}

/// Describes an image of ours and, where AWS's library is built (`make image-oracle`), asks it too.
async fn described_and_judged(path: &Path) -> Value {
    let described = describe(path).await;
    let judge = binary("../image-oracle/release/strongroom-image-oracle");
    if judge.exists() {
        let output = ended(tokio::process::Command::new(judge).arg("describe").arg(path)).await;
        assert!(output.status.success(), "{path:?}: {}", said(&output));
        assert_agrees(&path.to_string_lossy(), &described, &serde_json::from_slice(&output.stdout).expect("JSON"));
    }
    described
}

#[tokio::test]
async fn awss_images_are_what_awss_reader_says() {
    let readings: Value = serde_json::from_slice(&vector("readings.json")).expect("JSON");
    let readings = readings.as_object().expect("an object");
    assert_eq!(readings.len(), 8);
    for (name, reading) in readings {
        let path = vectors().join(name).with_extension("eif");
        assert_agrees(name, &described_and_judged(&path).await, reading);
    }
}

#[tokio::test]
async fn our_images_measure_what_awss_builder_measures() {
    let readings: Value = serde_json::from_slice(&vector("readings.json")).expect("JSON");
    let folder = workshop();
    for (name, architecture, arguments) in [
        ("one_ramdisk", "x86_64", &["--ramdisk", "boot"][..]),
        ("two_ramdisks", "x86_64", &["--ramdisk", "boot", "--ramdisk", "application"]),
        (
            "three_ramdisks_aarch64",
            "aarch64",
            &["--ramdisk", "boot", "--ramdisk", "application", "--ramdisk", "more", "--arch", "aarch64"],
        ),
    ] {
        let built = build(folder.path(), &[arguments, &["--pcrs", "pcrs.json"]].concat()).await;
        let reading = &readings[name];
        let expected = json!({ "PCR0": reading["pcr0"], "PCR1": reading["pcr1"], "PCR2": reading["pcr2"] });
        assert_eq!(built["Measurements"], expected, "{name}");
        let pcrs = fs::read(folder.path().join("pcrs.json")).expect("a file");
        assert_eq!(serde_json::from_slice::<Value>(&pcrs).expect("JSON"), expected, "{name}");
        ExpectedPcrs::with_configuration(&pcrs, CONFIGURATION.as_bytes()).expect("a file for --pcrs");

        let described = described_and_judged(&folder.path().join("a.eif")).await;
        assert_eq!(described["Measurements"], expected, "{name}");
        assert_eq!(described["Architecture"], architecture, "{name}");
        assert_eq!(described["CommandLine"], COMMAND_LINE);
    }
}

#[tokio::test]
async fn the_same_inputs_give_the_same_bytes_wherever_and_whenever() {
    let (here, there) = (workshop(), workshop());
    let arguments = ["--enclave", "enclave", "--configuration", "enclave.json"];
    build(here.path(), &arguments).await;
    // Files that are a second younger, under other names and in another place.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for (name, other) in [("kernel", "bzImage"), ("enclave", "strongroom-enclave"), ("enclave.json", "c.json")] {
        fs::copy(there.path().join(name), there.path().join(other)).expect("copied");
    }
    let output = image(
        there.path(),
        &[
            "build",
            "--configuration",
            "c.json",
            "--enclave",
            "strongroom-enclave",
            "--output",
            "b.eif",
            "--command-line",
            COMMAND_LINE,
            "--kernel",
            "bzImage",
        ],
    )
    .await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let read = |folder: &Path, name| fs::read(folder.join(name)).expect("an image");
    assert!(read(here.path(), "a.eif") == read(there.path(), "b.eif"));

    let described = described_and_judged(&here.path().join("a.eif")).await;
    let kinds = ["kernel", "command line", "metadata", "ramdisk", "ramdisk"];
    let found: Vec<&Value> = described["Sections"].as_array().expect("sections").iter().map(|it| &it["Type"]).collect();
    assert_eq!(found, kinds);
}

#[tokio::test]
async fn a_pinned_configuration_is_in_pcr2_and_its_pcr16_is_printed() {
    let folder = workshop();
    let open = build(folder.path(), &["--enclave", "enclave"]).await;
    let pinned = build(folder.path(), &["--enclave", "enclave", "--configuration", "enclave.json"]).await;
    described_and_judged(&folder.path().join("a.eif")).await;
    let [open, pinned] = [&open["Measurements"], &pinned["Measurements"]];
    assert_eq!(pinned["PCR16"], hex::encode(Measurement::of(CONFIGURATION.as_bytes()).pcr16));
    assert_eq!(open.get("PCR16"), None);
    assert_eq!(open["PCR1"], pinned["PCR1"]);
    assert!(open["PCR0"] != pinned["PCR0"] && open["PCR2"] != pinned["PCR2"]);
    // One byte more is another configuration.
    fs::write(folder.path().join("enclave.json"), CONFIGURATION.to_owned() + "\n").expect("written");
    let other = build(folder.path(), &["--enclave", "enclave", "--configuration", "enclave.json"]).await;
    assert_ne!(&other["Measurements"]["PCR0"], &pinned["PCR0"]);

    let text = image(
        folder.path(),
        &[
            "build",
            "--kernel",
            "kernel",
            "--command-line",
            "",
            "--enclave",
            "enclave",
            "--configuration",
            "enclave.json",
            "--output",
            "a.eif",
        ],
    )
    .await;
    for name in ["PCR0", "PCR1", "PCR2", "PCR16"] {
        assert!(said(&text).lines().any(|line| line.split_whitespace().next() == Some(name)), "{}", said(&text));
    }
}

#[tokio::test]
async fn metadata_say_what_they_are_told_and_are_not_measured() {
    let folder = workshop();
    let ramdisk = ["--ramdisk", "boot"];
    let plain = build(folder.path(), &ramdisk).await;
    let metadata = described_and_judged(&folder.path().join("a.eif")).await["Metadata"].clone();
    assert_eq!(metadata["BuildMetadata"]["BuildTime"], "1970-01-01T00:00:00Z");

    let arguments = ["build", "--kernel", "kernel", "--command-line", COMMAND_LINE, "--output", "a.eif", "--json"];
    let named = ["--name", "a \u{1b}[31mname", "--version", "7"];
    let mut building = command(folder.path(), &[&["image"], &arguments[..], &ramdisk, &named].concat());
    let output = ended(building.env("SOURCE_DATE_EPOCH", "1800000000")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).expect("JSON"), plain);
    let metadata = described_and_judged(&folder.path().join("a.eif")).await["Metadata"].clone();
    assert_eq!(metadata["BuildMetadata"]["BuildTime"], "2027-01-15T08:00:00Z");
    assert_eq!(metadata["ImageName"], "a \u{1b}[31mname");
    assert_eq!(metadata["ImageVersion"], "7");

    let output = ended(building.env("SOURCE_DATE_EPOCH", "yesterday")).await;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[tokio::test]
async fn what_makes_no_image_is_said_and_leaves_the_old_one() {
    let folder = workshop();
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).expect("written");
    write("a.eif", b"the old one");
    write("empty", b"");
    write("no.json", b"{}");
    let many: Vec<&str> = ["--ramdisk", "boot"].repeat(30);
    for (name, told, arguments) in [
        ("nothing_to_boot_into", "--enclave", &[][..]),
        ("both", "cannot be used with", &["--enclave", "enclave", "--ramdisk", "boot"]),
        ("pin_without_enclave", "cannot be used with", &["--ramdisk", "boot", "--configuration", "enclave.json"]),
        ("missing_ramdisk", "missing: No such file", &["--ramdisk", "missing"]),
        ("empty_ramdisk", "empty: empty", &["--ramdisk", "empty"]),
        ("ramdisk_is_a_folder", "not a file", &["--ramdisk", "."]),
        ("missing_binary", "missing: No such file", &["--enclave", "missing"]),
        ("no_configuration", "no.json: ", &["--enclave", "enclave", "--configuration", "no.json"]),
        ("too_many_ramdisks", "at most 29 ramdisks", &many),
        ("other_processors", "riscv64", &["--ramdisk", "boot", "--arch", "riscv64"]),
    ] {
        let common = ["build", "--kernel", "kernel", "--command-line", "", "--output", "a.eif"];
        let output = image(folder.path(), &[&common, arguments].concat()).await;
        assert_eq!(output.status.code(), Some(2), "{name}: {}", said(&output));
        assert!(said(&output).contains(told), "{name}: {}", said(&output));
        assert!(output.stdout.is_empty(), "{name}");
        assert_eq!(fs::read(folder.path().join("a.eif")).expect("a file"), b"the old one", "{name}");
    }
    let nowhere =
        ["build", "--kernel", "kernel", "--command-line", "", "--ramdisk", "boot", "--output", "missing/a.eif"];
    let output = image(folder.path(), &nowhere).await;
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let left: Vec<_> =
        fs::read_dir(folder.path()).expect("a folder").map(|it| it.expect("an entry").file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".tmp")), "{left:?}");
}
