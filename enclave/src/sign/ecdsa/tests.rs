//! That a group is what each would be alone, and that no fault gets out of it.

use k256::ecdsa::RecoveryId;
use k256::elliptic_curve::Generate;
use strongroom_protocol::Payload;

use super::*;
use crate::secret::Secret;
use crate::sign::secp256k1::Key;

const ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xba, 0xae, 0xdc,
    0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41,
];

fn key(scalar: &Scalar) -> Key {
    Key::new(&Secret::from(&scalar.to_repr().into())).expect("a key")
}

fn random_keys(count: usize) -> Vec<Key> {
    std::iter::repeat_with(|| key(&Scalar::generate())).take(count).collect()
}

/// Digests at the edges of the range, and then any.
fn payloads(count: usize) -> Vec<Payload> {
    let mut below = ORDER;
    below[31] -= 1;
    let edges = [[0; 32], ORDER, below, [0xff; 32]];
    let random = std::iter::repeat_with(|| Scalar::generate().to_repr().into());
    edges.into_iter().chain(random).take(count).map(|digest| Payload::Digest(ByteArray(digest))).collect()
}

/// One item for each payload, of one key after the other.
fn items<'a>(keys: &'a [Key], payloads: &'a [Payload]) -> Vec<Item<'a>> {
    let item = |(payload, key)| Item { key, digest: digest(payload).expect("fits"), payload };
    payloads.iter().zip(keys.iter().cycle()).map(item).collect()
}

fn expected(item: &Item<'_>) -> Signature {
    let scalar = item.key.scalar().expect("a key");
    let (raw, id): (RawSignature, RecoveryId) =
        ::ecdsa::hazmat::sign_prehashed_rfc6979::<Secp256k1, Sha256>(&scalar, &item.digest, &[]);
    assert!(!id.is_x_reduced());
    Signature { bytes: ByteArray(raw.to_bytes().into()), recovery_id: Some(id.is_y_odd().into()) }
}

#[test]
fn groups_of_every_size_are_what_hazmat_makes_of_each() {
    let last = -Scalar::ONE;
    let edges = [key(&Scalar::ONE), key(&last), key(&Scalar::from(2_u32))];
    for size in (0..=70).chain([100, 256]) {
        for keys in [&random_keys(1), &random_keys(3), &random_keys(size.max(1)), edges.as_slice()] {
            let payloads = payloads(size);
            let items = items(keys, &payloads);
            let expected: Vec<_> = items.iter().map(|item| Ok(expected(item))).collect();
            assert_eq!(sign(&items), expected, "{size} signatures of {} keys", keys.len());
        }
    }
}

