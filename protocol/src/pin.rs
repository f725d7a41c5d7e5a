//! The only configuration that an image accepts, for those who would rather build their own image than pin PCR16:
//! a file in the image, measured with it. Whoever builds the image writes it, the enclave reads it.

use crate::configuration::Measurement;

/// SHA-384 of the one configuration's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfigurationPin([u8; 48]);

/// What is in the file is no pin. Not the same as no file: an image that was meant to be pinned must not
/// accept everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 96 lower-case hexadecimal digits and a line's end")]
pub struct PinError;

impl ConfigurationPin {
    /// Where the file is in an image.
    pub const PATH: &str = "/configuration.sha384";

    /// The pin of a configuration.
    #[must_use]
    pub const fn of(configuration: &Measurement) -> Self {
        Self(configuration.digest)
    }

    /// Reads the file's contents.
    ///
    /// # Errors
    /// The image builder's: it is written in another way than [`ConfigurationPin::to_text`] writes it.
    pub fn parse(text: &[u8]) -> Result<Self, PinError> {
        let mut digest = [0; 48];
        let digits = text.strip_suffix(b"\n").ok_or(PinError)?;
        hex::decode_to_slice(digits, &mut digest).map_err(|_| PinError)?;
        let pin = Self(digest);
        if pin.to_text().as_bytes() == text { Ok(pin) } else { Err(PinError) }
    }

    /// The file's contents: 96 lower-case hexadecimal digits and a line's end.
    #[must_use]
    pub fn to_text(self) -> String {
        format!("{}\n", hex::encode(self.0))
    }

    /// Whether this is the configuration.
    #[must_use]
    pub fn accepts(&self, measurement: &Measurement) -> bool {
        self.0 == measurement.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_accepts_its_configuration_and_no_other() {
        let pin = ConfigurationPin::of(&Measurement::of(b"{}"));
        assert!(pin.accepts(&Measurement::of(b"{}")));
        assert!(!pin.accepts(&Measurement::of(b"{ }")));
        assert_eq!(ConfigurationPin::parse(pin.to_text().as_bytes()), Ok(pin));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let text = ConfigurationPin::of(&Measurement::of(b"{}")).to_text();
        let upper = text.to_uppercase();
        for wrong in ["", "\n", &text[..96], &text[1..], &upper, &format!("{text}\n"), &format!(" {text}")] {
            assert_eq!(ConfigurationPin::parse(wrong.as_bytes()), Err(PinError), "{wrong:?}");
        }
    }
}
