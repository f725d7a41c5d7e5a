"""What the schemas cannot say about deploy/kubernetes: that names meet.

    manifests.py FOLDER OUTPUT

The files of the ConfigMap are left in OUTPUT, with the certificate at tls/server.pem, for `strongroom config check`.
"""

import json
import pathlib
import sys

import yaml


def main():
    folder, output = map(pathlib.Path, sys.argv[1:])
    documents = [d for path in sorted(folder.glob("*.yaml")) for d in yaml.safe_load_all(path.read_text()) if d]
    by_kind = {document["kind"]: document for document in documents}
    require(len(by_kind) == len(documents), "one of each kind")
    pod = by_kind["Deployment"]["spec"]["template"]
    spec, labels = pod["spec"], pod["metadata"]["labels"]
    enclave, parent = (next(c for c in spec["containers"] if c["name"] == name) for name in ("enclave", "parent"))

    for kind, selector in (("Deployment", ["matchLabels"]), ("PodDisruptionBudget", ["matchLabels"]), ("Service", [])):
        found = by_kind[kind]["spec"]["selector"]
        for step in selector:
            found = found[step]
        require(found == labels, f"the selector of {kind} is not the pod's labels")
    require(by_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels, "the NetworkPolicy is for other pods")
    namespace = by_kind["Namespace"]["metadata"]["name"]
    for document in documents:
        require(document["kind"] == "Namespace" or document["metadata"]["namespace"] == namespace, f"{document['kind']}: namespace")
    require(spec["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"], "another service account")

    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    require(volumes["configuration"]["configMap"]["name"] == by_kind["ConfigMap"]["metadata"]["name"], "another ConfigMap")
    require({m["name"] for c in spec["containers"] for m in c["volumeMounts"]} == set(volumes), "volumes and mounts differ")
    require("/dev/nitro_enclaves" not in json.dumps(parent) and "aws.ec2.nitro/nitro_enclaves" not in parent["resources"]["limits"],
            "the parent has the enclave device")

    files = by_kind["ConfigMap"]["data"]
    run = json.loads(files["run-enclave.json"])
    require(enclave["resources"]["limits"]["hugepages-2Mi"] == f"{run['memory_mib']}Mi", "hugepages and memory_mib differ")
    require(run == json.loads((folder.parent / "run-enclave.json").read_text()), "run-enclave.json is not deploy/run-enclave.json")
    require(f'"vsock:{run["enclave_cid"]}:5005"' in files["strongroom.toml"], "the parent asks another CID")
    require("0.0.0.0:%d" % parent["ports"][0]["containerPort"] in files["strongroom.toml"], "the parent listens elsewhere")

    output.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        text = text.replace("/etc/strongroom-tls/tls.crt", "tls/server.pem").replace("/etc/strongroom-tls/tls.key", "tls/server.key")
        (output / name).write_text(text)
    print(f"{len(documents)} manifests, and their names meet")


def require(true, otherwise):
    if not true:
        sys.exit(f"deploy/kubernetes: {otherwise}")


if __name__ == "__main__":
    main()
