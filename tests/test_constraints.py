"""constraints.txt pins everything that pip may install, on every machine that we speak of."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distributions
from itertools import product

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = (ROOT / "constraints.txt").read_text().splitlines()
PINNED = {canonicalize_name(pin.partition("==")[0]) for pin in PINS}
# Debian 12 has Python 3.11.2, for which some packages need others than for 3.11.3.
PYTHONS = ("3.11.2", "3.11.9", "3.12.3", "3.13.1")
PLATFORMS = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"))
PLATFORMS += (("darwin", "Darwin", "arm64"),)


def machines() -> Iterator[dict[str, str]]:
    """What pip asks a machine for, of each that we speak of."""
    for python, (platform, system, architecture) in product(PYTHONS, PLATFORMS):
        yield {
            "python_full_version": python,
            "python_version": ".".join(python.split(".")[:2]),
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "os_name": "posix",
            "sys_platform": platform,
            "platform_system": system,
            "platform_machine": architecture,
        }


def wanted() -> dict[str, set[str]]:
    """Direct dependencies with the extras asked of them."""
    lines = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        lines += extra
    needs = [Requirement(line) for line in lines]
    return {canonicalize_name(need.name): need.extras for need in needs}


def needs_of_installed() -> Iterator[tuple[str, str]]:
    """(package, what it needs) of every pinned package that is installed, on any machine."""
    extras = wanted()
    for distribution in distributions():
        name = canonicalize_name(distribution.metadata["Name"])
        for line in distribution.requires or [] if name in PINNED else []:
            need = Requirement(line)
            for machine, extra in product(machines(), ["", *extras.get(name, ())]):
                if need.marker is None or need.marker.evaluate({**machine, "extra": extra}):
                    yield name, canonicalize_name(need.name)


def test_every_pin_is_exact_and_of_the_public_index():
    assert [] == [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)]


def test_every_direct_dependency_is_pinned():
    assert set() == set(wanted()) - PINNED


def test_what_dependencies_need_is_pinned_on_every_machine():
    assert set() == {(name, need) for name, need in needs_of_installed() if need not in PINNED}
