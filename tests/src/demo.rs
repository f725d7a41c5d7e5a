//! `make demo`: the main job from end to end, on a page. Every claim on it is checked before it is
//! printed, the signatures by libraries other than the ones that made them.

#![allow(clippy::print_stdout, reason = "the page is the purpose")]
#![allow(clippy::indexing_slicing, reason = "a JSON value indexed by a name it does not have is null")]

use std::fs;
use std::io::{self, IsTerminal, stdout};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use reqwest::StatusCode;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, XOnlyPublicKey, schnorr};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sha3::Keccak256;
use tokio::process::Command;

use crate::api::{Api, Reply};
use crate::mock_kms::Call;
use crate::pki::NITRO_ROOT_FILE;
use crate::stack::{CONFIG_FILE, EnclaveKind, Plan, Stack, binary};

const MESSAGE: &[u8] = b"strongroom demo";

/// Runs the demo in the plan's directory, which is made anew.
///
/// # Errors
/// Something that the page claims did not happen.
pub async fn run(plan: Plan) -> io::Result<()> {
    if plan.directory.join(CONFIG_FILE).exists() {
        fs::remove_dir_all(&plan.directory)?;
    }
    let mocks = match plan.enclave {
        EnclaveKind::Process => "only the NSM and KMS were mocks",
        EnclaveKind::Machine(_) | EnclaveKind::Elsewhere(_) => "only KMS was a mock",
    };
    println!("\n  strongroom: one signature per curve, from REST to an attested KMS call and back\n");
    let stack = plan.start().await?;
    let demo = Demo { api: Api::new(&stack.url), stack };
    demo.show_measurements()?;
    demo.show_creation().await?;
    demo.show_verification().await?;
    demo.show_signatures().await?;
    demo.show_tampering().await?;
    demo.show_calls().await?;
    println!("  Everything above ran in {}; {mocks}.", demo.stack.directory().display());
    println!("  Next: make dev, and the first curl of the README.\n");
    demo.stack.stop().await
}

struct Demo {
    stack: Stack,
    api: Api,
}

impl Demo {
    fn show_measurements(&self) -> io::Result<()> {
        let pcrs: Value = serde_json::from_slice(&fs::read(self.path("pcrs.json"))?)?;
        heading("The enclave is measured", "the KMS key's policy admits exactly this pair");
        row("image", &format!("PCR0   {}", shorten(pcrs["PCR0"].as_str().unwrap_or_default())));
        row("configuration", &format!("PCR16  {}", shorten(pcrs["PCR16"].as_str().unwrap_or_default())));
        Ok(())
    }

    async fn show_creation(&self) -> io::Result<()> {
        heading("Two keys are created", "inside the enclave; the parent stores ciphertext");
        for (key_id, algorithm, chain) in [("demo-evm", "secp256k1", "ethereum"), ("demo-solana", "ed25519", "solana")]
        {
            let policy = json!({ "payloads": ["message", "digest"], "hold_seconds": 0 });
            let body = json!({ "key_id": key_id, "algorithm": algorithm, "policy": policy });
            let key = self.api.post("/v1/keys", body).await?;
            expect(key.status == StatusCode::CREATED, "the key is created", &key.body)?;
            row(key_id, &format!("{chain} {}", key.body["addresses"][chain].as_str().unwrap_or_default()));
        }
        Ok(())
    }

    /// What a custodian does before an address is used: offline, against the expected measurements.
    async fn show_verification(&self) -> io::Result<()> {
        heading("Its attestation is verified offline", "strongroom key verify demo-evm");
        let output = Command::new(binary("strongroom"))
            .args(["key", "verify", "demo-evm", "--url", &self.stack.url])
            .arg("--pcrs")
            .arg(self.path("pcrs.json"))
            .arg("--attestation-root")
            .arg(self.path(NITRO_ROOT_FILE))
            .output()
            .await?;
        let report = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if matches!(self.stack.plan.enclave, EnclaveKind::Process) {
            expect(output.status.success(), "the key verifies", &report)?;
            row("document", "chain, PCR0 and PCR16, nonce, key and policy: verified");
        } else {
            expect(output.status.code() == Some(1), "what nobody signed does not verify", &report)?;
            row("document", "made by QEMU, signed by nobody: refused");
        }
        Ok(())
    }

    async fn show_signatures(&self) -> io::Result<()> {
        heading("Three signatures", "each checked by a library that did not make it");
        let message = format!("0x{}", hex::encode(MESSAGE));

        let payload = json!({ "type": "message", "message": message, "hash": "keccak256" });
        let signed = self.sign("demo-evm", json!({ "payload": payload })).await?;
        verify_ecdsa(&signed)?;
        row("ECDSA", &format!("{}  libsecp256k1 recovers the key", shorten(signed.text("signature"))));

        let digest = format!("0x{}", hex::encode(Sha256::digest(MESSAGE)));
        let payload = json!({ "type": "digest", "digest": digest });
        let signed = self.sign("demo-evm", json!({ "payload": payload, "scheme": "bip340" })).await?;
        verify_bip340(&signed)?;
        row("BIP-340", &format!("{}  libsecp256k1 verifies", shorten(signed.text("signature"))));

        let payload = json!({ "type": "message", "message": message });
        let signed = self.sign("demo-solana", json!({ "payload": payload })).await?;
        verify_ed25519(&signed)?;
        row("Ed25519", &format!("{}  AWS-LC verifies", shorten(signed.text("signature"))));
        Ok(())
    }

