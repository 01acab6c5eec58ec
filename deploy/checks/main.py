"""Runs all checks over deploy/, and with --self-test over broken copies of it."""

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

import breaks
import container
import manifests
import render
import settings

ROOT = Path(__file__).resolve().parents[2]


def of_manifests(deploy, skipped):
    """Findings in the manifests and the configuration in them; what can't be read or rendered at all is one, too."""
    try:
        found = list(render.unlisted(deploy))
        with tempfile.TemporaryDirectory() as scratch:
            rendered = render.all_of(deploy, Path(scratch), skipped)
        for name, documents in rendered.items():
            found += [f"{name}: {text}" for text in manifests.check(name, documents, deploy, skipped)]
        if rendered:
            found += settings.check(ROOT, deploy, rendered, skipped)
        return found
    except render.Broken as broken:
        return [str(broken)]


def of_container(deploy, skipped):
    """Findings in the image's recipe."""
    return container.check(ROOT, deploy, skipped)


def self_test(skipped):
    """How many broken copies were tried, and those that passed."""
    there = {
        "nothing": True,
        "kustomize": render.renderer() is not None,
        "schemas": render.renderer() is not None and importlib.util.find_spec("kubernetes_validate") is not None,
        "vault-server": render.renderer() is not None and settings.server(ROOT, set()) is not None,
    }
    missed = []
    trying = [broken for broken in breaks.ALL if there[broken.needs]]
    if len(trying) < len(breaks.ALL):
        skipped.add(f"{len(breaks.ALL) - len(trying)} of the self-test's breaks (their tools are not there)")
    for broken in trying:
        look = of_container if broken.file == "Containerfile" else of_manifests
        with tempfile.TemporaryDirectory() as scratch:
            found = look(broken.apply(ROOT / "deploy", Path(scratch)), skipped)
        if not any(broken.expected in text for text in found):
            missed.append(f"{broken.name}: expected {broken.expected!r}, found {found}")
    return len(trying), missed


def main():
    parser = argparse.ArgumentParser(prog="deploy/lint", description=__doc__)
    parser.add_argument("--self-test", action="store_true", help="also break copies on purpose")
    options = parser.parse_args()
    begun = time.monotonic()
    skipped = set()
    found = of_manifests(ROOT / "deploy", skipped) + of_container(ROOT / "deploy", skipped)
    for text in found:
        print(f"finding: {text}")
    missed = []
    if options.self_test:
        tried, missed = self_test(skipped)
        for text in missed:
            print(f"not found: {text}")
        print(f"self-test: {tried - len(missed)} of {tried} breaks found")
    for text in sorted(skipped):
        print(f"skipped: {text}")
    verdict = f"{len(found)} findings" if found else "good"
    print(f"deploy/lint: {verdict} ({time.monotonic() - begun:.1f} s)")
    return 1 if found or missed else 0


if __name__ == "__main__":
    sys.exit(main())
