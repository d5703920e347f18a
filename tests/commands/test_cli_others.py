"""verify, inspect, synth, faults, infinicore and the group itself."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ran import Call

import goldenctl
from goldenctl import __version__
from goldenctl.families import PRESETS
from goldenctl.golden.file import open_golden
from goldenctl.infini.find import Install
from goldenctl.ops.catalogue import FAULTS
from goldenctl.shell import quoted


def test_verify(call: Call, checkpoint: Path, harness: Path, tmp_path: Path) -> None:
    report, keep = tmp_path / "report.json", tmp_path / "kept"
    arguments = ("--model-path", checkpoint, "--device", "cpu", "--test-input", "Hi there")
    ran = call("verify", *arguments, "--output", report, "--keep", keep)
    assert ran.code == 0
    assert "✓ PASS" in ran.out
    data = json.loads(report.read_text())
    assert (data["overall_success"], data["test_input"]) == (True, "Hi there")
    assert data["model_path"] == str(checkpoint)
    kept = sorted(path.name for path in keep.iterdir())
    assert kept == ["golden.h5", "golden.h5.times.json", "run.h5"]
    refused = call("verify", *arguments, "--keep", keep)
    assert refused.code == 2
    assert refused.line.endswith("a golden is never changed; give --keep another folder")


def test_verify_without_a_model_path_names_its_default(call: Call) -> None:
    ran = call("verify")
    assert ran.code == 3
    assert ran.line == (
        "goldenctl: /home/shared/models/Qwen3-1.7B: there is no such folder; "
        "name the checkpoint with --model-path"
    )


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--backend", "foo"), 2, "backend 'foo' is not known"),
        (("--device", "nvidia"), 3, "there is no device nvidia; "),
        (("--device", "cpu:7"), 3, "there is no device cpu:7; "),
        (("--backend", "torch", "--device", "nvidia:9"), 3, "device cuda:9: torch "),
        (("--dtype", "float64"), 2, "computes in float32, bfloat16 and float16, not in float64"),
    ],
)
def test_verify_looks_at_the_backend_before_it_records(
    call: Call, checkpoint: Path, options: tuple[str, ...], code: int, said: str
) -> None:
    ran = call("verify", "--model-path", checkpoint, *options)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.line


def test_verify_other_options(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    keep = tmp_path / "kept"
    arguments = ("--backend", "simulated", "--dtype", "bfloat16", "--tolerance", "classic")
    ran = call("verify", "--model-path", checkpoint, "--keep", keep, *arguments)
    assert "SIMULATED" in ran.out
    assert "tolerance classic" in ran.out
    assert open_golden(keep / "golden.h5").recipe["dtype"] == "bfloat16"


def test_verify_keeps_the_files_of_a_failure_and_prints_nothing_when_quiet(
    call: Call, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    arguments = ("verify", "--model-path", checkpoint, "--backend", "simulated")
    quiet = call(*arguments, "-q")
    assert (quiet.code, quiet.out, list(scratch.iterdir())) == (0, "", [])
    tight = tmp_path / "tight.toml"
    tight.write_text("['*/*']\nrel_l2 = 1e-12\n")
    ran = call(*arguments, "--tolerance", tight)
    assert ran.code == 1
    (kept,) = scratch.iterdir()
    assert ran.err.endswith(f"kept for a closer look: {kept}\n")
    assert call("diff", kept / "golden.h5", kept / "run.h5").code == 0


def test_inspect_file(call: Call, golden: Path, replayed: Path) -> None:
    shown = call("inspect", golden)
    assert shown.code == 0
    assert f"{golden} (golden, format 2)" in shown.out
    groups = ("embedding", "layers.00-03.attention", "layers.00-03.mlp", "final_norm", "lm_head")
    for group in groups:  # layers that are alike share a line
        assert f"\n{group} " in shown.out
    assert "infinicore" in call("inspect", replayed).out


def test_inspect_of_a_run_says_which_golden_it_is_of(
    call: Call, golden: Path, replayed: Path
) -> None:
    content = open_golden(golden).content_digest
    assert f"content       {content}\n" in call("inspect", golden).out
    assert f"golden        {content}, {golden}\n" in call("inspect", replayed).out


@pytest.mark.parametrize("columns", ["20", "80", None])
def test_inspect_breaks_nothing_that_is_copied(
    call: Call,
    golden: Path,
    replayed: Path,
    harness: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: str | None,
) -> None:
    """On a narrow terminal and in a pipe, whose width nobody knows."""
    run, backend = tmp_path / "r.h5", f"exec:{harness}"
    assert call("replay", golden, run, "--backend", backend, "--attention", "sdpa").code == 1
    failed = [i.failure for i in open_golden(run).sublayers.values() if i.failure is not None]
    assert len(failed) == 4
    monkeypatch.delenv("COLUMNS")
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    lines = call("inspect", run).out.splitlines()
    for failure in failed:
        named = [line.partition("it names")[2].strip() for line in lines]
        assert quoted(failure["command"]) in named
    file = open_golden(replayed)
    lines = call("inspect", replayed).out.splitlines()
    for said in (
        f"content       {file.content_digest}",
        f"fingerprint   {file.recipe['model']['fingerprint']}",
        f"backend       infinicore.headers {file.recipe['backend']['infinicore']['headers']}",
    ):
        assert said in lines
    info = next(iter(file.tensors.values()))
    assert f"digest       {info.digest}" in call("inspect", replayed, info.name).out.splitlines()


@pytest.mark.parametrize(
    "name",
    [
        "cases/random-0/steps/00/layers/03/attention/q_rope",
        "layers/03/attention/q_rope",
        "03/attention/q_rope",
        "layers.03.attention.q_rope",
        "random-0/00: layers.03.attention.q_rope",
    ],
)
def test_inspect_tensor(call: Call, golden: Path, name: str) -> None:
    shown = call("inspect", golden, name)
    assert shown.code == 0
    info = open_golden(golden).info("cases/random-0/steps/00/layers/03/attention/q_rope")
    for said in (info.name, info.digest, "[batch 1, token 5, head 4, head_dim 32]", "0 NaN, 0 Inf"):
        assert said in shown.out


def test_inspect_prints_all_token_ids_for_another_engine(call: Call, golden: Path) -> None:
    source = open_golden(golden)
    (name,) = [name for name in source.tensors if name.endswith("/token_ids")]
    ids = ",".join(map(str, source.map(name)[0].tolist()))
    assert f"ids      {ids}\n" in call("inspect", golden, "token_ids").out


def test_inspect_of_a_damaged_tensor(call: Call, golden: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copy(golden, tmp_path / "g.h5"))
    info = open_golden(damaged).info("cases/random-0/steps/00/layers/03/attention/q_rope")
    with damaged.open("r+b") as file:
        file.seek(info.offset)
        file.write(b"\x7f")
    ran = call("inspect", damaged, "layers/03/attention/q_rope")
    assert (ran.code, ran.out) == (4, "")
    assert f"{info.name} does not match its digest" in ran.line
    assert call("inspect", damaged, "layers/03/attention/k_rope").code == 0


def test_inspect_ambiguous_and_missing(call: Call, golden: Path) -> None:
    several = call("inspect", golden, "q_rope")
    assert several.code == 2
    assert "4 tensors end in q_rope" in several.line
    none = call("inspect", golden, "layers/04/attention/q_rope")
    assert none.code == 2
    assert "no tensor's name ends in layers/04/attention/q_rope" in none.line


def test_synth(call: Call, checkpoint: Path, tmp_path: Path) -> None:
    for seed, same in (("0", True), ("1", False)):
        out = tmp_path / seed
        ran = call("synth", "tiny", out, "--seed", seed)
        assert (ran.code, ran.out) == (
            0,
            f"wrote {out}: random weights of shape tiny, seed {seed}\n",
        )
        weights = (out / "model.safetensors").read_bytes()
        assert (weights == (checkpoint / "model.safetensors").read_bytes()) is same


def test_synth_help_lists_every_preset(call: Call) -> None:
    shown = call("synth", "--help").out
    listed = [line.split()[0] for line in shown.partition("Presets:\n")[2].splitlines()]
    assert listed == list(PRESETS)


def test_synth_names_the_folder_that_a_full_disk_cannot_hold(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ran = call("synth", "tiny", tmp_path / "out")
    assert (ran.code, ran.out) == (2, "")
    assert ran.line == f"goldenctl: {tmp_path / 'out'}: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_faults_lists_all(call: Call) -> None:
    ran = call("faults")
    assert ran.code == 0
    first_words = {line.split()[0] for line in ran.out.splitlines()[1:] if line.strip()}
    assert set(FAULTS) <= first_words


def test_infinicore_status(
    call: Call, harness: Path, infini_install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each thing is on one line, however narrow the terminal."""
    monkeypatch.setenv("COLUMNS", "20")
    ran = call("infinicore", "status")
    assert ran.code == 0
    expected = [
        f"root: {infini_install.root}",
        f"found by: {infini_install.source}",
        f"version: {infini_install.version}",
        f"headers: {infini_install.headers_digest}",
        *(f"{name}: {digest}" for name, digest in infini_install.library_digests.items()),
        f"harness: {harness}",
        f"program: goldenctl-harness {__version__}",
        "devices: cpu (1)",
        "rope: neox, gptj",
        "quirks: cpu float32: gemm_reads_output; cpu float16: rounds_to_zero",
    ]
    assert ran.out.splitlines() == expected
    assert call("infinicore", "status", "--infini-root", infini_install.root).code == 0


