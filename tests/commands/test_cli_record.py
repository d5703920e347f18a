"""``goldenctl record``: every option, by what it leaves in the golden."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ran import Call

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.times import times_path
from goldenctl.places import short_name
from goldenctl.records.units import human_bytes, plural

PROMPT = "Hello, this is a test input"


def sublayers(path: Path) -> list[str]:
    return [short_name(name) for name in open_golden(path).sublayers]


def decoder(layers: int) -> list[str]:
    return [f"layers.{n:02}.{part}" for n in range(layers) for part in ("attention", "mlp")]


@pytest.mark.parametrize(
    ("arguments", "cases"),
    [
        ((), {"default": (PROMPT, 12)}),
        (("--prompt", "one"), {"prompt": ("one", None)}),
        (("--prompt", "a", "--prompt", "b"), {"prompt-1": ("a", 1), "prompt-2": ("b", 1)}),
        (("--token-ids", "1,2,3"), {"tokens": (None, 3)}),
        (("--random-tokens", "4", "--seed", "7"), {"random-7": (None, 4)}),
    ],
    ids=["default", "prompt", "prompts", "ids", "random"],
)
def test_inputs(
    call: Call,
    checkpoint: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
    cases: dict[str, tuple[str | None, int | None]],
) -> None:
    out = tmp_path / "g.h5"
    ran = call("record", checkpoint, out, *arguments)
    assert (ran.code, ran.err) == (0, "")
    assert f"recording {plural(len(cases), 'case')}, " in ran.out
    assert f"wrote {out}: " in ran.out
    golden = open_golden(out, kind="golden")
    assert {c["name"]: c["text"] for c in golden.recipe["cases"]} == {
        name: text for name, (text, _) in cases.items()
    }
    for name, (_, count) in cases.items():
        ids = golden.map(f"cases/{name}/token_ids")
        assert ids.ndim == 2
        assert count is None or ids.shape == (1, count)


def test_token_ids_are_those_given(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    assert call("record", checkpoint, tmp_path / "g.h5", "--token-ids", "5,9;7,0").code == 0
    ids = open_golden(tmp_path / "g.h5").map("cases/tokens/token_ids")
    assert ids.tolist() == [[5, 9], [7, 0]]


def test_prompts_file(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.txt"
    lines.write_text('{"name": "a", "prompt": "x"}\n{"name": "b", "token_ids": [1, 2]}\n')
    ran = call("record", checkpoint, tmp_path / "g.h5", "--prompts-file", lines)
    assert ran.code == 0
    names = [case["name"] for case in open_golden(tmp_path / "g.h5").recipe["cases"]]
    assert names == ["a", "b"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_dtype(call: Call, checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1,2", "--dtype", dtype).code == 0
    golden = open_golden(out)
    assert golden.recipe["dtype"] == dtype
    taps = {info.dtype for info in golden.tensors.values() if info.role in ("tap", "output")}
    assert taps == {dtype}


def test_layers(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1", "--layers", "1,3").code == 0
    kept = [name for name in sublayers(out) if name.startswith("layers.")]
    assert kept == [n for n in decoder(4) if n.startswith(("layers.01.", "layers.03."))]


@pytest.mark.parametrize(("logits", "tokens"), [("last", 1), ("all", 3), ("none", None)])
def test_logits(
    call: Call, checkpoint: Path, tmp_path: Path, logits: str, tokens: int | None
) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1,2,3", "--logits", logits).code == 0
    found = [i.shape for n, i in open_golden(out).tensors.items() if n.endswith("lm_head/output")]
    assert found == ([] if tokens is None else [(1, tokens, 512)])


@pytest.fixture
def boundaries(call: Call, checkpoint: Path, tmp_path: Path) -> GoldenFile:
    """Return what ``golden`` is, with --taps sublayer."""
    out = tmp_path / "g.h5"
    arguments = ("--random-tokens", "5", "--taps", "sublayer")
    assert call("record", checkpoint, out, *arguments).code == 0
    return open_golden(out)


def test_taps_sublayer_keeps_only_boundaries(golden: Path, boundaries: GoldenFile) -> None:
    full = open_golden(golden)
    folder = "cases/random-0/steps/00/layers/02/attention"
    assert f"{folder}/scores" in full.tensors
    assert f"{folder}/scores" not in boundaries.tensors
    assert f"{folder}/key" in boundaries.tensors
    for name, info in boundaries.tensors.items():
        assert full.info(name).digest == info.digest, name  # keeping less changes no bit


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        ((), set()),
        (("--oracle",), {"budget"}),
        (("--oracle", "budget"), {"budget"}),
        (("--oracle", "keep"), {"budget", "oracle"}),
    ],
    ids=["none", "flag", "budget", "keep"],
)
def test_oracle(
    call: Call, checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...], folders: set[str]
) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1,2", *arguments).code == 0
    parts = {part for name in open_golden(out).tensors for part in name.split("/")}
    assert parts & {"budget", "oracle"} == folders


def test_oracle_alone_may_stand_before_the_arguments(
    call: Call, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.h5"
    assert call("record", "--oracle", checkpoint, out, "--token-ids", "1,2").code == 0
    assert open_golden(out).recipe["oracle"] == "budget"
    ran = call("record", checkpoint, tmp_path / "other.h5", "--oracle", "budgte")
    assert ran.code == 2
    assert "'budgte' is not one of" in ran.line


def test_force_replaces_and_its_lack_refuses(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.h5"
    assert call("record", checkpoint, out, "--token-ids", "1").code == 0
    before = out.read_bytes()
    refused = call("record", checkpoint, out, "--token-ids", "2")
    assert refused.code == 2
    assert refused.line == (
        f"goldenctl: {out}: it exists already, and a golden is never changed; "
        "choose another name, or pass --force to replace it"
    )
    assert out.read_bytes() == before
    assert call("record", checkpoint, out, "--token-ids", "2", "--force").code == 0
    assert open_golden(out).map("cases/tokens/token_ids").tolist() == [[2]]


def test_the_forecast_counts_tensors_and_the_summary_the_file(
    call: Call, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "g.h5"
    ran = call("record", checkpoint, out, "--token-ids", "1")
    nbytes = sum(info.nbytes for info in open_golden(out).tensors.values())
    first, *_, last = ran.out.splitlines()
    assert first.endswith(f": {human_bytes(nbytes)} of tensors to {out}")
    assert f"tensors, {human_bytes(out.stat().st_size)}, in " in last


def test_threads(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    import torch

    before = torch.get_num_threads()
    try:
        out = tmp_path / "g.h5"
        assert call("record", checkpoint, out, "--token-ids", "1", "--threads", "1").code == 0
        assert open_golden(out).recipe["reference"]["threads"] == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("device", "code", "said"),
    [("cpu", 0, ""), ("tpu", 2, "'tpu' is not known"), ("cuda:99", 3, "CUDA devices")],
)
def test_device(
    call: Call, checkpoint: Path, tmp_path: Path, device: str, code: int, said: str
) -> None:
    out = tmp_path / "g.h5"
    ran = call("record", checkpoint, out, "--token-ids", "1", "--device", device)
    assert ran.code == code
    assert said in ran.err
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (["g.h5", "g.h5.times.json"] if code == 0 else [])


@pytest.mark.parametrize(
    "arguments", [(), ("--dtype", "bfloat16", "--oracle", "keep")], ids=["plain", "oracle"]
)
def test_two_recordings_are_the_same_bytes(
    call: Call, checkpoint: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Times differ, but they are beside the golden, and are lost alone."""
    paths = tmp_path / "a.h5", tmp_path / "b.h5"
    for path in paths:
        assert call("record", checkpoint, path, "--token-ids", "1,2,3", *arguments).code == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    timed = open_golden(paths[0])
    assert timed.created_utc
    assert all(info.time_ns > 0 for info in timed.sublayers.values())
    times_path(paths[0]).write_text("damaged")
    times_path(paths[1]).unlink()
    for path in paths:
        bare = open_golden(path)
        assert bare.created_utc == ""
        assert {info.time_ns for info in bare.sublayers.values()} == {0}


