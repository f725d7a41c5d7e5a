//! What stays in the enclave's memory. A live process is read while keys are held, which must be found: the scanner
//! works; and then, after they are wiped, for whatever is left of them, of their data keys, and of every nonce of the
//! signatures that were made: with a signature, its nonce gives the key away.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use k256::elliptic_curve::PrimeField as _;
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::point::AffineCoordinates as _;
use k256::{FieldBytes, ProjectivePoint, Scalar};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use strongroom_tests::opened;
use tokio::time::sleep;

use crate::canary::needles::forms;
use crate::scene::Scene;

/// Of a secret, this many bytes anywhere are as bad as all.
const WINDOW: usize = 8;

/// Of memory.
const PAGE: usize = 4096;

/// Held so long after the unlock.
const HOLD: Duration = Duration::from_secs(12);

/// What must not be there.
#[derive(Default)]
struct Secrets {
    /// By their first bytes.
    needles: HashMap<[u8; WINDOW], Vec<(Vec<u8>, String)>>,
    /// A bit for each value of a window's hash: almost all of memory is passed over by it.
    filter: Vec<u64>,
}

impl Secrets {
    /// Every window of `secret`: as it is, backwards (limbs of 64 bits, and of 32), in words of 32 bits (SHA-256's), in
    /// limbs of 52 bits (dalek's); and what programs print of its halves.
    fn add(&mut self, name: &str, secret: &[u8]) {
        let words = secret.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
        let mut orders =
            vec![("", secret.to_vec()), (" reversed", secret.iter().rev().copied().collect()), (" in words", words)];
        if let Ok(number) = secret.try_into() {
            orders.push((" in limbs of 52 bits", limbs_of_52_bits(number)));
        }
        for (form, bytes) in orders {
            for (at, window) in bytes.windows(WINDOW).enumerate() {
                self.needle(window.to_vec(), format!("{name}{form}, from byte {at}"));
            }
        }
        for piece in secret.chunks_exact(16) {
            for (form, bytes) in forms(piece) {
                self.needle(bytes, format!("{name}, {form}"));
            }
        }
    }

    fn needle(&mut self, needle: Vec<u8>, name: String) {
        let start = *needle.first_chunk().expect("not shorter");
        let bit = bucket(start);
        self.filter.resize(1 << 18, 0);
        self.filter[bit / 64] |= 1 << (bit % 64);
        self.needles.entry(start).or_default().push((needle, name));
    }

    /// What of it is in the memory that `process` can write.
    fn found_in(&self, process: u32) -> Vec<String> {
        let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("a running process");
        let memory = File::open(format!("/proc/{process}/mem")).expect("allowed to read");
        let (mut found, mut read) = (Vec::new(), 0);
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            let (range, rights) = (fields.next().expect("a range"), fields.next().expect("rights"));
            if !rights.starts_with("rw") {
                continue;
            }
            let (start, end) = range.split_once('-').expect("a range");
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            let (start, end) = (address(start), address(end));
            let mut bytes = vec![0; usize::try_from(end - start).expect("fits")];
            // By pages: some may be gone meanwhile.
            for (at, page) in (start..).step_by(PAGE).zip(bytes.chunks_mut(PAGE)) {
                read += memory.read_exact_at(page, at).map_or(0, |()| page.len());
            }
            found.extend(self.search(&bytes).map(|(at, name)| format!("{name} at {:x} of {line}", start + at as u64)));
        }
        assert!(read > 1_000_000, "only {read} bytes could be read");
        found
    }

    fn search<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a String)> {
        let candidates = bytes.windows(WINDOW).enumerate().filter_map(|(at, window)| {
            let window = *window.first_chunk()?;
            let bit = bucket(window);
            let perhaps = self.filter[bit / 64] >> (bit % 64) & 1 == 1;
            if perhaps { Some((at, self.needles.get(&window)?)) } else { None }
        });
        candidates.flat_map(move |(at, needles)| {
            let here = needles.iter().filter(move |(needle, _)| bytes[at..].starts_with(needle));
            here.map(move |(_, name)| (at, name))
        })
    }
}

