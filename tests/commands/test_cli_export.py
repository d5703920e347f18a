"""goldenctl export and import on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ran import Call

from goldenctl.golden.file import open_golden


@pytest.mark.parametrize("name", ["g.h5", "g.safetensors", "g.npz"])
def test_there_and_back(call: Call, golden: Path, tmp_path: Path, name: str) -> None:
    wrote = call("export", golden, tmp_path / name)
    assert (wrote.code, wrote.err) == (0, "")
    assert wrote.out.startswith(f"wrote {tmp_path / name}: 83 tensors, ")
    back = call("import", tmp_path / name, tmp_path / "back.h5")
    assert (back.code, back.err) == (0, "")
    assert f"content digest {open_golden(golden).content_digest}\n" in back.out
    assert (tmp_path / "back.h5").read_bytes() == golden.read_bytes()


def test_a_run_there_and_back(call: Call, golden: Path, replayed: Path, tmp_path: Path) -> None:
    """A run holds times, so its bytes differ; its tensors and verdict do not."""
    assert call("export", replayed, tmp_path / "r.npz").code == 0
    assert "a run of" in call("import", tmp_path / "r.npz", tmp_path / "back.h5").out
    assert call("diff", golden, tmp_path / "back.h5").code == 0


def test_a_part(call: Call, golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.npz"
    wrote = call("export", golden, out, "--only", "layers.03.mlp.*", "--only", "*token_ids")
    assert "8 of 83 tensors" in wrote.out
    names = np.load(out).files
    assert sum("layers/03/mlp" in name for name in names) == 6


def test_a_dump_by_the_listed_map(call: Call, golden: Path, tmp_path: Path) -> None:
    """What --list prints is a map as it stands."""
    source = open_golden(golden)
    values = {
        f"model.layers.{int(info.name.split('/')[5])}.mlp.{info.tap}": source.map(info.name)
        for info in source.tensors.values()
        if info.tap in ("gate_proj", "up_proj", "down_proj")
    }
    np.savez(tmp_path / "dump.npz", **values)
    listed = call("import", tmp_path / "dump.npz", "--list", "--golden", golden)
    assert listed.code == 0
    assert "# model.layers.0.mlp.gate_proj  float32 [1, 5, 160]" in listed.out
    (tmp_path / "map.toml").write_text(listed.out)
    words = ("import", tmp_path / "dump.npz", tmp_path / "run.h5")
    words += ("--map", tmp_path / "map.toml", "--golden", golden)
    ran = call(*words)
    assert (ran.code, ran.err) == (0, "")
    first, second, *_ = ran.out.splitlines()
    assert first == f"wrote {tmp_path / 'run.h5'}: a run of 12 tensors"
    assert "marked not computed: cases/" in second
    judged = call("diff", golden, tmp_path / "run.h5")
    assert judged.code == 0
    assert "✓ PASS  12 tensors of 4 sublayers; not compared: the logits" in judged.out


def test_a_case_for_infiniop_test(call: Call, golden: Path, replayed: Path, tmp_path: Path) -> None:
    out = tmp_path / "case.gguf"
    wrote = call("export", golden, out, "--op", "layers.02.attention.q_rope")
    assert (wrote.code, wrote.err) == (0, "")
    said, run = wrote.out.splitlines()
    assert "1 test of rope for layers.02.attention.q_rope in float32" in said
    assert run.startswith(f"run: infiniop-test {out} --atol ")
    assert out.read_bytes().startswith(b"GGUF")
    refused = call("export", replayed, tmp_path / "r.gguf")
    assert refused.code == 2
    assert "nothing is wrong in it; name an op with --op TENSOR" in refused.line


def test_the_first_wrong_op_of_a_run(
    call: Call, golden: Path, replayed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run.h5"
    fault = "rope_interleaved@layers.02.attention.q_rope"
    assert call("replay", golden, run, "--mode", "op", "--inject", fault).code == 0
    wrote = call("export", run, tmp_path / "case.gguf")
    assert "1 test of rope for layers.02.attention.q_rope" in wrote.out


WRONG = [
    ("export @none @x.h5", 2, "none: there is no such file"),
    ("export @text @x.h5", 4, "text: not a usable golden or run file"),
    ("export GOLDEN @x.bin", 2, "its suffix names no format; pass --format archive"),
    ("export GOLDEN @text --format npz", 2, "text: it exists already; choose another name"),
    ("export GOLDEN @none/x.npz", 2, "none does not exist; create it"),
    ("export GOLDEN @folder --force --format npz", 2, "is a folder, expected a file name"),
    ("export GOLDEN @x.npz --only nothing", 2, "no tensor's name matches 'nothing'"),
    ("export GOLDEN @x.npz --case z", 2, "there is no case 'z'; it has random-0"),
    ("export GOLDEN @x.npz --op q_rope", 2, "--op, --model-path and --golden are for --format"),
    ("export GOLDEN @x.gguf --only q", 2, "--only and --case are not for infiniop-test"),
    ("export GOLDEN @x.gguf --op nothing", 2, "--op nothing is yielded by no op"),
    ("export GOLDEN @x.gguf --op layers.00.mlp.swiglu --model-path @none", 3, "no such folder"),
    ("import @none @x.h5", 2, "none: there is no such file"),
    ("import @text @x.h5", 2, "text: is not a goldenctl export; another engine's dump needs"),
    ("import GOLDEN @x.h5", 2, "golden.h5: is a golden already; diff, inspect and export take it"),
    ("import @text", 2, "import needs a file to write: import DUMP OUT, or --list"),
    ("import @text @text", 2, "text: it exists already"),
    ("import @text @x.h5 --map @map", 2, "a dump of another engine needs --map and --golden"),
    ("import @text @x.h5 --lacking error", 2, "--case, --step and --lacking need --map"),
    ("import @none @x.h5 --map @map --golden GOLDEN", 2, "map: not a name map: "),
    ("import @none @x.h5 --map @none --golden GOLDEN", 2, "none: cannot be read"),
    ("import @none @x.h5 --map @good.toml --golden GOLDEN", 2, "none: there is no such file"),
    ("import @text @x.h5 --map @good.toml --golden GOLDEN", 2, "neither safetensors nor npz"),
    ("import @a.npz @x.h5 --map @good.toml --golden GOLDEN", 2, "the dump has no tensor 'b'"),
    ("import @a.npz @x.h5 --map @good.toml --golden @none", 2, "none: there is no such file"),
    (
        "import @a.npz @x.h5 --map @good.toml --golden GOLDEN --step 7",
        2,
        "there is no step 7; 0 is",
    ),
    ("import @a.npz GOLDEN --map @good.toml --golden GOLDEN --force", 2, "exists and is not a run"),
    ("import @none --list", 2, "none: there is no such file"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=[words for words, *_ in WRONG])
def test_wrong_input(
    call: Call, golden: Path, tmp_path: Path, words: str, code: int, said: str
) -> None:
    (tmp_path / "text").write_text("hello, world\n")
    (tmp_path / "map").write_text("[[")
    (tmp_path / "good.toml").write_text(
        'map_version = 1\n[[tensor]]\ngolden = "lm_head.output"\ndump = "b"\n'
    )
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "a.npz", a=np.zeros(3, np.float32))
    before = sorted(tmp_path.rglob("*"))
    arguments = [
        str(golden) if word == "GOLDEN" else word.replace("@", f"{tmp_path}/")
        for word in words.split()
    ]
    ran = call(*arguments)
    assert (ran.code, said in ran.line) == (code, True), ran.err
    assert sorted(tmp_path.rglob("*")) == before
