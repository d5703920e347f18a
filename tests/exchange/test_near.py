"""Tensors whose names fit and whose shapes do not: the suggested map says the likely cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine import first_case
from numpy.typing import NDArray

from goldenctl.cli import run
from goldenctl.exchange.dump import read_dump
from goldenctl.exchange.suggest import listing, suggest
from goldenctl.golden.file import GoldenFile
from goldenctl.records.report import Report
from goldenctl.report.json import load_report

Goldens = Callable[[str], GoldenFile]
Array = NDArray[Any]
Q_ROPE, K_ROPE = "layers.{layer}.attention.q_rope", "layers.{layer}.attention.k_rope"
NORM, HEAD = "final_norm.output", "lm_head.output"
NAMES = {Q_ROPE: "layers.0.q_rope", K_ROPE: "layers.0.k_rope", NORM: "model.norm", HEAD: "lm_head"}
PLACES = {
    Q_ROPE: "layers/00/attention/q_rope",
    K_ROPE: "layers/00/attention/k_rope",
    NORM: "final_norm/output",
    HEAD: "lm_head/output",
}


def longer(array: Array, tokens: int, axis: int = 1) -> Array:
    """An array of so many tokens, the first ones of which are the golden's."""
    return np.take(array, np.arange(tokens) % array.shape[axis], axis=axis)


@pytest.mark.parametrize(
    ("pattern", "change", "said"),
    [
        (NORM, lambda a: longer(a, 6), "6 tokens, the golden has 5: one BOS too many?"),
        (NORM, lambda a: longer(a, 4), "4 tokens, the golden has 5: one BOS too few?"),
        (NORM, lambda a: a[:, -1:], "1 token, the golden has 5: the last token only, or a decode"),
        (NORM, lambda a: a[0, -1], "1 token, the golden has 5: the last token only"),
        (NORM, lambda a: longer(a, 8), '8 tokens, the golden has 5: padded? crop = ["token"]'),
        (NORM, lambda a: longer(a, 10), "10 tokens, the golden has 5: 2 prompts in a batch?"),
        (NORM, lambda a: longer(a, 3), "3 tokens, the golden has 5: a chunk of the prompt?"),
        (NORM, lambda a: longer(a, 7), 'crop = ["token"] keeps the first; else give the engine'),
        (Q_ROPE, lambda a: a[:, :, :2], "half of axis 2: one of 2 tensor-parallel ranks?"),
        (Q_ROPE, lambda a: a[0].reshape(5, -1)[:, :32], "a quarter of axis 1: one of 4 tensor-par"),
        (Q_ROPE, lambda a: a[0].T, 'transposed? axes = ["head_dim", "head", "token"]'),
        (Q_ROPE, lambda a: longer(a, 6).swapaxes(1, 2), "6 tokens, the golden has 5: one BOS too "),
        (K_ROPE, lambda a: np.repeat(a, 2, axis=2), "4 heads, the golden has 2: repeated for each"),
        (K_ROPE, lambda a: np.repeat(a, 2, axis=2).reshape(5, -1), "4 heads, the golden has 2"),
        (NORM, lambda a: a[0].T, 'transposed? axes = ["hidden", "token"]'),
        (NORM, lambda a: a.astype(np.int32), "is int32 [1, 5, 64]: dump it as float32, float16"),
        (NORM, lambda a: np.zeros((3, 1, 2)), "is float64 [3, 1, 2]: another shape"),
        (HEAD, lambda a: a[..., :256], "half of axis 2: one of 2 tensor-parallel ranks?"),
    ],
)
def test_the_likely_cause(
    golden_in: Goldens, tmp_path: Path, pattern: str, change: Callable[[Array], Array], said: str
) -> None:
    golden = golden_in("float32")
    array = np.array(golden.map(f"cases/{first_case(golden)}/steps/00/{PLACES[pattern]}"))
    np.savez(tmp_path / "d.npz", **{NAMES[pattern]: change(array)})
    lines = [line for line in listing(read_dump(tmp_path / "d.npz"), golden) if line[0] == "#"]
    (line,) = [line for line in lines if line.startswith(f"# {pattern} [batch 1")]
    assert said in line
    assert "'" + NAMES[pattern].replace("0", "{layer}") + "' is " in line
    assert "# No tensor fits, so the map is empty." in lines


