//! The binary `strongroom`. Decides nothing: the command line is in `strongroom_parent::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    strongroom_parent::cli::run()
}
