"""Golden sets on the command line: init, record --name, list, log, show, manifest."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace
from ran import Call, contents

from goldenctl.golden.file import open_golden
from goldenctl.sets.manifest import dump_manifest, read_manifest

TINY = "synth:tiny?seed=0"


# --- init -------------------------------------------------------------------------------------


def test_init_writes_what_git_needs_and_never_clobbers(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "g"
    ran = call("init", folder)
    assert ran.code == 0
    assert ran.out.splitlines()[:2] == [
        f"wrote {folder}/.gitignore",
        f"wrote {folder}/.gitattributes",
    ]
    assert "*.h5" in (folder / ".gitignore").read_text().splitlines()
    assert call("init", folder).out == f"{folder} is one already\n"
    (folder / ".gitignore").write_text("mine\n")
    (folder / ".gitattributes").unlink()
    refused = call("init", folder)
    assert refused.code == 2
    assert f"{folder}/.gitignore: it exists and says something else" in refused.line
    assert [p.name for p in folder.iterdir()] == [".gitignore"]


# --- record ------------------------------------------------------------------------------------


def test_the_first_set_of_a_folder_names_init(call: Call, tmp_path: Path) -> None:
    folder = tmp_path / "goldens"
    said = f"next: goldenctl init {folder} keeps the goldens themselves out of git\n"
    for name, times in (("a", 1), ("b", 0)):
        ran = call("record", TINY, "--name", name, "--goldens", folder, "--token-ids", "1")
        assert (ran.code, ran.out.count(said)) == (0, times)
    shutil.rmtree(folder)
    assert call("init", folder).code == 0
    ran = call("record", TINY, "--name", "a", "--goldens", folder, "--token-ids", "1")
    assert (ran.code, "next: " in ran.out) == (0, False)


def test_versions_are_numbered_and_the_same_bytes(goldens: Path) -> None:
    first, second = (goldens / "tiny" / f"v{number}.h5" for number in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    manifest = read_manifest(goldens / "tiny" / "manifest.json")
    assert (manifest.version, [entry.version for entry in manifest.versions]) == (1, [1])
    assert manifest.recipe.model is not None
    assert manifest.recipe.model.path == TINY
    assert manifest.recipe.cases[0].token_ids == ((95, 289, 184),)
    names = [tensor.name for tensor in manifest.tensors]
    assert names == list(open_golden(first).tensors)  # execution order


def test_a_rounding_difference_is_accepted_and_named(call: Call, goldens: Path) -> None:
    """Other threads sum in another order; where they do not, the bytes are the same."""
    before = (goldens / "tiny" / "manifest.json").read_bytes()
    ran = call("record", TINY, "--name", "tiny", "--random-tokens", "3", "--threads", "2")
    assert ran.code == 1  # the budgets are gone
    assert "oracle budget → none" in ran.out
    assert (goldens / "tiny" / "manifest.json").read_bytes() == before
    ran = call("record", TINY, "--name", "tiny", "--random-tokens", "3", "--oracle", "--dtype",
               "bfloat16")  # fmt: skip
    assert ran.code == 1
    assert "what differs: dtype float32 → bfloat16" in ran.out
    assert "changed meaning" in ran.out
    assert "if v4 is right: goldenctl manifest tiny@v4 --renew" in ran.out
    assert (goldens / "tiny" / "manifest.json").read_bytes() == before


def test_without_the_old_file_the_manifest_judges(call: Call, goldens: Path) -> None:
    (goldens / "tiny" / "v1.h5").unlink()
    other = "synth:tiny?seed=1"
    ran = call("record", other, "--name", "tiny", "--random-tokens", "3", "--oracle")
    assert ran.code == 1
    assert "tiny@v3 against tiny@v1" in ran.out
    assert "checkpoint's place synth:tiny?seed=0 → synth:tiny?seed=1" in ran.out
    assert "by sketch" in ran.out


def test_from_manifest_brings_the_missing_version_back(call: Call, goldens: Path) -> None:
    lost = goldens / "tiny" / "v1.h5"
    before = lost.read_bytes()
    lost.unlink()
    (goldens / "tiny" / "v2.h5").unlink()
    missing = call("inspect", "tiny")
    assert missing.code == 3
    assert "goldenctl pull tiny, or goldenctl record --from-manifest tiny" in missing.line
    ran = call("record", "--from-manifest", "tiny")
    assert ran.code == 0
    assert f"the same bytes as tiny@v1, which was not here: it is {lost} now" in ran.out
    assert lost.read_bytes() == before
    assert [p.name for p in (goldens / "tiny").glob("*.h5")] == ["v1.h5"]


def test_the_same_content_from_elsewhere_is_said(call: Call, goldens: Path) -> None:
    """Equal tensors with another recipe are no lost version, but can take its place."""
    (goldens / "tiny" / "v1.h5").unlink()
    path = goldens / "tiny" / "manifest.json"
    manifest = read_manifest(path)
    assert manifest.recipe.reference is not None
    elsewhere = replace(manifest.recipe.reference, python="3.9.9")
    entry = replace(manifest.versions[0], digest="blake3:" + "0" * 64)
    recipe = replace(manifest.recipe, reference=elsewhere)
    path.write_bytes(dump_manifest(replace(manifest, recipe=recipe, versions=(entry,))))
    ran = call("record", "--from-manifest", "tiny")
    assert ran.code == 0
    assert "166 the same bytes" in ran.out
    assert "Python 3.9.9 → " not in ran.out  # nothing to explain
    assert "v1 is not here; to take v3 instead: goldenctl manifest tiny@v3" in ran.out


def test_from_manifest_to_a_file(call: Call, goldens: Path, tmp_path: Path) -> None:
    out = tmp_path / "again.h5"
    manifest = goldens / "tiny" / "manifest.json"
    assert call("record", "--from-manifest", manifest, out).code == 0
    assert out.read_bytes() == (goldens / "tiny" / "v1.h5").read_bytes()


def test_a_checkpoint_that_has_gone_is_named(
    call: Call, goldens: Path, checkpoint: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "model"
    shutil.copytree(checkpoint, moved)
    assert call("record", moved, "--name", "own", "--token-ids", "1").code == 0
    shutil.rmtree(moved)
    ran = call("record", "--from-manifest", "own")
    assert ran.code == 3
    assert f"the checkpoint that was recorded, {moved}, is not here; --model-path" in ran.line
    ran = call("record", "--from-manifest", "own", "--model-path", checkpoint)
    assert ran.code == 0
    assert "the same bytes" in ran.out


def test_a_checkpoint_that_is_another_one_is_refused(
    call: Call, goldens: Path, tmp_path: Path
) -> None:
    arguments = ("--from-manifest", "tiny", "--model-path", "synth:tiny?seed=1")
    ran = call("record", *arguments, tmp_path / "g.h5")
    assert ran.code == 4
    assert "is not the checkpoint that was recorded" in ran.err
    assert list(tmp_path.glob("*.h5")) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs a CHECKPOINT, or --from-manifest"),
        ((TINY,), "needs either GOLDEN, the file to write, or --name"),
        ((TINY, "g.h5", "--name", "x"), "needs either GOLDEN"),
        ((TINY, "--name", "../x"), "name '../x': expected up to 64 letters"),
        ((TINY, "--name", "tiny@v1"), "name 'tiny@v1': expected"),
        ((TINY, "--name", "tiny", "--force"), "--force: a version of a golden set is never"),
        ((TINY, "g.h5", "--model-path", "x"), "--model-path goes with --from-manifest"),
        (("--from-manifest", "tiny", "--dtype", "float16"), "--dtype float16: the manifest says"),
        (("--from-manifest", "none"), "no golden set of that name"),
        (("synth:tiny?sed=0", "g.h5"), "expected synth:PRESET?seed=N"),
        (("synth:none", "g.h5"), "preset 'none': there is none of that name"),
    ],
)
def test_what_record_refuses(
    call: Call, goldens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path)
    ran = call("record", *arguments)
    assert (ran.code, said in ran.err.splitlines()[-1]) == (2, True), ran.err
    assert contents(tmp_path) == before


def test_a_damaged_manifest_stops_before_recording(call: Call, goldens: Path) -> None:
    (goldens / "tiny" / "manifest.json").write_text("{")
    ran = call("record", TINY, "--name", "tiny", "--random-tokens", "3")
    assert ran.code == 4
    assert f"{goldens}/tiny/manifest.json: not valid JSON" in ran.line
    assert len(list((goldens / "tiny").glob("*.h5"))) == 2


# --- manifest ----------------------------------------------------------------------------------


def test_manifest_is_renewed_and_says_what_changes(call: Call, goldens: Path) -> None:
    path = goldens / "tiny" / "manifest.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "x-owner": "me"}))
    assert call("manifest", "tiny@v1").out == f"{path} is up to date: v1\n"
    ran = call("manifest", "tiny", "--note", "on purpose", "--tolerance", "classic")
    assert ran.code == 0
    assert "tiny@v2 against tiny@v1: 166 tensors, 166 the same bytes" in ran.out
    assert "version v1 → v2" in ran.out
    assert "tolerance default → classic" in ran.out
    manifest = read_manifest(path)
    assert (manifest.version, manifest.current.note) == (2, "on purpose")
    assert manifest.tolerance.name == "classic"
    assert json.loads(path.read_text())["x-owner"] == "me"


def test_manifest_refuses_a_changed_meaning_without_renew(call: Call, goldens: Path) -> None:
    path = goldens / "tiny" / "manifest.json"
    before = path.read_bytes()
    record = ("record", "synth:tiny?seed=1", "--name", "tiny", "--random-tokens", "3", "--oracle")
    assert call(*record).code == 1
    ran = call("manifest", "tiny")
    assert ran.code == 1
    assert ran.out.splitlines()[-1] == f"{path} was not changed; pass --renew if v3 is right"
    assert path.read_bytes() == before
    ran = call("manifest", "tiny@v3", "--renew")
    assert ran.code == 0
    assert "version v1 → v3" in ran.out
    assert [entry.version for entry in read_manifest(path).versions] == [1, 3]
    assert "changed meaning" in call("log", "tiny").out


def test_a_version_that_was_exchanged_is_found(call: Call, goldens: Path, golden: Path) -> None:
    shutil.copy(golden, goldens / "tiny" / "v1.h5")
    for arguments in (("manifest", "tiny@v1"), ("manifest", "tiny@v2")):
        ran = call(*arguments)
        assert ran.code == 4
        assert "is not the version that" in ran.line


# --- list, log, show, diff ------------------------------------------------------------------------


def test_list_log_and_show(call: Call, goldens: Path) -> None:
    (goldens / "bad").mkdir()
    (goldens / "bad" / "manifest.json").write_text("[]")
    (goldens / "bare").mkdir()
    shutil.copy(goldens / "tiny" / "v1.h5", goldens / "bare" / "v1.h5")
    listed = call("list")
    assert listed.code == 4
    rows = {line.split()[0]: line.split()[1:] for line in listed.out.splitlines()[1:]}
    assert rows["tiny"][:7] == ["v1", "v1,", "v2", "qwen3,", "4", "layers", "float32"]
    assert rows["bare"][:3] == ["no", "manifest", "v1"]
    assert rows["bad"][-2:] == ["damaged", "manifest"]
    assert "bad/manifest.json: expected a JSON object, got array" in listed.line
    history = call("log", "tiny").out
    assert [line.split()[:2] for line in history.splitlines()[1:]][1] == ["→", "v1"]
    assert "in no manifest" in history.splitlines()[1]
    shown = call("show", "tiny", "-v").out
    assert re.search(r"(?m)^digest +[a-z0-9]+:[0-9a-f]{64}$", shown), "a digest is broken"
    assert "qwen3 from synth:tiny?seed=0" in shown
    assert "constants/rope_cos" in shown
    assert "kind" not in call("show", "tiny@v2").err
    (goldens / "tiny" / "v1.h5").unlink()
    assert "not here" in call("show", "tiny").out


def test_diff_of_two_versions(call: Call, goldens: Path) -> None:
    ran = call("diff", "tiny@v1", "tiny@v2")
    assert ran.code == 0
    assert "✓ PASS  79 tensors of 11 sublayers" in ran.out
    assert "mode: chain" in ran.out
    assert "what differs: nothing that a recipe names" in ran.out


def test_diff_of_two_goldens_names_what_differs(call: Call, goldens: Path, tmp_path: Path) -> None:
    other, report = tmp_path / "other.h5", tmp_path / "report.json"
    record = ("record", "synth:tiny?seed=1", other, "--random-tokens", "3", "--seed", "2")
    assert call(*record, "--threads", "1").code == 0
    ran = call("diff", "tiny", other, "--json", report)
    assert ran.code == 1
    differs = json.loads(report.read_text())["differs"]
    assert {line.split()[0] for line in differs} >= {"checkpoint", "cases", "oracle"}


def test_every_command_that_takes_a_golden_takes_a_name(call: Call, goldens: Path) -> None:
    other = ("--goldens", goldens)
    assert call("inspect", "tiny@v1", *other).code == 0
    assert (
        call(
            "replay", "tiny", goldens / "run.h5", "--backend", "simulated", "--noise", "0", *other
        ).code
        == 0
    )
    assert call("diff", "tiny", goldens / "run.h5", *other).code == 0
    ran = call("diff", "tinny", goldens / "run.h5", *other)
    assert ran.code == 2
    assert ran.line.endswith(f"no such golden set in {goldens}; there are tiny")


# --- rm, gc --------------------------------------------------------------------------------------
