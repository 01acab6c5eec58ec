"""Checks of the image's recipe: hadolint's, and what hadolint can't know."""

import json
import re
import shutil
import subprocess
import tomllib

SECRET = re.compile(r"(?i)(password|secret|token|private|credential|api_?key)")


def check(root, deploy, skipped):
    """Findings in Containerfile."""
    file = deploy / "Containerfile"
    found = list(hadolint(file, skipped))
    stages = [[]]
    for word, rest in instructions(file.read_text()):
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    last = dict(stages[-1])
    user = last.get("USER", "")
    if not re.fullmatch(r"[1-9]\d*(:[1-9]\d*)?", user):
        found.append(f"Containerfile: USER {user!r} is not a number other than root's")
    workload = (deploy / "kubernetes/base/stateful-set.yaml").read_text()
    run_as = re.search(r"runAsUser: (\d+)", workload)
    if run_as is None or run_as[1] != user.split(":")[0]:
        found.append(f"Containerfile: USER {user} is not the manifest's runAsUser")
    if last.get("STOPSIGNAL") != "SIGTERM":
        found.append("Containerfile: STOPSIGNAL SIGTERM is missing")
    if not last.get("ENTRYPOINT", "").startswith('["/usr/local/bin/vault-server"'):
        found.append("Containerfile: ENTRYPOINT is not vault-server in the form without a shell")
    copied = set()
    built = False
    for word, rest in (each for stage in stages for each in stage):
        if word == "ADD":
            found.append("Containerfile: ADD fetches and unpacks: use COPY")
        if word in ("ENV", "ARG") and SECRET.search(rest):
            found.append(f"Containerfile: {word} {rest} looks like a secret, and would stay in the image")
        if word == "FROM" and re.search(r":latest\b", rest) or word == "ARG" and ":latest" in rest:
            found.append("Containerfile: an image without a version")
        if word == "COPY" and not rest.startswith("--from"):
            copied |= set(rest.split()[:-1])
        built |= word == "RUN" and "cargo build --locked --profile production --bins" in rest
    if not built:
        found.append("Containerfile: `cargo build --locked --profile production --bins` is missing")
    members = set(tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["members"])
    for each in sorted((members | {".cargo", "Cargo.toml", "Cargo.lock"}) - copied):
        found.append(f"Containerfile: {each} is not copied, and the build needs it")
    for each in sorted(copied):
        if not (root / each).exists():
            found.append(f"Containerfile: {each} is copied and not there")
    sent = (deploy / "Containerfile.dockerignore").read_text().splitlines()
    for each in sorted(copied - {line[1:] for line in sent if line.startswith("!")}):
        found.append(f"Containerfile.dockerignore: {each} is kept from the builder")
    return found


def instructions(text):
    """(word, rest) of each instruction; lines that go on are joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", text)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            yield word.upper(), re.sub(r"\s+", " ", rest).strip()


def hadolint(file, skipped):
    """hadolint's findings."""
    if shutil.which("hadolint") is None:
        skipped.add("hadolint (could not be installed)")
        return
    command = ["hadolint", "--format", "json", "-"]
    done = subprocess.run(command, input=file.read_text(), capture_output=True, text=True, timeout=20, check=False)
    for each in json.loads(done.stdout or "[]"):
        yield f"Containerfile:{each['line']}: {each['code']} {each['message']}"
