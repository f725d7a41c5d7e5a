//! Framing: four big-endian bytes of length, then one CBOR item. The only place that encodes and
//! decodes messages; all bounds are checked on the bytes before anything is allocated for them.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_cbor::Deserializer;

use crate::scan::{self, Rules};

/// Longest item in a frame, in bytes.
pub const MAX_FRAME: usize = 4 * 1024 * 1024;

/// Most entries of one array or map in a frame.
pub const MAX_ENTRIES: usize = 10_000;

/// Deepest nesting of arrays and maps in a frame.
pub const MAX_DEPTH: usize = 16;

/// Bytes before the item.
pub const HEADER: usize = 4;

/// Why a frame was not made or not read. The sender of the frame is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`], or its fields longer than they may be.
    #[error("the frame is too large")]
    TooLarge,
    /// Not one CBOR item within the bounds.
    #[error("the frame is not well-formed CBOR within its bounds")]
    NotWellFormed,
    /// Well-formed, but not a message of this contract.
    #[error("the frame is not a message of this contract")]
    NotAMessage,
}

/// The length of the item that follows, or `None` while fewer than [`HEADER`] bytes are there.
///
/// # Errors
/// The announced length is beyond [`MAX_FRAME`].
pub fn announced(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    match usize::try_from(u32::from_be_bytes(*header)) {
        Ok(length) if length <= MAX_FRAME => Ok(Some(length)),
        _ => Err(FrameError::TooLarge),
    }
}

/// A whole frame: header and item.
///
/// # Errors
/// The message is larger than a frame may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER];
    write_item(message, &mut frame)?;
    let length = frame.len() - HEADER;
    if length > MAX_FRAME {
        return Err(FrameError::TooLarge);
    }
    let announced = u32::try_from(length).map_err(|_| FrameError::TooLarge)?;
    if let Some(header) = frame.first_chunk_mut::<HEADER>() {
        *header = announced.to_be_bytes();
    }
    Ok(frame)
}

/// One item without a header.
///
/// # Errors
/// The value cannot be encoded.
pub fn encode_item<T: Serialize>(value: &T) -> Result<Vec<u8>, FrameError> {
    let mut item = Vec::new();
    write_item(value, &mut item)?;
    Ok(item)
}

/// Reads the item of a frame (without its header).
///
/// # Errors
/// The sender's: too large, not well-formed, bytes after the end, or not a `T`.
pub fn decode_item<T: DeserializeOwned>(item: &[u8]) -> Result<T, FrameError> {
    const RULES: Rules = Rules { depth: MAX_DEPTH, entries: MAX_ENTRIES as u64, indefinite: false };
    if item.len() > MAX_FRAME {
        return Err(FrameError::TooLarge);
    }
    scan::check(item, &RULES).map_err(|_| FrameError::NotWellFormed)?;
    let mut deserializer = Deserializer::from_slice(item).disable_packed_format().disable_legacy_enums();
    let value = T::deserialize(&mut deserializer).map_err(|_| FrameError::NotAMessage)?;
    deserializer.end().map_err(|_| FrameError::NotWellFormed)?;
    Ok(value)
}

fn write_item<T: Serialize>(value: &T, into: &mut Vec<u8>) -> Result<(), FrameError> {
    value.serialize(&mut serde_cbor::Serializer::new(into)).map_err(|_| FrameError::NotAMessage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteArray, ByteString, Payload, Request, RequestFrame, Response, ResponseFrame, Signature};

    fn sign(payloads: Vec<Payload>) -> RequestFrame {
        let record = ByteString::try_from(vec![1, 2, 3]).expect("short");
        RequestFrame { id: 7, request: Request::Sign { record, scheme: None, path: None, payloads } }
    }

    #[test]
    fn a_message_survives_the_wire() {
        let frame = encode(&sign(vec![Payload::Digest(ByteArray([9; 32]))])).expect("encodes");
        let length = announced(&frame).expect("in bounds").expect("complete");
        assert_eq!(length, frame.len() - HEADER);
        let back: RequestFrame = decode_item(&frame[HEADER..]).expect("decodes");
        assert_eq!(back.id, 7);
        assert!(matches!(back.request, Request::Sign { payloads, .. } if payloads.len() == 1));
    }

    #[test]
    fn ten_thousand_payloads_fit_and_one_more_does_not() {
        let payloads = |n| vec![Payload::Digest(ByteArray([9; 32])); n];
        let frame = encode(&sign(payloads(MAX_ENTRIES))).expect("encodes");
        assert!(decode_item::<RequestFrame>(&frame[HEADER..]).is_ok());
        let frame = encode(&sign(payloads(MAX_ENTRIES + 1))).expect("encodes");
        assert_eq!(decode_item::<RequestFrame>(&frame[HEADER..]).err(), Some(FrameError::NotWellFormed));
    }

    #[test]
    fn ten_thousand_signatures_fit() {
        let signature = Signature { bytes: ByteArray([9; 64]), recovery_id: Some(1) };
        let result = Ok(Response::Signed(vec![Ok(signature); MAX_ENTRIES]));
        let frame = encode(&ResponseFrame { id: u64::MAX, result }).expect("encodes");
        assert!(decode_item::<ResponseFrame>(&frame[HEADER..]).is_ok());
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_from_its_header_alone() {
        assert_eq!(announced(&[0, 0x40, 0, 1]), Err(FrameError::TooLarge));
        assert_eq!(announced(&[0, 0x40, 0, 0]), Ok(Some(MAX_FRAME)));
        assert_eq!(announced(&[0, 0x40, 0]), Ok(None));
    }

    #[test]
    fn the_codecs_shortcuts_are_closed() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only decoded")]
        struct Point {
            x: u8,
        }
        let decode = |hex: &str| decode_item::<Point>(&hex::decode(hex).expect("hex"));
        assert!(decode("a1617801").is_ok());
        for (name, bad) in [
            ("packed_field_name", "a10001"),
            ("duplicate_field", "a2617801617801"),
            ("unknown_field", "a2617801617901"),
            ("trailing_byte", "a161780100"),
            ("missing_field", "a0"),
        ] {
            assert!(decode(bad).is_err(), "{name}");
        }
        // Left open by serde's derive, and harmless: an array for a struct, a fieldless variant by its
        // number. Both name the same closed set of values, and nothing trusts an encoding to be unique.
        assert!(decode_item::<crate::Algorithm>(&[0x04]).is_err());
    }
}
