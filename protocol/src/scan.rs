//! A walk over CBOR (RFC 8949) before it is decoded: depth, container sizes and lengths are checked
//! on the bytes, so that no decoder allocates or recurses for an attacker.

/// What a walk over CBOR tolerates.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Deepest nesting of arrays, maps and tags.
    pub depth: usize,
    /// Most entries of one array or map.
    pub entries: u64,
    /// Whether indefinite-length items may occur (attestation documents have them).
    pub indefinite: bool,
}

/// The bytes are not one item within the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// Accepts `bytes` only if they are exactly one well-formed item within `rules`. Tags, floats and
/// integers that are not in their shortest form are refused.
pub(crate) fn check(bytes: &[u8], rules: &Rules) -> Result<(), Refused> {
    let mut rest = bytes;
    // Items still to come at each open level; `None` is an indefinite container, closed by a break.
    let mut open: Vec<Option<u64>> = vec![Some(1)];
    while let Some(level) = open.last_mut() {
        match level {
            Some(0) => {
                open.pop();
                continue;
            }
            Some(items) => *items -= 1,
            None if rest.first() == Some(&0xff) => {
                rest = rest.get(1..).ok_or(Refused)?;
                open.pop();
                continue;
            }
            None => {}
        }
        let (major, argument) = header(&mut rest)?;
        let children = match (major, argument) {
            (0 | 1, Some(_)) => continue,
            (2 | 3, Some(length)) => {
                let length = usize::try_from(length).map_err(|_| Refused)?;
                rest = rest.get(length..).ok_or(Refused)?;
                continue;
            }
            (4, Some(entries)) if entries <= rules.entries => Some(entries),
            (5, Some(entries)) if entries <= rules.entries => Some(entries * 2),
            (2..=5, None) if rules.indefinite => None,
            // false, true, null
            (7, Some(20..=22)) => continue,
            _ => return Err(Refused),
        };
        // The first level is the item itself, which is no nesting.
        if open.len() > rules.depth {
            return Err(Refused);
        }
        open.push(children);
    }
    if rest.is_empty() { Ok(()) } else { Err(Refused) }
}

/// Major type and argument of the next item; no argument means indefinite length.
fn header(rest: &mut &[u8]) -> Result<(u8, Option<u64>), Refused> {
    let (&first, mut tail) = rest.split_first().ok_or(Refused)?;
    let (major, short) = (first >> 5, first & 0x1f);
    let width = match short {
        0..=23 => {
            *rest = tail;
            return Ok((major, Some(u64::from(short))));
        }
        24..=27 => 1_usize << (short - 24),
        31 => {
            *rest = tail;
            return Ok((major, None));
        }
        _ => return Err(Refused),
    };
    let digits;
    (digits, tail) = tail.split_at_checked(width).ok_or(Refused)?;
    let argument = digits.iter().fold(0_u64, |sum, &digit| sum << 8 | u64::from(digit));
    let shortest = match width {
        1 => 24,
        2 => 1 << 8,
        4 => 1 << 16,
        _ => 1 << 32,
    };
    // A simple value or float never carries an argument of ours.
    if argument < shortest || major == 7 {
        return Err(Refused);
    }
    *rest = tail;
    Ok((major, Some(argument)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules = Rules { depth: 3, entries: 4, indefinite: false };

    fn strict(hex: &str) -> bool {
        check(&hex::decode(hex).expect("hex"), &STRICT).is_ok()
    }

    #[test]
    fn well_formed_items_pass() {
        for good in ["00", "1818", "40", "43010203", "6161", "80", "83010203", "a10102", "f6", "f5", "818180"] {
            assert!(strict(good), "{good}");
        }
    }

    #[test]
    fn hostile_items_are_refused() {
        for (name, bad) in [
            ("empty", ""),
            ("trailing_byte", "0000"),
            ("truncated_string", "4301"),
            ("length_beyond_the_end", "5bffffffffffffffff"),
            ("array_length_beyond_the_limit", "850102030405"),
            ("map_length_overflow", "bbffffffffffffffff"),
            ("too_deep", "81818180"),
            ("indefinite_array", "9fff"),
            ("indefinite_string", "5fff"),
            ("tag", "c100"),
            ("float", "f90000"),
            ("undefined", "f7"),
            ("not_the_shortest_form", "1817"),
            ("reserved", "1c"),
            ("lone_break", "ff"),
            ("missing_items", "8201"),
        ] {
            assert!(!strict(bad), "{name}");
        }
    }

    #[test]
    fn indefinite_items_pass_only_where_allowed() {
        let rules = Rules { indefinite: true, ..STRICT };
        let check = |hex: &str| check(&hex::decode(hex).expect("hex"), &rules).is_ok();
        assert!(check("9f0102ff") && check("bf0102ff") && check("5f4101ff"));
        assert!(!check("9f0102") && !check("1f") && !check("ffff"));
    }
}
