"""A program on a newer InfiniCore (a stand-in) is traced by a shim that its headers made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install
from goldenctl.trace.build import build_shim
from goldenctl.trace.calls import Call, Calls, read_calls
from goldenctl.trace.launch import Launch, launch
from tests.trace.conftest import HERE
from tests.trace.stand_in import write_install


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    folder = tmp_path_factory.mktemp("newer")
    return traced(write_install(folder / "install", newer=True), folder, "newer.cpp")


def traced(install: Install, folder: Path, source: str) -> Calls:
    program, lib = folder / "program", install.root / "lib"
    words = [compiler(), "-std=c++17", str(HERE / source), "-o", str(program)]
    words += [f"-I{install.include}", f"-L{lib}", f"-Wl,-rpath,{lib}", "-linfiniop"]
    subprocess.run(words, check=True)
    logs = folder / "logs"
    logs.mkdir()
    ending = launch(Launch([str(program)], build_shim(install), logs))
    assert ending.status == 0
    return read_calls(ending.logs[0])


def call(calls: Calls, op: str) -> Call:
    return next(each for each in calls.calls if each.op == op)


def test_each_call_is_there_in_order(calls: Calls) -> None:
    ops = ["AddRMSNorm", "PagedCaching", "Twist", "Topksoftmax", "Pad"]
    assert [each.op for each in calls.calls] == ops


def test_a_fused_norm_has_both_of_its_outputs(calls: Calls) -> None:
    norm = call(calls, "AddRMSNorm")
    assert norm.scalars == {"epsilon": 1e-6}
    assert [a.name for a in norm.args if a.io == "out"] == ["y", "residual_out"]
    assert calls.after(norm.args[0])[0, 0] == 1.0


def test_a_cache_write_shows_the_cache_before_and_after(calls: Calls) -> None:
    k_cache, _, k, _, slots = call(calls, "PagedCaching").args
    assert (calls.before(k_cache)[0, 0], calls.after(k_cache)[0, 0]) == (0.0, 1.0)
    np.testing.assert_array_equal(calls.before(slots), [4, 5])
    assert calls.before(k).shape == (2, 3)


def test_enumerators_have_their_names_and_texts_are_texts(calls: Calls) -> None:
    assert call(calls, "Twist").scalars == {"twist": "INFINIOP_TWIST_HALVES"}
    assert call(calls, "Pad").scalars == {"mode": "reflect", "value": 0.5}


def test_outputs_without_a_descriptor_have_the_shape_of_the_table(calls: Calls) -> None:
    top = call(calls, "Topksoftmax")
    assert top.scalars == {"topk": 2, "norm": 1}
    values, indices, _ = top.args
    assert (values.shape, values.dtype) == ((2, 2), "float32")
    np.testing.assert_array_equal(calls.after(indices), [[0, 1], [2, 0]])


def test_what_was_not_followed_is_noted_once(calls: Calls) -> None:
    notes = [(note.function, note.text) for note in calls.notes]
    assert notes == [
        ("", "infiniopByValue: its declaration is not understood, its calls are not seen"),
        ("infiniopPad", "not followed: pad"),
        ("infiniopSetSpeed", "it is not understood and was passed through"),
    ]


def test_views_of_a_devices_memory_come_to_the_host(tmp_path: Path) -> None:
    install = write_install(tmp_path / "install", newer=False, accelerator=True)
    calls = traced(install, tmp_path, "device.cpp")
    (launched,) = calls.calls
    assert (launched.device, launched.device_id) == ("nvidia", 1)
    memory = np.arange(20000, dtype=np.float32)
    c, a, b = launched.args
    view = np.lib.stride_tricks.as_strided
    np.testing.assert_array_equal(calls.before(a), view(memory, (3, 2, 4), (16, 48, 4)))
    np.testing.assert_array_equal(calls.before(b), view(memory[1000:], (3, 2, 4), (20000, 256, 8)))
    written = memory[100:124].reshape(3, 2, 4).copy()
    written[0, 0, 0] = 1
    np.testing.assert_array_equal(calls.after(c), written)
