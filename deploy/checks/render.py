"""From files to the documents that a cluster would get: reads YAML strictly, and renders by kustomize."""

import functools
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import yaml

KUSTOMIZATION = "kustomization.yaml"


class Broken(Exception):
    """Something can't be read or rendered at all."""


class Strict(yaml.SafeLoader):
    """YAML without doubled keys: the last one would win in silence."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"doubled key {key.value!r}", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(text, name):
    """The documents of a YAML text."""
    try:
        return [document for document in yaml.load_all(text, Strict) if document is not None]
    except yaml.YAMLError as error:
        raise Broken(f"{name}: {error}") from error


def unlisted(deploy):
    """Files that no kustomization mentions, and mentions of files that are not there."""
    for kustomization in sorted((deploy / "kubernetes").rglob(KUSTOMIZATION)):
        folder = kustomization.parent
        where = folder.relative_to(deploy)
        documents = read(kustomization.read_text(), str(where))
        listed = set(documents[0].get("resources", []))
        listed |= {patch["path"] for patch in documents[0].get("patches", []) if "path" in patch}
        for file in sorted(folder.glob("*.yaml")):
            read(file.read_text(), f"{where}/{file.name}")
            if file.name != KUSTOMIZATION and file.name not in listed:
                yield f"{where}/{file.name}: is in no kustomization"
        for name in sorted(listed | set(documents[0].get("components", []))):
            if not (folder / name).exists():
                yield f"{where}/{KUSTOMIZATION}: {name} is not there"


def all_of(deploy, scratch, skipped):
    """Name to documents: the base, the authority's namespace, the overlay, and the overlay with every component."""
    tool = renderer()
    if tool is None:
        skipped.add("everything about rendered manifests (neither kubectl nor kustomize is installed)")
        return {}
    source = shutil.copytree(deploy / "kubernetes", scratch / "kubernetes")
    everything = source / "overlays" / "everything"
    everything.mkdir()
    components = sorted(f"../../components/{each.name}" for each in (source / "components").iterdir())
    eks = read((source / "overlays/eks" / KUSTOMIZATION).read_text(), "overlays/eks")[0]
    components = [each for each in components if each not in eks.get("components", [])]
    text = {"namespace": "phi-vault", "resources": ["../eks"], "components": components}
    (everything / KUSTOMIZATION).write_text(yaml.safe_dump(text))
    folders = {"pki": "pki", "eks": "overlays/eks", "everything": "overlays/everything"}
    with ThreadPoolExecutor() as pool:
        return dict(zip(folders, pool.map(lambda folder: rendered(tool, source / folder), folders.values())))


@functools.cache
def renderer():
    """The command that renders, or None."""
    return next((tool for tool in (["kubectl", "kustomize"], ["kustomize", "build"]) if works(tool)), None)


def works(tool):
    """Whether it is there and does anything (a stub that only says what to install does not)."""
    if shutil.which(tool[0]) is None:
        return False
    return subprocess.run([*tool, "--help"], capture_output=True, timeout=20, check=False).returncode == 0


def rendered(tool, folder):
    """The documents of one kustomization."""
    done = subprocess.run([*tool, str(folder)], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise Broken(f"{folder.name}: {done.stderr.strip()}")
    return read(done.stdout, folder.name)


def pick(documents, kind):
    """Documents of a kind."""
    return [document for document in documents if document["kind"] == kind]


def named(documents, kind, name):
    """The document of that kind and name, or None."""
    return next((each for each in pick(documents, kind) if each["metadata"]["name"] == name), None)
