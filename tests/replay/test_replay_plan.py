"""Plans of every family: in bounds, and the same arithmetic as the recording."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from goldenctl.dtypes import DTYPES
from goldenctl.errors import UsageError
from goldenctl.families import PRESETS
from goldenctl.golden.file import open_golden
from goldenctl.ops.plan import Plan, View, contiguous, read_plan, write_plan
from goldenctl.replay import launch as launch_module
from goldenctl.replay.backend import Backend, parse_device
from goldenctl.replay.options import Options
from goldenctl.replay.run import replay
from goldenctl.replay.supervise import Execution, Outcome

FAMILIES = [name for name in PRESETS if "tiny" in name]
NONE = Backend("none", ("none",), {"name": "none"})
INT_BYTES = {"int32": 4, "int64": 8}


def item_bytes(dtype: str) -> int:
    return INT_BYTES[dtype] if dtype in INT_BYTES else DTYPES[dtype].itemsize


def planned(
    golden: Path, out: Path, monkeypatch: pytest.MonkeyPatch, options: Options
) -> tuple[Plan, dict[str, int]]:
    """Return the plan of a replay and the sizes of its files while it ran."""
    seen: list[tuple[Plan, dict[str, int]]] = []

    def execute(_command: Any, plan: Plan, **_: Any) -> Execution:
        sizes = {file.path: Path(file.path).stat().st_size for file in plan.files}
        seen.append((plan, sizes))
        return Execution("none", [], [Outcome() for _ in plan.sublayers])

    monkeypatch.setattr(launch_module, "execute", execute)
    source = open_golden(golden)
    replay(source, Path(source.recipe["model"]["path"]), out, backend=NONE, options=options)
    return seen[0]


def reach(view: View) -> tuple[int, int]:
    """Return the first and the last element that a view touches."""
    spans = [(size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True)]
    low = view.offset + sum(min(span, 0) for span in spans)
    return low, view.offset + sum(max(span, 0) for span in spans)


@pytest.mark.parametrize("mode", ["sublayer", "op", "chain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_everything_lies_inside(
    family: str,
    mode: str,
    golden_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    golden = golden_of(family)
    plan, sizes = planned(golden, tmp_path / "r.h5", monkeypatch, Options(mode=mode))
    assert len(plan.sublayers) == 11
    assert [file.bytes for file in plan.files] == list(sizes.values())
    assert [file.write for file in plan.files] == [False, True] + [False] * (len(sizes) - 2)
    stored: list[tuple[int, int]] = []
    for sublayer in plan.sublayers:
        for tensor in sublayer.tensors:
            elements = math.prod(tensor.shape)
            if tensor.load is not None:
                file = plan.files[tensor.load.file]
                end = tensor.load.offset + elements * item_bytes(tensor.load.dtype)
                assert 0 <= tensor.load.offset < end <= file.bytes
            if tensor.store is not None:
                assert plan.files[tensor.store.file].write
                end = tensor.store.offset + elements * item_bytes(tensor.dtype)
                assert end <= plan.files[tensor.store.file].bytes
                stored.append((tensor.store.offset, end))
        for op in sublayer.ops:
            for view in (op.out, *op.args):
                low, high = reach(view)
                assert 0 <= low <= high < math.prod(sublayer.tensors[view.tensor].shape), op
            assert 0 not in op.out.strides
        written = {op.tap: {} for op in sublayer.ops}
        for op in sublayer.ops:  # a launch may write a part, the same as one before or another
            written[op.tap][op.out.offset] = math.prod(op.out.shape)
        for op in sublayer.ops:
            whole = math.prod(sublayer.tensors[op.out.tensor].shape)
            assert sum(written[op.tap].values()) == whole
    stored.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(stored))
    tensors = open_golden(tmp_path / "r.h5").tensors
    assert len(stored) == len(tensors)


def test_modes_load_from_where_they_should(
    golden_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_run(mode: str) -> int:
        plan, _ = planned(golden_of(), tmp_path / "r.h5", monkeypatch, Options(mode=mode))
        assert plan.stop_on_failure is (mode == "chain")
        tensors = [t for s in plan.sublayers for t in s.tensors if t.load is not None]
        return sum(tensor.load is not None and tensor.load.file == 1 for tensor in tensors)

    assert {mode: from_run(mode) for mode in ("sublayer", "op", "chain")} == {
        "sublayer": 0,
        "op": 0,
        "chain": 10,  # each sublayer but the first
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "olmo2-tiny"])
def test_torch_backend_reproduces_the_golden(
    family: str,
    dtype: str,
    golden_of: Callable[..., Path],
    tmp_path: Path,
    torch_here: None,
) -> None:
    """Bit for bit, run in this process; the commands' tests run the program.

    But for OLMo2, whose tables are float32 in every model: a plan's are in the type of the replay.
    """
    source = open_golden(golden_of(family, dtype))
    folder = Path(source.recipe["model"]["path"])
    for mode in ("sublayer", "chain"):
        out = tmp_path / f"{mode}.h5"
        replay(source, folder, out, backend=NONE, options=Options(mode=mode))
        for name, info in open_golden(out).tensors.items():
            assert info.digest == source.info(name).digest, name


def test_plan_survives_json(
    golden_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = planned(golden_of("qwen2-tiny"), tmp_path / "r.h5", monkeypatch, Options(repeat=3))
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    assert plan.repeat == 3


def test_op_mode_needs_every_tap(golden_of: Callable[..., Path], tmp_path: Path) -> None:
    from goldenctl.cli import run

    checkpoint = golden_of().with_name("tiny")
    small = tmp_path / "g.h5"
    arguments = ["record", str(checkpoint), str(small), "--token-ids", "1", "--taps", "sublayer"]
    assert run(arguments) == 0
    with pytest.raises(UsageError, match="was not recorded, the inputs of every op are needed"):
        replay(
            open_golden(small),
            checkpoint,
            tmp_path / "r.h5",
            backend=NONE,
            options=Options(mode="op"),
        )
    assert {path.name for path in tmp_path.iterdir()} == {"g.h5", "g.h5.times.json"}


def test_one_bit_of_a_weight_is_another_checkpoint(
    golden_of: Callable[..., Path], tmp_path: Path
) -> None:
    from goldenctl.errors import DamagedError

    golden = open_golden(golden_of())
    other = tmp_path / "other"
    shutil.copytree(golden.recipe["model"]["path"], other)
    weights = other / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DamagedError, match="not the checkpoint that"):
        replay(golden, other, tmp_path / "r.h5", backend=NONE, options=Options())


VIEW = View(0, 0, (2, 3, 4), (12, 4, 1))


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (VIEW.reshape(6, 4), View(0, 0, (6, 4), (4, 1))),
        (VIEW.permute(2, 0, 1), View(0, 0, (4, 2, 3), (1, 12, 4))),
        (VIEW.expand(1, 5), View(0, 0, (2, 5, 3, 4), (12, 0, 4, 1))),
        (VIEW.take(1, 2), View(0, 8, (2, 4), (12, 1))),
        (VIEW.split(2, 2), View(0, 0, (2, 3, 2, 2), (12, 4, 2, 1))),
        (VIEW.tail(1, 2), View(0, 4, (2, 2, 4), (12, 4, 1))),
    ],
    ids=["reshape", "permute", "expand", "take", "split", "tail"],
)
def test_view(view: View, expected: View) -> None:
    assert view == expected


def test_contiguous() -> None:
    assert contiguous((2, 3, 4)) == (12, 4, 1)
    assert contiguous(()) == ()


@pytest.mark.parametrize(
    ("text", "device"),
    [("cpu", ("cpu", 0)), ("nvidia:1", ("nvidia", 1)), ("cuda:2", ("nvidia", 2))],
)
def test_parse_device(text: str, device: tuple[str, int]) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize("text", ["", "tpu", "cpu:", "cpu:-1", "cpu:²", "cpu:99999", "cpu:1:2"])
def test_parse_device_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="is not known; use one of cpu, nvidia"):
        parse_device(text)
