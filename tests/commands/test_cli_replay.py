"""``goldenctl replay``: every option, by what it leaves in the run file."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from ran import Call

from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.places import is_composed, plain_name, short_name

LAYER = "cases/random-0/steps/00/layers/00"


def digests(path: Path) -> dict[str, str]:
    return {name: info.digest for name, info in open_golden(path).tensors.items()}


def relative(actual: GoldenFile, expected: GoldenFile, name: str) -> float:
    a, e = (file.map(name).astype(np.float64) for file in (actual, expected))
    return float(np.linalg.norm(a - e) / np.linalg.norm(e))


def test_infinicore_run_names_its_origin(golden: Path, replayed: Path) -> None:
    run, source = open_golden(replayed, kind="run"), open_golden(golden)
    recipe = run.recipe
    assert recipe["golden"]["content_digest"] == source.content_digest
    assert recipe["model"]["fingerprint"] == source.recipe["model"]["fingerprint"]
    assert recipe["backend"]["name"] == "infinicore"
    assert set(recipe["backend"]["infinicore"]["libraries"]) == {
        "libinfiniop.so",
        "libinfinirt.so",
    }
    assert recipe["backend"]["harness_digest"].startswith("blake3:")
    assert recipe["backend"]["program"].startswith("goldenctl-harness ")
    assert (recipe["device"], recipe["mode"], recipe["dtype"]) == ("cpu", "op+sublayer", "float32")
    assert not run.simulated
    taps = {n for n, i in source.tensors.items() if i.role in ("tap", "output")}
    assert {n for n in run.tensors if not is_composed(n)} == taps
    ends = {name.rpartition("/")[2] for name in run.tensors if is_composed(name)}
    assert ends == {"k_rope", "v_proj", "context", "output"}


def test_repeated_replay_gives_the_same_bits(
    call: Call, golden: Path, replayed: Path, tmp_path: Path
) -> None:
    ran = call("replay", golden, tmp_path / "r.h5", "--backend", "infinicore")
    assert ran.code == 0
    assert "11 of 11 sublayers replayed" in ran.out
    assert digests(tmp_path / "r.h5") == digests(replayed)


@pytest.mark.parametrize("mode", ["op", "sublayer", "chain"])
def test_mode(call: Call, golden: Path, replayed: Path, tmp_path: Path, mode: str) -> None:
    """Modes agree bit for bit where their inputs do, and to rounding elsewhere; the default
    holds what the modes op and sublayer do."""
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--mode", mode).code == 0
    run, other = open_golden(out), open_golden(replayed)
    assert run.recipe["mode"] == mode
    first = f"{LAYER}/attention/input_layernorm"
    assert run.info(first).digest == other.info(first).digest
    assert set(run.tensors) == {n for n in other.tensors if not is_composed(n)}
    assert max(relative(run, other, name) for name in run.tensors) < 1e-5
    own, default = digests(out), digests(replayed)
    composed = {plain_name(n): digest for n, digest in default.items() if is_composed(n)}
    assert (own.items() <= default.items()) == (mode == "op")
    assert (composed.items() <= own.items()) == (mode == "sublayer")
    assert call("diff", golden, out).code == 0


@pytest.mark.parametrize(
    ("dtype", "limit", "quirks"),
    [("bfloat16", 0.05, []), ("float16", 0.01, ["rounds_to_zero"])],
)
def test_another_dtype(
    call: Call, golden: Path, tmp_path: Path, dtype: str, limit: float, quirks: list[str]
) -> None:
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--dtype", dtype).code == 0
    run, source = open_golden(out), open_golden(golden)
    assert {info.dtype for info in run.tensors.values()} == {dtype}
    assert 0 < relative(run, source, f"{LAYER}/mlp/output") < limit
    # InfiniCore's CPU kernels cut float16 off where PyTorch rounds, and the verdict sees it.
    assert run.recipe["backend"]["quirks"] == quirks
    assert call("diff", golden, out).code == len(quirks)


def test_layers(call: Call, golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--layers", "1-2").code == 0
    names = [short_name(name) for name in open_golden(out).sublayers]
    assert names == [f"layers.0{n}.{part}" for n in (1, 2) for part in ("attention", "mlp")]
    assert call("diff", golden, out).code == 0


def test_repeat_measures_and_changes_nothing(
    call: Call, golden: Path, replayed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--repeat", "3", "--layers", "0").code == 0
    run = open_golden(out)
    assert run.recipe["repeat"] == 3
    assert all(info.time_ns > 0 for info in run.sublayers.values())
    assert digests(out).items() <= digests(replayed).items()


def test_torch_reproduces_the_golden_and_sdpa_nearly(
    call: Call, golden: Path, tmp_path: Path
) -> None:
    eager, fused = tmp_path / "eager.h5", tmp_path / "fused.h5"
    torch = ("--backend", "torch", "--layers", "0")
    assert call("replay", golden, eager, *torch).code == 0
    source = digests(golden)
    assert all(source[plain_name(name)] == digest for name, digest in digests(eager).items())
    assert call("replay", golden, fused, *torch, "--attention", "sdpa").code == 0
    run = open_golden(fused)
    assert f"{LAYER}/attention/probs" not in run.tensors
    assert 0 <= relative(run, open_golden(golden), f"{LAYER}/attention/context") < 1e-5
    judged = call("diff", golden, fused)
    assert judged.code == 0
    assert "not computed by this backend, so not judged: scores, probs" in judged.out


def test_infinicore_has_no_sdpa(call: Call, golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.h5"
    ran = call("replay", golden, out, "--attention", "sdpa", "--layers", "0")
    assert ran.code == 2
    assert "backend infinicore has no fused attention op; leave --attention at eager" in ran.line
    assert not out.exists()


def test_simulated_is_marked_everywhere(call: Call, golden: Path, tmp_path: Path) -> None:
    out, report = tmp_path / "r.h5", tmp_path / "r.json"
    ran = call("replay", golden, out, "--backend", "simulated")
    assert ran.code == 0
    assert "SIMULATED" in ran.out
    assert open_golden(out).simulated
    assert "SIMULATED" in call("inspect", out).out
    judged = call("diff", golden, out, "--json", report)
    assert judged.code == 0  # its noise is that of rounding
    assert "SIMULATED: no engine computed these outputs, noise 1.19e-07" in judged.out
    assert '"simulated": true' in report.read_text()
    assert "SIMULATED" in call("diff", report).out
    formats = ("html", "junit", "markdown", "csv")
    call("report", report, *(x for name in formats for x in (f"--{name}", tmp_path / name)))
    assert call("plot", report, "--output", tmp_path / "figures").code == 0
    files = [*(tmp_path / name for name in formats), *(tmp_path / "figures").iterdir()]
    for file in files:
        assert "simulated" in file.read_text().lower(), file
    with (tmp_path / "csv").open(newline="") as file:
        assert {row["simulated"] for row in csv.DictReader(file)} == {"true"}


def test_noise_and_seed_of_simulated(call: Call, golden: Path, tmp_path: Path) -> None:
    def simulated(name: str, *arguments: str) -> Path:
        out = tmp_path / name
        assert call("replay", golden, out, "--backend", "simulated", *arguments).code == 0
        return out

    exact = simulated("0.h5", "--noise", "0")
    source = digests(golden)
    assert all(source[plain_name(name)] == digest for name, digest in digests(exact).items())
    loud = simulated("1.h5", "--noise", "0.1")
    name = f"{LAYER}/mlp/output"
    assert 0.05 < relative(open_golden(loud), open_golden(golden), name) < 0.2
    assert call("diff", golden, loud).code == 1
    other = simulated("2.h5", "--noise", "0.1", "--seed", "1")
    assert digests(other) != digests(loud)
    assert digests(simulated("3.h5", "--noise", "0.1")) == digests(loud)


def test_ops_that_infinicore_has_not_are_named_before_anything_runs(
    call: Call, tmp_path: Path
) -> None:
    golden = tmp_path / "g.h5"
    assert call("record", "synth:gemma3-tiny?seed=0", golden, "--random-tokens", 3).code == 0
    ran = call("replay", golden, tmp_path / "r.h5", "--backend", "infinicore")
    assert (ran.code, (tmp_path / "r.h5").exists()) == (2, False)
    assert ran.line.endswith(
        "backend infinicore has no op scale (first for embedding.output), rms_norm_plus_one (first "
        "for layers.00.attention.input_layernorm), geglu (first for layers.00.mlp.geglu); "
        "--backend torch has them all"
    )


@pytest.mark.parametrize("backend", ["infinicore", "torch"])
def test_inject(call: Call, golden: Path, tmp_path: Path, backend: str) -> None:
    out = tmp_path / "r.h5"
    fault = "no_norm@layers.00.attention.q_norm"
    arguments = ("--backend", backend, "--inject", fault, "--layers", "0")
    assert call("replay", golden, out, *arguments).code == 0
    assert open_golden(out).recipe["faults"] == [fault]
    judged = call("diff", golden, out)
    assert judged.code == 1
    assert f"INJECTED FAULTS: {fault}" in judged.out
    assert "first wrong: layers.00.attention.q_norm (op rms_norm)" in judged.out


def test_two_faults(call: Call, golden: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.h5"
    faults = ("no_rope@layers.00", "no_residual@layers.00.mlp")
    both = [word for fault in faults for word in ("--inject", fault)]
    assert call("replay", golden, out, "--layers", "0", *both).code == 0
    assert open_golden(out).recipe["faults"] == list(faults)
    judged = call("diff", golden, out)
    assert f"INJECTED FAULTS: {', '.join(faults)}" in judged.out


@pytest.mark.parametrize("fault", ["one_nan", "nan_row", "one_inf"])
def test_what_is_not_finite_fails(call: Call, golden: Path, tmp_path: Path, fault: str) -> None:
    out = tmp_path / "r.h5"
    place = f"{fault}@layers.00.mlp.down_proj"
    assert call("replay", golden, out, "--layers", "0", "--inject", place).code == 0
    generous = tmp_path / "t.toml"
    generous.write_text('["*/*"]\nrel_l2 = 1e30\n')
    for tolerance in ("default", "classic", generous):
        judged = call("diff", golden, out, "--tolerance", tolerance)
        assert judged.code == 1
        assert "first wrong: layers.00.mlp.down_proj (op linear)" in judged.out


def test_moved_checkpoint(call: Call, checkpoint: Path, golden: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint, moved)
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--model-path", moved, "--layers", "0").code == 0
    recorded, there = tmp_path / "g.h5", tmp_path / "there"
    moved.rename(there)
    assert call("record", there, recorded, "--random-tokens", "2").code == 0
    there.rename(moved)
    for command in (
        ("replay", recorded, tmp_path / "s.h5"),
        ("blame", recorded),
        ("selftest", recorded),
    ):
        ran = call(*command)
        assert ran.code == 3
        assert ran.line == (
            f"goldenctl: {recorded}: was recorded from {there}, which is not a folder here; "
            "name the checkpoint with --model-path"
        )


def test_another_checkpoint_is_refused(call: Call, golden: Path, tmp_path: Path) -> None:
    assert call("synth", "tiny", tmp_path / "other", "--seed", "1").code == 0
    ran = call("replay", golden, tmp_path / "r.h5", "--model-path", tmp_path / "other")
    assert ran.code == 4
    assert "not the checkpoint that" in ran.line
    assert not (tmp_path / "r.h5").exists()


def test_a_run_is_replaced_when_told_to_and_a_golden_never(
    call: Call, golden: Path, tmp_path: Path
) -> None:
    out = tmp_path / "r.h5"
    replay = ("replay", golden, out, "--layers", "0")
    assert call(*replay).code == 0
    before = out.read_bytes()
    ran = call(*replay)
    assert (ran.code, ran.line) == (
        2,
        f"goldenctl: {out}: it exists already; choose another name, or pass --force to replace it",
    )
    assert out.read_bytes() == before
    assert call(*replay, "--force").code == 0
    before = golden.read_bytes()
    ran = call("replay", golden, golden)
    assert ran.code == 2
    assert ran.line == (
        f"goldenctl: {golden}: it exists and is not a run file that goldenctl wrote; "
        "choose another name"
    )
    assert golden.read_bytes() == before


def test_infini_root(call: Call, golden: Path, tmp_path: Path) -> None:
    from goldenctl.infini.find import find_install

    root = find_install().root
    out = tmp_path / "r.h5"
    assert call("replay", golden, out, "--infini-root", root, "--layers", "0").code == 0
    assert open_golden(out).recipe["backend"]["infinicore"]["root"] == str(root)
    assert call("replay", golden, out, "--infini-root", tmp_path / "no", "--force").code == 3


def test_debug_gives_a_command_that_runs_one_sublayer_alone(
    call: Call, golden: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    ran = call("replay", golden, out, "--layers", "1", "--debug", "layers.01.mlp")
    assert ran.code == 0
    line = ran.out.splitlines()[-1]
    assert line.startswith("cases/random-0/steps/00/layers/01/mlp alone: ")
    before = out.read_bytes()
    command = shlex.split(line.partition(" alone: ")[2])
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    events = [json.loads(text) for text in done.stdout.splitlines()]
    assert [e["tap"] for e in events if e["event"] == "op_done"][-1] == "composed/output"
    assert {e["sublayer"] for e in events if e["event"] == "op_done"} == {0}
    assert out.read_bytes() == before


def test_debug_of_what_is_not_replayed_is_refused(call: Call, golden: Path, tmp_path: Path) -> None:
    ran = call("replay", golden, tmp_path / "r.h5", "--layers", "1", "--debug", "layers.02.mlp")
    assert ran.code == 2
    assert "--debug layers.02.mlp: no sublayer of this replay has that name" in ran.line
    assert not (tmp_path / "r.h5").exists()
