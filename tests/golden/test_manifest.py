"""The manifest: round trip, layout, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from goldenctl.errors import DamagedError, UsageError
from goldenctl.golden.recipe import Recipe
from goldenctl.records.policy import Limits, Policy
from goldenctl.sets.manifest import (
    Manifest,
    Tensor,
    VersionEntry,
    dump_manifest,
    ignorable,
    parse_manifest,
)

DIGEST = "blake3:" + "0" * 64


def manifest(**changes: Any) -> Manifest:
    output = Tensor(
        name="cases/a/steps/00/embedding/output",
        dtype="float32",
        shape=(1, 2),
        dims=("batch", "token"),
        role="output",
        digest=DIGEST,
    )
    entry = VersionEntry(version=1, bytes=10, digest=DIGEST, content_digest=DIGEST)
    values: dict[str, Any] = {
        "name": "tiny",
        "version": 1,
        "versions": (entry,),
        "recipe": Recipe(dtype="float32"),
        "tolerance": Policy("default", {"float32/add": Limits(rel_l2=1e-6)}, budget=True),
        "tensors": (output,),
    }
    return Manifest(**{**values, **changes})


def undigested(data: bytes) -> Manifest:
    """Return the manifest in ``data`` without what only a file has."""
    return msgspec.structs.replace(parse_manifest(data), digest="")


def test_round_trip_keeps_what_is_marked_ignorable() -> None:
    data = dump_manifest(manifest(), {"x-owner": "me"})
    assert undigested(data) == manifest()
    assert ignorable(data) == {"x-owner": "me"}


def test_one_line_a_tensor() -> None:
    lines = dump_manifest(manifest()).decode().splitlines()
    assert [line for line in lines if "embedding/output" in line] == [
        f'  {{"digest":"{DIGEST}","dims":["batch","token"],"dtype":"float32",'
        '"name":"cases/a/steps/00/embedding/output","role":"output","shape":[1,2]}'
    ]


def changed(path: str, value: object) -> bytes:
    raw: Any = json.loads(dump_manifest(manifest()))
    at = raw
    *folders, last = path.split(".")
    for key in folders:
        at = at[int(key) if key.isdigit() else key]
    at[last] = value
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("format", "other", "format is not"),
        ("format_version", 3, "format version 3, expected 2"),
        ("format_version", 10**400, "format version none"),
        ("unknown", 1, "unknown field `unknown`"),
        ("tensors.0.unknown", 1, "unknown field `unknown`"),
        ("tensors.0.name", "../../etc/passwd", "tensors"),
        ("tensors.0.name", "a//b", "tensors"),
        ("tensors.0.name", "/a", "tensors"),
        ("tensors.0.shape", [1, 1 << 60], "tensors"),
        ("tensors.0.shape", [1] * 9, "tensors"),
        ("tensors.0.shape", [1], "dims and shape"),
        ("tensors.0.digest", "md5:0", "tensors"),
        ("tensors.0.digest", "xxh3:" + "0" * 32, "'xxh3'.*; goldenctl of an unknown version"),
        ("tensors.0.dtype", "object", "tensors"),
        ("name", "../x", "name"),
        ("version", 2, "v2 is not in them"),
        ("versions", [], "v1 is not in them"),
        ("tolerance.table", {"*/*": {"rel_l2": -1.0}}, "not a finite number"),
        ("tolerance.table", {"*/*": {"rel_l2": 1.0}}, "damaged, or edited"),
        ("digest", DIGEST, "damaged, or edited"),
        ("digest", 3, "not a manifest"),
    ],
)
def test_what_is_refused(path: str, value: object, said: str) -> None:
    with pytest.raises(DamagedError, match=said) as caught:
        parse_manifest(changed(path, value), "m.json")
    assert str(caught.value).startswith("m.json: ")


def test_ignorable_keys_are_allowed_anywhere() -> None:
    assert undigested(changed("tensors.0.x-note", [1])) == manifest()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"format": "goldenctl-manifest", "format": 1}',
        b'{"format": "goldenctl-manifest", "format_version": 1, "recipe": ' + b"[" * 100_000,
        b'{"format": "goldenctl-manifest", "format_version": 1, "recipe": '
        + b"[" * 50 + b"]" * 50 + b"}",
        b'{"format": "goldenctl-manifest", "format_version": 1, "version": ' + b"9" * 9999 + b"}",
    ],
    ids=["empty", "array", "not-utf8", "twice", "endless", "deep", "huge-number"],
)  # fmt: skip
def test_what_is_not_a_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        parse_manifest(data)


def test_infinite_limits_are_refused() -> None:
    data = changed("tolerance.table", {"*/*": {"rel_l2": 12345.0}}).replace(b"12345.0", b"1e999")
    with pytest.raises(DamagedError, match="not a finite number"):
        parse_manifest(data)


def test_a_manifest_that_nobody_could_read_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("goldenctl.sets.manifest.LIMIT_BYTES", 100)
    with pytest.raises(UsageError, match=r"tiny: its manifest would have .* bytes for 1 tensors"):
        dump_manifest(manifest())
