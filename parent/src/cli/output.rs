//! What is printed, and how: results on standard output, complaints on standard error. The only place that writes
//! to the terminal, but for the progress bar. Nothing from elsewhere reaches a terminal unescaped.

use std::io::{Write as _, stderr, stdout};

use serde::Serialize;
use serde_json::Value;
use strongroom_protocol::PayloadKind;

use super::exit::{Exit, Failure, Outcome};
use crate::client::printable;
use crate::http::KeyView;

/// Prints a result. A reader that went away (`| head`) is no failure of the command; whether there still is one.
pub(super) fn say(text: &str) -> bool {
    stdout().write_all(text.as_bytes()).and_then(|()| stdout().flush()).is_ok()
}

/// Prints a complaint, or what else is no result.
pub(super) fn note(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Prints why a command failed.
pub(super) fn complain(Failure { exit, text, hint }: Failure) -> Exit {
    note(&format!("strongroom: {text}"));
    if let Some(hint) = hint {
        note(&format!("  hint: {hint}"));
    }
    exit
}

/// Prints a result as JSON or as text.
pub(super) fn print<T: Serialize>(as_json: bool, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
    say(&if as_json { json(value)? + "\n" } else { text(value) });
    Ok(Exit::Done)
}

/// Indented JSON.
pub(super) fn json(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string_pretty(value).map(ascii).map_err(|error| Failure::new(Exit::Failed, error))
}

/// One line of JSON.
pub(super) fn json_line(value: &impl Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map(ascii).map_err(|error| Failure::new(Exit::Failed, error))
}

/// The same JSON in visible ASCII: a string's other characters mean something to terminals.
fn ascii(json: String) -> String {
    let stands = |c: char| c == ' ' || c == '\n' || c.is_ascii_graphic();
    if json.chars().all(stands) {
        return json;
    }
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        if stands(c) {
            ascii.push(c);
        } else {
            let mut units = [0; 2];
            ascii.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    ascii
}

/// Rows of a name and a value, the values under each other.
pub(super) fn rows<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    rows.into_iter().map(|(name, value)| format!("  {name:<12}{value}\n")).collect()
}

/// A key, on a card.
pub(super) fn card(key: &KeyView) -> String {
    // From the JSON form, whose optional fields are there or not.
    const FIELDS: [(&str, &str); 8] = [
        ("state", "state"),
        ("deletion", "deletion_date"),
        ("algorithm", "algorithm"),
        ("public key", "public_key"),
        ("origin", "origin"),
        ("KMS key", "kms_key_arn"),
        ("generation", "generation"),
        ("created", "created_at"),
    ];
    let view = serde_json::to_value(key).unwrap_or_default();
    let field = |name| match view.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(printable(text)),
        Some(other) => Some(printable(&other.to_string())),
    };
    let fields = FIELDS.iter().filter_map(|(label, name)| Some((*label, field(name)?)));
    let mut card = format!("{}\n{}", key.key_id, rows(fields));
    card += &rows([("signs", signs(key))]);
    card += &rows(key.policy.paths().iter().map(|path| ("at", format!("{path} and below"))));
    if key.policy.is_exportable() {
        card += &rows([("may leave", "sealed to a recipient of the enclave's configuration".to_owned())]);
    }
    card += &rows(key.addresses.iter().map(|(chain, address)| ("address", printable(&format!("{chain} {address}")))));
    card
}

/// A key's policy, in words.
fn signs(key: &KeyView) -> String {
    let kinds = [(PayloadKind::Message, "messages"), (PayloadKind::Digest, "digests")];
    let kinds: Vec<&str> = kinds.iter().filter(|(kind, _)| key.policy.allows(*kind)).map(|(_, word)| *word).collect();
    match key.policy.hold_seconds() {
        0 => format!("{}; never held open", kinds.join(", ")),
        seconds => format!("{}; held open for {seconds} s at most", kinds.join(", ")),
    }
}

/// The name of a word of the API.
pub(super) fn word(word: &impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(Value::String(word)) => printable(&word),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_the_same_json_and_is_visible_ascii() {
        let text = "a\u{1b}[1m\u{9b}1m\u{202e}\u{7f}é😀\"\\";
        let written = json_line(&text).expect("encodes");
        assert!(written.bytes().all(|c| c == b' ' || c.is_ascii_graphic()), "{written}");
        assert_eq!(serde_json::from_str::<String>(&written).expect("JSON"), text);
    }
}