    /// The parent is not trusted: here somebody on it widens a policy in the stored record.
    async fn show_tampering(&self) -> io::Result<()> {
        heading("A stored record is changed", "hold_seconds 0 becomes 3600");
        let path = self.path("keys/demo-evm.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path)?)?;
        record["policy"]["hold_seconds"] = 3600.into();
        fs::write(&path, serde_json::to_vec_pretty(&record)?)?;
        let payload = json!({ "type": "message", "message": "0x00", "hash": "sha256" });
        let sign = json!({ "payload": payload });
        let reply = self.api.sign("demo-evm", sign).await?;
        let refused = reply.status == StatusCode::BAD_GATEWAY && reply.problem() == "record-refused";
        expect(refused, "the changed record is refused", &reply.body)?;
        row("refused", &format!("{} {}", reply.status.as_u16(), reply.text("type")));
        Ok(())
    }

    async fn show_calls(&self) -> io::Result<()> {
        heading("What KMS saw", "its log, like CloudTrail's; every call carried a document");
        let calls = self.stack.control.calls(0).await.map_err(io::Error::other)?;
        for (action, outcome) in
            [("GenerateDataKey", "Success"), ("Decrypt", "Success"), ("Decrypt", "InvalidCiphertextException")]
        {
            let these = |call: &&Call| call.action.as_deref() == Some(action) && call.outcome == outcome;
            let count = calls.iter().filter(these).count();
            expect(calls.iter().filter(these).all(|call| call.attested.is_some()), "every call is attested", action)?;
            row(&format!("{count} x {action}"), outcome);
        }
        println!();
        Ok(())
    }

    async fn sign(&self, key_id: &str, body: Value) -> io::Result<Reply> {
        let signed = self.api.sign(key_id, body).await?;
        expect(signed.status == StatusCode::OK, "a signature is made", &signed.body)?;
        Ok(signed)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.stack.directory().join(Path::new(name))
    }
}

fn verify_ecdsa(signed: &Reply) -> io::Result<()> {
    let digest: [u8; 32] = Keccak256::digest(MESSAGE).into();
    let id = signed.body["recovery_id"].as_i64().and_then(|id| RecoveryId::try_from(i32::try_from(id).ok()?).ok());
    let id = id.ok_or_else(|| io::Error::other("no recovery id"))?;
    let signature = RecoverableSignature::from_compact(&signed.bytes("signature")?, id).map_err(io::Error::other)?;
    let recovered = signature.recover(Message::from_digest(digest)).map_err(io::Error::other)?;
    expect(recovered.serialize().to_vec() == signed.bytes("public_key")?, "ECDSA recovers the key", &signed.body)
}

fn verify_bip340(signed: &Reply) -> io::Result<()> {
    let digest: [u8; 32] = Sha256::digest(MESSAGE).into();
    let public_key = signed.bytes("public_key")?;
    let x = public_key.get(1..).and_then(|x| x.try_into().ok()).ok_or_else(|| io::Error::other("no public key"))?;
    let signature: [u8; 64] = signed.bytes("signature")?.try_into().map_err(|_| io::Error::other("not 64 bytes"))?;
    let key = XOnlyPublicKey::from_byte_array(x).map_err(io::Error::other)?;
    schnorr::verify(&schnorr::Signature::from_byte_array(signature), &digest, &key).map_err(io::Error::other)
}

fn verify_ed25519(signed: &Reply) -> io::Result<()> {
    let key = UnparsedPublicKey::new(&ED25519, signed.bytes("public_key")?);
    key.verify(MESSAGE, &signed.bytes("signature")?).map_err(|_| io::Error::other("Ed25519 does not verify"))
}

fn expect(holds: bool, what: &str, seen: &(impl std::fmt::Display + ?Sized)) -> io::Result<()> {
    if holds { Ok(()) } else { Err(io::Error::other(format!("expected that {what}; seen: {seen}"))) }
}

fn heading(what: &str, why: &str) {
    let (bold, dim, plain) = if stdout().is_terminal() { ("\x1b[1m", "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
    println!("\n  {bold}{what}{plain}  {dim}{why}{plain}");
}

fn row(name: &str, value: &str) {
    println!("    {name:<22} {value}");
}

fn shorten(hex: &str) -> String {
    match (hex.get(..18), hex.get(hex.len().saturating_sub(8)..)) {
        (Some(head), Some(tail)) if hex.len() > 30 => format!("{head}…{tail}"),
        _ => hex.to_owned(),
    }
}
