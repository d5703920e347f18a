"""TOML and JSON of strangers: bounded in size, depth and time, one line where they go beyond."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl import isolate
from goldenctl.errors import DamagedError
from goldenctl.model import jsonfile
from goldenctl.model.tomlfile import LIMIT_BYTES, parse_toml, read_toml


def test_tables_come_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('a = 1\n[b.c]\nd = ["x", 2.5, true]\n[e]\nday = 2026-01-02\n')
    assert read_toml(tmp_path / "a.toml") == {
        "a": 1, "b": {"c": {"d": ["x", 2.5, True]}}, "e": {"day": "2026-01-02"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"a = ", "Invalid value"),
        (b"\xff", "it is not UTF-8 text"),
        (b"a = " + b"[" * 20_000, "it is nested too deeply"),
        (b"a = " + b"9" * 10_000, "Exceeds the limit"),
        (b"a." * 200_000 + b"a = 1", "more than 1 seconds of processor time|wants more than"),
    ],
    ids=["no value", "binary", "deep", "a giant number", "a long key"],
)
def test_what_goes_beyond_is_one_line(
    data: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolate, "CPU_LIMIT_S", 1)
    with pytest.raises(ValueError, match=said):
        parse_toml(data)


def test_a_file_that_is_too_long_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b"#" * (LIMIT_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 4194304 bytes"):
        read_toml(tmp_path / "a.toml")


def test_json_of_many_objects_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonfile, "_MOST_CONTAINERS", 10)
    with pytest.raises(DamagedError, match="x: more than 10 lists and objects"):
        jsonfile.parse_object(b'{"a": [' + b"[],{}," * 5 + b"0]}", "x")
