"""Makes key files with libraries that strongroom does not use: what a custodian brings.

Reads one JSON object per line from standard input and answers each with one, with a new random key:

    {"format": "hex" | "pem-sec1" | "pem-pkcs8" | "keystore-scrypt" | "keystore-pbkdf2" | "solana" | "mnemonic",
     "algorithm": "secp256k1" | "ed25519" | "bip32-secp256k1" | "slip10-ed25519", "password": text (optional)}
    {"algorithm": as above, "secret": hex}  ->  {"public_key", "address"}, as below
    {"content": text, "secret": hex of what a record seals, "public_key": hex (of a seed: its master key's),
     "address": text, or null for a seed}

secp256k1: libsecp256k1 (coincurve), eth-account. ed25519: libsodium (PyNaCl), solders. PEM: cryptography (openssl).
Keystores and mnemonics: eth-account, with little work for the password.
"""

import hashlib
import hmac
import json
import secrets
import sys

import coincurve
import nacl.signing
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from eth_account import Account
from eth_account.hdaccount import generate_mnemonic, seed_from_mnemonic
from eth_account.types import Language
from solders.keypair import Keypair

Account.enable_unaudited_hdwallet_features()

MASTER_KEY_DOMAINS = {"bip32-secp256k1": b"Bitcoin seed", "slip10-ed25519": b"ed25519 seed"}
PASSWORD_WORK = {"scrypt": 1 << 10, "pbkdf2": 1 << 10}


def main():
    for line in sys.stdin:
        case = json.loads(line)
        print(json.dumps(tell(case) if "secret" in case else make(**case)), flush=True)


def tell(case):
    public_key, address = public_facts(case["algorithm"], bytes.fromhex(case["secret"]))
    return {"public_key": public_key.hex(), "address": address}


def make(format, algorithm, password=None):
    if format == "mnemonic":
        content = generate_mnemonic(num_words=24, lang=Language.ENGLISH)
        secret = seed_from_mnemonic(content, password or "")
    else:
        secret = new_secret(algorithm)
        content = write(format, algorithm, secret, password)
    public_key, address = public_facts(algorithm, secret)
    return {"content": content, "secret": secret.hex(), "public_key": public_key.hex(), "address": address}


def new_secret(algorithm):
    if algorithm == "secp256k1":
        return coincurve.PrivateKey().secret
    return secrets.token_bytes(32)


def write(form, algorithm, secret, password):
    kind, _, variant = form.partition("-")
    if kind == "hex":
        return secret.hex() + "\n"
    if kind == "pem":
        return write_pem(variant, algorithm, secret)
    if kind == "keystore":
        assert algorithm == "secp256k1"
        return json.dumps(Account.encrypt(secret, password, kdf=variant, iterations=PASSWORD_WORK[variant]))
    assert kind == "solana" and algorithm == "ed25519"
    return Keypair.from_seed(secret).to_json()


def write_pem(variant, algorithm, secret):
    if algorithm == "secp256k1":
        key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256K1())
    else:
        key = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    structure = {"sec1": PrivateFormat.TraditionalOpenSSL, "pkcs8": PrivateFormat.PKCS8}[variant]
    return key.private_bytes(Encoding.PEM, structure, NoEncryption()).decode()


def public_facts(algorithm, secret):
    """The public key, and the address of a key that can have one."""
    is_seed = algorithm in MASTER_KEY_DOMAINS
    if is_seed:
        secret = hmac.new(MASTER_KEY_DOMAINS[algorithm], secret, hashlib.sha512).digest()[:32]
    if algorithm.endswith("secp256k1"):
        public_key = coincurve.PrivateKey(secret).public_key.format()
        address = Account.from_key(secret).address
    else:
        public_key = bytes(nacl.signing.SigningKey(secret).verify_key)
        address = str(Keypair.from_seed(secret).pubkey())
    return public_key, None if is_seed else address


main()
