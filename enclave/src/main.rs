//! `strongroom-enclave`: the enclave on real hardware. Its attestor is `/dev/nsm` and can be no other.

use std::process::ExitCode;

use clap::Parser;
use strongroom_enclave::{NsmDevice, Options, run};

/// Opens keys by attested KMS calls, signs, wipes. Runs inside a Nitro Enclave.
#[derive(Parser)]
#[command(name = "strongroom-enclave", version)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[expect(clippy::print_stderr, reason = "before logging starts, the console is all there is")]
fn main() -> ExitCode {
    let options = Arguments::parse().options;
    match NsmDevice::open() {
        Ok(device) => run(&options, Box::new(device)),
        Err(error) => {
            eprintln!("strongroom-enclave: {error}");
            ExitCode::FAILURE
        }
    }
}
