"""Brings the pages of the repository's root into the site that ``make docs`` builds."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "zh-CN.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
}
_LINK = re.compile(r"(?<=\]\()(?!https?:)([^)#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages, with the links that they have from here."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_LINK.sub(_inside, text)))
    return files


def _inside(link: re.Match[str]) -> str:
    """``docs/x.md`` is ``x.md`` here."""
    return PAGES.get(link[0], link[0].removeprefix("docs/"))
