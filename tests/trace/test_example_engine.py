"""The example engine against transformers' own models, and its mistakes against itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from example_engine import MISTAKES, SOURCES, TOKENS, Printed, built, ran, words
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from goldenctl.infini.find import Install
from goldenctl.model.synth import synth

DECODE = 4
# Twice the largest difference that was seen, of logits up to 10.
FLOAT32_DIFFERENCE = 1e-4


@pytest.fixture(scope="module")
def engine(infini_install: Install) -> Path:
    return built(infini_install)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("models")

    def made(preset: str) -> Path:
        return folder / preset if (folder / preset).exists() else synth(preset, folder / preset)

    return made


def expected(model: Path) -> tuple[list[int], list[torch.Tensor]]:
    """Return transformers' greedy tokens, and the logits ``[V]`` that each was picked from."""
    outside = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    found = outside.generate(
        torch.tensor([TOKENS]),
        max_new_tokens=DECODE + 1,
        do_sample=False,
        eos_token_id=None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return found.sequences[0, len(TOKENS) :].tolist(), [step[0] for step in found.logits]


def assert_equal(printed: Printed, tokens: list[int], logits: list[torch.Tensor]) -> None:
    assert printed.tokens == tokens
    for step, best in zip(logits, printed.logits, strict=True):
        assert len(best) == 5
        for token, value in best.items():
            assert abs(step[token].item() - value) <= FLOAT32_DIFFERENCE


@pytest.mark.parametrize("preset", ["tiny", "qwen2-tiny", "llama-tiny"])
def test_tokens_and_logits_are_those_of_transformers(
    preset: str, engine: Path, model: Callable[[str], Path]
) -> None:
    tokens, logits = expected(model(preset))
    for options in ((), ("--chunk", "5")):
        float32 = ("--dtype", "fp32", "--decode", str(DECODE))
        assert_equal(ran(engine, model(preset), *float32, *options), tokens, logits)


def test_shards_are_read_as_one_checkpoint(
    tmp_path: Path, engine: Path, model: Callable[[str], Path]
) -> None:
    tensors = load_file(model("tiny") / "model.safetensors")
    where = {name: f"part-{n % 2}.safetensors" for n, name in enumerate(tensors)}
    for part in set(where.values()):
        save_file({n: t for n, t in tensors.items() if where[n] == part}, tmp_path / part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (tmp_path / "config.json").write_bytes((model("tiny") / "config.json").read_bytes())
    assert ran(engine, tmp_path) == ran(engine, model("tiny"))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_forced_tokens_are_what_decode_is_given(
    dtype: str, engine: Path, model: Callable[[str], Path]
) -> None:
    free = ran(engine, model("tiny"), "--dtype", dtype, "--decode", "2")
    forced = ran(engine, model("tiny"), "--dtype", dtype, "--decode", "2", "--force", "5,7")
    own = ",".join(map(str, free.tokens))
    assert ran(engine, model("tiny"), "--dtype", dtype, "--decode", "2", "--force", own) == free
    assert forced.logits[0] == free.logits[0]
    assert forced.logits[1] != free.logits[1]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_changes_the_numbers(
    mistake: str, engine: Path, model: Callable[[str], Path]
) -> None:
    preset = "qwen2-tiny" if mistake in ("no_bias", "tied_head_ignored") else "tiny"
    options = ("--decode", "2", "--force", "7,9")
    wrong = ran(engine, model(preset), *options, "--mistake", mistake)
    assert wrong.logits != ran(engine, model(preset), *options).logits


def test_a_mistake_can_be_built_in(
    infini_install: Install, engine: Path, model: Callable[[str], Path]
) -> None:
    fixed = ran(built(infini_install, "theta"), model("tiny"))
    assert fixed == ran(engine, model("tiny"), "--mistake", "theta")


def test_its_page_lists_every_mistake() -> None:
    page = (SOURCES / "README.md").read_text()
    assert [f"| `{name}` | {meaning} |" for name, meaning in MISTAKES.items()] == [
        line for line in page.splitlines() if line.startswith("| `") and "." not in line[:14]
    ]


@pytest.mark.parametrize(
    ("options", "exit_code", "said"),
    [
        (("--decode", "9999"), 1, "engine: the model has 512 positions, 10015 are asked for\n"),
        (("--device", "abacus"), 1, "engine: unknown device abacus\n"),
        (("--mistake", "typo"), 1, "engine: unknown mistake typo\n"),
        (("--force", "5,x"), 1, "engine: 'x' is not a number from 0 on\n"),
        (("--nothing",), 2, "unexpected '--nothing'\n"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_use_is_said_in_a_line(
    options: tuple[str, ...],
    exit_code: int,
    said: str,
    engine: Path,
    model: Callable[[str], Path],
) -> None:
    command = [engine, *words(model("tiny"), *options)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.startswith(said)
