"""What is fuzzed in Python: each target takes bytes and must refuse them or be right."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "integrity"))

import msgspec

from goldenctl.errors import DamagedError, GoldenctlError
from goldenctl.golden.file import open_golden
from goldenctl.golden.journal import Journal
from goldenctl.golden.times import read_times
from goldenctl.golden.untrusted_recipe import read_recipe
from goldenctl.model.recipe_config import config_from_recipe
from goldenctl.model.safetensors_header import parse_header
from goldenctl.report.json import load_report, render
from goldenctl.sets.manifest import dump_manifest, parse_manifest

CONTENT = "ab" * 32
CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], None]


def manifest(data: bytes) -> None:
    """A manifest that is accepted says the same when it is written and read again, an older one
    but for its own digest, which is of the newer form."""
    try:
        parsed = parse_manifest(data, "fuzz")
    except GoldenctlError as error:
        _one_line(error)
    else:
        again = parse_manifest(dump_manifest(parsed), "fuzz")
        assert msgspec.structs.replace(again, digest=parsed.digest) == parsed


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
        config_from_recipe(read["model"]["config"], where="fuzz")
    except UnicodeDecodeError:
        return
    except GoldenctlError as error:
        _one_line(error)


def report(data: bytes) -> None:
    """A report that is accepted says the same when it is written and read again."""
    path = _file("report.json", data)
    try:
        loaded = load_report(path)
    except GoldenctlError as error:
        _one_line(error)
    else:
        text = render(loaded)
        assert render(load_report(_file("report.json", text.encode()))) == text


def times(data: bytes) -> None:
    """Times are those of a golden's content, or none."""
    golden_path = _file("g.h5", b"")
    _file("g.h5.times.json", data)
    read = read_times(golden_path, CONTENT)
    assert read.content_digest in ("", CONTENT)


def journal(data: bytes) -> None:
    """A journal is refused, or goes on where its last whole line says."""
    path = _file("run.h5", b"")
    path.unlink()
    folder = path.with_name("run.h5.resume")
    folder.mkdir(exist_ok=True)
    (folder / "journal").write_bytes(data)
    (folder / "file").write_bytes(b"")
    try:
        with Journal(path, {}) as opened:
            assert opened.start is not None
    except GoldenctlError as error:
        _one_line(error)


def golden(data: bytes) -> None:
    """A golden is refused, or every tensor of it lies in the file."""
    path = _file("fuzz.h5", data)
    try:
        opened = open_golden(path)
    except DamagedError as error:
        _one_line(error)
        return
    for info in opened.tensors.values():
        assert 0 <= info.offset <= len(data) - info.nbytes
        opened.map(info.name)


def _file(name: str, data: bytes) -> Path:
    """Write ``data`` to a file of this process's own folder."""
    folder = Path(tempfile.gettempdir()) / f"goldenctl-fuzz-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


def _one_line(error: GoldenctlError) -> None:
    assert str(error).isprintable()
    assert len(str(error)) < 20_000


TARGETS: dict[str, Target] = {
    "manifest": manifest,
    "safetensors": safetensors,
    "recipe": recipe,
    "report": report,
    "times": times,
    "journal": journal,
    "golden": golden,
}
