//! Derivation paths: which key below a seed is meant (BIP-32, SLIP-10). The one parser and the one
//! printer; whether a key may be derived there is its policy's matter.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most components of a path. BIP-44's have five.
pub const MAX_COMPONENTS: usize = 10;

/// From here on an index is hardened (BIP-32, "Extended keys"): its top bit is set.
pub const HARDENED: u32 = 1 << 31;

/// A path from a seed's master key downwards. As text `m/44'/60'/0'/0/5`, and `m` for the master key itself;
/// in CBOR an array of integers. Compared and sorted as integers, component by component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DerivationPath(Vec<u32>);

/// Not a derivation path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// The text has another form.
    #[error("path: m/44'/60'/0'/0/5: m, then indices below 2147483648, hardened ones with ' (or h) behind them")]
    Malformed,
    /// More than [`MAX_COMPONENTS`].
    #[error("path: more than {MAX_COMPONENTS} components")]
    TooLong,
}

impl DerivationPath {
    /// The indices, from the master key downwards; hardened ones from [`HARDENED`] on.
    #[must_use]
    pub fn components(&self) -> &[u32] {
        &self.0
    }

    /// Whether this path is `prefix` or leads on from it.
    #[must_use]
    pub fn starts_with(&self, prefix: &Self) -> bool {
        self.0.starts_with(&prefix.0)
    }

    /// Whether every step is hardened: the only ones that SLIP-10 has for ed25519.
    #[must_use]
    pub fn is_hardened(&self) -> bool {
        self.0.iter().all(|index| *index >= HARDENED)
    }
}

impl TryFrom<Vec<u32>> for DerivationPath {
    type Error = InvalidPath;

    fn try_from(components: Vec<u32>) -> Result<Self, InvalidPath> {
        if components.len() <= MAX_COMPONENTS { Ok(Self(components)) } else { Err(InvalidPath::TooLong) }
    }
}

impl FromStr for DerivationPath {
    type Err = InvalidPath;

    fn from_str(text: &str) -> Result<Self, InvalidPath> {
        let mut parts = text.split('/');
        if parts.next() != Some("m") {
            return Err(InvalidPath::Malformed);
        }
        // One more than allowed is read, so that a long text costs no more than a path.
        let components: Result<Vec<u32>, InvalidPath> = parts.take(MAX_COMPONENTS + 1).map(component).collect();
        Self::try_from(components?)
    }
}

/// An index in decimal digits, without sign and leading zeros: a path has one text but for the hardened mark.
fn component(text: &str) -> Result<u32, InvalidPath> {
    let (digits, mark) = match text.strip_suffix(['\'', 'h', 'H']) {
        Some(digits) => (digits, HARDENED),
        None => (text, 0),
    };
    let canonical = digits.bytes().all(|c| c.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    let index = digits.parse().ok().filter(|index: &u32| canonical && *index < HARDENED);
    index.map(|index| index | mark).ok_or(InvalidPath::Malformed)
}

impl fmt::Display for DerivationPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("m")?;
        self.0.iter().try_for_each(|index| match index.checked_sub(HARDENED) {
            Some(index) => write!(f, "/{index}'"),
            None => write!(f, "/{index}"),
        })
    }
}

impl Serialize for DerivationPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for DerivationPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Text)
        } else {
            deserializer.deserialize_seq(Integers)
        }
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = DerivationPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a derivation path like m/44'/60'/0'/0/5")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<DerivationPath, E> {
        text.parse().map_err(E::custom)
    }
}

struct Integers;

