//! What must not be found, in every form in which programs print bytes, and the search for it.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// Secrets to look for. A part of a secret is as bad as the whole, so each is searched for in pieces.
#[derive(Default)]
pub(crate) struct Needles {
    /// By their first bytes: the text goes by once, however many there are.
    forms: HashMap<[u8; PREFIX], Vec<Form>>,
}

struct Form {
    name: String,
    bytes: Vec<u8>,
}

/// Bytes of a piece.
const PIECE: usize = 16;

/// Every form of a piece is longer than this.
const PREFIX: usize = 12;

impl Needles {
    /// Adds a secret of at least [`PIECE`] bytes.
    pub(crate) fn add(&mut self, name: &str, secret: &[u8]) {
        assert!(secret.len() >= PIECE, "{name} is too short to be told from chance");
        let last = secret.len() - PIECE;
        for start in (0..last).step_by(PIECE).chain([last]) {
            for (form, bytes) in forms(&secret[start..start + PIECE]) {
                let prefix = *bytes.first_chunk().expect("long enough");
                let name = format!("{name}, from byte {start}, {form}");
                self.forms.entry(prefix).or_default().push(Form { name, bytes });
            }
        }
    }

    /// What of them is in `text`.
    pub(crate) fn found_in(&self, text: &[u8]) -> Vec<&str> {
        let here = text.windows(PREFIX).enumerate().filter_map(|(at, window)| {
            let candidates = self.forms.get(<&[u8; PREFIX]>::try_from(window).ok()?)?;
            Some(candidates.iter().filter(move |form| text[at..].starts_with(&form.bytes)))
        });
        here.flatten().map(|form| form.name.as_str()).collect()
    }

    /// What of them is in the files under `folder`, as `file: needle`. Returns also the bytes that were read.
    pub(crate) fn found_under(&self, folder: &Path) -> (Vec<String>, usize) {
        let (mut found, mut read) = (Vec::new(), 0);
        for entry in fs::read_dir(folder).expect("a folder") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() {
                let (below, length) = self.found_under(&entry.path());
                found.extend(below);
                read += length;
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).expect("a file");
                read += bytes.len();
                let name = entry.path().display().to_string();
                found.extend(self.found_in(&bytes).into_iter().map(|needle| format!("{name}: {needle}")));
            }
        }
        (found, read)
    }
}

/// A piece as programs write it.
pub(crate) fn forms(piece: &[u8]) -> Vec<(String, Vec<u8>)> {
    let list = |separator: &str| piece.iter().map(u8::to_string).collect::<Vec<_>>().join(separator).into_bytes();
    let mut forms = vec![
        ("raw".to_owned(), piece.to_vec()),
        ("reversed".to_owned(), piece.iter().rev().copied().collect()),
        ("hex".to_owned(), hex::encode(piece).into_bytes()),
        ("HEX".to_owned(), hex::encode_upper(piece).into_bytes()),
        // `{:?}` of a slice, and JSON.
        ("decimal".to_owned(), list(", ")),
        ("compact decimal".to_owned(), list(",")),
        // `{:?}` of byte strings in many crates.
        ("escaped".to_owned(), piece.escape_ascii().to_string().into_bytes()),
    ];
    for (name, engine) in [("base64", STANDARD), ("URL-safe base64", URL_SAFE)] {
        for before in 0..3 {
            forms.push((format!("{name} after {before} bytes"), base64_inside(&engine, piece, before)));
        }
    }
    forms
}

/// The characters that depend on `piece` alone where it stands in a longer text, `before` bytes behind a
/// multiple of three.
fn base64_inside(engine: &impl base64::Engine, piece: &[u8], before: usize) -> Vec<u8> {
    let text = engine.encode([&vec![0; before], piece].concat());
    let (first, end) = ((before * 8).div_ceil(6), (before + piece.len()) * 8 / 6);
    text.as_bytes()[first..end].to_vec()
}
