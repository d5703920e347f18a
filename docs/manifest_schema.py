"""Writes docs/manifest.schema.json from the structs of the manifest: ``python
docs/manifest_schema.py``."""

from __future__ import annotations

import json
from pathlib import Path

from goldenctl.sets.manifest import FORMAT_VERSION, json_schema

TARGET = Path(__file__).with_name("manifest.schema.json")


def render() -> str:
    """Return the JSON Schema (draft 2020-12) as text."""
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"goldenctl manifest, format version {FORMAT_VERSION}",
    }
    return json.dumps({**head, **json_schema()}, indent=1) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
