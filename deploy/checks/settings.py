"""Checks of what is inside the ConfigMaps, and that it agrees with the manifests around it."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from render import pick

UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
# What the server does after it has drained: the last checkpoint (5), and closing the store (15).
AFTER_DRAIN = 20


def check(root, deploy, rendered, skipped):
    """Findings about vault.toml, principals.toml and the policy of the cloud."""
    documents = rendered["everything"]
    texts = {key: text for config in pick(documents, "ConfigMap") for key, text in config["data"].items()}
    found = []
    tables = {}
    for key in ("vault.toml", "principals.toml"):
        try:
            tables[key] = tomllib.loads(texts[key])
        except KeyError:
            found.append(f"no ConfigMap has {key}")
        except tomllib.TOMLDecodeError as error:
            found.append(f"{key}: {error}")
    if found:
        return found
    config, principals = tables["vault.toml"], tables["principals.toml"]
    workload = pick(documents, "StatefulSet")[0]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    found += paths(config, container, workload)
    found += numbers(config, container, workload, documents)
    found += identities(principals, rendered["pki"])
    found += policy(config, deploy)
    found += accepted(root, texts, skipped)
    return found


def paths(config, container, workload):
    """Every file that the configuration names is mounted."""
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in workload["spec"]["template"]["spec"]["volumes"]}
    named = [text for text in strings(config) if text.startswith("/")] + [
        text for text in container["args"] if text.startswith("/")
    ]
    for text in named:
        folder, _, file = text.rpartition("/")
        if folder not in mounts:
            yield f"vault.toml: nothing is mounted at {folder}, where {text} should be"
            continue
        items = volumes[mounts[folder]].get("secret", {}).get("items")
        if items is not None and file not in {item["path"] for item in items}:
            yield f"vault.toml: {text} is not among the items of volume {mounts[folder]}"
    used = {text.rpartition("/")[0] for text in named}
    yield from (f"nothing that is mounted at {folder} is used" for folder in sorted(set(mounts) - used))


def strings(value):
    """All strings of a table."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from strings(each)


def seconds(text):
    """A duration as the configuration writes it."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()
    return int(number) * UNITS[unit]


def numbers(config, container, workload, documents):
    """Ports and times agree."""
    for section, key, name in (("listen", "address", "grpc"), ("metrics", "listen", "metrics")):
        address = config.get(section, {}).get(key, "")
        port = next(port["containerPort"] for port in container["ports"] if port["name"] == name)
        if address != f"0.0.0.0:{port}":
            yield f"vault.toml: {section}.{key} is {address!r}, the container's port {name} is {port}"
    grace = workload["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
    before = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    drain = seconds(config.get("limits", {}).get("drain_timeout", "20s"))
    if grace < before + drain + AFTER_DRAIN:
        yield f"terminationGracePeriodSeconds {grace} is too short for {before} + {drain} + {AFTER_DRAIN}"
    if config["store"]["engine"] != "postgres":
        yield "vault.toml: several instances need store.engine = \"postgres\""
        return
    postgres = config["store"]["postgres"]
    if postgres.get("tls") != "verify-full":
        yield "vault.toml: store.postgres.tls must be \"verify-full\""
    if "password" in postgres or any(re.search(r"://[^/]*:[^/]*@", text) for text in strings(config)):
        yield "vault.toml: a password in the configuration"
    if "instance" in postgres:
        yield "vault.toml: one name for all instances: each would take the log from the one before it"
    variable = postgres.get("instance_env")
    pods = [each["spec"]["template"]["spec"] for each in pick(documents, "StatefulSet")]
    sets = [entry["name"] for pod in pods for box in pod["containers"] for entry in box.get("env", [])]
    if variable is not None and variable not in sets:
        yield f"vault.toml: no container sets {variable}, the instance's name"
    out = [
        port["port"]
        for policy in pick(documents, "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for port in rule["ports"]
    ]
    for host in postgres["hosts"]:
        if int(host.rpartition(":")[2]) not in out:
            yield f"no NetworkPolicy lets the vault out to {host}"


def identities(principals, pki):
    """Every principal's certificate is made by the client authority."""
    issued = {uri for certificate in pick(pki, "Certificate") for uri in certificate["spec"].get("uris", [])}
    for principal in principals["principal"]:
        for identity in principal["identities"]:
            if identity.startswith("spiffe://") and identity not in issued:
                yield f"principals.toml: {principal['id']}: no certificate in pki/ has {identity}"


