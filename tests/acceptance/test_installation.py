"""Packages that build on `libertem` are content with this distribution, and bring no other one."""

from __future__ import annotations

import re
from importlib import import_module, metadata
from pathlib import Path

import pytest

import libertem

PINNED = dict(
    re.findall(
        r"^([\w-]+)==(\S+)$",
        (Path(__file__).parent / "requirements.txt").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
)


@pytest.fixture(params=PINNED)
def package(request: pytest.FixtureRequest) -> metadata.Distribution:
    try:
        return metadata.distribution(request.param)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{request.param} is not installed: see `make acceptance`")


def test_it_is_the_version_that_was_pinned_and_imports(package: metadata.Distribution) -> None:
    name = package.metadata["Name"]
    assert package.version == PINNED[name]
    import_module(name.replace("-", "_"))


def test_its_requirement_is_met_by_this_distribution(package: metadata.Distribution) -> None:
    requirements = pytest.importorskip("packaging.requirements", reason="comes with pytest")
    parsed = [requirements.Requirement(line) for line in package.requires or []]
    needed = [requirement for requirement in parsed if requirement.name.lower() == "libertem"]
    assert needed
    assert all(libertem.__version__ in requirement.specifier for requirement in needed)


def test_nobody_else_owns_the_import_name(package: metadata.Distribution) -> None:
    owners = {
        owner.metadata["Name"]
        for owner in metadata.distributions()
        if any(file.parts[0] == "libertem" for file in owner.files or [])
    }
    # Files of an editable installation are not listed.
    assert owners <= {"libertem"}
    assert metadata.version("libertem") == libertem.__version__
