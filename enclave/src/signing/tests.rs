//! How long lists, and payloads that come one by one, are signed.

use std::collections::HashSet;
use std::sync::Mutex as Lock;

use strongroom_protocol::{Algorithm, Binding, ByteArray, HashFunction, KeyId, Origin, PayloadKind, Policy};

use super::*;
use crate::policy::reach;
use crate::secret::KeyMaterial;
use crate::wrapping::{OpenedKey, OpenedSecret};

/// A result that tells which item it is of.
fn marked(item: usize) -> Result<Signature, ErrorCode> {
    let mut bytes = [0; 64];
    bytes[..8].copy_from_slice(&item.to_be_bytes());
    Ok(Signature { bytes: ByteArray(bytes), recovery_id: None })
}

#[tokio::test]
async fn a_list_in_parts_keeps_its_order_whatever_its_length() {
    let lists = Lists::on(2);
    for count in [0, 1, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 2 * GROUP + 1, 1000] {
        let lengths = Arc::new(Lock::new(Vec::new()));
        let seen = Arc::clone(&lengths);
        let work = move |part: Vec<usize>| {
            seen.lock().unwrap().push(part.len());
            part.into_iter().map(marked).collect()
        };
        let results = in_parts(&lists, (0..count).collect(), work).await;
        assert_eq!(results, (0..count).map(marked).collect::<Vec<_>>());
        let lengths: HashSet<_> = lengths.lock().unwrap().iter().copied().collect();
        assert!(lengths.iter().all(|length| *length <= GROUP), "{lengths:?}");
    }
    assert_eq!((lists.parts.available_permits(), lists.turn.available_permits()), (3, 1));
}

#[tokio::test]
async fn a_part_that_panics_fails_alone_and_gives_its_core_back() {
    let lists = Lists::on(1);
    let work = |part: Vec<usize>| {
        assert!(!part.contains(&(GROUP + 1)), "a fault");
        part.into_iter().map(marked).collect()
    };
    let results = in_parts(&lists, (0..4 * GROUP).collect(), work).await;
    for (item, result) in results.into_iter().enumerate() {
        let expected = if item / GROUP == 1 { Err(ErrorCode::Internal) } else { marked(item) };
        assert_eq!(result, expected, "{item}");
    }
    assert_eq!((lists.parts.available_permits(), lists.turn.available_permits()), (2, 1));
}

/// The second list has its turn before the first is done.
#[tokio::test]
async fn a_long_list_does_not_hold_up_another() {
    // One part at a time, so that they begin in the order of their turns.
    let lists = Lists { parts: Arc::new(Semaphore::new(1)), ..Lists::on(1) };
    let order = Arc::new(Lock::new(Vec::new()));
    let list = |name: char, parts: usize| {
        let order = Arc::clone(&order);
        let work = move |part: Vec<usize>| {
            order.lock().unwrap().push(name);
            part.into_iter().map(marked).collect()
        };
        in_parts(&lists, (0..parts * GROUP).collect(), work)
    };
    tokio::join!(list('a', 50), list('b', 2));
    let order: String = order.lock().unwrap().iter().collect();
    assert!(order.rfind('b').is_some_and(|last| last < 6), "{order}");
}

/// What is denied, what does not fit and what is signed, each in its place, in lists of one part and of many.
#[tokio::test]
async fn every_payload_is_authorized_by_itself() {
    let reached = key(7);
    let payload = |item: usize| match item % 7 {
        0 => Payload::Digest(ByteArray([1; 32])),
        1 => Payload::Message { message: b"m".as_slice().try_into().expect("short"), hash: None },
        _ => Payload::Message {
            message: item.to_be_bytes().as_slice().try_into().expect("short"),
            hash: Some(HashFunction::Keccak256),
        },
    };
    let lists = Lists::on(1);
    for count in [1, 7, GROUP, GROUP + 1, 500] {
        let part_of = reached.clone();
        let work = move |part| sign_part(&part_of, None, part);
        let results = in_parts(&lists, (0..count).map(payload).collect(), work).await;
        assert_eq!(results.len(), count);
        for (item, result) in results.into_iter().enumerate() {
            match item % 7 {
                0 => assert_eq!(result, Err(ErrorCode::PayloadDenied), "{item}"),
                1 => assert_eq!(result, Err(ErrorCode::PayloadInvalid), "{item}"),
                _ => assert_eq!(vec![result], sign_part(&reached, None, vec![payload(item)]), "{item}"),
            }
        }
    }
}

/// Payloads of different keys, that are signed together, and by several signers.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_is_asked_for_at_one_time_is_signed_as_it_would_be_alone() {
    let signing = Arc::new(Signing::new(Workers::here(3)));
    let asked = (0..500_usize).map(|item| {
        let message = item.to_be_bytes().as_slice().try_into().expect("short");
        let payload = match item % 5 {
            0 => Payload::Digest(ByteArray([1; 32])),
            _ => Payload::Message { message, hash: Some(HashFunction::Sha256) },
        };
        let (signing, reached) = (Arc::clone(&signing), key(1 + (item % 3) as u8));
        tokio::spawn(async move {
            let signed = signing.sign(reached.clone(), None, vec![payload.clone()]).await;
            assert_eq!(signed, sign_part(&reached, None, vec![payload]), "{item}");
        })
    });
    for asked in asked.collect::<Vec<_>>() {
        asked.await.expect("equal");
    }
    while signing.singles.queue().signing.contains(&true) {
        yield_now().await;
    }
}

/// A signer that ends badly is missed by nobody but those whose payloads it had.
#[tokio::test]
async fn what_a_dead_signer_left_is_signed_by_another() {
    let signing = Signing::new(Workers::here(1));
    let (outcome, signed) = oneshot::channel();
    let payload =
        Payload::Message { message: b"m".as_slice().try_into().expect("short"), hash: Some(HashFunction::Sha256) };
    {
        let mut queue = signing.singles.queue();
        queue.signing = vec![true];
        queue.waiting.push_back(Single { reached: key(1), scheme: None, payload, outcome });
    }
    drop(Signer { singles: Arc::clone(&signing.singles), number: 0 });
    assert!(signed.await.expect("answered").is_ok());
}

/// A key that signs messages.
fn key(fill: u8) -> Reached {
    let material = KeyMaterial::fill(32, |bytes| {
        bytes.fill(fill);
        Ok::<(), ()>(())
    });
    let secret = OpenedSecret::new(Algorithm::Secp256k1, &material.expect("filled")).expect("a key");
    let policy = Policy::new(vec![PayloadKind::Message], 0).expect("valid");
    let key_id: KeyId = "test".parse().expect("valid");
    let binding = Binding::new(&key_id, Algorithm::Secp256k1, &secret.public_key(), Origin::Generated, &policy);
    reach(&Arc::new(OpenedKey { secret, policy, binding }), None).expect("no seed")
}
