"""Holds an OpenAPI document to its standard, and real replies to the document.

Reads {"document": {...}, "replies": [{"method", "path", "status", "media_type", "body"}]} from standard
input, where "path" is a path of the document, and prints one line per complaint.
"""

import json
import sys

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator


def main():
    given = json.load(sys.stdin)
    document = given["document"]
    for error in OpenAPIV31SpecValidator(document).iter_errors():
        print(f"not OpenAPI 3.1: {error.message}")
    for reply in given["replies"]:
        for complaint in complaints(document, reply):
            print(f"{reply['method']} {reply['path']} {reply['status']}: {complaint}")


def complaints(document, reply):
    operation = document["paths"].get(reply["path"], {}).get(reply["method"].lower())
    if operation is None:
        return ["the operation is not documented"]
    response = operation["responses"].get(str(reply["status"]))
    if response is None:
        return ["the status is not documented"]
    if "content" not in response and not reply["media_type"]:
        return []
    content = response.get("content", {}).get(reply["media_type"])
    if content is None:
        return [f"{reply['media_type']} is not documented"]
    if "schema" not in content:
        return []
    # References in the schema start from the document's root.
    schema = {**content["schema"], "components": document["components"]}
    found = [error.message for error in OAS31Validator(schema).iter_errors(reply["body"])]
    slug = reply["body"].get("type", "").rpartition(":")[2] if reply["status"] >= 400 else ""
    if "problem" in reply["media_type"] and slug not in response["description"].split(", "):
        found.append(f"the problem {slug} is not documented")
    return found


main()
