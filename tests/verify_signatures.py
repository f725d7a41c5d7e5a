"""Verifies strongroom's signatures with libraries that strongroom does not use.

Reads one JSON object per line from standard input and answers each with a line: "verified", or
"refused: " and the reason. Binary values are hex with 0x, as they are in the REST API:

    {"scheme": "ecdsa" | "bip340" | "ed25519", "public_key", "signature",
     "recovery_id" (ecdsa), "digest" or "message" with "hash" (not for ed25519),
     "address" (of the key, by its chain), "eip191" (the text that the message wraps)}

ECDSA is checked by libsecp256k1 (coincurve: verification and recovery of the key), OpenSSL
(cryptography) and, for Keccak-256, eth-keys and eth-account (recovery of the address). BIP-340 by
libsecp256k1. Ed25519 by OpenSSL and libsodium (PyNaCl). A case is verified if all of them agree.
"""

import hashlib
import json
import sys

import coincurve
import nacl.exceptions
import nacl.signing
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keys import keys as eth_keys
from eth_utils import keccak

# SEC 2, section 2.4.1: the order of secp256k1's group.
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

HASHES = {
    "keccak256": keccak,
    "sha256": lambda message: hashlib.sha256(message).digest(),
    "sha256d": lambda message: hashlib.sha256(hashlib.sha256(message).digest()).digest(),
}


class Refused(Exception):
    """A library does not accept the signature."""


def main():
    for line in sys.stdin:
        try:
            verify(json.loads(line))
            print("verified", flush=True)
        except Refused as refused:
            print(f"refused: {refused}", flush=True)


def verify(case):
    public_key, signature = octets(case["public_key"]), octets(case["signature"])
    require(len(signature) == 64, "the signature has not 64 bytes")
    if case["scheme"] == "ed25519":
        require("recovery_id" not in case, "ed25519 has no recovery id")
        verify_ed25519(case, public_key, signature)
    elif case["scheme"] == "bip340":
        require("recovery_id" not in case, "BIP-340 has no recovery id")
        verify_bip340(public_key, signature, digest(case))
    else:
        verify_ecdsa(case, public_key, signature, digest(case))


def verify_ecdsa(case, public_key, signature, hashed):
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    require(0 < r < ORDER and 0 < s <= ORDER // 2, "s is not low")
    der = utils.encode_dss_signature(r, s)
    require(coincurve.PublicKey(public_key).verify(der, hashed, hasher=None), "libsecp256k1 does not verify")

    openssl = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public_key)
    try:
        openssl.verify(der, hashed, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    except InvalidSignature:
        raise Refused("OpenSSL does not verify") from None

    recovery_id = case["recovery_id"]
    require(recovery_id in (0, 1), "the recovery id is neither 0 nor 1")
    try:
        recovered = coincurve.PublicKey.from_signature_and_message(
            signature + bytes([recovery_id]), hashed, hasher=None
        ).format()
    except Exception as error:  # coincurve raises a bare Exception
        raise Refused(f"libsecp256k1 recovers no key: {error}") from None
    require(recovered == public_key, "libsecp256k1 recovers another key")
    if case.get("hash") == "keccak256":
        verify_ethereum(case, recovery_id, r, s, hashed)


def verify_ethereum(case, recovery_id, r, s, hashed):
    recovered = eth_keys.Signature(vrs=(recovery_id, r, s)).recover_public_key_from_msg_hash(hashed)
    require(recovered.to_checksum_address() == case["address"], "eth-keys recovers another address")
    if "eip191" in case:
        message = encode_defunct(text=case["eip191"])
        address = Account.recover_message(message, vrs=(recovery_id + 27, r, s))
        require(address == case["address"], "eth-account recovers another address")


def verify_bip340(public_key, signature, hashed):
    # BIP-340 signs with the point's x coordinate alone.
    x_only = coincurve.PublicKeyXOnly(public_key[1:])
    require(x_only.verify(signature, hashed), "libsecp256k1 does not verify")


def verify_ed25519(case, public_key, signature):
    message = octets(case["message"])
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except InvalidSignature:
        raise Refused("OpenSSL does not verify") from None
    try:
        nacl.signing.VerifyKey(public_key).verify(message, signature)
    except nacl.exceptions.BadSignatureError:
        raise Refused("libsodium does not verify") from None
    require(base58(public_key) == case["address"], "the address is of another key")


def digest(case):
    if "digest" in case:
        return octets(case["digest"])
    return HASHES[case["hash"]](octets(case["message"]))


def base58(data):
    """Base58 in Bitcoin's alphabet: a Solana address is the public key written so."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, remainder = divmod(number, 58)
        text = alphabet[remainder] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def octets(text):
    require(text.startswith("0x") and text == text.lower(), "not hex as the API writes it")
    return bytes.fromhex(text[2:])


def require(holds, otherwise):
    if not holds:
        raise Refused(otherwise)


main()
