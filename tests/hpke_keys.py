"""Seals keys to import keys and opens exported ones with an HPKE that strongroom does not use (cryptography's).

Reads one JSON object per line from standard input and answers each with one. Hexadecimal, but for names:

    {"seal": secret, "public_key", "info": [parts behind its tag], "domain": the tag, by default an import's}
        ->  {"encapsulated_key", "ciphertext"}
    {"open": ciphertext, "encapsulated_key", "private_key": PEM, "binding", "recipient"}  ->  {"secret"}
    {"recipient": name}  ->  {"name", "public_key", "private_key": PEM}
"""

import json
import sys

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def main():
    for line in sys.stdin:
        case = json.loads(line)
        answer = seal(case) if "seal" in case else open_(case) if "open" in case else recipient(case)
        print(json.dumps(answer), flush=True)


def seal(case):
    public_key = X25519PublicKey.from_public_bytes(bytes.fromhex(case["public_key"]))
    domain = case.get("domain", "strongroom-import-seal-v1").encode()
    info = length_prefixed(domain, [bytes.fromhex(part) for part in case["info"]])
    sealed = SUITE.encrypt(bytes.fromhex(case["seal"]), public_key, info=info)
    return {"encapsulated_key": sealed[:32].hex(), "ciphertext": sealed[32:].hex()}


def open_(case):
    private_key = serialization.load_pem_private_key(case["private_key"].encode(), None)
    parts = [bytes.fromhex(case["binding"]), case["recipient"].encode()]
    sealed = bytes.fromhex(case["encapsulated_key"]) + bytes.fromhex(case["open"])
    secret = SUITE.decrypt(sealed, private_key, info=length_prefixed(b"strongroom-export-seal-v1", parts))
    return {"secret": secret.hex()}


def recipient(case):
    private_key = X25519PrivateKey.generate()
    pem = private_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_key = private_key.public_key().public_bytes_raw().hex()
    return {"name": case["recipient"], "public_key": public_key, "private_key": pem.decode()}


def length_prefixed(domain, parts):
    return domain + b"".join(len(part).to_bytes(4, "big") + part for part in parts)


main()