/// Of a little-endian number. The highest limb has little of it.
fn limbs_of_52_bits(number: [u8; 32]) -> Vec<u8> {
    let bit = |at: usize| u64::from(number.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1));
    let limb = |n: usize| (0..52).map(|at| bit(52 * n + at) << at).sum::<u64>().to_le_bytes();
    (0..4).flat_map(limb).collect()
}

fn bucket(window: [u8; WINDOW]) -> usize {
    (u64::from_le_bytes(window).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize
}

/// A key whose bytes the test knows, by mock-kms's own.
struct Planted {
    key_id: &'static str,
    scheme: &'static str,
    secret: Vec<u8>,
    data_key: Vec<u8>,
}

#[tokio::test]
async fn nothing_of_a_key_or_a_nonce_is_left_in_memory() {
    let it = Scene::start().await;
    let [_, enclave, parent] = it.stack.process_ids().map(|id| id.expect("a process"));
    let (mut keys, mut nonces) = (Secrets::default(), Secrets::default());

    // Opened and looked at, and never used.
    for (key_id, algorithm, scheme) in
        [("opened-secp256k1", "secp256k1", "ecdsa"), ("opened-ed25519", "ed25519", "ed25519")]
    {
        planted(&it, key_id, algorithm, scheme, 0).await.add_to(&mut keys);
        let evidence = it.api.get(&format!("/v1/keys/{key_id}/attestation?nonce=00")).await.expect("a reply");
        assert_eq!(evidence.status.as_u16(), 200, "{}", evidence.body);
    }
    assert_eq!(keys.found_in(enclave), [""; 0], "after loading");

    for (key_id, algorithm, scheme) in
        [("ecdsa", "secp256k1", "ecdsa"), ("bip340", "secp256k1", "bip340"), ("ed25519", "ed25519", "ed25519")]
    {
        let key = planted(&it, key_id, algorithm, scheme, HOLD.as_secs()).await;
        key.add_to(&mut keys);
        for (n, nonce) in load(&it, &key).await.into_iter().enumerate() {
            nonces.add(&format!("nonce {n} of {key_id}"), &nonce);
        }
        // Before anything else uses the same stacks. The control: a key that is held is there.
        assert_eq!(nonces.found_in(enclave), [""; 0], "after signing with {key_id}");
        let found = keys.found_in(enclave);
        assert!(found.iter().any(|found| found.starts_with(key_id)), "{key_id} is held: {found:?}");
        assert!(!found.iter().any(|found| found.contains("data key")), "{found:?}");
    }
    let known = nonces.found_in(std::process::id()).len();
    assert!(known > 1_000, "the test itself holds them: {known}");

    sleep(HOLD).await;
    for moment in ["when the keys are wiped", "idle"] {
        assert_eq!(keys.found_in(enclave), [""; 0], "{moment}");
        assert_eq!(nonces.found_in(enclave), [""; 0], "{moment}");
        sleep(Duration::from_secs(2)).await;
    }
    // The parent never had any.
    assert_eq!(keys.found_in(parent), [""; 0]);
    assert_eq!(nonces.found_in(parent), [""; 0]);
    it.signs("ed25519").await;
}

async fn planted(it: &Scene, key_id: &'static str, algorithm: &str, scheme: &'static str, hold: u64) -> Planted {
    let policy = json!({ "payloads": ["digest", "message"], "hold_seconds": hold });
    it.create_with(json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy })).await;
    let record = it.record(key_id);
    let secret = opened::secret(&it.stack, &record).expect("opened");
    Planted { key_id, scheme, secret, data_key: opened::data_key(&it.stack, &record).expect("opened") }
}

impl Planted {
    fn add_to(&self, secrets: &mut Secrets) {
        secrets.add(self.key_id, &self.secret);
        secrets.add(&format!("data key of {}", self.key_id), &self.data_key);
        if self.scheme == "ed25519" {
            let expanded = Sha512::digest(&self.secret);
            secrets.add(&format!("{}, expanded", self.key_id), &expanded);
            let scalar = curve25519_dalek::Scalar::from_bytes_mod_order(clamped(&expanded));
            secrets.add(&format!("{}, scalar", self.key_id), scalar.as_bytes());
        } else {
            secrets.add(&format!("{}, negative", self.key_id), &(-self.scalar()).to_repr());
        }
    }

    fn scalar(&self) -> Scalar {
        number(self.secret.as_slice().try_into().expect("32 bytes"))
    }

