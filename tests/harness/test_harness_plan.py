"""Invalid plans: each is refused with one clear line before anything runs."""

from __future__ import annotations

import copy
import json
import os
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_plans import Plan, run_plan

Document = dict[str, Any]


def base(tmp_path: Path) -> Document:
    """Return a valid plan with a gemm, an add and a rope."""
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    layer.load("a", np.ones((2, 4), np.float32))
    layer.load("b", np.ones((4, 6), np.float32))
    layer.store("c", [2, 6])
    layer.op("gemm", "c", "a", "b", alpha=1, beta=0)
    layer.load("x", np.ones((2, 1, 4), np.float32))
    layer.load("positions", np.zeros(2, np.int32))
    layer.load("table", np.ones((3, 2), np.float32))
    layer.store("y", [2, 1, 4])
    layer.op("rope", "y", "x", "positions", "table", "table", algo="neox")
    layer.parts("p", [6], {0: np.ones(3, np.float32), 4: np.ones(2, np.float16)})
    return plan.document()


def at(path: str, value: object) -> Callable[[Document], None]:
    """Return a change that sets the place ``path`` (keys and indices, by dots) to ``value``."""

    def change(document: Document) -> None:
        *parents, last = path.split(".")
        place: Any = document
        for key in parents:
            place = place[int(key) if key.isdigit() else key]
        if value is None:
            del place[last]
        else:
            place[int(last) if last.isdigit() else last] = value

    return change


S, GEMM, ROPE = "sublayers.0", "sublayers.0.ops.0", "sublayers.0.ops.1"
PARTS = "sublayers.0.tensors.7.parts"
BIG = 2**62
INVALID = [
    ("protocol", at("protocol", 2), "plan.protocol: 2 is not within 1 .. 1"),
    ("no protocol", at("protocol", None), 'plan: lacks "protocol"'),
    ("unknown key", at("colour", "red"), 'plan: unknown key "colour"'),
    ("dtype", at("dtype", "float64"), "plan: dtype: expected float32, bfloat16 or float16"),
    ("dtype name", at("dtype", "fp8"), 'plan.dtype: "fp8" is none of float16, bfloat16'),
    ("repeat", at("repeat", 0), "plan.repeat: 0 is not within 1 .."),
    ("boolean", at("stop_on_failure", 1), "plan.stop_on_failure: expected true or false"),
    ("device_id", at("device_id", 1.5), "plan.device_id: expected an integer"),
    ("files", at("files", {}), "plan.files: expected [ at byte"),
    ("path", at("files.0.path", "/nowhere/x"), "cannot be opened: No such file"),
    ("nul", at("files.0.path", "/a\0b"), "printable ASCII without escapes"),
    ("nul byte", at("files.0.path", "/a%00b"), "not a file name"),
    ("folder", at("files.0.path", "/"), "not a regular file"),
    ("device", at("files.0.path", "/dev/zero"), "not a regular file"),
    ("file size", at("files.0.bytes", 500), "expected 500 bytes, got"),
    ("file key", at("files.0.mode", 1), 'files[0]: unknown key "mode"'),
    ("sublayer key", at(f"{S}.kind", 1), 'sublayers[0]: unknown key "kind"'),
    (
        "tensor dtype",
        at(f"{S}.tensors.0.dtype", "bfloat16"),
        "tensors[0]: expected float32 or int32",
    ),
    ("zero", at(f"{S}.tensors.0.shape", [0, 4]), "shape[0]: 0 is not within 1 .."),
    ("negative", at(f"{S}.tensors.0.shape", [-2, 4]), "-2 is not within 1 .."),
    ("huge", at(f"{S}.tensors.0.shape", [BIG, 4]), "is too large"),
    ("rank", at(f"{S}.tensors.0.shape", [1] * 9), "expected 1 to 8 dimensions, got [1, 1"),
    ("load file", at(f"{S}.tensors.0.load.file", 2), "there is no file 2"),
    ("load end", at(f"{S}.tensors.0.load.offset", 10**6), "are beyond the file's"),
    ("load overflow", at(f"{S}.tensors.0.load.offset", 2**63 - 1), "are beyond the file's"),
    ("load key", at(f"{S}.tensors.0.load.stride", 1), 'load: unknown key "stride"'),
    ("view key", at(f"{GEMM}.out.dtype", 1), 'out: unknown key "dtype"'),
    (
        "op algo",
        at(f"{GEMM}.algo", "neox"),
        "ops[0]: expected parameters: alpha beta got: algo alpha beta",
    ),
    ("load dtype", at(f"{S}.tensors.0.load.dtype", "int32"), "int32 cannot become float32"),
    ("store there", at(f"{S}.tensors.2.store.file", 0), "a file that is not for writing"),
    ("both", at(f"{S}.tensors.0.store", {"file": 1, "offset": 0}), "has more than one of"),
    ("parts too", at(f"{S}.tensors.0.parts", []), 'one of "load", "parts" and "store"'),
    ("part key", at(f"{PARTS}.0.stride", 1), 'parts[0]: unknown key "stride"'),
    ("part first", at(f"{PARTS}.0.first", 6), "elements 6 + 3 are beyond the tensor's 6"),
    ("part count", at(f"{PARTS}.1.count", 3), "elements 4 + 3 are beyond the tensor's 6"),
    ("part none", at(f"{PARTS}.1.count", 0), "parts[1].count: 0 is not within"),
    ("part end", at(f"{PARTS}.0.offset", 10**6), "are beyond the file's"),
    ("part dtype", at(f"{PARTS}.0.dtype", "int32"), "int32 cannot become float32"),
    ("op", at(f"{GEMM}.op", "conv"), 'ops[0].op: "conv" is none of gather, rms_norm'),
    (
        "op key",
        at(f"{GEMM}.epsilon", 1),
        "ops[0]: expected parameters: alpha beta got: alpha beta epsilon",
    ),
    ("alpha", at(f"{GEMM}.alpha", None), "ops[0]: expected parameters: alpha beta got: beta"),
    ("alpha text", at(f"{GEMM}.alpha", "1"), "ops[0].alpha: expected a number"),
    ("arity", at(f"{GEMM}.args", []), "ops[0]: expected 2 args, got 0"),
    ("tensor", at(f"{GEMM}.out.tensor", 9), "out: there is no tensor 9"),
    ("bounds", at(f"{GEMM}.out.offset", 1), 'leave tensor "c" of 12 elements'),
    ("below", at(f"{GEMM}.args.0.strides", [-4, 1]), 'leave tensor "a"'),
    ("stride", at(f"{GEMM}.args.0.strides", [BIG, 1]), 'leave tensor "a"'),
    ("overflow", at(f"{GEMM}.args.0.strides", [2**63 - 1, 2**63 - 1]), "are too large"),
    ("strides", at(f"{GEMM}.args.0.strides", [1]), "shape [2, 4] does not go with strides [1]"),
    ("out twice", at(f"{GEMM}.out.strides", [0, 1]), "writes one element twice"),
    ("inner", at(f"{GEMM}.args.1.shape", [3, 6]), "expected shape [4, 6], got [3, 6]"),
    ("algo", at(f"{ROPE}.algo", "llama"), 'algo: "llama" is none of gptj, neox'),
    ("positions", at(f"{ROPE}.args.1.tensor", 0), "expected int32, got float32"),
    ("strided ids", at(f"{ROPE}.args.1.strides", [0]), "last 1 dimensions contiguous"),
    ("sin", at(f"{ROPE}.args.2.shape", [2, 2]), "expected shape [2, 2], got [3, 2]"),
    ("table", at(f"{ROPE}.args.2.strides", [1, 2]), "last 2 dimensions contiguous"),
    ("last stride", at(f"{ROPE}.args.0.strides", [4, 4, 0]), "last 1 dimensions contiguous"),
    ("null", at(f"{S}.tensors", "x"), "tensors: expected [ at byte"),
]


