//! The documents: whoever follows them on paper finds every command, option and file that they name.

use std::process::Command;

use strongroom_tests::stack::binary;

#[test]
fn every_command_option_and_file_of_the_documents_is_there() {
    let paper = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/paper");
    let output = Command::new("python3")
        .arg(paper)
        .arg("--strongroom")
        .arg(binary("strongroom"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
}
