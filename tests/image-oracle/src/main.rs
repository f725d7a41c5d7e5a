//! What AWS's own library makes and says of enclave images. `record FOLDER` writes the vectors of
//! `tests/vectors/image`, `describe FILE` prints as JSON what its reader says of any image.

use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use aws_nitro_enclaves_image_format::defs::{EIF_HDR_ARCH_ARM64, EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::eif_signer::SignKey;
use aws_nitro_enclaves_image_format::utils::{EifBuilder, EifSigner, SignKeyData};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::{X509Builder, X509NameBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha384};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["record", folder] => record(Path::new(folder)),
        ["describe", file] => Ok(println!("{:#}", describe(Path::new(file))?)),
        _ => Err("usage: strongroom-image-oracle record FOLDER | describe FILE".into()),
    }
}

const COMMAND_LINE: &str = "console=ttyS0 reboot=k panic=30 pci=off";

fn record(folder: &Path) -> Result<()> {
    for (name, length) in [("kernel", 3001), ("boot", 257), ("application", 1024), ("more", 1)] {
        // Any bytes will do: nothing here looks into a kernel or a ramdisk.
        let bytes: Vec<u8> = Sha384::digest(name).iter().copied().cycle().take(length).collect();
        fs::write(folder.join(name), bytes)?;
    }
    let (two, three) = (["boot", "application"], ["boot", "application", "more"]);
    build(folder, "one_ramdisk", &["boot"], 0, None)?;
    build(folder, "two_ramdisks", &two, 0, None)?;
    build(folder, "three_ramdisks_aarch64", &three, EIF_HDR_ARCH_ARM64, None)?;
    build(folder, "signed_p256", &two, 0, Some(signer(Nid::X9_62_PRIME256V1)?))?;
    build(folder, "signed_p384", &three, EIF_HDR_ARCH_ARM64, Some(signer(Nid::SECP384R1)?))?;
    build(folder, "signed_p521", &["boot"], 0, Some(signer(Nid::SECP521R1)?))?;

    let afterwards = build(folder, "signed_afterwards", &two, 0, None)?;
    eif_signer(Nid::SECP384R1)?.sign_image(&afterwards)?;

    let another = EifReader::from_eif(build(folder, "another", &three, 0, None)?)?.get_measurements()?;
    fs::remove_file(folder.join("another.eif"))?;
    let transplanted = build(folder, "signature_of_another_image", &two, 0, None)?;
    let signer = eif_signer(Nid::SECP384R1)?;
    signer.write_signature(&transplanted, signer.generate_eif_signature(&another)?, false)?;
    signer.update_crc(&transplanted)?;

    let mut readings = Map::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "eif") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            readings.insert(name, describe(&path)?);
        }
    }
    Ok(fs::write(folder.join("readings.json"), format!("{:#}\n", Value::Object(readings)))?)
}

/// Builds an image; its path, as the library takes paths.
fn build(folder: &Path, name: &str, ramdisks: &[&str], flags: u16, signer: Option<SignKeyData>) -> Result<String> {
    let path = folder.join(format!("{name}.eif"));
    let identity = EifIdentityInfo {
        img_name: "strongroom".to_owned(),
        img_version: "1.2.3".to_owned(),
        // What strongroom itself says, so that its images can be compared byte for byte.
        build_info: EifBuildInfo {
            build_time: "1970-01-01T00:00:00Z".to_owned(),
            build_tool: "strongroom".to_owned(),
            build_tool_version: "0.1.0".to_owned(),
            img_os: "Linux".to_owned(),
            img_kernel: "Unknown".to_owned(),
        },
        docker_info: Value::Null,
        custom_info: Value::Null,
    };
    let kernel = folder.join("kernel");
    let mut builder = EifBuilder::new(&kernel, COMMAND_LINE.to_owned(), signer, Sha384::new(), flags, identity);
    for ramdisk in ramdisks {
        builder.add_ramdisk(&folder.join(ramdisk));
    }
    builder.write_to(&mut File::create(&path)?);
    Ok(path.to_string_lossy().into_owned())
}

fn eif_signer(curve: Nid) -> Result<EifSigner> {
    EifSigner::new(Some(signer(curve)?)).ok_or_else(|| "no signer".into())
}

/// A new key on this curve and a certificate for it, for the next hundred years.
fn signer(curve: Nid) -> Result<SignKeyData> {
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)?;
    let mut name = X509NameBuilder::new()?;
    name.append_entry_by_text("O", "strongroom tests")?;
    name.append_entry_by_text("CN", curve.short_name()?)?;
    let name = name.build();
    let mut certificate = X509Builder::new()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(&*BigNum::from_u32(1)?.to_asn1_integer()?)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_not_before(&*Asn1Time::from_str("20260101000000Z")?)?;
    certificate.set_not_after(&*Asn1Time::from_str("21260101000000Z")?)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha384())?;
    let cert = certificate.build().to_pem()?;
    Ok(SignKeyData { cert, key: SignKey::LocalPrivateKey(key.private_key_to_pem_pkcs8()?) })
}

fn describe(path: &Path) -> Result<Value> {
    let mut reader = EifReader::from_eif(path.to_string_lossy().into_owned())?;
    let header = reader.get_header();
    let measurements = reader.get_measurements()?;
    let signed = reader.signature_section.is_some();
    let certificate = signed.then(|| reader.get_certificate_info(measurements.clone()));
    let sections = usize::from(header.num_sections);
    Ok(json!({
        "version": header.version,
        "flags": header.flags,
        "default_memory": header.default_mem,
        "default_cpus": header.default_cpus,
        "offsets": header.section_offsets.get(..sections),
        "sizes": header.section_sizes.get(..sections),
        "crc_is_right": reader.check_crc(),
        "metadata": reader.get_metadata(),
        "pcr0": measurements.get("PCR0"),
        "pcr1": measurements.get("PCR1"),
        "pcr2": measurements.get("PCR2"),
        "pcr8": measurements.get("PCR8"),
        "issuer": certificate.as_ref().map(|found| found.as_ref().ok().map(|found| &found.issuer_name)),
        "not_before": certificate.as_ref().map(|found| found.as_ref().ok().map(|found| &found.not_before)),
        "not_after": certificate.as_ref().map(|found| found.as_ref().ok().map(|found| &found.not_after)),
        "signature_is_right": signed.then_some(reader.sign_check == Some(true)),
    }))
}