@pytest.mark.parametrize(
    ("change", "message"), [row[1:] for row in INVALID], ids=[r[0] for r in INVALID]
)
def test_invalid_plan(
    tmp_path: Path, harness: Path, change: Callable[[Document], None], message: str
) -> None:
    document = copy.deepcopy(base(tmp_path))
    change(document)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    ran = run_plan(harness, tmp_path / "plan.json")
    assert ran.status == 4
    (event,) = ran.events
    assert (event["event"], event["reason"]) == ("failed", "plan")
    assert message in event["message"]
    assert len(ran.stderr.splitlines()) == 1


TEXTS = [
    ("empty", b"", "plan: expected { at byte 0"),
    ("array", b"[]", "plan: expected { at byte 0"),
    ("deep", b'{"files": ' + b"[" * 100000, "plan.files[0]: expected { at byte 11"),
    ("duplicate", b'{"protocol": 1, "protocol": 1}', 'duplicate key "protocol"'),
    ("tail", b"%s x", "text after the end"),
    ("comma", b'{"protocol": 1,}', 'expected " at byte 15'),
    ("range", b'{"protocol": 99999999999999999999}', "is not within 1 .. 1"),
    ("nan", b'{"protocol": NaN}', "expected an integer"),
    ("control", b'{"a\n": 1}', "printable ASCII"),
    ("nul", b'{"a\0": 1}', "printable ASCII"),
    ("utf-8", b'{"\xc3\xa4": 1}', "printable ASCII"),
    ("escape", b'{"\\u0061": 1}', "printable ASCII"),
    ("open", b'{"a', "printable ASCII"),
]


@pytest.mark.parametrize(("text", "message"), [row[1:] for row in TEXTS], ids=[r[0] for r in TEXTS])
def test_not_json(tmp_path: Path, harness: Path, text: bytes, message: str) -> None:
    whole = json.dumps(base(tmp_path)).encode()
    (tmp_path / "plan.json").write_bytes(text.replace(b"%s", whole))
    ran = run_plan(harness, tmp_path / "plan.json")
    assert ran.status == 4
    assert message in ran.failure["message"]


def test_paths_of_any_bytes(tmp_path: Path, harness: Path) -> None:
    """What is not printable ASCII, not even UTF-8 or a percent sign, is written as %XX."""
    folder = tmp_path / 'b\udcff ü \U0001f9ea 100%20 "\n'
    folder.mkdir()
    document = base(folder)
    for file in document["files"]:
        file["path"] = urllib.parse.quote(os.fsencode(file["path"]))
    (tmp_path / "plan.json").write_text(json.dumps(document))
    assert run_plan(harness, tmp_path / "plan.json").status == 0


def test_no_plan(tmp_path: Path, harness: Path) -> None:
    ran = run_plan(harness, tmp_path / "none.json")
    assert ran.status == 4
    assert "cannot be opened" in ran.failure["message"]
