"""Prints a CycloneDX bill of materials of this environment: what tests or a release were made with.

Each package's hash is that of its RECORD, which lists the SHA-256 of every file that pip installed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def component(package: Distribution) -> dict[str, Any]:
    name, version = package.metadata["Name"], package.version
    record = package.read_text("RECORD")
    made: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version}",
    }
    if record:
        digest = hashlib.sha256(record.encode()).hexdigest()
        made["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return made


def main() -> None:
    packages = {each.metadata["Name"].lower(): each for each in distributions()}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [component(packages[name]) for name in sorted(packages)],
    }
    sys.stdout.write(json.dumps(bill, indent=1) + "\n")


if __name__ == "__main__":
    main()
