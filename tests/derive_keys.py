"""Derives keys below a seed with libraries that strongroom does not use.

Reads one JSON object per line from standard input and answers each with one:

    {"algorithm": "bip32-secp256k1" | "slip10-ed25519", "seed": hex, "path": "m/44'/60'/0'/0/5"}
    {"public_key": hex, "address": text, "secrets": [hex of every key and chain code on the way]}

secp256k1: BIP-32 step by step over libsecp256k1 (coincurve), and eth-account's own derivation, which must
agree. ed25519: SLIP-0010 over the standard library, and libsodium (PyNaCl) for the public key.
"""

import hashlib
import hmac
import json
import sys

import coincurve
import nacl.signing
from eth_account.hdaccount import key_from_seed
from eth_keys import keys as eth_keys

HARDENED = 1 << 31
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def main():
    for line in sys.stdin:
        case = json.loads(line)
        derive = {"bip32-secp256k1": derive_secp256k1, "slip10-ed25519": derive_ed25519}[case["algorithm"]]
        print(json.dumps(derive(bytes.fromhex(case["seed"]), case["path"])), flush=True)


def derive_secp256k1(seed, path):
    key, chain_code = halves(b"Bitcoin seed", seed)
    secrets = [key, chain_code]
    for index in components(path):
        private = coincurve.PrivateKey(key)
        parent = b"\0" + key if index >= HARDENED else private.public_key.format()
        tweak, chain_code = halves(chain_code, parent + index.to_bytes(4, "big"))
        key = private.add(tweak).secret
        secrets += [key, chain_code]
    if path != "m":
        assert key_from_seed(seed, path) == key, "eth-account derives another key"
    public_key = eth_keys.PrivateKey(key).public_key
    return answer(public_key.to_compressed_bytes(), public_key.to_checksum_address(), secrets)


def derive_ed25519(seed, path):
    key, chain_code = halves(b"ed25519 seed", seed)
    secrets = [key, chain_code]
    for index in components(path):
        assert index >= HARDENED, "SLIP-0010 has hardened steps only"
        key, chain_code = halves(chain_code, b"\0" + key + index.to_bytes(4, "big"))
        secrets += [key, chain_code]
    public_key = bytes(nacl.signing.SigningKey(key).verify_key)
    return answer(public_key, base58(public_key), secrets)


def answer(public_key, address, secrets):
    return {"public_key": public_key.hex(), "address": address, "secrets": [secret.hex() for secret in secrets]}


def components(path):
    master, *parts = path.split("/")
    assert master == "m"
    return [int(part.rstrip("'")) + (HARDENED if part.endswith("'") else 0) for part in parts]


def halves(key, message):
    digest = hmac.new(key, message, hashlib.sha512).digest()
    return digest[:32], digest[32:]


def base58(data):
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, remainder = divmod(number, 58)
        text = ALPHABET[remainder] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


main()
