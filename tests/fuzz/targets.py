"""What is fuzzed in Python: each target takes bytes and must refuse them or be right."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integrity"))

from goldenctl.errors import DamagedError, GoldenctlError
from goldenctl.golden.file import open_golden
from goldenctl.golden.manifest import dump_manifest, parse_manifest
from goldenctl.golden.recipe_keys import read_recipe
from goldenctl.model.config import ModelConfig
from goldenctl.model.safetensors_header import parse_header

CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], None]


def manifest(data: bytes) -> None:
    """A manifest that is accepted says the same when it is written and read again."""
    try:
        parsed = parse_manifest(data, "fuzz")
    except GoldenctlError as error:
        _one_line(error)
    else:
        assert parse_manifest(dump_manifest(parsed), "fuzz") == parsed


def safetensors(data: bytes) -> None:
    """Accepted entries cover the data exactly, in order; the first 8 bytes are its length."""
    data_bytes, header = int.from_bytes(data[:8], "little"), data[8:]
    try:
        entries = parse_header(header, data_bytes, where="fuzz")
    except GoldenctlError as error:
        _one_line(error)
        return
    at = 8 + len(header)
    for name, entry in entries.items():
        assert name.isprintable()
        assert entry.offset == at
        at += entry.size_bytes
    assert at == 8 + len(header) + data_bytes


def recipe(data: bytes) -> None:
    """A recipe is refused, or its model's config is a whole one."""
    try:
        text = data.decode()
        read = read_recipe(text, Path("fuzz"))
        ModelConfig.from_dict(read["model"]["config"], where="fuzz")
    except UnicodeDecodeError:
        return
    except GoldenctlError as error:
        _one_line(error)


def golden(data: bytes) -> None:
    """A golden is refused, or every tensor of it lies in the file."""
    path = Path(tempfile.gettempdir()) / "goldenctl-fuzz.h5"
    path.write_bytes(data)
    try:
        opened = open_golden(path)
    except DamagedError as error:
        _one_line(error)
        return
    for info in opened.tensors.values():
        assert 0 <= info.offset <= len(data) - info.nbytes
        opened.map(info.name)


def _one_line(error: GoldenctlError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 20_000


TARGETS: dict[str, Target] = {
    "manifest": manifest,
    "safetensors": safetensors,
    "recipe": recipe,
    "golden": golden,
}
