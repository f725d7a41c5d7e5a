//! The registers that an enclave must have to be believed, as whoever admits it writes them down. Whether a document has
//! them is `attestation`'s matter.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use strongroom_protocol::Measurement;

use super::{CONFIGURATION_PCR, IMAGE_PCR, ZERO};

/// The registers that an admitted enclave has: PCR0 (the image) and PCR16 (its configuration), which
/// mean something only together, and any others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPcrs(pub(super) BTreeMap<u8, [u8; 48]>);

/// A file is not a list of expected registers. Its writer is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpectedPcrsError {
    /// Not a flat JSON object of texts.
    #[error("not a JSON object of the form {{\"PCR0\": \"hex\", …}}")]
    Json,
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
    /// Reads a `pcrs.json`: `{"PCR0": "96 hex digits", …, "PCR16": …}`, with or without `0x`.
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

    fn read(json: &[u8], pcr16: Option<[u8; 48]>) -> Result<Self, ExpectedPcrsError> {
        let Entries(entries) = serde_json::from_slice(json).map_err(|_| ExpectedPcrsError::Json)?;
        let mut pcrs = BTreeMap::new();
        for (name, value) in entries {
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

/// A JSON object's entries as they stand, so that a repeated name is seen.
struct Entries(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
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
        for text in ["", "[]", "{\"PCR0\": 1}", "{\"Measurements\": {}}", "{} {}"] {
            assert_eq!(ExpectedPcrs::from_json(text.as_bytes()), Err(E::Json), "{text}");
        }
    }
}
