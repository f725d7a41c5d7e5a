"""Compares deploy/cloudformation/strongroom.yaml with what it repeats: the key policies of `strongroom kms-policy generate`,
and the store permissions of deploy/iam. Resolves the template's conditions as CloudFormation does.

    template.py STRONGROOM WORK_FOLDER

The policies that the template makes are left in WORK_FOLDER and linted.
"""

import hashlib
import json
import pathlib
import subprocess
import sys

import yaml

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
ADMINISTRATOR = "arn:aws:iam::111122223333:role/key-administrator"
PARENT = "arn:aws:iam::111122223333:role/strongroom-parent"
NOTHING = object()


def main():
    strongroom, work = sys.argv[1], pathlib.Path(sys.argv[2])
    template = load(DEPLOY / "cloudformation/strongroom.yaml")
    work.mkdir(parents=True, exist_ok=True)
    images = [pcrs(work / f"pcrs-{n}.json", n) for n in "ab"]
    configurations = [configuration(work / f"enclave-{n}.json", n) for n in (3600, 60)]
    (image, next_image), (enclave, next_enclave) = images, configurations
    cases = {
        "phase-1": [],
        "one-pair": [(image, enclave)],
        "another-configuration": [(image, enclave), (image, next_enclave)],
        "another-image": [(image, enclave), (next_image, enclave)],
        "both-others": [(image, enclave), (next_image, next_enclave)],
    }
    for name, pairs in cases.items():
        for denied in ([], ["hot-1", "hot-2"]):
            compare(strongroom, work, template, name, pairs, denied)
    same_permissions(template)
    print(f"{2 * len(cases)} key policies of the template are the generator's; the store's permissions are those of deploy/iam")


def compare(strongroom, work, template, name, pairs, denied):
    keys = ("Pcr0", "Pcr16"), ("NextPcr0", "NextPcr16")
    parameters = {key: value for two, pair in zip(keys, pairs) for key, (_, value) in zip(two, pair)}
    scope = Scope(template, {"AdministratorArn": ADMINISTRATOR, "DeniedKeys": denied or [""], **parameters})
    ours = scope.resolve(template["Resources"]["Key"]["Properties"]["KeyPolicy"])
    path = work / f"policy-{name}{'-denied' if denied else ''}.json"
    path.write_text(json.dumps(ours, indent=2))

    command = [strongroom, "kms-policy", "generate", "--administrator", ADMINISTRATOR, "--user", PARENT]
    for (image, _), (enclave, _) in pairs:
        command += ["--admit", image, enclave]
    for key in denied:
        command += ["--deny-key", key]
    theirs = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    if normal(ours) != normal(theirs):
        sys.exit(f"{path}: not what the generator writes:\n{json.dumps(theirs, indent=2)}")
    subprocess.run([strongroom, "kms-policy", "lint", path], check=True, stdout=subprocess.DEVNULL)


def normal(policy):
    """Statements in any order, lists in any order, one element or a list of one; the numbers of admissions do not count."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(value[key]) for key in sorted(value)}
        if isinstance(value, list):
            return plain(value[0]) if len(value) == 1 else sorted(map(plain, value), key=json.dumps)
        return value

    statements = [{**statement, "Sid": statement["Sid"].rstrip("0123456789")} for statement in policy["Statement"]]
    return {"Version": policy["Version"], "Statement": sorted(map(plain, statements), key=json.dumps)}


def same_permissions(template):
    for resource, file in (("DynamoPolicy", "parent-dynamodb.json"), ("SecretsPolicy", "parent-secrets-manager.json")):
        def actions(document):
            return {statement["Sid"]: sorted([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
                    for statement in document["Statement"]}

        theirs = json.loads((DEPLOY / "iam" / file).read_text())
        if actions(template["Resources"][resource]["Properties"]["PolicyDocument"]) != actions(theirs):
            sys.exit(f"{resource} of the template does not permit what deploy/iam/{file} does")


class Scope:
    """The intrinsic functions that the key policy uses; others are errors."""

    def __init__(self, template, parameters):
        self.template = template
        defaults = {name: value.get("Default", "") for name, value in template["Parameters"].items()}
        self.parameters = {**defaults, **parameters}

    def resolve(self, value):
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NOTHING]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument), = value.items()
            if name == "Ref":
                return NOTHING if argument == "AWS::NoValue" else self.parameters[argument]
            if name == "Fn::If":
                condition, yes, no = argument
                return self.resolve(yes if self.holds({"Condition": condition}) else no)
            if name == "Fn::GetAtt" and argument == "ParentRole.Arn":
                return PARENT
            if name == "Fn::Join":
                separator, items = argument
                return separator.join(self.resolve(items))
            if name.startswith("Fn::"):
                raise NotImplementedError(name)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NOTHING}

    def holds(self, condition):
        (name, argument), = condition.items()
        match name:
            case "Condition":
                return self.holds(self.template["Conditions"][argument])
            case "Fn::Equals":
                left, right = map(self.resolve, argument)
                return left == right
            case "Fn::Not":
                return not self.holds(argument[0])
            case "Fn::And":
                return all(map(self.holds, argument))
        raise NotImplementedError(name)


def load(path):
    class Loader(yaml.SafeLoader):
        pass

    def tagged(loader, suffix, node):
        read = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: lambda n: loader.construct_sequence(n, deep=True),
                yaml.MappingNode: lambda n: loader.construct_mapping(n, deep=True)}[type(node)]
        return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": read(node)}

    yaml.add_multi_constructor("!", tagged, Loader)
    return yaml.load(path.read_text(), Loader)


def pcrs(path, digit):
    path.write_text(json.dumps({"PCR0": digit * 96}))
    return path, digit * 96


def configuration(path, hold):
    example = json.loads((DEPLOY.parent / "enclave.example.json").read_text())
    data = json.dumps({**example, "max_hold_seconds": hold}).encode()
    path.write_bytes(data)
    # PCR16 is extended once, from zero.
    return path, hashlib.sha384(bytes(48) + hashlib.sha384(data).digest()).hexdigest()


if __name__ == "__main__":
    main()
