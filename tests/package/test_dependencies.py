"""Lists of dependencies: licences in the docs, hashes for continuous integration."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from helpers.programs import load_program

ROOT = Path(__file__).parents[2]


def pinned(file: str) -> dict[str, str]:
    """Return the version of each package of a file of constraints."""
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_the_docs_list_every_required_package_with_the_licence_that_it_declares() -> None:
    generator = load_program("docs/make_dependencies.py")
    text = (ROOT / "docs" / "reference" / "dependencies.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \|$", text, flags=re.MULTILINE)
    assert {name: purposes.split(", ") for name, purposes, _ in listed} == generator.requirements()
    for name, _, licence in listed:
        assert licence != "unknown", name
        try:
            is_pinned = version(name) == pinned("constraints.txt")[name]
        except PackageNotFoundError:
            continue
        if is_pinned:
            assert licence == generator.read_licence(name)


def test_the_hashes_are_those_of_the_pinned_versions() -> None:
    hashed, plain = pinned("constraints-hashed.txt"), pinned("constraints.txt")
    common = hashed.keys() & plain.keys()
    assert {name: hashed[name] for name in common} == {name: plain[name] for name in common}
    core = [
        name
        for name, purposes in load_program("docs/make_dependencies.py").requirements().items()
        if "labbench" in purposes
    ]
    assert set(core) <= common
    text = (ROOT / "constraints-hashed.txt").read_text(encoding="utf-8")
    assert len(re.findall(r"==.+ \\\n    --hash=sha256:[0-9a-f]{64}\b", text)) == len(hashed)
