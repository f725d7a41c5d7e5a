//! The enclave on a machine that is none: the library that `strongroom-enclave` runs, with the mock NSM
//! in place of `/dev/nsm`. For `make dev`, `make demo` and the suites; KMS accepts it nowhere but at
//! mock-kms, which is told to trust this NSM's root.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use strongroom_enclave::{Image, read_pin};
use strongroom_tests::mock_nsm::{Machine, MockNsm, UsedPcr16};
use strongroom_tests::pki::NitroAuthority;

#[derive(Parser)]
#[command(name = "dev-enclave", about = "strongroom's enclave with a mock secure module. Protects nothing.")]
struct Arguments {
    #[command(flatten)]
    enclave: strongroom_enclave::Options,
    /// Where the mock module's root lives; made on first start. Verifiers are given `mock-nsm-root.pem`.
    #[arg(long, value_name = "DIRECTORY")]
    nsm_dir: PathBuf,
    /// The image that PCR0-2 stand for.
    #[arg(long, value_name = "LABEL", default_value = "strongroom-dev")]
    image: String,
    /// PCR0-2 are zero, as in an enclave started with a console.
    #[arg(long)]
    debug_mode: bool,
    /// PCR16 was used before Configure, in this way: the enclave must never take a configuration. For the
    /// suites only.
    #[arg(long, value_enum, value_name = "HOW")]
    dangerous_pcr16_used_before_configure: Option<UsedPcr16>,
    /// A file with the only configuration that is accepted, as an image may carry it.
    #[arg(long, value_name = "FILE")]
    configuration_pin: Option<PathBuf>,
    /// How long the module takes for each request.
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    nsm_latency_ms: u64,
    /// How far the module's clock, and so its documents, are from the system's.
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    clock_offset_seconds: i64,
}

#[expect(clippy::print_stderr, reason = "the log does not run yet")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let authority = match NitroAuthority::open(&arguments.nsm_dir) {
        Ok(authority) => authority,
        Err(error) => {
            eprintln!("dev-enclave: {}: {error}", arguments.nsm_dir.display());
            return ExitCode::FAILURE;
        }
    };
    let pin = match arguments.configuration_pin.as_deref().map_or(Ok(None), read_pin) {
        Ok(pin) => pin,
        Err(error) => {
            eprintln!("dev-enclave: {error}");
            return ExitCode::FAILURE;
        }
    };
    let machine = Machine {
        image: arguments.image,
        debug_mode: arguments.debug_mode,
        used_pcr16: arguments.dangerous_pcr16_used_before_configure,
        latency: Duration::from_millis(arguments.nsm_latency_ms),
        clock_offset_seconds: arguments.clock_offset_seconds,
        ..Machine::default()
    };
    strongroom_enclave::run(
        &arguments.enclave,
        Box::new(MockNsm::new(authority, machine)),
        &Image { pin, ..Image::default() },
    )
}