def test_layers_that_lack_or_differ_are_left_out_by_name(
    golden_in: Goldens, tmp_path: Path
) -> None:
    golden = golden_in("float32")
    step = f"cases/{first_case(golden)}/steps/00"
    made = {
        f"layers.{n}": np.array(golden.map(f"{step}/layers/{n:02}/mlp/output")) for n in range(3)
    }
    made["layers.1"] = made["layers.1"][:, :4]
    np.savez(tmp_path / "d.npz", **made)
    dump = read_dump(tmp_path / "d.npz")
    mapping = suggest(dump, golden)
    assert [e.golden for e in mapping.tensor] == ["layers.{layer}.mlp.output"]
    assert {"layers.01.mlp.output", "layers.03.mlp.output"} <= set(mapping.not_computed)
    said = "\n".join(listing(dump, golden))
    assert "the dump has 2 of 4, not (or in another shape) layers.01.mlp.output, layers.03" in said


# --- from dump to verdict, as a user does it ---


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A golden of a prompt of six tokens and two decode steps, all logits."""
    folder = tmp_path_factory.mktemp("decoded")
    assert run(["synth", "llama-tiny", str(folder / "model")]) == 0
    words = ["record", str(folder / "model"), str(folder / "g.h5"), "--logits", "all"]
    assert run([*words, "--token-ids", "5,17,2,95,33,8", "--decode", "2"]) == 0
    return folder


def outputs(golden: GoldenFile, *, steps: int = 1) -> dict[str, Array]:
    """What an engine's hooks give of every sublayer's output, all steps one after the other."""
    places = {"model.embed_tokens": "embedding", "model.norm": "final_norm", "lm_head": "lm_head"}
    places |= {f"model.layers.{n}": f"layers/{n:02}/mlp" for n in range(4)}
    return {
        name: np.concatenate(
            [golden.map(f"cases/tokens/steps/{s:02}/{at}/output") for s in range(steps)], axis=1
        )
        for name, at in places.items()
    }


def judged(
    folder: Path, dump: Path, capsys: pytest.CaptureFixture[str], *words: str, edit: str = ""
) -> tuple[int, str, Report | None]:
    """--list, import and diff; return the last exit code and what was printed of the steps."""
    golden, made = str(folder / "g.h5"), dump.with_suffix(".run.h5")
    assert run(["import", str(dump), "--golden", golden, "--list"]) == 0
    text = capsys.readouterr().out
    path = dump.with_suffix(".toml")
    path.write_text(text.replace("[[tensor]]\n", f"[[tensor]]\n{edit}\n") if edit else text)
    words = ("import", str(dump), str(made), "--map", str(path), "--golden", golden, *words)
    code = run(list(words))
    if code:
        return code, text + capsys.readouterr().err, None
    report = dump.with_suffix(".json")
    code = run(["diff", golden, str(made), "--json", str(report)])
    return code, text + capsys.readouterr().out, load_report(report)


def test_padded_and_wrong_logits_fail(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from goldenctl.golden.file import open_golden

    made = outputs(open_golden(decoded / "g.h5"))
    made["lm_head"] = np.pad(made["lm_head"] * 1.5, ((0, 0), (0, 0), (0, 128)))
    np.savez(tmp_path / "d.npz", **made)
    code, said, report = judged(decoded, tmp_path / "d.npz", capsys, "--step", "0")
    assert code == 1
    assert 'crop = ["vocab"]' in said
    assert "# lm_head.output: vocab padded in the dump." in said
    assert report is not None
    assert [t.tap for t in report.compared if not t.ok] == ["output"]
    assert report.first_wrong is not None
    assert report.first_wrong.name.endswith("lm_head/output")


def test_one_token_too_many_ends_in_words(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from goldenctl.golden.file import open_golden

    made = outputs(open_golden(decoded / "g.h5"))
    np.savez(
        tmp_path / "d.npz", **{n: np.concatenate([a[:, :1], a], axis=1) for n, a in made.items()}
    )
    code, said, _ = judged(decoded, tmp_path / "d.npz", capsys, "--step", "0")
    assert code == 2
    assert said.count("7 tokens, the golden has 6: one BOS too many?") == 4
    assert "it maps no tensor" in said
    assert "--list prints say which of the dump's tensors come near" in said


def test_appended_decode_steps_are_taken_apart(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--list says how; all three steps are then judged, of one tensor each."""
    from goldenctl.golden.file import open_golden

    golden = open_golden(decoded / "g.h5")
    np.savez(tmp_path / "d.npz", **outputs(golden, steps=3))
    said = "\n".join(listing(read_dump(tmp_path / "d.npz"), golden))
    want = "8 tokens, the golden has 6: the decode steps appended? stacked = true takes each step's"
    assert said.count(want) == 4
    entries = [
        ("embedding.output", "model.embed_tokens"),
        ("layers.{layer}.mlp.output", "model.layers.{layer}"),
        ("final_norm.output", "model.norm"),
        ("lm_head.output", "lm_head"),
    ]
    text = 'map_version = 1\nlacking = "not_computed"\n' + "".join(
        f'[[tensor]]\ngolden = "{name}"\ndump = "{dump}"\nstacked = true\n'
        for name, dump in entries
    )
    (tmp_path / "m.toml").write_text(text)
    words = ["import", str(tmp_path / "d.npz"), str(tmp_path / "r.h5")]
    words += ["--map", str(tmp_path / "m.toml"), "--golden", str(decoded / "g.h5")]
    assert run(words) == 0
    made = open_golden(tmp_path / "r.h5", kind="run")
    assert {info.step for info in made.tensors.values()} == {"00", "01", "02"}
    for name in made.tensors:
        np.testing.assert_array_equal(made.map(name), golden.map(name))


