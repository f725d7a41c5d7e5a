//! `strongroom image …`: the arguments, and what is printed. What is in an image is `crate::image`'s matter.

mod describe;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use strongroom_protocol::{Configuration, ConfigurationPin, MAX_CONFIGURATION, Measurement};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::exit::{Exit, Failure, Outcome};
use super::{files, output};
use crate::image::build::{BuildError, Image, Input};
use crate::image::format::Architecture;
use crate::image::measurements::{Measurements, Pcr};
use crate::image::metadata::Metadata;
use crate::image::ramdisk;

#[derive(Debug, Subcommand)]
pub(super) enum ImageCommand {
    Build(Build),
    Describe(describe::Describe),
}

/// Make an enclave image (EIF) of a kernel and the enclave's binary
///
/// The image boots straight into the binary, which has to be linked statically and to do what PID 1
/// does. The same inputs give the same bytes, wherever and whenever it is made, so that anybody can
/// make it again and compare PCR0. With --configuration, the image accepts no other configuration
/// than this one: PCR0 then stands for both.
///
/// What is printed as PCR0, PCR1 and PCR2 is what the key policy has to admit, and what --pcrs of
/// the commands that verify has to say.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Examples:\n  strongroom image build --kernel bzImage --command-line 'console=ttyS0 reboot=k panic=30 pci=off' \\\n    \
    --enclave strongroom-enclave --output strongroom.eif --pcrs pcrs.json\n  \
    strongroom image build --kernel bzImage --command-line 'console=ttyS0' --ramdisk boot.cpio.gz --ramdisk app.cpio.gz --output a.eif"
)]
pub(super) struct Build {
    /// The Linux kernel: a bzImage (x86_64) or an Image (aarch64)
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT")]
    command_line: String,
    #[command(flatten)]
    content: Content,
    /// The only configuration that the image accepts, byte for byte
    #[arg(long, value_name = "FILE", conflicts_with = "ramdisk")]
    configuration: Option<PathBuf>,
    /// Where the image is written; an older one is replaced
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Where {"PCR0": "hex", …} is written
    #[arg(long, value_name = "FILE")]
    pcrs: Option<PathBuf>,
    /// For which processors the kernel is
    #[arg(long, value_enum, default_value_t = Processors::X86_64)]
    arch: Processors,
    /// The image's name; not measured
    #[arg(long, default_value = "strongroom")]
    name: String,
    /// The image's version; not measured
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
    /// When the image is said to be made, in seconds since 1970; not measured
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", default_value_t = 0)]
    build_time: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Content {
    /// The enclave's binary: it becomes /init
    #[arg(long, value_name = "BINARY")]
    enclave: Option<PathBuf>,
    /// Instead: a ramdisk of your own, as it is; again for more. PCR1 measures the first, PCR2 the others
    #[arg(long, value_name = "FILE")]
    ramdisk: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Processors {
    #[value(name = "x86_64")]
    X86_64,
    Aarch64,
}

/// Runs the command.
pub(super) fn run(command: &ImageCommand) -> Outcome {
    match command {
        ImageCommand::Build(arguments) => build(arguments),
        ImageCommand::Describe(arguments) => describe::describe(arguments),
    }
}

fn build(arguments: &Build) -> Outcome {
    let configuration = arguments.configuration.as_deref().map(measure).transpose()?;
    let built_at = OffsetDateTime::from_unix_timestamp(arguments.build_time).map_err(Failure::usage)?;
    let built_at = built_at.format(&Rfc3339).map_err(Failure::usage)?;
    let ramdisks = match &arguments.content {
        Content { enclave: Some(binary), .. } => {
            let pin = configuration.as_ref().map(ConfigurationPin::of);
            let skeleton = ramdisk::skeleton().map_err(|error| Failure::new(Exit::Failed, error))?;
            let enclave = ramdisk::enclave(Input::open(binary)?, pin)?;
            vec![Input::from_bytes("the first ramdisk", skeleton), Input::from_bytes("the second ramdisk", enclave)]
        }
        Content { ramdisk: paths, .. } => paths.iter().map(|path| Input::open(path)).collect::<Result<_, _>>()?,
    };
    let image = Image {
        architecture: match arguments.arch {
            Processors::X86_64 => Architecture::X86_64,
            Processors::Aarch64 => Architecture::Aarch64,
        },
        kernel: Input::open(&arguments.kernel)?,
        command_line: arguments.command_line.clone(),
        metadata: Metadata::new(arguments.name.clone(), arguments.version.clone(), built_at),
        ramdisks,
    };
    let measurements = files::replace(&arguments.output, |file| Ok(image.write(file)?))?;
    if let Some(path) = &arguments.pcrs {
        let json = output::json(&measurements)? + "\n";
        files::publish(path, json.as_bytes())?;
    }
    let pcr16 = configuration.map(|measurement| Pcr(measurement.pcr16));
    let built = Built { measurements: Registers { measurements, pcr8: None, pcr16 } };
    output::print(arguments.json, &built, |built| {
        format!("{}\n\n{}", arguments.output.display(), output::rows(built.measurements.rows()))
    })
}

/// What is printed as JSON, in the form that `nitro-cli build-enclave` has.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Built {
    measurements: Registers,
}

/// What is known of an enclave's registers; as JSON, a file for --pcrs.
#[derive(Serialize)]
struct Registers {
    #[serde(flatten)]
    measurements: Measurements,
    /// Of a signed image.
    #[serde(rename = "PCR8", skip_serializing_if = "Option::is_none")]
    pcr8: Option<Pcr>,
    /// Of an image that accepts one configuration only.
    #[serde(rename = "PCR16", skip_serializing_if = "Option::is_none")]
    pcr16: Option<Pcr>,
}

impl Registers {
    fn rows(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Measurements { pcr0, pcr1, pcr2 } = self.measurements;
        let image = [("PCR0", pcr0), ("PCR1", pcr1), ("PCR2", pcr2)];
        let others = [("PCR8", self.pcr8), ("PCR16", self.pcr16)];
        let others = others.into_iter().filter_map(|(name, pcr)| Some((name, pcr?)));
        image.into_iter().chain(others).map(|(name, pcr)| (name, pcr.to_string()))
    }
}

/// The measurement of a configuration, which has to be a valid one: an image that pins another would never start.
fn measure(path: &Path) -> Result<Measurement, Failure> {
    let configuration = files::read(path, MAX_CONFIGURATION)?;
    Configuration::parse(&configuration).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    Ok(Measurement::of(&configuration))
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Output(_) | BuildError::Changed(_) => Self::new(Exit::Failed, error),
            _ => Self::usage(error),
        }
    }
}
