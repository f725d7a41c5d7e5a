//! The registers that an enclave must have to be believed, as whoever admits it writes them down. Whether a document has
//! them is `attestation`'s matter.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use strongroom_protocol::Measurement;

use super::{CONFIGURATION_PCR, IMAGE_PCR, ZERO};

/// The registers that an admitted enclave has: PCR0 (the image) and PCR16 (its configuration), which
/// mean something only together, and any others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPcrs(pub(super) BTreeMap<u8, [u8; 48]>);

/// A file is not a list of expected registers. Its writer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedPcrsError {
    /// Not a flat JSON object of texts, and not what `nitro-cli` prints.
    #[error("not a JSON object of the form {{\"PCR0\": \"hex\", …}}, and not what nitro-cli prints")]
    Json,
    /// `nitro-cli` measured with something else.
    #[error("Measurements.HashAlgorithm is not Sha384")]
    HashAlgorithm,
    /// A name that is not `PCR0` … `PCR31`.
    #[error("{0:?} is not the name of a register")]
    Name(String),
    /// A register twice.
    #[error("PCR{0} is named twice")]
    Repeated(u8),
    /// Not 48 bytes in hexadecimal.
    #[error("PCR{0} is not 48 bytes in hexadecimal")]
    Value(u8),
    /// PCR0 or PCR16 is missing.
    #[error("PCR{0} must be named")]
    Missing(u8),
    /// The file says another PCR16 than follows from the configuration.
    #[error("PCR16 is not that of the configuration")]
    Configuration,
    /// PCR0 or PCR16 is zero: that would admit debug mode, or an enclave without configuration.
    #[error("PCR{0} must not be zero")]
    Zero(u8),
}

impl ExpectedPcrs {
    /// Reads a `pcrs.json`: `{"PCR0": "96 hex digits", …, "PCR16": …}`, with or without `0x`; or the same in the frame
    /// that `nitro-cli build-enclave` and `describe-eif` put around it, `{"Measurements": {"HashAlgorithm": …, "PCR0": …}}`.
    ///
    /// # Errors
    /// The file's writer's: unknown or repeated names, other values, no or zero PCR0 or PCR16.
    pub fn from_json(json: &[u8]) -> Result<Self, ExpectedPcrsError> {
        Self::read(json, None)
    }

    /// The same, with the PCR16 of a configuration's bytes. The file need not say it; if it does, it says the same.
    ///
    /// # Errors
    /// As of [`Self::from_json`]; or the two say different things.
    pub fn with_configuration(json: &[u8], configuration: &[u8]) -> Result<Self, ExpectedPcrsError> {
        Self::read(json, Some(Measurement::of(configuration).pcr16))
    }

    /// What a register has to be, if it is among them.
    #[must_use]
    pub fn get(&self, register: u8) -> Option<&[u8; 48]> {
        self.0.get(&register)
    }

    fn read(json: &[u8], pcr16: Option<[u8; 48]>) -> Result<Self, ExpectedPcrsError> {
        let mut pcrs = BTreeMap::new();
        for (name, value) in registers(json)? {
            let index = parse_name(&name).ok_or(ExpectedPcrsError::Name(name))?;
            let pcr = parse_pcr(&value).ok_or(ExpectedPcrsError::Value(index))?;
            if pcrs.insert(index, pcr).is_some() {
                return Err(ExpectedPcrsError::Repeated(index));
            }
        }
        if let Some(pcr16) = pcr16
            && *pcrs.entry(CONFIGURATION_PCR).or_insert(pcr16) != pcr16
        {
            return Err(ExpectedPcrsError::Configuration);
        }
        for index in [IMAGE_PCR, CONFIGURATION_PCR] {
            match pcrs.get(&index) {
                None => return Err(ExpectedPcrsError::Missing(index)),
                Some(&ZERO) => return Err(ExpectedPcrsError::Zero(index)),
                Some(_) => {}
            }
        }
        Ok(Self(pcrs))
    }
}

/// `PCR0` … `PCR31`, in exactly this form.
fn parse_name(name: &str) -> Option<u8> {
    let index = name.strip_prefix("PCR")?.parse().ok().filter(|index| *index < 32)?;
    (name == format!("PCR{index}")).then_some(index)
}

fn parse_pcr(value: &str) -> Option<[u8; 48]> {
    let mut pcr = ZERO;
    hex::decode_to_slice(value.strip_prefix("0x").unwrap_or(value), &mut pcr).ok()?;
    Some(pcr)
}

/// The entries that must be registers, of either form.
fn registers(json: &[u8]) -> Result<Vec<(String, String)>, ExpectedPcrsError> {
    let mut object: Object = serde_json::from_slice(json).map_err(|_| ExpectedPcrsError::Json)?;
    if object.0.iter().any(|(name, _)| name == MEASUREMENTS) {
        // A register beside the frame would be one that is not compared.
        object.0.retain(|(name, _)| name == MEASUREMENTS || name.starts_with("PCR"));
        object = match object.0.pop() {
            Some((_, Value::Object(measurements))) if object.0.is_empty() => measurements,
            _ => return Err(ExpectedPcrsError::Json),
        };
        let (algorithms, registers): (Vec<_>, Vec<_>) =
            object.0.into_iter().partition(|(name, _)| name == HASH_ALGORITHM);
        // "Sha384 { ... }", as Rust prints the hasher of nitro-cli.
        let is_sha384 = |value: &Value| matches!(value, Value::Text(text) if text.starts_with("Sha384"));
        if !algorithms.iter().all(|(_, value)| is_sha384(value)) {
            return Err(ExpectedPcrsError::HashAlgorithm);
        }
        object = Object(registers);
    }
    let text = |(name, value)| match value {
        Value::Text(text) => Ok((name, text)),
        Value::Object(_) | Value::Other(_) => Err(ExpectedPcrsError::Json),
    };
    object.0.into_iter().map(text).collect()
}

