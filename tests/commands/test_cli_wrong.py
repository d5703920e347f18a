"""Wrong input of every kind: one clear line, the right exit code, and nothing left behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ran import Call


@pytest.fixture
def place(tmp_path: Path, checkpoint: Path, golden: Path, replayed: Path) -> Path:
    """Return a folder of good and bad things to name on a command line."""
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "folder").mkdir()
    data = golden.read_bytes()
    (tmp_path / "half.h5").write_bytes(data[: len(data) // 2])
    (tmp_path / "head.h5").write_bytes(data[:100])
    (tmp_path / "bad.json").write_text("[")
    (tmp_path / "old.json").write_text('{"report_version": 0}')
    (tmp_path / "odd.toml").write_text('["*/*"]\nfoo = 1\n')
    (tmp_path / "minus.toml").write_text('["*/*"]\nrel_l2 = -1\n')
    (tmp_path / "percent.toml").write_text('["*/*"]\ncosine = 99\n')
    (tmp_path / "op.toml").write_text('["float32/roppe"]\nrel_l2 = 1\n')
    for name in ("cut", "no-config", "bad-config", "no-tokenizer", "bad-tokenizer"):
        shutil.copytree(checkpoint, tmp_path / name)
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"\x01" * 1000)
    (tmp_path / "no-config" / "config.json").unlink()
    (tmp_path / "bad-config" / "config.json").write_text("{")
    (tmp_path / "no-tokenizer" / "tokenizer.json").unlink()
    (tmp_path / "bad-tokenizer" / "tokenizer.json").write_text("{}")
    return tmp_path


# CK, GOLDEN and RUN stand for good ones, @NAME for what is in the folder, NEW for a new file.
WRONG = [
    ("record @none NEW", 3, "none: there is no such folder; a checkpoint is a folder with"),
    ("record Qwen/Qwen3-0.6B NEW", 3, "? hf download Qwen/Qwen3-0.6B --local-dir Qwen3-0.6B, then"),
    ("record @text NEW", 3, "text: is a file, not a folder; a checkpoint is a folder with"),
    ("record phi3-tiny NEW", 3, "such folder; a preset? synth:phi3-tiny has random weights"),
    ("record --reference transformers Qwen/Qwen3-0.6B NEW", 3, "? hf download Qwen/Qwen3-0.6B"),
    ("record @folder NEW", 3, "folder/config.json: there is no such file"),
    ("record @cut NEW", 4, "cut/model.safetensors: "),
    ("record @no-config NEW", 3, "config.json: there is no such file"),
    ("record @bad-config NEW", 4, "config.json: not valid JSON"),
    ("record @no-tokenizer NEW", 3, "give --token-ids 1,2,3 instead"),
    ("record @bad-tokenizer NEW", 4, "tokenizer.json: not a tokenizer"),
    ("record CK", 2, "needs either GOLDEN, the file to write, or --name, the set"),
    ("record CK ''", 2, "the path is empty"),
    ("record '' NEW", 2, "the path is empty"),
    ("record CK @folder --force", 2, "is a folder, expected a file name"),
    ("record CK @none/g.h5 --token-ids 1", 2, "none does not exist; create it or choose another"),
    ("record CK /proc/g.h5 --token-ids 1", 2, "/proc/g.h5: "),
    ("record CK NEW --layers 9", 2, "layer 9 does not exist, the model has 4"),
    ("record CK NEW --layers -1", 2, "'-1' is not a layer or range, such as 0-4,10"),
    ("record CK NEW --layers 3-1", 2, "'3-1' is not a layer or range"),
    ("record CK NEW --layers ''", 2, "'' is not a layer or range"),
    ("record CK NEW --token-ids 512", 2, "token id 512 is outside 0..511"),
    ("record CK NEW --token-ids 99999999999999", 2, "expected numbers like 1,2,3"),
    ("record CK NEW --token-ids -1", 2, "expected numbers like 1,2,3"),
    ("record CK NEW --token-ids 1,,2", 2, "expected numbers like 1,2,3"),
    ("record CK NEW --token-ids '1,2;3'", 2, "the rows differ in length"),
    ("record CK NEW --random-tokens 0", 2, "expected a count from 1 to 512, got 0"),
    ("record CK NEW --random-tokens -5", 2, "expected a count from 1 to 512, got -5"),
    ("record CK NEW --random-tokens 513", 2, "expected a count from 1 to 512, got 513"),
    ("record CK NEW --seed 7", 2, "--seed 7: only --random-tokens draws random numbers; leave"),
    ("record CK NEW --seed -1 --prompt x", 2, "--seed -1: only --random-tokens draws random"),
    ("record CK NEW --seed 0 --token-ids 1", 2, "--seed 0: only --random-tokens draws random"),
    ("record CK NEW --seed 1 --dtypes float32,bfloat16", 2, "--seed 1: only --random-tokens"),
    ("record CK NEW --note why", 2, "--note: stands in the history of a golden set, and GOLDEN"),
    ("record CK NEW --random-tokens 2 --seed -1", 2, "seed: expected 0 or more, got -1"),
    ("record CK NEW --prompts-file @none", 2, "none: cannot be read (No such file"),
    ("record CK NEW --prompts-file @folder", 2, "folder: cannot be read (Is a directory)"),
    ("record CK NEW --prompts-file @binary", 4, "binary: is not UTF-8 text"),
    ("record CK NEW --prompts-file @empty", 2, "empty: has no prompt"),
    ("record CK NEW --prompt ''", 2, "prompt 1: there are no tokens"),
    ("record CK NEW --prompt \udcff", 2, "Invalid value for '--prompt': is not UTF-8 text"),
    ("record CK NEW --dtype int8", 2, "'int8' is not one of"),
    ("record CK NEW --threads 0", 2, "0 is not in the range"),
    ("record CK NEW --threads 99999999999", 2, "99999999999 is not in the range"),
    ("record CK NEW --oracle all", 2, "'all' is not one of"),
    ("record CK NEW --bogus", 2, "No such option '--bogus'"),
    *(
        (f"{command}", code, said)
        for file, code, said in (
            ("none", 2, "none: there is no such file"),
            ("folder", 2, "folder: "),
            ("empty", 4, "empty: not a usable golden or run file"),
            ("text", 4, "text: not a usable golden or run file"),
            ("half.h5", 4, "half.h5: not a usable golden or run file"),
            ("head.h5", 4, "head.h5: not a usable golden or run file"),
        )
        for command in (f"replay @{file} NEW", f"inspect @{file}", f"diff @{file} RUN")
    ),
    ("diff GOLDEN @text", 4, "text: not a usable golden or run file"),
    ("replay RUN NEW", 2, "expected a golden file, got a run file"),
    ("replay GOLDEN @text", 2, "text: it exists and is not a run file"),
    ("replay GOLDEN @folder", 2, "is a folder, expected a file name"),
    ("replay GOLDEN @none/r.h5", 2, "none does not exist; create it or choose another"),
    ("replay GOLDEN ''", 2, "the path is empty"),
    ("replay GOLDEN NEW --backend tpu", 2, "backend 'tpu' is not known; use infinicore, torch"),
    ("replay GOLDEN NEW --backend exec:", 3, "the program does not exist"),
    ("replay GOLDEN NEW --backend exec:@none", 3, "none: the program does not exist"),
    ("replay GOLDEN NEW --backend exec:@text", 3, "text: the program is not executable"),
    ("replay GOLDEN NEW --backend exec:/bin/echo", 4, "expected a JSON event on its output"),
    ("replay GOLDEN NEW --backend exec:/bin/true", 3, "it did not start, exit status 0"),
    ("replay GOLDEN NEW --device tpu", 2, "device 'tpu' is not known; use one of cpu, nvidia"),
    ("replay GOLDEN NEW --device nvidia", 3, "there is no device nvidia:0"),
    ("replay GOLDEN NEW --device cpu:3", 3, "there is no device cpu:3"),
    ("replay GOLDEN NEW --device cpu:99999999999", 2, "is not known"),
    ("replay GOLDEN NEW --backend torch --device ascend", 3, "torch has no device ascend:0"),
    ("replay GOLDEN NEW --backend torch --device cpu:3", 3, "torch has no device cpu:3"),
    ("replay GOLDEN NEW --dtype float64", 2, "not in float64; pass --dtype float32"),
    ("replay GOLDEN NEW --mode all", 2, "'all' is not one of"),
    ("replay GOLDEN NEW --layers 4", 2, "layer 4 does not exist, the model has 4"),
    ("replay GOLDEN NEW --repeat 0", 2, "0 is not in the range"),
    ("replay GOLDEN NEW --repeat 99999999999999999999", 2, "is not in the range"),
    ("replay GOLDEN NEW --timeout -1", 2, "-1.0 is not in the range"),
    ("replay GOLDEN NEW --timeout nan", 2, "nan is not a finite number"),
    ("replay GOLDEN NEW --timeout inf", 2, "'--timeout'"),
    ("replay GOLDEN NEW --inject zzzz", 2, "there is no fault zzzz; goldenctl faults lists them"),
    (
        "replay GOLDEN NEW --inject no_norm@layer.01",
        2,
        "no sublayer or op that is replayed has that",
    ),
    ("replay GOLDEN NEW --inject no_bias", 2, "can have this fault; only linear can, and not"),
    ("replay GOLDEN NEW --noise 1", 2, "only the simulated backend has noise, not infinicore"),
    ("replay GOLDEN NEW --seed 1", 2, "only --shuffle and the simulated backend draw"),
    ("replay GOLDEN NEW --seed 0", 2, "only --shuffle and the simulated backend draw"),
    ("replay GOLDEN NEW --backend simulated --noise nan", 2, "nan is not a finite number"),
    ("replay GOLDEN NEW --backend simulated --noise -1", 2, "-1.0 is not in the range"),
    ("replay GOLDEN NEW --backend simulated --seed -1", 2, "-1 is not in the range"),
    ("replay GOLDEN NEW --backend simulated --inject no_rope", 2, "backend computes nothing"),
    ("replay GOLDEN NEW --backend simulated --attention sdpa", 2, "backend computes nothing"),
    ("replay GOLDEN NEW --infini-root @none", 3, "none is not an InfiniCore install"),
    ("replay GOLDEN NEW --infini-root @text", 3, "text is not an InfiniCore install"),
    ("replay GOLDEN NEW --model-path @none", 3, "none: there is no such folder"),
    ("replay GOLDEN NEW --model-path @cut", 4, "cut/model.safetensors: "),
    ("diff GOLDEN", 2, "diff needs a golden and a run, or one report"),
    ("diff RUN GOLDEN", 2, "expected a golden as the first file, got a run file"),
    ("diff @none.json", 2, "none.json: there is no such file"),
    ("diff @bad.json", 4, "bad.json: not a report"),
    ("diff @old.json", 4, "old.json: report version is 0, expected 2"),
    ("diff GOLDEN RUN --tolerance @none", 2, "none: there is no such file; use default, classic"),
    ("diff GOLDEN RUN --tolerance @text", 2, "text: not a tolerance file"),
    ("diff GOLDEN RUN --tolerance @binary", 2, "binary: not a tolerance file: it is not UTF-8"),
    ("diff GOLDEN RUN --tolerance @odd.toml", 2, "odd.toml: not a tolerance file"),
    ("diff GOLDEN RUN --tolerance @minus.toml", 2, "each finite and not negative"),
    ("diff GOLDEN RUN --tolerance @percent.toml", 2, "expected a cosine of at most 1, got 99"),
    ("diff GOLDEN RUN --tolerance @op.toml", 2, "'float32/roppe' is not DTYPE/OP, such as"),
    ("diff GOLDEN RUN --json ''", 2, "the path is empty"),
    ("diff GOLDEN /dev/null", 2, "/dev/null: is a pipe or a device, expected a file"),
    ("plot GOLDEN RUN --output @f.pdf", 2, "f.pdf: figures are written as .svg or .png"),
    ("record CK NEW --device cpu:3", 2, "device 'cpu:3' is not supported, expected cpu or cuda"),
    ("record CK . --force", 2, ".: is a folder, expected a file name"),
    ("record CK .", 2, ".: is a folder, expected a file name"),
    ("diff GOLDEN RUN --json .", 2, ".: is a folder, expected a file name"),
    ("diff GOLDEN RUN --json @none/r.json", 2, "none does not exist; create it or choose"),
    ("diff GOLDEN RUN --worst 0", 2, "0 is not in the range"),
    ("inspect GOLDEN nothing", 2, "no tensor's name ends in nothing"),
    ("inspect nothing", 2, "nothing: there is no such file, and no such golden set in goldens"),
    ("inspect tiny --goldens @folder", 2, "no such golden set in"),
    ("log ../x", 2, "name '../x': expected up to 64 letters"),
    ("log none --goldens @text", 2, "none: there is no golden set of that name in"),
    ("show GOLDEN", 2, "expected NAME or NAME@vN, the name of a golden set"),
    ("show none@0", 2, "expected NAME or NAME@vN"),
    ("manifest none --goldens @folder", 2, "none: there is no golden set of that name in"),
    ("rm none --goldens @folder", 2, "none: there is no golden set of that name in"),
    ("gc none --goldens @folder", 2, "none: there is no golden set of that name in"),
    ("init @text", 2, "text: File exists"),
    ("record CK --name x --goldens @text --token-ids 1", 2, "text/x: cannot be written"),
    ("record --from-manifest @none", 3, "none: cannot be read (No such file or directory)"),
    ("record --from-manifest @folder", 3, "folder: is not a file"),
    ("record --from-manifest @bad.json NEW", 4, "bad.json: not valid JSON"),
    ("record --from-manifest @old.json NEW", 4, "old.json: not a manifest: format is not"),
    ("record synth:tiny?seed=x NEW", 2, "expected synth:PRESET?seed=N"),
    ("synth huge NEW", 2, "preset 'huge': there is none of that name; there are gemma3-tiny"),
    ("synth tiny CK", 2, "exists already; name a new or an empty folder"),
    ("synth tiny @text", 2, "exists already"),
    ("synth tiny @text/x", 2, "text"),
    ("synth tiny NEW --seed -1", 2, "seed -1: expected 0 or more"),
    ("verify", 3, "there is no such folder; name the checkpoint with --model-path"),
    ("verify --model-path @none", 3, "none: there is no such folder"),
    ("verify --model-path CK --device tpu", 2, "device 'tpu' is not known"),
    ("verify --model-path CK --tolerance @none", 2, "there is no such file; use default"),
    ("verify --model-path CK --output @folder", 2, "is a folder, expected a file name"),
    ("verify --model-path CK --keep @text", 2, "text: File exists"),
    ("verify --model-path CK --test-input ''", 2, "there are no tokens"),
    ("infinicore status --infini-root @none", 3, "is not an InfiniCore install"),
    ("infinicore install --prefix @text", 2, "text: is a file, expected a folder"),
    ("nope", 2, "No such command 'nope'; see goldenctl --help"),
    ("recrod", 2, "No such command 'recrod'. Did you mean 'record'? See goldenctl --help"),
    ("faults x", 2, "Got unexpected extra argument (x)"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=[words for words, *_ in WRONG])
def test_wrong_input(
    call: Call,
    place: Path,
    checkpoint: Path,
    golden: Path,
    replayed: Path,
    words: str,
    code: int,
    said: str,
) -> None:
    known = {"CK": checkpoint, "GOLDEN": golden, "RUN": replayed, "NEW": place / "new", "''": ""}
    before = sorted(place.rglob("*"))
    arguments = [
        str(known.get(word, word.strip("'").replace("@", f"{place}/")))
        for word in words.replace("no_norm@", "no_norm\0").split()
    ]
    ran = call(*(word.replace("\0", "@") for word in arguments))
    assert (ran.code, said in ran.line) == (code, True), ran.err
    assert sorted(place.rglob("*")) == before


def test_no_space(
    call: Call, checkpoint: Path, golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    recorded = call("record", checkpoint, tmp_path / "g.h5", "--token-ids", "1")
    replayed = call("replay", golden, tmp_path / "r.h5")
    for ran in (recorded, replayed):
        assert ran.code == 2
        assert "bytes are needed, the disk has 1,000 free" in ran.line
    assert list(tmp_path.iterdir()) == []


def test_names_cannot_write_to_the_terminal(call: Call, golden: Path) -> None:
    ran = call("inspect", golden, "\x1b[31mred\nline")
    assert ran.code == 2
    assert "\\x1b[31mred\\nline" in ran.line
