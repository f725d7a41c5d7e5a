"""A Lambda function in front of a strongroom parent: API Gateway authenticates callers by IAM, this carries one
call, `POST /v1/keys/{key_id}/sign`, to the parent over TLS, with a token of its own.

It decides nothing about keys: the parent's identity for this token does, and the key's policy in the enclave. What it does
decide: no other call passes, no key id that could be another path, no body beyond 64 KiB, no reply beyond 1 MiB, no time
beyond the invocation's.

The body is {"key_id", "message" with "hash", or "digest", and "scheme" and "path" if needed}; binary values are hex. Where
API Gateway's path names the key, the body need not. Python 3.12, standard library only.

Environment:
    STRONGROOM_URL       https://strongroom.internal:8443; http only to loopback, for tests
    STRONGROOM_CA        the authority of the parent's certificate: a PEM file in this folder, or the PEM itself
    STRONGROOM_TOKEN     a bearer token; or, better:
    STRONGROOM_TOKEN_SECRET  the ARN of the secret with the token, asked from AWS's Parameters and Secrets extension
    STRONGROOM_TIMEOUT   seconds for one call (9)
"""

import base64
import http.client
import json
import os
import re
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

MAX_BODY = 64 * 1024
MAX_REPLY = 1024 * 1024
KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What the parent takes for one: visible ASCII, bounded. Others get a new one there.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
FIELDS = {"key_id", "message", "hash", "digest", "scheme", "path"}
# A token is asked for again after so long, so that it can be replaced.
TOKEN_LIVES = 300
EXTENSION = "http://localhost:2773/secretsmanager/get?secretId="

_tokens = {}


class Refused(Exception):
    """An answer other than a signature."""

    def __init__(self, status, slug, title, detail=None):
        super().__init__(slug)
        self.status = status
        self.problem = {"type": f"urn:strongroom:problem:{slug}", "title": title, "status": status}
        if detail:
            self.problem["detail"] = detail


def handler(event, context):
    request_id = _request_id(event, context)
    try:
        key_id, request = _request(event)
        reply = _forward(key_id, request, request_id, context)
    except Refused as refused:
        reply = _reply(refused.status, {**refused.problem, "instance": request_id}, "application/problem+json")
    reply["headers"].setdefault("x-request-id", request_id)
    # Who asked and what came of it: never the payload, the signature or the token.
    print(json.dumps({"request_id": request_id, "caller": _caller(event), "status": reply["statusCode"]}))
    return reply


def _request(event):
    """The key's id and the parent's body."""
    if event.get("httpMethod", "POST") != "POST":
        raise Refused(405, "method-not-allowed", "The method is not allowed here")
    body = event.get("body") or ""
    if len(body) > 2 * MAX_BODY:
        raise _too_large()
    try:
        data = base64.b64decode(body, validate=True) if event.get("isBase64Encoded") else body.encode()
    except ValueError:
        raise Refused(400, "malformed-json", "The body is not well-formed JSON") from None
    if len(data) > MAX_BODY:
        raise _too_large()
    try:
        asked = json.loads(data, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "malformed-json", "The body is not well-formed JSON") from None
    if not isinstance(asked, dict) or not set(asked) <= FIELDS or not all(isinstance(v, str) for v in asked.values()):
        raise _invalid(f"the body is an object of texts: {', '.join(sorted(FIELDS))}")

    of_path = (event.get("pathParameters") or {}).get("key_id")
    key_id = of_path or asked.get("key_id")
    if of_path and asked.get("key_id", of_path) != of_path:
        # IAM allowed the one of the path.
        raise _invalid("key_id is not the path's")
    if not key_id or not KEY_ID.fullmatch(key_id):
        raise _invalid("key_id: [A-Za-z0-9][A-Za-z0-9._-]{0,63}")

    if ("message" in asked) == ("digest" in asked):
        raise _invalid("either message or digest")
    if "digest" in asked:
        if "hash" in asked:
            raise _invalid("a digest has been hashed")
        payload = {"type": "digest", "digest": asked["digest"]}
    else:
        payload = {"type": "message", "message": asked["message"]}
        if "hash" in asked:
            payload["hash"] = asked["hash"]
    return key_id, {"payload": payload, **{field: asked[field] for field in ("scheme", "path") if field in asked}}


