"""Asks strongroom's REST endpoint one thing over TLS, by Python's ssl module, which is OpenSSL.

Reads one JSON object from standard input: {"port", "name", "version": "TLSv1.2" | "TLSv1.3", "ca" (a file),
"certificate" (a file with certificate and key, or null), "path", "body"}. Prints what came of it:
{"version", "alpn", "status", "body"}, or {"refused": why}.
"""

import json
import socket
import ssl
import sys
from http.client import HTTPResponse

VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


def ask(question):
    context = ssl.create_default_context(cafile=question["ca"])
    context.minimum_version = context.maximum_version = VERSIONS[question["version"]]
    context.set_alpn_protocols(["http/1.1"])
    if question["certificate"] is not None:
        context.load_cert_chain(question["certificate"])
    body = json.dumps(question["body"]).encode()
    head = (
        f"POST {question['path']} HTTP/1.1\r\nhost: {question['name']}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", question["port"]), timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname=question["name"]) as stream:
            stream.sendall(head.encode() + body)
            reply = HTTPResponse(stream)
            reply.begin()
            return {
                "version": stream.version(),
                "alpn": stream.selected_alpn_protocol(),
                "status": reply.status,
                "body": json.loads(reply.read()),
            }


try:
    answer = ask(json.load(sys.stdin))
except (ssl.SSLError, ConnectionError) as error:
    answer = {"refused": str(error)}
print(json.dumps(answer))