def test_decode_steps(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.h5"
    ran = call("record", checkpoint, out, "--token-ids", "5,9,7", "--decode", "2")
    assert (ran.code, ran.err) == (0, "")
    assert "1 case, 5 tokens" in ran.out
    golden = open_golden(out)
    assert golden.recipe["cases"] == [{"name": "tokens", "text": None, "decode": 2}]
    assert golden.map("cases/tokens/steps/02/position_ids").tolist() == [[4]]
    key = golden.info("cases/tokens/steps/02/layers/00/attention/key")
    assert key.shape == (1, 1, 2, 32)
    forced = ("--force-tokens", "8,300", "--prefill-chunk", "2", "--logits", "none")
    assert call("record", checkpoint, out, "--force", "--token-ids", "5,9,7", *forced).code == 0
    golden = open_golden(out)
    steps = [golden.map(f"cases/tokens/steps/0{n}/token_ids").tolist() for n in range(4)]
    assert steps == [[[5, 9]], [[7]], [[8]], [[300]]]


def test_generated_tokens_need_logits(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("--token-ids", "1", "--decode", "1", "--logits", "none")
    ran = call("record", checkpoint, tmp_path / "g.h5", *arguments)
    assert ran.code == 2
    assert "--decode chooses each token by the logits" in ran.err


def test_a_batch_of_prompts(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "g.h5"
    prompts = ("--prompt", "abc", "--prompt", "a", "--token-ids", "7,8")
    ran = call("record", checkpoint, out, *prompts, "--batch", "--padding", "right")
    assert (ran.code, ran.err) == (0, "")
    golden = open_golden(out)
    (case,) = golden.recipe["cases"]
    assert (case["name"], case["row_texts"]) == ("batch", ["abc", "a", None])
    mask = golden.map("cases/batch/steps/00/attention_mask")
    assert mask.sum(axis=1).tolist() == [mask.shape[1] - count for count in case["padding"]]


def test_padding_needs_a_batch(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    ran = call("record", checkpoint, tmp_path / "g.h5", "--padding", "left")
    assert ran.code == 2
    assert "--padding says where --batch pads, which was not given" in ran.err


def test_a_suite_without_a_tokenizer(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    (folder / "tokenizer.json").unlink()
    out = tmp_path / "g.h5"
    options = ("--suite", "standard", "--taps", "sublayer", "--layers", "0", "--logits", "none")
    ran = call("record", folder, out, *options)
    assert ran.code == 0
    assert "suite standard: its texts are left out: " in ran.err
    assert "tokenizer.json: there is no such file" in ran.err
    assert "recording 7 cases" in ran.out
    shown = call("inspect", out).out
    for case in open_golden(out).recipe["cases"]:
        assert case["name"] in shown
        assert case["why"][:20] in " ".join(shown.split())


def test_what_is_unusual_about_the_weights_is_said(
    call: Call, checkpoint: Path, tmp_path: Path, golden: Path, harness: Path
) -> None:
    files = pytest.importorskip("safetensors.torch")
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    path = copy / "model.safetensors"
    weights = {f"module.{name}": value.clone() for name, value in files.load_file(path).items()}
    extra = weights["module.model.norm.weight"]
    added = {
        "model.layers.1.self_attn.q_proj.bias": extra.clone(),
        "a": extra.clone(),
        "b": extra.clone(),
    }
    files.save_file({**weights, **added}, path)
    ran = call("record", copy, tmp_path / "g.h5", "--token-ids", "1")
    assert ran.code == 0
    assert ran.err.splitlines() == [
        f"{copy}: 47 tensors read by other names: module.lm_head.weight as lm_head.weight, "
        "which transformers would not find",
        f"{copy}: the model of config.json has no model.layers.1.self_attn.q_proj.bias: ignored, "
        "as transformers ignores it",
        f"{copy}: 2 tensors not read; -v names them",
    ]
    ran = call("record", copy, tmp_path / "named.h5", "--token-ids", "1", "-v")
    assert ran.err.splitlines()[-1] == f"{copy}: 2 tensors not read: a, b"
    files.save_file(weights, path)
    ran = call("replay", golden, tmp_path / "run.h5", "--model-path", copy)
    assert (ran.code, ran.err) == (0, "")
    assert call("diff", golden, tmp_path / "run.h5").code == 0


def test_the_whole_prompt_is_recorded_and_its_tokens_are_shown(
    call: Call, checkpoint: Path, tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    path = str(copy / "tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(path)
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=40)
    tokenizer.save(path)
    assert call("record", copy, tmp_path / "g.h5", "--prompt", "Hello, this is e\u0301").code == 0
    ran = call("inspect", tmp_path / "g.h5")
    lines = [line.rstrip() for line in ran.out.splitlines()]
    assert 'tokens        10: "H" "e" "ll" "o" "," " this" " is" " " "<0xC3>" "<0xA9>"' in lines
    assert 'note          its tokens decode to "Hello, this is é", not to the prompt' in lines
