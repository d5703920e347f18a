"""Where a test's golden tensors are: one file for each test, beside its module."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FOLDER = "goldens"
_LONGEST = 100
_PLAIN = re.compile(rf"[A-Za-z0-9_][][A-Za-z0-9_.,=+-]{{0,{_LONGEST}}}")
_ODD = re.compile(r"[^][A-Za-z0-9_.,=+-]+")


def golden_path(item: pytest.Item, config: pytest.Config) -> Path:
    """Return the path without suffix: ``<tests>/goldens/test_module/TestClass.test[a-b]``.

    With ``golden_dir`` it is in that folder, by the module's own path from the root.
    """
    module: Path = item.path.with_suffix("")
    _, _, name = item.nodeid.partition("::")
    file = file_name(name or item.name)
    shared = config.getini("golden_dir")
    if not shared:
        return module.parent / FOLDER / module.name / file
    root: Path = config.rootpath
    inside = module.relative_to(root) if module.is_relative_to(root) else Path(module.name)
    return root / str(shared) / inside / file


def file_name(test: str) -> str:
    """Return a file name for ``TestClass::test[a/b]``: the test's own where that can be one,
    else with a digest after it that tells apart what would be one name."""
    from goldenctl.digests import SHA256, hex_of, of_text

    dotted = test.replace("::", ".")
    if _PLAIN.fullmatch(dotted):
        return dotted
    readable = _ODD.sub("-", dotted)[:_LONGEST].rstrip(".-")
    return f"{readable}-{hex_of(of_text(test, SHA256))[:8]}"
