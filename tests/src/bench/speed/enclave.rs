//! The way to the enclave and back without HTTP: the parent's own client, one request in flight.

use std::fs;
use std::io;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use strongroom_parent::credentials::CredentialFeed;
use strongroom_parent::enclave_client::EnclaveClient;
use strongroom_parent::stored_record::StoredRecord;
use strongroom_protocol::{Address, ByteArray, Payload, PresentedRecord, Scheme};
use strongroom_runtime::Workers;
use tokio::time::Instant;

use crate::bench::samples::Samples;
use crate::stack::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, Stack};

const REQUESTS: u32 = 3_000;

/// A second parent of the same enclave, and the best median so far.
pub(super) struct Hop {
    workers: Workers,
    client: EnclaveClient,
    record: PresentedRecord,
    median_us: f64,
}

impl Hop {
    pub(super) async fn connect(stack: &Stack) -> io::Result<Self> {
        let folder = stack.directory();
        let key_id = "ecdsa".parse().map_err(io::Error::other)?;
        let stored = StoredRecord::from_json(&key_id, &fs::read(folder.join("keys/ecdsa.json"))?);
        let record = stored.map_err(io::Error::other)?.record.present().map_err(io::Error::other)?;
        let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "bench");
        let feed = CredentialFeed::new(SharedCredentialsProvider::new(credentials));
        feed.renew().await;
        let (address, configuration) =
            (Address::Unix(folder.join("enclave.sock")), fs::read(folder.join("enclave.json"))?);
        let workers = Workers::start(usize::MAX)?;
        let client = EnclaveClient::start(address, configuration, feed, workers.clone()).map_err(io::Error::other)?;
        Ok(Self { workers, client, record, median_us: f64::INFINITY })
    }

    /// One request, its signature included, in microseconds.
    pub(super) const fn median_us(&self) -> f64 {
        self.median_us
    }

    pub(super) async fn measure(&mut self) -> io::Result<()> {
        let (client, record) = (self.client.clone(), self.record.clone());
        // As a request does: on a worker.
        let measured = self.workers.next().spawn(async move {
            let mut samples = Samples::default();
            for n in 0..REQUESTS {
                let mut digest = [0; 32];
                digest[..4].copy_from_slice(&n.to_be_bytes());
                let mut payloads = vec![Payload::Digest(ByteArray(digest))];
                let deadline = Instant::now() + Duration::from_secs(10);
                let signing = client.sign(record.clone(), Scheme::Ecdsa, None, &mut payloads, deadline);
                samples.time(signing).await.map_err(io::Error::other)?;
            }
            Ok::<_, io::Error>(samples.median_ms() * 1000.0)
        });
        self.median_us = self.median_us.min(measured.await.map_err(io::Error::other)??);
        Ok(())
    }
}
