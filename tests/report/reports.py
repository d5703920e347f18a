"""Reports made by hand for tests of the renderers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from goldenctl.commands.reporting import Outputs, write_outputs
from goldenctl.diff.metrics import score, score_logits
from goldenctl.diff.pictures import Scale, picture
from goldenctl.records.checks import CheckStep
from goldenctl.records.determinism import Determinism, Finding
from goldenctl.records.findings import Cause, Culprit, Depth, Findings, Graft
from goldenctl.records.pictures import Picture
from goldenctl.records.policy import Check
from goldenctl.records.report import Provenance, Report, StepTime, SublayerResult, TensorResult
from goldenctl.records.trials import Selftest, Trial, Verdict

STORED = Path(__file__).parent / "stored"
"""Reports of real runs: one from before findings and pictures were added, one of blame."""
STEP = "cases/default/steps/00"


def save_report(made: Report, path: Path) -> None:
    """Write a report as --json does."""
    write_outputs([made], Outputs(json=path))


def provenance(kind: str, **recipe: Any) -> Provenance:
    return Provenance(
        path=f"{kind}.h5",
        kind=kind,
        created_utc="2026-11-24T01:02:03Z",
        tool_version="0.1.0",
        content_digest="ab" * 32,
        recipe=recipe,
    )


def tensor(sublayer: str, tap: str, share: float = 0.25, **changes: Any) -> TensorResult:
    """A tensor off by a scale of 1 + share/100, judged to have used ``share``."""
    expected = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 4, 8)
    actual = expected * np.float32(1 + share / 100) if np.isfinite(share) else expected * np.nan
    metrics = score(actual, expected, atol=0.0, rtol=1e-6)
    scored: dict[str, Any] = {
        "op": "linear",
        "state": "passed" if share <= 1 else "failed",
        "rule": "default",
        "share": share,
        "checks": (Check("rel_l2", metrics.rel_l2, 0.01, share),),
        "metrics": metrics,
        "logits": score_logits(actual, expected) if sublayer == "lm_head" else None,
        "actual_shape": (1, 4, 8),
        "worst": "batch 0, token 3, hidden 7",
    }
    return TensorResult(
        name=f"{STEP}/{sublayer}/{tap}",
        sublayer=f"{STEP}/{sublayer}",
        tap=tap,
        dtype="float32",
        shape=(1, 4, 8),
        expected_ns=1_500,
        actual_ns=3_000,
        **(scored | changes),
    )


def unscored(sublayer: str, tap: str, state: str, message: str) -> TensorResult:
    """A tensor with no numbers: it was not there, or not to be compared."""
    blank = {"rule": "", "checks": (), "metrics": None, "logits": None, "worst": ""}
    made = tensor(sublayer, tap, 0.0, state=state, message=message, **blank)
    share = 0.0 if state == "not_computed" else float("inf")
    return replace(made, share=share)


def sublayer(name: str, *tensors: TensorResult, **changes: Any) -> SublayerResult:
    wrong = [t for t in tensors if not t.ok and t.state != "not_computed"]
    return SublayerResult(
        **{
            "name": f"{STEP}/{name}",
            "state": "failed" if wrong else "passed",
            "first_wrong": wrong[0].tap if wrong else "",
            "share": max((t.share for t in tensors), default=0.0),
            "tensors": tensors,
            "expected_ns": 2_000_000,
            "actual_ns": 5_000_000,
        }
        | changes
    )


def report(*sublayers: SublayerResult, **changes: Any) -> Report:
    return Report(
        **{
            "golden": provenance("golden"),
            "run": provenance("run", model={"path": "tiny"}, cases=[{"text": "Hello"}]),
            "policy": "default",
            "mode": "sublayer",
            "sublayers": sublayers,
        }
        | changes
    )


def good() -> Report:
    return report(
        sublayer("embedding", tensor("embedding", "output", 0.0)),
        sublayer(
            "layers/00/attention",
            tensor("layers/00/attention", "q_proj", 0.25),
            unscored("layers/00/attention", "scores", "not_computed", "the backend fuses it"),
            tensor("layers/00/attention", "output", 0.9),
        ),
        sublayer("lm_head", tensor("lm_head", "output", 0.5)),
    )


def bad() -> Report:
    """One of everything that can be wrong; simulated, with a fault."""
    command = ["h", "P", "--only", "0"]
    failure = {"reason": "signal", "tap": "gate_proj", "message": "SIGSEGV", "command": command}
    return report(
        sublayer("embedding", tensor("embedding", "output", 0.0)),
        sublayer(
            "layers/00/attention",
            tensor("layers/00/attention", "q_proj", 2.0),
            tensor("layers/00/attention", "output", float("nan")),
        ),
        sublayer(
            "layers/00/mlp",
            unscored("layers/00/mlp", "output", "crashed", "signal at gate_proj: SIGSEGV"),
            state="crashed",
            failure=failure,
        ),
        sublayer("lm_head", unscored("lm_head", "output", "missing", "not in the run")),
        extra=(unscored("lm_head", "surplus", "extra", "not in the golden"),),
        simulated=True,
        faults=("rope_interleaved",),
    )


def pictured(name: str, *, wrong: bool = True) -> Picture:
    """The picture of a tensor of four tokens, one of them far off; its first row holds a NaN."""
    expected = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 4, 8)
    actual = expected + np.float32(1e-3)
    if wrong:
        actual[0, 2] += 1.0
        actual[0, 0, 0] = np.nan
    shares = np.array([np.inf, 0.3, 40.0, 0.2]) if wrong else np.full(4, 0.5)
    scale = Scale(shares=shares, limits=np.full(4, 0.02), rounding=np.full(4, 0.004))
    dims = ("batch", "token", "hidden")
    return picture(name, actual, expected, dims, scale=scale, describe=wrong)


def blamed() -> Report:
    """Two culprits, one of them explained; the chain heals with the graft."""
    path = f"{STEP}/layers/00/attention"
    cause = Cause(title="interleaved RoPE", faults=("rope_interleaved",), explained=0.999,
                  residual=1e-3)  # fmt: skip
    named = Culprit(name=f"{path}/q_rope", sublayer=path, tap="q_rope", op="rope",
                    diagnosed=True, causes=(cause,))  # fmt: skip
    unnamed = Culprit(name=f"{path}/output", sublayer=path, tap="output", op="add",
                      diagnosed=True, looks_like=("only head 3",))  # fmt: skip
    depths = (
        Depth(f"{STEP}/embedding", 0.0, 0.0, 0.0, ""),
        Depth(path, 0.5, 0.0, 0.5, "culprit"),
        Depth(f"{STEP}/layers/00/mlp", 1e-7, 0.5, 0.4, "victim"),
    )
    wrong = [tensor("layers/00/attention", tap, 30.0, op="rope") for tap in ("q_rope", "output")]
    return report(
        sublayer("embedding", tensor("embedding", "output", 0.0)),
        sublayer("layers/00/attention", tensor("layers/00/attention", "q_proj", 0.25), *wrong),
        sublayer("layers/00/mlp", tensor("layers/00/mlp", "output", 0.5)),
        mode="op",
        command="blame",
        pictures=(pictured(wrong[0].name), pictured(f"{STEP}/layers/00/mlp/output", wrong=False)),
        findings=Findings(culprits=(named, unnamed), depths=depths, graft=Graft(2, 0, (5, 7, 5))),
    )


def timed() -> Report:
    """Two goldens, repeated launches, steps, and an op that is not deterministic."""
    steps = tuple(
        StepTime(step=f"default/{i:02d}", tokens=4 - i, expected_ns=2_000_000, actual_ns=3_000_000)
        for i in range(3)
    )
    finding = Finding(f"{STEP}/layers/00/mlp", "output", ("order",), "differs after layers.00")
    spread = tensor("layers/00/mlp", "output", 0.5, expected_iqr_ns=200, actual_iqr_ns=400)
    return report(
        sublayer("embedding", tensor("embedding", "output", 0.0)),
        sublayer("layers/00/mlp", spread),
        steps=steps,
        determinism=Determinism({"reversed": 2}, 0, False, (finding,)),
        differs=("torch 2.12 → 2.13",),
    )


def checked() -> Report:
    """Three golden sets: one passed, one is beyond tolerance, one could not be replayed."""
    steps = (
        CheckStep(golden="tiny", step="integrity", state="passed", said="v1 here"),
        CheckStep(golden="tiny", step="replay", state="passed", judged_by="79 budget", share=0.4),
        CheckStep(golden="qwen3", step="replay", state="failed", judged_by="3 budget",
                  share=float("inf"), said="1 of 3 wrong, first q_proj"),
        CheckStep(golden="llama", step="replay", state="missing", said="there is no InfiniCore"),
    )  # fmt: skip
    return replace(bad(), command="check", checks=steps, simulated=False, faults=())


def selftested(*, caught: bool = True) -> Report:
    """A selftest of 200 trials; one of them escapes unless ``caught``."""
    trials = [
        Trial(fault=f"fault_{i % 5}", place=f"layers.00.mlp.tap_{i}", op="linear", effect=float(i),
              caught=True, named=True, causes=(f"fault_{i % 5}",), held_out=(),
              gates={"cosine >= 0.99": i % 2 == 0})
        for i in range(200)
    ]  # fmt: skip
    if not caught:
        trials[-3:] = [replace(t, caught=False, named=False, causes=()) for t in trials[-3:]]
    verdict = Verdict("infinicore, op", f"{STEP}/layers/00/mlp/output", True)
    result = Selftest(dtype="bfloat16", trials=trials, correct=[verdict], located=[verdict],
                      correct_ops=1, correct_gates={"cosine >= 0.99": 0})  # fmt: skip
    return report(command="selftest", selftest=result)


HOSTILE = "q</script>]]>[bold]|`<img src=x onerror=alert(1)>\x1b[2J\x00\ufffe\n=1"


def hostile() -> Report:
    """Names and texts that try to be markup, control codes or formulas wherever one can stand."""
    path = f"layers/00/{HOSTILE}"
    gone = unscored(path, HOSTILE, "missing", f"said {HOSTILE}")
    wrong = tensor(path, f"{HOSTILE}2", 9.0, op=HOSTILE, worst=HOSTILE, rule=HOSTILE)
    failure = {"reason": HOSTILE, "command": HOSTILE, "stderr": HOSTILE, HOSTILE: HOSTILE}
    culprit = Culprit(name=wrong.name, sublayer=wrong.sublayer, tap=wrong.tap, op=HOSTILE,
                      message=HOSTILE, diagnosed=True, looks_like=(HOSTILE,))  # fmt: skip
    depth = Depth(wrong.sublayer, 1.0, 1.0, 1.0, HOSTILE)
    drawn = replace(pictured(wrong.name), looks_like=(HOSTILE,))
    strips = tuple(replace(strip, dim=HOSTILE) for strip in drawn.strips)
    worst = tuple(replace(extreme, where=HOSTILE) for extreme in drawn.worst)
    return report(
        sublayer(path, wrong, gone, failure=failure, state="crashed"),
        golden=replace(provenance("golden", **{HOSTILE: HOSTILE}), path=HOSTILE),
        run=replace(provenance("run", backend={"name": HOSTILE}), path=HOSTILE),
        faults=(HOSTILE,),
        mode=HOSTILE,
        policy=HOSTILE,
        checks=(CheckStep(golden=HOSTILE, step=HOSTILE, state=HOSTILE, said=HOSTILE),),
        pictures=(replace(drawn, strips=strips, worst=worst),),
        findings=Findings(culprits=(culprit,), depths=(depth,), note=HOSTILE),
    )


def matrix() -> list[Report]:
    """Four runs of one golden: right, wrong, of fewer sublayers, and with hostile names."""
    runs = {"cpu": good(), "npu": bad(), "part": report(*good().sublayers[:1]), "x": hostile()}
    return [
        replace(made, run=replace(made.run, path=f"{name}.h5" if name != "x" else HOSTILE))
        for name, made in runs.items()
    ]


EVERY = {
    "good": good, "bad": bad, "empty": report, "blamed": blamed, "timed": timed, "checked": checked,
    "selftest": selftested,
    "escaped": lambda: selftested(caught=False), "hostile": hostile,
}  # fmt: skip
