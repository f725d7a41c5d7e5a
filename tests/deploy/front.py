"""deploy/lambda/front.py against servers of its own, over TLS and plain, and, with STRONGROOM_URL, against a running
stack (`make dev`): a key is made there, signs through the function, and libraries that strongroom does not use verify.

    STRONGROOM_URL=http://127.0.0.1:8080 target/python/bin/python tests/deploy/front.py
"""

import base64
import contextlib
import datetime
import http.server
import importlib.util
import io
import json
import os
import pathlib
import secrets
import ssl
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HERE = pathlib.Path(__file__).parent
STACK = os.environ.pop("STRONGROOM_URL", None)

sys.path.insert(0, str(HERE.parent))
import verify_signatures  # noqa: E402

spec = importlib.util.spec_from_file_location("front", HERE.parents[1] / "deploy/lambda/front.py")
front = importlib.util.module_from_spec(spec)
spec.loader.exec_module(front)

MESSAGE = {"message": "0x68656c6c6f", "hash": "keccak256"}


def call(body, environment, *, path=None, remaining=None, **event):
    """The handler, as API Gateway calls it, and what it logged."""
    raw = body if isinstance(body, str) else json.dumps(body)
    event = {"httpMethod": "POST", "body": raw, "isBase64Encoded": False, "pathParameters": path and {"key_id": path},
             "headers": {"X-Request-Id": "front-1"}, "requestContext": {"requestId": "gateway-1"}, **event}
    context = mock.Mock(aws_request_id="lambda-1", get_remaining_time_in_millis=lambda: remaining or 30_000)
    log = io.StringIO()
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(log):
        reply = front.handler(event, context)
    return reply["statusCode"], json.loads(reply["body"]), reply["headers"], log.getvalue()


def slug(problem):
    return problem["type"].removeprefix("urn:strongroom:problem:")


class Server:
    """Answers every call with `answer`, a function of the handler, and keeps what was asked."""

    def __init__(self, answer, tls=None):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                length = int(self.headers.get("content-length", 0))
                asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, self.rfile.read(length)))
                answer(self)

            do_GET = do_POST

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # Failed handshakes are what some tests are about.
        self.server.handle_error = lambda *_: None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def says(status, body, media_type="application/json", **headers):
    def answer(handler):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"content-type": media_type, "content-length": str(len(data)), **given}.items():
            handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(data)

    return answer


