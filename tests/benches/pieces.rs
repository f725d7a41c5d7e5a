//! What the pieces of a signature's way cost, each by itself (`make bench` runs these first).

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a benchmark that fails is one that ends"
)]

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strongroom_enclave::RawKey;
use strongroom_protocol::frame::{self, HEADER};
use strongroom_protocol::{
    ByteArray, ByteString, Curve, Payload, Request, RequestFrame, Response, ResponseFrame, Scheme, Signature,
};

fn digests(count: u8) -> Vec<Payload> {
    (0..count).map(|n| Payload::Digest(ByteArray([n; 32]))).collect()
}

fn request(payloads: Vec<Payload>) -> RequestFrame {
    // As long as a record is.
    let record = ByteString::try_from(vec![7; 480]).expect("short");
    RequestFrame { id: 1, request: Request::Sign { record, scheme: Some(Scheme::Ecdsa), path: None, payloads } }
}

fn signatures(c: &mut Criterion) {
    let mut group = c.benchmark_group("sign and check");
    let secp256k1 = RawKey::new(Curve::Secp256k1, &[7; 32]).expect("a key");
    let ed25519 = RawKey::new(Curve::Ed25519, &[7; 32]).expect("a key");
    let digest = Payload::Digest(ByteArray([1; 32]));
    let message = Payload::Message { message: [1; 32].as_slice().try_into().expect("short"), hash: None };
    for (name, key, scheme, payload) in [
        ("ecdsa", &secp256k1, Scheme::Ecdsa, &digest),
        ("bip340", &secp256k1, Scheme::Bip340, &digest),
        ("ed25519", &ed25519, Scheme::Ed25519, &message),
    ] {
        group.bench_function(name, |b| b.iter(|| key.sign(scheme, black_box(payload)).expect("signs")));
    }
    for count in [2, 8, 48] {
        let payloads = digests(count);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("ecdsa, {count} together"), |b| {
            b.iter(|| secp256k1.sign_together(black_box(&payloads)).expect("signs"));
        });
    }
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames");
    for count in [1, 250] {
        let request = request(digests(count));
        let signature = Signature { bytes: ByteArray([1; 64]), recovery_id: Some(1) };
        let response = ResponseFrame { id: 1, result: Ok(Response::Signed(vec![Ok(signature); count.into()])) };
        let (asked, answered) = (frame::encode(&request).expect("fits"), frame::encode(&response).expect("fits"));
        group.throughput(Throughput::Elements(count.into()));
        group.bench_function(format!("write a request of {count}"), |b| b.iter(|| frame::encode(black_box(&request))));
        group.bench_function(format!("read a request of {count}"), |b| {
            b.iter(|| frame::decode_item::<RequestFrame>(&asked[HEADER..]).expect("reads"));
        });
        group.bench_function(format!("write a reply of {count}"), |b| b.iter(|| frame::encode(black_box(&response))));
        group.bench_function(format!("read a reply of {count}"), |b| {
            b.iter(|| frame::decode_item::<ResponseFrame>(&answered[HEADER..]).expect("reads"));
        });
    }
}

fn quick() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = pieces;
    config = quick();
    targets = signatures, frames
}
criterion_main!(pieces);