def test_a_pass_names_the_logits_that_the_dump_lacks(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from goldenctl.golden.file import open_golden

    made = outputs(open_golden(decoded / "g.h5"))
    del made["lm_head"]
    np.savez(tmp_path / "d.npz", **made)
    code, said, report = judged(decoded, tmp_path / "d.npz", capsys, "--step", "0")
    assert code == 0
    assert "5 outputs will not be compared, the logits among them: lm_head.output" in said
    passed = next(line for line in said.splitlines() if line.startswith("✓ PASS"))
    assert "; not compared: the logits (lm_head.output), " in passed
    assert report is not None
    assert report.ok


@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), 4, "not a usable dump"),
        (lambda p: p.unlink(), 2, "there is no such file"),
        (lambda p: p.write_bytes(b"GGUF" + bytes(64)), 2, "GGUF, neither safetensors"),
        (lambda p: np.savez(p, x=np.zeros(3)), 2, "the dump has no tensor 'model.embed_tokens'"),
    ],
    ids=["cut off", "gone", "GGUF", "names"],
)
def test_bad_input_leaves_the_output_as_it_was(
    decoded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], Any],
    code: int,
    said: str,
) -> None:
    from goldenctl.golden.file import open_golden

    path = tmp_path / "d.npz"
    np.savez(path, **outputs(open_golden(decoded / "g.h5")))
    assert judged(decoded, path, capsys, "--step", "0")[0] == 0
    out = path.with_suffix(".run.h5")
    before = out.read_bytes()
    spoil(path)
    words = ["import", str(path), str(out), "--map", str(path.with_suffix(".toml"))]
    words += ["--golden", str(decoded / "g.h5"), "--step", "0", "--force"]
    assert run(words) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert out.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_member_that_is_damaged_behind_its_header_is_exit_code_4(
    decoded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from goldenctl.golden.file import open_golden

    path = tmp_path / "d.npz"
    np.savez(path, **outputs(open_golden(decoded / "g.h5")))
    data = bytearray(path.read_bytes())
    data[data.index(b"lm_head.npy") + 9000] ^= 1  # its checksum no longer holds
    path.write_bytes(bytes(data))
    code, said, _ = judged(decoded, path, capsys, "--step", "0")
    assert code == 4, said
    assert "Bad CRC-32 for file 'lm_head.npy'" in said
    assert not path.with_suffix(".run.h5").exists()
