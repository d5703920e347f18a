"""The example engine through trace and diff: the right one passes, each mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from example_engine import MISTAKES, built, words

from goldenctl.cli import run
from goldenctl.infini.find import Install
from goldenctl.model.config import preset_config
from goldenctl.model.synth import synth_config
from goldenctl.records.report import Report
from goldenctl.report.json import load_report

pytestmark = pytest.mark.slow

TOKENS = (3, 22, 41, 60, 79)
FORCED = "7,9"
ENGINE_DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Recorded:
    """A model of two layers and its golden: five tokens and two decode steps."""

    model: Path
    golden: Path
    dtype: str


@dataclass(frozen=True)
class Expect:
    """What is to be found: the culprit's place and op, how it shows, and in which steps."""

    mistake: str
    place: str
    op: str
    kind: str
    says: str
    first_step: int = 0
    preset: str = "tiny"


@pytest.fixture(scope="session")
def example(infini_install: Install) -> Path:
    return built(infini_install)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Recorded]:
    """Return a function from a preset and a dtype to its golden, recorded once."""
    folder = tmp_path_factory.mktemp("engine")

    def made(preset: str, dtype: str) -> Recorded:
        model, golden = folder / preset, folder / f"{preset}-{dtype}.h5"
        if not model.exists():
            synth_config(replace(preset_config(preset), num_hidden_layers=2), model)
        if not golden.exists():
            command = ["record", str(model), str(golden), "--dtype", dtype, "--oracle"]
            command += ["--token-ids", ",".join(map(str, TOKENS)), "--force-tokens", FORCED]
            assert run(command) == 0
        return Recorded(model, golden, dtype)

    return made


def judged(example: Path, source: Recorded, folder: Path, *options: str) -> tuple[int, Report]:
    """Trace the engine and diff: its exit code, and the report."""
    traced, report = folder / "run.h5", folder / "report.json"
    arguments = words(source.model, "--decode", "2", "--force", FORCED, *options, tokens=TOKENS)
    command = [str(example), *arguments, "--dtype", ENGINE_DTYPES[source.dtype]]
    assert run(["trace", str(source.golden), str(traced), "--", *command]) == 0
    code = run(["diff", str(source.golden), str(traced), "--json", str(report), "--quiet"])
    return code, load_report(report)


@pytest.mark.parametrize("chunks", [(), ("--chunk", "2")], ids=["whole", "chunks"])
@pytest.mark.parametrize("dtype", ENGINE_DTYPES)
@pytest.mark.parametrize("preset", ["tiny", "qwen2-tiny", "llama-tiny"])
def test_the_right_engine_passes(
    preset: str,
    dtype: str,
    chunks: tuple[str, ...],
    example: Path,
    recorded: Callable[[str, str], Recorded],
    tmp_path: Path,
) -> None:
    code, report = judged(example, recorded(preset, dtype), tmp_path, *chunks)
    assert report.trace is not None
    assert report.trace.coverage is not None
    assert report.structure == ()
    assert report.trace.coverage.found == report.trace.coverage.expected
    assert report.trace.coverage.unexplained == {}
    assert code == 0


ATTENTION, MLP = "layers.00.attention", "layers.00.mlp"
EXPECTED = [
    Expect("other_layer", "layers.01.mlp", "down_proj", "weight", "reads layer 0's weights"),
    Expect("gate_up_swapped", MLP, "swiglu", "weight", "gate_proj's bytes are used as up_proj"),
    Expect(
        "norm_weight",
        MLP,
        "post_attention_layernorm",
        "weight",
        "input_layernorm's bytes are used as post_attention_layernorm",
    ),
    Expect("no_bias", ATTENTION, "q_proj", "missing", "without its bias", preset="qwen2-tiny"),
    Expect("tied_head_ignored", "lm_head", "output", "weight", "ties it", preset="qwen2-tiny"),
    Expect("epsilon", ATTENTION, "input_layernorm", "scalar", "epsilon 1e-05, the checkpoint"),
    Expect("theta", ATTENTION, "q_rope", "tables", "theta 10,000, the model's is 1,000,000"),
    Expect("no_q_norm", ATTENTION, "q_norm", "missing", "q_norm is never called"),
    Expect("no_final_norm", "final_norm", "output", "missing", "is never called"),
    Expect("interleaved_rope", ATTENTION, "q_rope", "scalar", "pairs of neighbours"),
    Expect("rope_twice", ATTENTION, "q_rope", "doubled", "applied twice"),
    Expect("keys_before_rope", ATTENTION, "scores", "input", "k_norm in place of k_rope"),
    Expect("position_restart", ATTENTION, "q_rope", "positions", "start again at 0", 1),
    Expect("cache_one_early", ATTENTION, "scores", "cache", "slot 4 of the cache holds", 1),
    Expect("shared_cache", ATTENTION, "scores", "cache", "layers.01.attention.k_rope", 1),
    Expect("prefill_mask", ATTENTION, "scores", "mask", "see 1 of 6 keys", 1),
    Expect("no_scale", ATTENTION, "scores", "scalar", "multiplied by 1, expected 0.176777"),
    Expect("scale_by_hidden", ATTENTION, "scores", "scalar", "multiplied by 0.25"),
    Expect("head_repeat", ATTENTION, "scores", "heads", "reads key head"),
    Expect("values_from_keys", ATTENTION, "context", "input", "reads k_rope in place of v_proj"),
    Expect("residual_from_normed", ATTENTION, "output", "input", "adds input_layernorm"),
    Expect("stale_buffer", MLP, "gate_proj", "input", "reads attention.input_layernorm"),
    Expect("first_token_logits", "lm_head", "output", "input", "of token 0, expected the last"),
]


def test_every_mistake_is_expected() -> None:
    assert [expect.mistake for expect in EXPECTED] == list(MISTAKES)


@pytest.mark.parametrize("expect", EXPECTED, ids=lambda expect: expect.mistake)
def test_a_mistake_is_found_and_named(
    expect: Expect, example: Path, recorded: Callable[[str, str], Recorded], tmp_path: Path
) -> None:
    source = recorded(expect.preset, "bfloat16")
    code, report = judged(example, source, tmp_path, "--mistake", expect.mistake)
    assert code == 1
    first = report.structure[0]
    assert (first.place, first.op, first.kind) == (expect.place, expect.op, expect.kind)
    assert expect.says in first.text
    assert {finding.kind for finding in report.structure} == {expect.kind}
    assert min(int(step[-2:]) for step in first.steps) == expect.first_step