def certificate(folder, name, dns):
    """A self-signed one: its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = pathlib.Path(folder, f"{name}.pem")
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = pathlib.Path(folder, f"{name}.key")
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()))
    return pem, private


class Requests(unittest.TestCase):
    """What never reaches the parent, and how the rest does."""

    def setUp(self):
        front._tokens.clear()

    def test_a_call_is_carried_with_token_and_request_id(self):
        with Server(says(200, {"signature": "0x00"}, x_request_id="front-1")) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}", "STRONGROOM_TOKEN": "token-1"}
            event = {"requestContext": {"identity": {"userArn": "arn:aws:iam::111122223333:role/caller"}}}
            status, body, headers, log = call({"key_id": "hot-1", **MESSAGE, "scheme": "bip340"}, environment, **event)
        self.assertEqual((status, body, headers["x-request-id"]), (200, {"signature": "0x00"}, "front-1"))
        (path, asked, data), = parent.asked
        self.assertEqual(path, "/v1/keys/hot-1/sign")
        self.assertEqual(json.loads(data), {"payload": {"type": "message", **MESSAGE}, "scheme": "bip340"})
        self.assertEqual((asked["authorization"], asked["x-request-id"]), ("Bearer token-1", "front-1"))
        self.assertEqual(json.loads(log), {"request_id": "front-1", "caller": "arn:aws:iam::111122223333:role/caller", "status": 200})

    def test_the_paths_key_counts(self):
        with Server(says(200, {})) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}"}
            self.assertEqual(call({"digest": "0x00"}, environment, path="hot-1")[0], 200)
            self.assertEqual(json.loads(parent.asked[0][2]), {"payload": {"type": "digest", "digest": "0x00"}})
            status, problem, *_ = call({"key_id": "hot-2", **MESSAGE}, environment, path="hot-1")
        self.assertEqual((status, slug(problem), len(parent.asked)), (422, "invalid-request", 1))

    def test_what_is_refused_here(self):
        good = {"key_id": "hot-1", **MESSAGE}
        deep = '{"key_id": ' + "[" * 30_000
        cases = {
            "not JSON": ("{", 400), "empty": ("", 400), "deep": (deep, 400), "a list": ("[]", 422), "NaN": ('{"key_id": NaN}', 400),
            "twice": ('{"key_id": "hot-1", "key_id": "hot-2", "message": "0x00"}', 400),
            "unknown field": ({**good, "policy": "x"}, 422), "number": ({**good, "message": 1}, 422),
            "no key": (MESSAGE, 422), "no payload": ({"key_id": "hot-1"}, 422),
            "both": ({**good, "digest": "0x00"}, 422), "a hashed digest": ({"key_id": "a", "digest": "0x00", "hash": "sha256"}, 422),
            "large": ({**good, "message": "0x" + "00" * 40_000}, 413), "huge": ("x" * 1_000_000, 413),
        }
        for key_id in ("", ".", "..", "../x", "a/b", "a%2fb", "a?b", "a#b", "-a", "a b", "a\n", "a\r\nx: y", "é", "a" * 65):
            cases[f"key id {key_id!r}"] = ({**good, "key_id": key_id}, 422)
        with Server(says(200, {})) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}"}
            for name, (body, wanted) in cases.items():
                with self.subTest(name):
                    status, problem, headers, _ = call(body, environment)
                    self.assertEqual((status, problem["status"], problem["instance"]), (wanted, wanted, "front-1"))
                    self.assertEqual(headers["content-type"], "application/problem+json")
            self.assertEqual(call(good, environment, httpMethod="GET")[0], 405)
            self.assertEqual(call("%%%", environment, isBase64Encoded=True)[0], 400)
            encoded = base64.b64encode(json.dumps(good).encode()).decode()
            self.assertEqual(call(encoded, environment, isBase64Encoded=True)[0], 200)
        self.assertEqual(len(parent.asked), 1)

    def test_a_request_id_that_cannot_stand_in_a_log_is_replaced(self):
        for given in ("a b", "a\r\nx: y", "x" * 65, ""):
            self.assertEqual(call("{", {}, headers={"x-request-id": given})[2]["x-request-id"], "gateway-1")
        self.assertEqual(call("{", {}, headers=None, requestContext=None)[2]["x-request-id"], "lambda-1")


class Answers(unittest.TestCase):
    """What comes back."""

    def ask(self, answer, **options):
        with Server(answer) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}", **options.pop("environment", {})}
            return call({"key_id": "hot-1", **MESSAGE}, environment, **options)

    def test_problems_are_passed_on(self):
        for status in (403, 404, 422, 502, 503, 504):
            problem = {"type": "urn:strongroom:problem:x", "title": "X", "status": status, "instance": "front-1"}
            answer = says(status, problem, "application/problem+json", retry_after="2", x_request_id="front-1")
            found, body, headers, _ = self.ask(answer)
            self.assertEqual((found, body, headers["retry-after"]), (status, problem, "2"))
            self.assertEqual(headers["content-type"], "application/problem+json")

    def test_what_is_not_understood_is_not_passed_on(self):
        cases = {
            "HTML": says(200, b"<html>", "text/html"), "no JSON": says(200, b"{"), "a list": says(200, []),
            "a problem that is none": says(500, {"secret": 1}), "redirect": says(302, {}, location="http://127.0.0.1:1/"),
            "too large": says(200, {"signature": "0" * (2 * 1024 * 1024)}),
            "its token": says(401, {"type": "urn:strongroom:problem:unauthorized"}, "application/problem+json"),
        }
        for name, answer in cases.items():
            with self.subTest(name):
                status, problem, *_ = self.ask(answer)
                self.assertEqual((status, slug(problem)), (502, "signer-unavailable"))

    def test_nobody_there(self):
        status, problem, *_ = call({"key_id": "hot-1", **MESSAGE}, {"STRONGROOM_URL": "http://127.0.0.1:1"})
        self.assertEqual((status, slug(problem)), (503, "signer-unavailable"))

    def test_plain_http_leaves_the_machine_for_nobody(self):
        status, problem, *_ = call({"key_id": "hot-1", **MESSAGE}, {"STRONGROOM_URL": "http://strongroom.internal:8443"})
        self.assertEqual((status, slug(problem)), (503, "signer-unavailable"))

    def test_silence_and_dripping_end_in_time(self):
        def drip(handler):
            says(200, b"", content_length="1000000")(handler)
            with contextlib.suppress(OSError):
                for _ in range(25):
                    handler.wfile.write(b" ")
                    time.sleep(0.1)

        for name, answer in (("silence", lambda handler: time.sleep(2)), ("dripping", drip)):
            for limit in ({"environment": {"STRONGROOM_TIMEOUT": "1"}}, {"remaining": 1500}):
                with self.subTest(name, **limit):
                    began = time.monotonic()
                    status, problem, *_ = self.ask(answer, **limit)
                    self.assertEqual((status, slug(problem)), (504, "signer-timeout"))
                    self.assertLess(time.monotonic() - began, 2.5)


class Tls(unittest.TestCase):
    def test_the_one_authority_is_believed_and_no_other(self):
        with tempfile.TemporaryDirectory() as folder:
            own, other = (certificate(folder, name, "localhost") for name in ("own", "other"))
            misnamed = certificate(folder, "misnamed", "elsewhere.internal")
            for tls, ca, wanted in ((own, own[0].read_text(), 200), (own, str(own[0]), 200), (own, other[0].read_text(), 503),
                                    (own, "", 503), (misnamed, misnamed[0].read_text(), 503), (own, "missing.pem", 503)):
                with self.subTest(tls=tls[0].name, wanted=wanted), Server(says(200, {}), tls) as parent:
                    environment = {"STRONGROOM_URL": f"https://localhost:{parent.port}", "STRONGROOM_CA": ca, "STRONGROOM_TOKEN": "t"}
                    self.assertEqual(call({"key_id": "hot-1", **MESSAGE}, environment)[0], wanted)
                    # Whoever is not believed learns no token.
                    self.assertEqual(len(parent.asked), int(wanted == 200))


class Token(unittest.TestCase):
    def setUp(self):
        front._tokens.clear()

    def test_it_comes_from_the_extension_once(self):
        secret = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:strongroom-front"
        with Server(says(200, {"SecretString": "token-2\n"})) as extension, Server(says(200, {})) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}", "STRONGROOM_TOKEN_SECRET": secret,
                           "STRONGROOM_EXTENSION": f"http://127.0.0.1:{extension.port}/secretsmanager/get?secretId=",
                           "AWS_SESSION_TOKEN": "session"}
            for _ in range(3):
                self.assertEqual(call({"key_id": "hot-1", **MESSAGE}, environment)[0], 200)
        (path, asked, _), = extension.asked
        self.assertTrue(path.endswith("secret%3Astrongroom-front"), path)
        self.assertEqual(asked["x-aws-parameters-secrets-token"], "session")
        self.assertEqual({headers["authorization"] for _, headers, _ in parent.asked}, {"Bearer token-2"})

    def test_without_it_nothing_is_sent(self):
        with Server(says(400, {"message": "denied"})) as extension, Server(says(200, {})) as parent:
            environment = {"STRONGROOM_URL": f"http://127.0.0.1:{parent.port}", "STRONGROOM_TOKEN_SECRET": "arn",
                           "STRONGROOM_EXTENSION": f"http://127.0.0.1:{extension.port}/?secretId="}
            status, problem, _, log = call({"key_id": "hot-1", **MESSAGE}, environment)
        self.assertEqual((status, slug(problem), parent.asked), (503, "signer-unavailable", []))


@unittest.skipUnless(STACK, "STRONGROOM_URL names no running stack")
class Stack(unittest.TestCase):
    """The real parent, and its enclave."""

    @classmethod
    def setUpClass(cls):
        name = secrets.token_hex(4)
        cls.keys = {algorithm: f"front-{algorithm}-{name}" for algorithm in ("secp256k1", "ed25519")}
        cls.public, cls.addresses = {}, {}
        for algorithm, key_id in cls.keys.items():
            body = json.dumps({"key_id": key_id, "algorithm": algorithm}).encode()
            asked = urllib.request.Request(f"{STACK}/v1/keys", body, {"content-type": "application/json"})
            with urllib.request.urlopen(asked, timeout=30) as answer:
                view = json.load(answer)
            cls.public[algorithm] = view["public_key"]
            cls.addresses[algorithm], = view["addresses"].values()

    def ask(self, body):
        return call(body, {"STRONGROOM_URL": STACK})

    def test_signatures_verify(self):
        for algorithm, scheme, hashed in (("secp256k1", "ecdsa", True), ("secp256k1", "bip340", True), ("ed25519", "ed25519", False)):
            with self.subTest(scheme):
                message = secrets.token_bytes(40)
                asked = {"message": "0x" + message.hex(), **({"hash": "sha256"} if hashed else {})}
                status, reply, headers, _ = self.ask({"key_id": self.keys[algorithm], "scheme": scheme, **asked})
                self.assertEqual((status, reply["public_key"]), (200, self.public[algorithm]))
                self.assertEqual((reply["request_id"], headers["x-request-id"]), ("front-1", "front-1"))
                recovery = {"recovery_id": reply["recovery_id"]} if scheme == "ecdsa" else {}
                case = {"scheme": scheme, "public_key": self.public[algorithm], "signature": reply["signature"],
                        "address": self.addresses[algorithm], **recovery, **asked}
                verify_signatures.verify(case)
                with self.assertRaises(verify_signatures.Refused):
                    verify_signatures.verify({**case, "message": "0x00"})

    def test_the_parents_refusals_are_passed_on(self):
        key = self.keys["secp256k1"]
        for body, status, wanted in (
            ({"key_id": "nobodys", **MESSAGE}, 404, "key-not-found"),
            ({"key_id": key, "digest": "0x" + "00" * 32}, 403, "policy-denied"),
            ({"key_id": key, "message": "0x00"}, 422, "invalid-request"),
            ({"key_id": key, "message": "zz", "hash": "sha256"}, 422, "invalid-request"),
            ({"key_id": key, **MESSAGE, "path": "m/0"}, 422, None),
        ):
            with self.subTest(body):
                found, problem, headers, _ = self.ask(body)
                self.assertEqual((found, problem["instance"]), (status, "front-1"))
                self.assertEqual(headers["content-type"], "application/problem+json")
                self.assertEqual(slug(problem), wanted or slug(problem))


if __name__ == "__main__":
    unittest.main()