/// Both ways of checking, apart: that the group's equation holds must not be the merit of the other.
fn judged(items: &[Item<'_>], made: &[Option<Made>]) -> (bool, Vec<bool>) {
    let claims: Vec<_> = items.iter().zip(made).map(|(item, made)| Claim::read(item, made.as_ref()?)).collect();
    let readable: Vec<_> = claims.iter().flatten().collect();
    let together = readable.len() == items.len() && all_hold(&readable);
    (together, claims.iter().map(|claim| claim.as_ref().is_some_and(Claim::holds)).collect())
}

#[test]
fn every_flipped_bit_is_caught_alone_and_in_a_group() {
    for size in [1, 2, 3, 7] {
        let (keys, payloads) = (random_keys(2), payloads(size));
        let items = items(&keys, &payloads);
        let made = make(&items);
        // Three times: without the quarters of the keys' points, and with them.
        (0..3).for_each(|_| assert_eq!(judged(&items, &made), (true, vec![true; size])));
        let (at, mut faulty) = (size / 2, made.clone());
        for bit in 0..512 + 1 + 256 {
            faulty[at] = made[at].clone();
            let Some(Made { signature, y }) = &mut faulty[at] else { panic!("made") };
            match bit {
                512 => signature.recovery_id = signature.recovery_id.map(|id| id ^ 1),
                513.. => y[(bit - 513) / 8] ^= 1 << (bit % 8),
                _ => signature.bytes.0[bit / 8] ^= 1 << (bit % 8),
            }
            assert_eq!(judged(&items, &faulty), (false, (0..size).map(|i| i != at).collect()), "bit {bit} of {size}");
        }
    }
}

#[test]
fn one_bad_signature_is_refused_and_spoils_no_other() {
    let (keys, payloads) = (random_keys(3), payloads(64));
    let items = items(&keys, &payloads);
    let good = make(&items);
    let refused_at = |made: &[Option<Made>]| -> Vec<usize> {
        let released = release(&items, made);
        let right = released.iter().zip(&items).all(|(one, item)| one.is_err() || *one == Ok(expected(item)));
        assert!(right, "what is released is right and in its place");
        (0..items.len()).filter(|at| released[*at].is_err()).collect()
    };
    assert_eq!(refused_at(&good), [0_usize; 0]);

    let mut missing = good.clone();
    missing[5] = None;
    assert_eq!(refused_at(&missing), [5]);
    let mut several = good.clone();
    several[0] = good[3].clone();
    several[63] = good[60].clone();
    assert_eq!(refused_at(&several), [0, 63], "another's signature, of the same key");
    let mut swapped = good.clone();
    swapped.swap(10, 11);
    assert_eq!(refused_at(&swapped), [10, 11]);
}

/// What goes wrong while a signature is made, each with the other values as they should be. The result is no
/// signature: it would give the key away together with the right one, which has the same nonce.
#[test]
fn faults_of_the_making_are_caught() {
    let (keys, payloads) = (random_keys(1), payloads(8));
    let items = items(&keys, &payloads);
    let good = make(&items);
    let (item, other) = (&items[7], Scalar::generate());
    let nonce = nonce(item);
    let inverse = nonce.invert().expect("not zero");
    let point = (ProjectivePoint::GENERATOR * nonce).to_affine();
    let wrong_point = (ProjectivePoint::GENERATOR * other).to_affine();
    let wrong_key = random_keys(1).remove(0);
    let mut wrong_digest = item.digest;
    wrong_digest[0] ^= 1;

    let name = ["nothing", "k·G", "1/k", "d", "z", "sign of R", "sign of 1/k"];
    let making = [
        finish(item, &inverse, &point),
        finish(item, &inverse, &wrong_point),
        finish(item, &(inverse + Scalar::ONE), &point),
        finish(&Item { key: &wrong_key, ..*item }, &inverse, &point),
        finish(&Item { digest: wrong_digest, ..*item }, &inverse, &point),
        finish(item, &inverse, &-point),
        finish(item, &-inverse, &point),
    ];
    for (name, faulty) in name.into_iter().zip(making) {
        assert!(faulty.is_some(), "{name}");
        let mut made = good.clone();
        made[7] = faulty;
        let released = release(&items, &made);
        assert_eq!(released[7].is_ok(), name == "nothing", "{name}");
        assert!(released[..7].iter().all(Result::is_ok), "{name}");
    }
}

/// The digest that is signed and the payload that is checked are two: a change of one alone shows.
#[test]
fn a_digest_that_changed_in_memory_is_caught() {
    let (keys, payloads) = (random_keys(1), payloads(2));
    let mut items = items(&keys, &payloads);
    items[1].digest[31] ^= 1;
    assert_eq!(sign(&items), [Ok(expected(&items[0])), Err(SignError::CheckFailed)]);
}

#[test]
fn a_high_s_is_not_released() {
    let (keys, payloads) = (random_keys(1), payloads(1));
    let items = items(&keys, &payloads);
    let Some(made) = make(&items).remove(0) else { panic!("made") };
    let raw = RawSignature::from_slice(&*made.signature.bytes).expect("valid");
    let high = RawSignature::from_scalars(*raw.r(), -*raw.s()).expect("valid");
    let y = (-AffinePoint::from_coordinates(&raw.r().to_repr(), &made.y).expect("a point")).y();
    let recovery_id = made.signature.recovery_id.map(|id| id ^ 1);
    let signature = Signature { bytes: ByteArray(high.to_bytes().into()), recovery_id };
    assert_eq!(release(&items, &[Some(Made { signature, y })]), [Err(SignError::CheckFailed)]);
}