impl<'de> Visitor<'de> for Integers {
    type Value = DerivationPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_COMPONENTS} integers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<DerivationPath, A::Error> {
        let mut components = Vec::new();
        while let Some(component) = sequence.next_element()? {
            if components.len() == MAX_COMPONENTS {
                return Err(A::Error::custom(InvalidPath::TooLong));
            }
            components.push(component);
        }
        Ok(DerivationPath(components))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    fn path(text: &str) -> DerivationPath {
        text.parse().expect(text)
    }

    #[test]
    fn every_hardened_mark_is_read_and_one_is_written() {
        let ethereum = path("m/44'/60'/0'/0/5");
        assert_eq!(ethereum.components(), [HARDENED | 44, HARDENED | 60, HARDENED, 0, 5]);
        assert_eq!(path("m/44h/60H/0'/0/5"), ethereum);
        assert_eq!(ethereum.to_string(), "m/44'/60'/0'/0/5");
        assert_eq!((path("m").to_string().as_str(), path("m").components()), ("m", &[][..]));
        assert_eq!(path("m/2147483647'/2147483647").components(), [u32::MAX, HARDENED - 1]);
        let longest = format!("m{}", "/2147483647'".repeat(MAX_COMPONENTS));
        assert_eq!(path(&longest).to_string(), longest);
    }

    #[test]
    fn other_texts_are_refused() {
        for (name, text) in [
            ("empty", ""),
            ("no_master", "44'/0"),
            ("public_master", "M/0"),
            ("slash_at_the_end", "m/"),
            ("slash_at_the_start", "/m/0"),
            ("empty_component", "m//0"),
            ("mark_alone", "m/'"),
            ("two_marks", "m/0''"),
            ("sign", "m/+1"),
            ("negative", "m/-1"),
            ("leading_zero", "m/00"),
            ("leading_zero_hardened", "m/01'"),
            ("hexadecimal", "m/0x1"),
            ("white_space", "m/ 1"),
            ("white_space_at_the_end", "m/1\n"),
            ("wildcard", "m/*"),
            ("digits_of_another_script", "m/٣"),
            ("typographic_mark", "m/0’"),
            ("hardened_by_number", "m/2147483648"),
            ("too_large_and_marked", "m/2147483648'"),
            ("beyond_32_bits", "m/4294967296"),
            ("far_beyond", "m/99999999999999999999"),
        ] {
            assert_eq!(text.parse::<DerivationPath>(), Err(InvalidPath::Malformed), "{name}");
        }
        let eleven = format!("m{}", "/0".repeat(MAX_COMPONENTS + 1));
        assert_eq!(eleven.parse::<DerivationPath>(), Err(InvalidPath::TooLong));
        let endless = format!("m{}", "/0".repeat(1_000_000));
        assert_eq!(endless.parse::<DerivationPath>(), Err(InvalidPath::TooLong));
    }

    #[test]
    fn json_has_the_text_and_cbor_the_integers() {
        let ethereum = path("m/44'/0/5");
        assert_eq!(serde_json::to_string(&ethereum).expect("JSON"), r#""m/44'/0/5""#);
        assert_eq!(serde_json::from_str::<DerivationPath>(r#""m/44h/0/5""#).expect("a path"), ethereum);
        assert!(serde_json::from_str::<DerivationPath>("[1]").is_err(), "JSON has one form");
        let item = frame::encode_item(&ethereum).expect("CBOR");
        assert_eq!(item, frame::encode_item(&[HARDENED | 44, 0, 5]).expect("CBOR"));
        assert_eq!(frame::decode_item::<DerivationPath>(&item), Ok(ethereum));
        for (name, item) in [
            ("text", frame::encode_item(&"m/0")),
            ("too_long", frame::encode_item(&[0_u32; MAX_COMPONENTS + 1])),
            ("beyond_32_bits", frame::encode_item(&[1_u64 << 32])),
            ("negative", frame::encode_item(&[-1])),
        ] {
            assert!(frame::decode_item::<DerivationPath>(&item.expect("CBOR")).is_err(), "{name}");
        }
    }

    /// Every pair of short paths over indices whose texts are prefixes of each other: what counts is the
    /// integers.
    #[test]
    fn a_prefix_is_one_of_whole_components() {
        let indices = [0, 1, 10, 100, HARDENED, HARDENED | 1, HARDENED | 10, u32::MAX];
        let mut all = vec![vec![]];
        for length in 0..3 {
            let longest: Vec<Vec<u32>> = all.iter().filter(|path| path.len() == length).cloned().collect();
            all.extend(longest.iter().flat_map(|path| indices.map(|index| [&path[..], &[index]].concat())));
        }
        let paths: Vec<DerivationPath> = all.into_iter().map(|path| path.try_into().expect("short")).collect();
        for a in &paths {
            assert_eq!(&path(&a.to_string()), a);
            for b in &paths {
                let within = a.components().get(..b.components().len()) == Some(b.components());
                assert_eq!(a.starts_with(b), within, "{a} in {b}");
            }
        }
        assert!(!path("m/440'").starts_with(&path("m/44'")) && !path("m/44").starts_with(&path("m/44'")));
    }
}
