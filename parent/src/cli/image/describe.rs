//! `strongroom image describe`: what is printed of an image.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::Registers;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::output;
use crate::client::printable;
use crate::image::describe::{DescribeError, Description};
use crate::image::open_file;
use crate::image::signature::ImageSignature;

/// Tell what is in an enclave image (EIF), ours or another's
///
/// Prints its header, sections, metadata and measurements, and for a signed image the signing
/// certificate, PCR8, and whether the signature is right and over this PCR0. Whether the certificate
/// is to be trusted, and whether it has expired, is for you to say. Metadata are not measured:
/// anybody can change them.
///
/// Exits with 0 if the image is as it should be, and with 1 if it is not: if its CRC-32 or its
/// signature is wrong, what was found is printed nevertheless. The names in the JSON are nitro-cli's,
/// where it has them.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom image describe strongroom.eif\n  \
    strongroom image describe strongroom.eif --json | jq .Measurements > pcrs.json"
)]
pub(crate) struct Describe {
    /// The image
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn describe(Describe { file: path, json }: &Describe) -> Outcome {
    let unreadable = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", path.display()));
    let opened = open_file(path).map_err(|error| unreadable(&error))?;
    let (mut file, size) = opened.ok_or_else(|| unreadable(&"not a file"))?;
    let description = Description::read(&mut file, size).map_err(|error| match error {
        DescribeError::Read(error) => unreadable(&error),
        error => Failure::new(Exit::Failed, format!("{}: {error}", path.display())),
    })?;
    output::say(&if *json { output::json(&as_json(&description))? + "\n" } else { as_text(&description) });
    match &description.faults()[..] {
        [] => Ok(Exit::Done),
        faults => Err(Failure::new(Exit::Failed, format!("{}: {}", path.display(), faults.join("; ")))),
    }
}

fn as_json(description: &Description) -> Value {
    let header = &description.header;
    let sections = header
        .sections
        .iter()
        .zip(&description.kinds)
        .map(|(extent, kind)| json!({ "Type": kind.to_string(), "Offset": extent.offset, "Size": extent.size }));
    let certificate = signature(description).map(|signature| {
        json!({
            "Subject": signature.subject,
            "Issuer": signature.issuer,
            "NotBefore": signature.not_before,
            "NotAfter": signature.not_after,
        })
    });
    json!({
        "EifVersion": header.version,
        "Architecture": header.architecture.to_string(),
        "DefaultMemory": header.default_memory,
        "DefaultCpus": header.default_cpus,
        "Sections": sections.collect::<Vec<_>>(),
        "CheckCRC": description.crc32 == header.crc32,
        "CommandLine": description.command_line,
        "Metadata": description.metadata.as_ref().and_then(|metadata| metadata.as_ref().ok()),
        "Measurements": registers(description),
        "IsSigned": description.signature.is_some(),
        "SigningCertificate": certificate,
        "SignatureCheck": description.signature.as_ref().map(|_| is_signed_well(description)),
        "Faults": description.faults(),
    })
}

fn as_text(description: &Description) -> String {
    let header = &description.header;
    let crc = match description.crc32 == header.crc32 {
        true => format!("{:08x}", header.crc32),
        false => format!("WRONG: {:08x}, it should be {:08x}", header.crc32, description.crc32),
    };
    let mut rows = vec![
        ("version", header.version.to_string()),
        ("for", header.architecture.to_string()),
        ("memory", format!("{} bytes, if nobody says otherwise", header.default_memory)),
        ("CPUs", format!("{}, likewise", header.default_cpus)),
        ("CRC-32", crc),
    ];
    rows.extend(header.sections.iter().zip(&description.kinds).enumerate().map(|(place, (extent, kind))| {
        let section = format!("{kind}, {} bytes at {}", extent.size, extent.offset);
        (if place == 0 { "sections" } else { "" }, section)
    }));
    rows.push(("command", printable(&description.command_line)));
    rows.extend(registers(description).rows());
    rows.extend(match &description.signature {
        None => vec![("signature", "none".to_owned())],
        Some(Err(error)) => vec![("signature", format!("WRONG: {error}"))],
        Some(Ok(signature)) => vec![
            (
                "signature",
                match &signature.verdict {
                    Ok(()) => "right, over this PCR0".to_owned(),
                    Err(error) => format!("WRONG: {error}"),
                },
            ),
            ("signed by", printable(&signature.subject)),
            ("issued by", printable(&signature.issuer)),
            ("valid", format!("{} to {}", signature.not_before, signature.not_after)),
        ],
    });
    let mut text = output::rows(rows);
    match &description.metadata {
        None => text += &output::rows([("metadata", "none".to_owned())]),
        Some(Err(error)) => text += &output::rows([("metadata", format!("WRONG: {error}"))]),
        Some(Ok(metadata)) => {
            let json = output::json(metadata).unwrap_or_default();
            text += &output::rows(
                json.lines().enumerate().map(|(line, json)| (if line == 0 { "metadata" } else { "" }, json.to_owned())),
            );
        }
    }
    text
}

fn registers(description: &Description) -> Registers {
    let pcr8 = signature(description).map(|signature| signature.pcr8);
    Registers { measurements: description.measurements, pcr8, pcr16: None }
}

fn signature(description: &Description) -> Option<&ImageSignature> {
    description.signature.as_ref()?.as_ref().ok()
}

fn is_signed_well(description: &Description) -> bool {
    signature(description).is_some_and(|signature| signature.verdict.is_ok())
}
