"""Cases for InfiniCore's own infiniop-test: it reads them, passes right ones, fails wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from engine import first_case
from gguf import GGUFReader
from tester import build_tester, run_tester

from goldenctl.cli import run
from goldenctl.errors import GoldenctlError
from goldenctl.exchange.gguf import UInt64, write_gguf
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.selection import Selection
from goldenctl.infini.find import Install
from goldenctl.model.case import Case as ModelCase
from goldenctl.model.checkpoint import Checkpoint
from goldenctl.reference.record import Recording, record
from goldenctl.replay.infiniop_case import Case, find_case

pytestmark = pytest.mark.slow

Goldens = Callable[[str], GoldenFile]
TAPS = [
    ("layers/01/attention/input_layernorm", "rms_norm", 1),
    ("layers/01/attention/v_proj", "gemm", 1),
    ("layers/01/attention/q_norm", "rms_norm", 1),
    ("layers/01/attention/k_rope", "rope", 1),
    ("layers/01/attention/scores", "gemm", 2),
    ("layers/01/attention/probs", "causal_softmax", 1),
    ("layers/01/attention/context", "gemm", 2),
    ("layers/01/attention/output", "add", 1),
    ("layers/01/mlp/swiglu", "swiglu", 1),
    ("layers/01/mlp/down_proj", "gemm", 1),
    ("lm_head/output", "gemm", 1),
]


@pytest.fixture(scope="session")
def tester(infini_install: Install) -> Path:
    """Return InfiniCore's infiniop-test (about 15 s of building on the first run)."""
    return build_tester(infini_install)


def case_of(golden: GoldenFile, tap: str) -> Case:
    return find_case(golden, f"cases/{first_case(golden)}/steps/00/{tap}")


def written(case: Case, path: Path) -> Path:
    write_gguf(path, case.metadata, case.tensors)
    return path


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("tap", "op", "count"), TAPS, ids=[tap for tap, *_ in TAPS])
def test_infinicore_passes_every_op(
    golden_in: Goldens, tester: Path, tmp_path: Path, dtype: str, tap: str, op: str, count: int
) -> None:
    case = case_of(golden_in(dtype), tap)
    assert case.metadata["test.0.op_name"] == op
    ran = run_tester(tester, written(case, tmp_path / "case.gguf"), case.atol)
    assert ran.statuses == ["PASS"] * count, ran.output
    assert f"Type: {'BF16' if dtype == 'bfloat16' else 'F32'}" in ran.output


@pytest.mark.parametrize(
    ("tap", "key", "value"),
    [
        ("layers/01/attention/k_rope", "test.0.algo", 0),
        ("layers/01/attention/input_layernorm", "test.0.epsilon", 1.0),
        ("layers/01/attention/scores", "test.1.alpha", 0.25),
    ],
)
def test_infinicore_fails_a_wrong_op(
    golden_in: Goldens, tester: Path, tmp_path: Path, tap: str, key: str, value: float
) -> None:
    case = case_of(golden_in("bfloat16"), tap)
    assert type(case.metadata[key]) is type(value)
    case.metadata[key] = value
    ran = run_tester(tester, written(case, tmp_path / "case.gguf"), case.atol)
    wrong = int(key.split(".")[1])
    assert ran.statuses[wrong] == "WRONG ANSWER", ran.output
    assert ran.statuses.count("PASS") == len(ran.statuses) - 1


@pytest.fixture(scope="session")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> GoldenFile:
    """Return a golden of a padded batch of two rows that goes on for two tokens; with biases."""
    folder = tmp_path_factory.mktemp("decoded")
    assert run(["synth", "qwen2-tiny", str(folder / "model")]) == 0
    checkpoint = Checkpoint.open(folder / "model")
    case = ModelCase("a", ((0, 0, 1, 2), (3, 4, 5, 6)), decode=2, padding=(2, 0))
    recording = Recording(
        checkpoint, checkpoint.config, (case,), selection=Selection(layers=frozenset({1}))
    )
    record(recording, folder / "golden.h5")
    return open_golden(folder / "golden.h5")


@pytest.mark.parametrize("step", ["00", "02"])
@pytest.mark.parametrize("tap", ["q_proj", "k_rope", "scores", "probs", "context"])
def test_batches_padding_bias_and_the_cache(
    decoded: GoldenFile, tester: Path, tmp_path: Path, step: str, tap: str
) -> None:
    case = find_case(decoded, f"cases/a/steps/{step}/layers/01/attention/{tap}")
    ran = run_tester(tester, written(case, tmp_path / "case.gguf"), case.atol)
    assert set(ran.statuses) == {"PASS"}, ran.output
    assert len(ran.statuses) == (4 if tap in ("scores", "context") else 1)


def test_the_gguf_package_reads_a_case(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("bfloat16")
    case = case_of(golden, "layers/01/mlp/swiglu")
    reader = GGUFReader(written(case, tmp_path / "case.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    name = f"cases/{first_case(golden)}/steps/00/layers/01/mlp/swiglu"
    assert fields["goldenctl.tensor"] == name
    assert fields["goldenctl.golden_content_digest"] == golden.content_digest
    assert fields["test_count"] == 1
    assert fields["test.0.c.shape"] == [5, 160]
    assert fields["test.0.a.strides"] == [1, 160]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert set(tensors) == {f"test.0.{x}" for x in ("a", "b", "c", "ans")}
    expected = np.asarray(golden.map(name), np.float64).reshape(5, 160)
    np.testing.assert_array_equal(tensors["test.0.ans"].data, expected)
    assert tensors["test.0.a"].tensor_type.name == "BF16"


def test_integers_of_64_bits_and_empty_files(tmp_path: Path) -> None:
    write_gguf(tmp_path / "x.gguf", {"general.architecture": "x", "n": UInt64(1 << 40)}, {})
    fields = GGUFReader(tmp_path / "x.gguf").fields
    assert fields["n"].contents() == 1 << 40


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (None, "name the op of a golden with --op TENSOR"),
        ("nothing", "--op nothing is yielded by no op"),
        ("mlp/output", "--op mlp/output is ambiguous: cases/"),
        ("constants/rope_cos", "is constant, no op yields it"),
    ],
)
def test_ops_that_cannot_be(golden_in: Goldens, op: str | None, said: str) -> None:
    with pytest.raises(GoldenctlError) as caught:
        find_case(golden_in("float32"), op)
    assert said in str(caught.value)


def test_an_op_that_infiniop_test_does_not_have(golden_in: Goldens) -> None:
    with pytest.raises(GoldenctlError, match="infiniop-test has no test of embedding"):
        case_of(golden_in("float32"), "embedding/output")


def test_another_checkpoint(golden_in: Goldens, tmp_path: Path) -> None:
    golden = golden_in("float32")
    assert run(["synth", "tiny", str(tmp_path / "other"), "--seed", "9"]) == 0
    name = f"cases/{first_case(golden)}/steps/00/layers/01/mlp/swiglu"
    with pytest.raises(GoldenctlError, match="not the checkpoint"):
        find_case(golden, name, model_path=tmp_path / "other")
