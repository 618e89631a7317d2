"""``python3 -m release.materials FOLDER``: print the bill of materials of a release, as CycloneDX in JSON.

It names the files of the release by their checksums, and what sgagent needs at run time by package and lowest
version. Its time is ``SOURCE_DATE_EPOCH`` and its serial number depends on the files, so that one release has
one bill.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement

from sgagent import __version__

ROOT = Path(__file__).resolve().parent.parent
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sgagent.invalid")
_OF_DEBIAN = ("nftables", "python3-nftables")
"""What the program needs that PyPI does not have."""


def bill_of_materials(files: Sequence[Path], moment: datetime) -> Bom:
    """Return the bill of the release that consists of some files."""
    program = Component(
        name="sgagent",
        version=__version__,
        type=ComponentType.APPLICATION,
        bom_ref="sgagent",
        licenses=[LicenseExpression("GPL-2.0-or-later")],
    )
    needs = [*_from_pypi(), *_from_debian()]
    parts = [_file(path) for path in sorted(files)]
    bill = Bom(components=[*needs, *parts])
    bill.metadata.component = program
    bill.metadata.timestamp = moment
    bill.metadata.tools.components.clear()
    bill.metadata.tools.tools.clear()
    identity = "\n".join([__version__, *(f"{part.name} {part.hashes[0].content}" for part in parts)])
    bill.serial_number = uuid.uuid5(_NAMESPACE, identity)
    bill.register_dependency(program, needs)
    return bill


def _from_pypi() -> Iterator[Component]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for text in project["dependencies"]:
        requirement = Requirement(text)
        url = PackageURL("pypi", name=requirement.name)
        yield _library(requirement.name, str(requirement.specifier), url)


def _from_debian() -> Iterator[Component]:
    for name in _OF_DEBIAN:
        yield _library(name, "", PackageURL("deb", "debian", name))


def _library(name: str, versions: str, url: PackageURL) -> Component:
    return Component(
        name=name,
        version=versions or None,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
    )


def _file(path: Path) -> Component:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Component(
        name=path.name,
        type=ComponentType.FILE,
        bom_ref=path.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
    )


def main(arguments: Sequence[str]) -> int:
    """Print the bill of the files in a folder."""
    parser = argparse.ArgumentParser(prog="python3 -m release.materials", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args(arguments).folder
    moment = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    bill = bill_of_materials([path for path in folder.iterdir() if path.is_file()], moment)
    print(JsonV1Dot6(bill).output_as_string(indent=2))  # noqa: T201 - a program
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
