"""A pass says in its first line what it is silent about: outputs and logits nobody compared."""

from __future__ import annotations

import io
import json

import pytest
from msgspec.structs import replace
from reports import STEP, checked, good, provenance, report, sublayer, tensor, unscored
from rich.console import Console

from goldenctl.records.checks import CheckStep
from goldenctl.records.findings import Findings
from goldenctl.records.report import Report
from goldenctl.records.uncompared import not_compared, silence, uncompared
from goldenctl.report import html, junit, markdown
from goldenctl.report.console import print_report
from goldenctl.report.json import render as render_json
from goldenctl.report.render_console import show
from goldenctl.report.sections import matrix

LAYER = "layers/00/attention"
MLPS = tuple(f"{STEP}/layers/{n:02}/mlp" for n in range(9))
LACKING = "not compared: the logits (lm_head.output), layers.00.attention.output"


def shown(made: Report) -> list[str]:
    file = io.StringIO()
    print_report(made, console=Console(file=file, width=400, highlight=False))
    return file.getvalue().splitlines()


def lacking() -> Report:
    """The logits and the output of a sublayer are not in the engine's dump."""
    return report(
        sublayer("embedding", tensor("embedding", "output", 0.0)),
        sublayer(
            LAYER,
            tensor(LAYER, "q_proj", 0.25),
            unscored(LAYER, "output", "not_computed", "the engine's dump does not have it"),
        ),
        sublayer("lm_head", unscored("lm_head", "output", "not_computed", "it is not in the dump")),
    )


def recorded(*names: str, layers: int, step: str = STEP, **changes: object) -> Report:
    """A golden of a model of so many layers that holds these sublayers alone."""
    config = {"num_hidden_layers": layers}
    golden = provenance("golden", model={"config": config})
    return report(
        *(sublayer(name, tensor(name, "output")) for name in names), golden=golden, **changes
    )


@pytest.mark.parametrize(
    ("made", "want"),
    [
        (good(), ""),
        (lacking(), LACKING),
        (
            recorded("lm_head", layers=1, left_out=1, not_run=(f"{STEP}/layers/00/mlp",)),
            "not compared: layers.00.mlp.output",
        ),
        (
            recorded("layers/01/mlp", "layers/03/mlp", layers=6),
            "not compared: the logits (lm_head.output is not in the golden), "
            "layers 0, 2, 4-5 (not in the golden)",
        ),
        (
            recorded("layers/00/mlp", "lm_head", layers=1, left_out=1,
                     not_run=("cases/default/steps/01/lm_head",)),
            "not compared: all of default/01",
        ),
        (replace(good(), left_out=3), "not compared: 3 sublayers"),
        (report(), ""),
        (
            replace(
                good(),
                left_out=5,
                not_run=tuple(f"{STEP}/{name}" for name in ("a", "b", "c", "d", "e")),
            ),
            "not compared: a.output, b.output, c.output and 2 more",
        ),
        (
            replace(good(), left_out=9, not_run=MLPS),
            "not compared: mlp.output of layers 0-8",
        ),
    ],
    ids=["all", "dump", "layers", "recorded", "step", "old report", "nothing", "others", "alike"],
)  # fmt: skip
def test_what_is_said(made: Report, want: str) -> None:
    assert not_compared(made) == want


def test_of_one_step_and_of_several() -> None:
    steps = [f"cases/default/steps/{n:02}" for n in range(4)]
    sublayers = []
    for step in steps:
        for name in ("embedding", "lm_head"):
            made = tensor(name, "output")
            sublayers.append(
                replace(
                    sublayer(name, replace(made, name=f"{step}/{name}/output")),
                    name=f"{step}/{name}",
                )
            )
    one = replace(report(*sublayers[:-1]), not_run=(f"{steps[3]}/lm_head",), left_out=1)
    assert uncompared(one) == ["the logits (lm_head.output) in default/03"]
    rest = [s for s in sublayers if not s.name.endswith("lm_head") or "00" in s.name]
    gone = tuple(f"{step}/lm_head" for step in steps[1:])
    three = replace(report(*rest), not_run=gone, left_out=3)
    assert uncompared(three) == ["the logits (lm_head.output) in 3 of 4 cases and steps"]


def test_every_format_says_it_at_its_head() -> None:
    made = lacking()
    assert made.ok
    assert shown(made)[0] == (
        f"✓ PASS  2 tensors of 3 sublayers; {LACKING}; within tolerance, at most 25% of it used"
    )
    heading = markdown.render(made).splitlines()[0]
    assert heading.startswith("### ✅ PASS: goldenctl diff; not compared")
    assert "the logits (lm&#95;head.output)" in heading
    page = html.render(made)
    assert LACKING in page[page.index("<h1>") : page.index("</h1>")]
    said = json.loads(render_json(made))
    assert said["ok"] is True
    assert said["not_compared"] == ["the logits (lm_head.output)", "layers.00.attention.output"]
    xml = junit.render(made)
    assert '<testsuite name="not compared" tests="2" failures="0" errors="0" skipped="2"' in xml
    assert shown(replace(made, command="blame", findings=Findings()))[0] == (
        f"✓ no culprit: every op is right, given right inputs; {LACKING}"
    )


def test_several_runs_side_by_side() -> None:
    part = replace(lacking(), run=replace(good().run, path="part.h5"))
    made = [good(), part]
    file = io.StringIO()
    show(matrix.side_by_side(made), Console(file=file, width=400, highlight=False))
    first, second = file.getvalue().splitlines()[:2]
    assert "not compared" not in first
    assert LACKING in second
    want = "2 of 2 runs within tolerance; not every output was compared of part"
    assert matrix.verdict(made) == want


def test_a_check_says_it_of_each_golden_set() -> None:
    step = CheckStep("tiny", "replay", "passed", "79 budget", 0.4, "infinicore", LACKING)
    passed = CheckStep("qwen3", "replay", "passed", "3 budget", 0.4)
    one = replace(checked(), checks=(step,))
    assert silence(one) == LACKING
    last = shown(replace(one, checks=(step, passed)))[-1]
    assert last == f"✓ PASS  2 steps of 2 golden sets; tiny: {LACKING}"
    digests = replace(checked(), checks=(CheckStep("tiny", "integrity", "passed"),))
    assert silence(digests) == "digests alone, nothing was computed again"


def test_a_failure_needs_no_such_words() -> None:
    made = replace(lacking(), extra=(unscored("embedding", "x", "extra", "not in the golden"),))
    assert not made.ok
    assert "not compared" not in markdown.render(made).splitlines()[0]
