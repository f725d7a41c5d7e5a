//! `strongroom-enclave`: the enclave on real hardware. Its attestor is `/dev/nsm` and can be no other.

use std::process::ExitCode;

use clap::Parser;
use strongroom_enclave::{Image, NsmDevice, Options, run};

/// Opens keys by attested KMS calls, signs, wipes. Runs inside a Nitro Enclave.
#[derive(Parser)]
#[command(name = "strongroom-enclave", version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[expect(clippy::print_stderr, reason = "before logging starts, the console is all there is")]
fn main() -> ExitCode {
    let image = match Image::start() {
        Ok(image) => image,
        Err(error) => {
            eprintln!("strongroom-enclave: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The first process is given whatever the kernel did not understand of its command line.
    let arguments =
        if image.first_process { Arguments::parse_from(["strongroom-enclave"]) } else { Arguments::parse() };
    let code = match NsmDevice::open() {
        Ok(device) => run(&arguments.options, Box::new(device), &image),
        Err(error) => {
            eprintln!("strongroom-enclave: {error}");
            ExitCode::FAILURE
        }
    };
    image.end();
    code
}
