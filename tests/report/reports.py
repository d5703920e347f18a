"""Owns reports made by hand for tests of the renderers."""

from __future__ import annotations

from typing import Any

import numpy as np
from msgspec.structs import replace

from goldenctl.diff.metrics import score, score_logits
from goldenctl.diff.report import Provenance, Report, SublayerResult, TensorResult
from goldenctl.diff.tolerance import Check

STEP = "cases/default/steps/00"


def provenance(kind: str, **recipe: Any) -> Provenance:
    return Provenance(
        path=f"{kind}.h5",
        kind=kind,
        created_utc="2026-11-24T01:02:03Z",
        tool_version="0.1.0",
        content_sha256="ab" * 32,
        recipe=recipe,
    )


def tensor(sublayer: str, tap: str, share: float = 0.25, **changes: Any) -> TensorResult:
    """A tensor off by a scale of 1 + share/100, judged to have used ``share``."""
    expected = np.linspace(-1, 1, 32, dtype=np.float32).reshape(1, 4, 8)
    actual = expected * np.float32(1 + share / 100) if np.isfinite(share) else expected * np.nan
    metrics = score(actual, expected, atol=0.0, rtol=1e-6)
    scored: dict[str, Any] = {
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
        op="linear",
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
    failure = {"reason": "signal", "tap": "gate_proj", "message": "SIGSEGV", "command": "h P"}
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