const MEASUREMENTS: &str = "Measurements";
const HASH_ALGORITHM: &str = "HashAlgorithm";

/// A JSON object's entries as they stand, so that a repeated name is seen.
struct Object(Vec<(String, Value)>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Text(String),
    Object(Object),
    Other(IgnoredAny),
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcrs(entries: &[(&str, &str)]) -> Result<ExpectedPcrs, ExpectedPcrsError> {
        let entries: Vec<_> = entries.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        ExpectedPcrs::from_json(format!("{{{}}}", entries.join(",")).as_bytes())
    }

    #[test]
    fn expected_registers_are_read_with_and_without_prefix() {
        let (image, configuration) = ("ab".repeat(48), "CD".repeat(48));
        let plain = pcrs(&[("PCR0", &image), ("PCR16", &configuration)]).expect("valid");
        let prefixed =
            pcrs(&[("PCR16", &format!("0x{configuration}")), ("PCR0", &format!("0x{image}"))]).expect("valid");
        assert_eq!(plain, prefixed);
        assert_eq!(plain.0, BTreeMap::from([(0, [0xab; 48]), (16, [0xcd; 48])]));
    }

    #[test]
    fn other_files_are_no_expectation() {
        use ExpectedPcrsError as E;
        let (good, zero, short) = ("ab".repeat(48), "00".repeat(48), "ab".repeat(47));
        for (name, entries, error) in [
            ("empty", vec![], E::Missing(0)),
            ("no_image", vec![("PCR16", &good)], E::Missing(0)),
            ("no_configuration", vec![("PCR0", &good)], E::Missing(16)),
            ("zero_image", vec![("PCR0", &zero), ("PCR16", &good)], E::Zero(0)),
            ("zero_configuration", vec![("PCR0", &good), ("PCR16", &zero)], E::Zero(16)),
            ("twice", vec![("PCR0", &good), ("PCR0", &good), ("PCR16", &good)], E::Repeated(0)),
            ("short", vec![("PCR0", &short)], E::Value(0)),
            ("beyond_the_bank", vec![("PCR32", &good)], E::Name("PCR32".to_owned())),
            ("leading_zero", vec![("PCR00", &good)], E::Name("PCR00".to_owned())),
            ("signed", vec![("PCR+1", &good)], E::Name("PCR+1".to_owned())),
            ("lower_case", vec![("pcr0", &good)], E::Name("pcr0".to_owned())),
            ("hash_algorithm", vec![("HashAlgorithm", &good)], E::Name("HashAlgorithm".to_owned())),
        ] {
            let entries: Vec<_> = entries.into_iter().map(|(name, value)| (name, value.as_str())).collect();
            assert_eq!(pcrs(&entries), Err(error), "{name}");
        }
        for text in ["", "[]", "{\"PCR0\": 1}", "{\"PCR0\": {}}", "{} {}"] {
            assert_eq!(ExpectedPcrs::from_json(text.as_bytes()), Err(E::Json), "{text}");
        }
    }

    #[test]
    fn what_nitro_cli_prints_is_read_like_the_registers_in_it() {
        const CONFIGURATION: &[u8] = b"{}";
        let plain = format!("\"PCR0\": \"{0}\", \"PCR1\": \"{0}\", \"PCR2\": \"{0}\"", "ab".repeat(48));
        let read = |json: String| ExpectedPcrs::with_configuration(json.as_bytes(), CONFIGURATION);
        let expected = read(format!("{{{plain}}}")).expect("valid");
        let measurements = format!("\"Measurements\": {{\"HashAlgorithm\": \"Sha384 {{ ... }}\", {plain}}}");
        assert_eq!(read(format!("{{{measurements}}}")), Ok(expected.clone()));
        assert_eq!(read(format!("{{\"EifVersion\": 4, {measurements}, \"IsSigned\": false}}")), Ok(expected));
    }

    #[test]
    fn what_nitro_cli_would_not_print_is_no_expectation() {
        use ExpectedPcrsError as E;
        let good = "ab".repeat(48);
        for (name, text, error) in [
            ("no_registers", "{\"Measurements\": {}}".to_owned(), E::Missing(0)),
            ("no_configuration", format!("{{\"Measurements\": {{\"PCR0\": \"{good}\"}}}}"), E::Missing(16)),
            ("another_hash", "{\"Measurements\": {\"HashAlgorithm\": \"Sha256\"}}".to_owned(), E::HashAlgorithm),
            ("unknown_name", format!("{{\"Measurements\": {{\"X\": \"{good}\"}}}}"), E::Name("X".to_owned())),
            ("a_register_beside_it", format!("{{\"Measurements\": {{}}, \"PCR16\": \"{good}\"}}"), E::Json),
            ("twice", "{\"Measurements\": {}, \"Measurements\": {}}".to_owned(), E::Json),
            ("within_itself", "{\"Measurements\": {\"Measurements\": {}}}".to_owned(), E::Json),
            ("text", "{\"Measurements\": \"PCR0\"}".to_owned(), E::Json),
        ] {
            assert_eq!(ExpectedPcrs::from_json(text.as_bytes()), Err(error), "{name}");
        }
    }
}