    /// The nonce of a signature of `message`, and what else gives it away.
    fn nonces(&self, message: &[u8; 32], answer: &Value) -> Vec<[u8; 32]> {
        let signature = answer["signature"].as_str().unwrap_or_else(|| panic!("{answer}"));
        let signature = hex::decode(signature.trim_start_matches("0x")).expect("hex");
        let (r, s) = signature.split_at(32);
        let (r, s): (&[u8; 32], &[u8; 32]) = (r.try_into().expect("r"), s[..32].try_into().expect("s"));
        match self.scheme {
            "ed25519" => {
                // RFC 8032: SHA-512 of the prefix and the message.
                let prefix = &Sha512::digest(&self.secret)[32..];
                let hash: [u8; 64] = Sha512::new().chain_update(prefix).chain_update(message).finalize().into();
                let scalar = curve25519_dalek::Scalar::from_bytes_mod_order_wide(&hash);
                assert_eq!(curve25519_dalek::EdwardsPoint::mul_base(&scalar).compress().as_bytes(), r, "the nonce");
                vec![scalar.to_bytes(), hash[..32].try_into().expect("half"), hash[32..].try_into().expect("half")]
            }
            "bip340" => {
                let public = ProjectivePoint::GENERATOR * self.scalar();
                let public = public.to_affine();
                let secret = if public.y_is_odd().into() { -self.scalar() } else { self.scalar() };
                let tag = Sha256::digest(b"BIP0340/challenge");
                let hash = Sha256::new().chain_update(tag).chain_update(tag).chain_update(r).chain_update(public.x());
                let challenge = number(&hash.chain_update(message).finalize().into());
                with_relatives(number(s) - challenge * secret, r)
            }
            // s = k⁻¹(z + r·d), or its negative.
            _ => {
                with_relatives(number(s).invert().expect("not zero") * (number(message) + number(r) * self.scalar()), r)
            }
        }
    }
}

/// k, -k, 1/k, -1/k, where the x of k·G is r.
fn with_relatives(k: Scalar, r: &[u8; 32]) -> Vec<[u8; 32]> {
    assert_eq!((ProjectivePoint::GENERATOR * k).to_affine().x().as_slice(), r, "the nonce");
    let inverse = k.invert().expect("not zero");
    [k, -k, inverse, -inverse].map(|scalar| scalar.to_repr().into()).into()
}

fn number(bytes: &[u8; 32]) -> Scalar {
    <Scalar as Reduce<FieldBytes>>::reduce(bytes.into())
}

fn clamped(expanded: &[u8]) -> [u8; 32] {
    curve25519_dalek::scalar::clamp_integer(expanded[..32].try_into().expect("half"))
}

/// Signs one by one, side by side, and in a list. The nonces of it all.
async fn load(it: &Scene, key: &Planted) -> Vec<[u8; 32]> {
    let message = |n: u32| -> [u8; 32] { Sha256::digest(n.to_be_bytes()).into() };
    let payload = |n: u32| {
        let bytes = format!("0x{}", hex::encode(message(n)));
        let kind = if key.scheme == "ed25519" { "message" } else { "digest" };
        json!({ "type": kind, kind: bytes })
    };
    let one = |n| json!({ "payload": payload(n), "scheme": key.scheme });
    let mut signed: Vec<(u32, Value)> = Vec::new();
    for n in 0..50 {
        signed.push((n, it.api.sign(key.key_id, one(n)).await.expect("a reply").body));
    }
    let calls: Vec<_> = (1_000..1_200)
        .map(|n| {
            let (api, body, key_id) = (it.api.clone(), one(n), key.key_id);
            tokio::spawn(async move { (n, api.sign(key_id, body).await.expect("a reply").body) })
        })
        .collect();
    for call in calls {
        signed.push(call.await.expect("no panic"));
    }
    let payloads: Vec<_> = (2_000..2_500).map(payload).collect();
    let body = json!({ "payloads": payloads, "scheme": key.scheme });
    let reply = it.api.post(&format!("/v1/keys/{}/sign-batch", key.key_id), body).await.expect("a reply");
    signed.extend((2_000..).zip(reply.body["results"].as_array().expect("results").clone()));
    signed.into_iter().flat_map(|(n, answer)| key.nonces(&message(n), &answer)).collect()
}