def test_infinicore_status_without_a_compiler(
    call: Call, infini_install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    ran = call("infinicore", "status")
    assert (ran.code, ran.err) == (3, "")
    *known, devices = ran.out.splitlines()
    assert known == [f"{what}: {value}" for what, value in infini_install.rows]
    assert devices == (
        "devices: unknown: no C++ compiler was found: none of $CXX, c++, g++, clang++ is a "
        "program; install g++ or clang++"
    )


def test_infinicore_install_of_what_is_there(call: Call, harness: Path) -> None:
    from goldenctl.infini.find import find_install

    ran = call("infinicore", "install")
    assert ran.code == 0
    assert ran.out == f"InfiniCore is at {find_install().root}\n"


def test_version_and_module(golden: Path) -> None:
    command = [sys.executable, "-m", "goldenctl"]
    shown = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (0, f"goldenctl, version {__version__}\n")
    wrong = [*command, "inspect", str(golden), "nothing"]
    ran = subprocess.run(wrong, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"goldenctl: {golden}: no tensor's name ends in nothing; ")


def test_closed_pipe_is_no_error(golden: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "goldenctl", "inspect", str(golden)]
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert "Traceback" not in ran.stderr
    assert "internal error" not in ran.stderr


INTERRUPTED_IMPORT = """
import os, signal, sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "goldenctl.commands.diff":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from goldenctl.__main__ import main
main()
"""


def test_ctrl_c_while_the_program_is_imported() -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("this signal is ignored here, as in a job in the background")
    environment = {**os.environ, "PYTHONPATH": str(Path(goldenctl.__file__).parent.parent)}
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "goldenctl: interrupted\n")