def policy(config, deploy):
    """The role may use exactly the configuration's keys, for this vault only."""
    text = (deploy / "kubernetes/overlays/eks/iam-policy.json").read_text()
    arns = {key["arn"] for key in config["kms"]["key"]}
    for statement in json.loads(text)["Statement"]:
        if set(statement["Resource"]) != arns:
            yield f"iam-policy.json: {statement['Sid']}: its keys are not those of vault.toml"
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        equal = statement.get("Condition", {}).get("StringEquals", {})
        for name in ("vault", "environment"):
            wanted = config["vault"]["id" if name == "vault" else name]
            if "kms:Decrypt" in actions and equal.get(f"kms:EncryptionContext:phi-vault:{name}") != wanted:
                yield f"iam-policy.json: {statement['Sid']}: is not bound to this {name}"


def accepted(root, texts, skipped):
    """What `vault-server check` says, with files made up for the ones it reads."""
    program = server(root, skipped)
    if program is None:
        return
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        config = made_up(texts, place)
        status, said = asked(program, config)
        if status != 0:
            yield f"vault-server check: {said.replace(scratch, '')}"


def server(root, skipped):
    """The vault-server that is built, if it and what a check needs are there."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", root / "target"))
    built = [target / "debug/vault-server", target / "release/vault-server"]
    program = next((each for each in built if each.exists()), None)
    if program is None:
        skipped.add("`vault-server check` (no vault-server is built)")
    elif shutil.which("openssl") is None:
        skipped.add("`vault-server check` (no openssl to make up certificates)")
        return None
    return program


def asked(program, config):
    """Exit code and words of `vault-server check`."""
    command = [str(program), "check", "--config", str(config)]
    # As the manifest sets it.
    environment = {**os.environ, "POD_NAME": "phi-vault-0"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=environment)
    return done.returncode, (done.stdout + done.stderr).strip()


@functools.cache
def identity():
    """A certificate that is its own authority, and its key."""
    with tempfile.TemporaryDirectory() as scratch:
        certificate, key = Path(scratch, "certificate"), Path(scratch, "key")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"]
        names = ["-subj", "/CN=made-up", "-addext", "subjectAltName=DNS:phi-vault.phi-vault.svc"]
        command = ["openssl", "req", "-x509", *curve, *names, "-out", str(certificate), "-keyout", str(key)]
        subprocess.run(command, capture_output=True, timeout=20, check=True)
        return certificate.read_bytes(), key.read_bytes()


def made_up(texts, place):
    """The configuration with its files in a folder, keys and certificates made up; its path."""
    text = texts["vault.toml"].replace("/etc/phi-vault/", f"{place}/")
    for value in strings(tomllib.loads(text)):
        if value.startswith(str(place)):
            Path(value).parent.mkdir(parents=True, exist_ok=True)
            Path(value).write_text("made-up")
            Path(value).chmod(0o600)
    tls = tomllib.loads(text)["tls"]
    certificate, key = identity()
    for file, pem in ((tls["certificate"], certificate), (tls["key"], key), (tls["client_ca"], certificate)):
        Path(file).write_bytes(pem)
    database = tomllib.loads(text)["store"].get("postgres", {})
    if "ca" in database:
        shutil.copyfile(tls["client_ca"], database["ca"])
    (place / "access/principals.toml").write_text(texts["principals.toml"])
    config = place / "config/vault.toml"
    config.parent.mkdir(exist_ok=True)
    config.write_text(text)
    return config