def _forward(key_id, request, request_id, context):
    url = urllib.parse.urlsplit(os.environ["STRONGROOM_URL"])
    deadline = _deadline(context)
    headers = {"content-type": "application/json", "x-request-id": request_id, "connection": "close"}
    token = _token(deadline)
    if token:
        headers["authorization"] = f"Bearer {token}"
    try:
        connection = _connection(url, deadline)
    except (OSError, ValueError) as error:
        print(json.dumps({"misconfigured": str(error)}))
        raise _unavailable(503, "The signer is not available") from None
    try:
        connection.request("POST", f"/v1/keys/{key_id}/sign", json.dumps(request), headers)
        socket = connection.sock
        answer = connection.getresponse()
        # Read in pieces: a timeout of the socket bounds one read, not all of them.
        data = b""
        # Python closes the socket with the last of them.
        while not answer.isclosed():
            socket.settimeout(_left(deadline))
            piece = answer.read1(65536)
            if not piece:
                break
            data += piece
            if len(data) > MAX_REPLY:
                raise _unavailable(502, "The signer's answer is too large")
    except TimeoutError:
        raise _too_late() from None
    except (OSError, http.client.HTTPException):
        # A certificate that does not fit is an OSError, too; what is wrong with it is nobody's business outside.
        raise _unavailable(503, "The signer is not available") from None
    finally:
        connection.close()

    media_type = answer.headers.get_content_type()
    try:
        parsed = json.loads(data)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict) or (answer.status == 200) != (media_type == "application/json"):
        raise _unavailable(502, "The signer's answer is not understood")
    if answer.status in (401, 407) or answer.status < 200 or 300 <= answer.status < 400:
        # The caller is known to IAM; it is this function that the parent does not know.
        raise _unavailable(502, "The signer does not know this front")
    reply = _reply(answer.status, parsed, media_type)
    for name in ("x-request-id", "retry-after"):
        if answer.headers.get(name):
            reply["headers"][name] = answer.headers[name]
    return reply


def _connection(url, deadline):
    if url.scheme == "https":
        context = ssl.create_default_context()
        ca = os.environ.get("STRONGROOM_CA")
        if ca:
            # The one authority, and no other that the runtime believes.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if "-----BEGIN" in ca:
                context.load_verify_locations(cadata=ca)
            else:
                context.load_verify_locations(cafile=os.path.join(os.path.dirname(os.path.abspath(__file__)), ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return http.client.HTTPSConnection(url.hostname, url.port, timeout=_left(deadline), context=context)
    if url.scheme == "http" and url.hostname in ("127.0.0.1", "localhost"):
        return http.client.HTTPConnection(url.hostname, url.port, timeout=_left(deadline))
    raise _unavailable(503, "The signer is not available")


def _token(deadline):
    secret = os.environ.get("STRONGROOM_TOKEN_SECRET")
    if not secret:
        return os.environ.get("STRONGROOM_TOKEN")
    token, until = _tokens.get(secret, (None, 0))
    if time.monotonic() < until:
        return token
    asked = urllib.request.Request(
        os.environ.get("STRONGROOM_EXTENSION", EXTENSION) + urllib.parse.quote(secret, safe=""),
        headers={"X-Aws-Parameters-Secrets-Token": os.environ.get("AWS_SESSION_TOKEN", "")},
    )
    # No proxy of the environment gets to see it.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=_left(deadline)) as answer:
            token = json.loads(answer.read(65536))["SecretString"].strip()
    except (OSError, ValueError, KeyError, AttributeError, http.client.HTTPException):
        raise _unavailable(503, "The signer's token is not available") from None
    _tokens[secret] = (token, time.monotonic() + TOKEN_LIVES)
    return token


def _deadline(context):
    seconds = float(os.environ.get("STRONGROOM_TIMEOUT", "9"))
    if context is not None and hasattr(context, "get_remaining_time_in_millis"):
        # Half a second to answer in.
        seconds = min(seconds, context.get_remaining_time_in_millis() / 1000 - 0.5)
    return time.monotonic() + seconds


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise _too_late()
    return left


def _request_id(event, context):
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    given = headers.get("x-request-id")
    if given is not None and REQUEST_ID.fullmatch(given):
        return given
    gateways = (event.get("requestContext") or {}).get("requestId")
    return gateways or getattr(context, "aws_request_id", None) or uuid.uuid4().hex


def _caller(event):
    identity = (event.get("requestContext") or {}).get("identity") or {}
    return identity.get("userArn")


def _once(pairs):
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a field stands twice")
    return dict(pairs)


def _no_constant(name):
    raise ValueError(name)


def _reply(status, body, media_type):
    headers = {"content-type": media_type, "cache-control": "no-store"}
    return {"statusCode": status, "headers": headers, "body": json.dumps(body), "isBase64Encoded": False}


def _invalid(detail):
    return Refused(422, "invalid-request", "The request is not valid", detail)


def _too_large():
    return Refused(413, "body-too-large", "The body is too large")


def _too_late():
    return Refused(504, "signer-timeout", "The signer did not answer in time")


def _unavailable(status, title):
    return Refused(status, "signer-unavailable", title)
