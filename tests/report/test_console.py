"""Tests of what a person reads: whole outputs."""

from __future__ import annotations

import io
from typing import Any

import pytest
from msgspec.structs import replace
from reports import bad, good, report, sublayer, tensor, unscored
from rich.console import Console

from goldenctl.diff.report import Report
from goldenctl.report.console import print_report


def shown(made: Report, *, width: int = 80, color: bool = False, **options: Any) -> str:
    """What is printed, without trailing spaces."""
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        highlight=False,
        force_terminal=color,
        color_system="standard" if color else None,
    )
    print_report(made, console, **options)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


GOOD = """\
✓ PASS  4 tensors of 3 sublayers within tolerance, at most 90% of it used
  1 use more than 80%: layers.00.attention.output
  not computed by this backend, so not judged: scores
  rule: tolerance default (4); mode: sublayer

   sublayer             used   rel L2    cosine  golden   run  ratio
✓  embedding              0%  0.0e+00  1.000000    2 ms  5 ms   2.5x
✓  layers.00.attention   90%  9.0e-03  1.000000    2 ms  5 ms   2.5x
✓  lm_head               50%  5.0e-03  1.000000    2 ms  5 ms   2.5x"""

BAD = """\
SIMULATED: no engine computed these outputs
INJECTED FAULTS: rope_interleaved
✗ FAIL  5 of 6 tensors are wrong
  first wrong: layers.00.attention.q_proj (op linear)
  2 times its tolerance: relative L2 2.00e-02, cosine 1.000000
  worst at batch 0, token 3, hidden 7
  rule: tolerance default (3); mode: sublayer

   sublayer                        used   rel L2    cosine  golden   run  ratio
✓  embedding                         0%  0.0e+00  1.000000    2 ms  5 ms   2.5x
✗  layers.00.attention (q_proj)    200%  2.0e-02  1.000000    2 ms  5 ms   2.5x
✗  layers.00.mlp (output)        >9999%        -         -    2 ms  5 ms   2.5x
✗  lm_head (output)              >9999%        -         -    2 ms  5 ms   2.5x"""

EMPTY = """\
✗ FAIL  nothing was compared
  rule: default; mode: sublayer

  sublayer             used  rel L2  cosine  golden  run  ratio"""


@pytest.mark.parametrize(
    ("made", "want"),
    [(good(), GOOD), (bad(), BAD), (report(), EMPTY)],
    ids=["good", "bad", "empty"],
)
def test_the_whole_output(made: Report, want: str) -> None:
    assert shown(made) == want


def test_worst_shows_so_many_worst_first() -> None:
    lines = shown(good(), worst=2).splitlines()
    assert [line.split()[1] for line in lines[6:]] == ["layers.00.attention", "lm_head"]


def test_the_verdict_names_the_first_in_execution_order_whatever_the_sorting() -> None:
    first, second = (shown(bad(), **options).splitlines()[3] for options in ({}, {"worst": 1}))
    assert first == second == "  first wrong: layers.00.attention.q_proj (op linear)"


def test_verbose_shows_every_tensor() -> None:
    text = shown(good(), verbose=True)
    for tap in ("q_proj", "scores", "output"):
        assert f"  {tap}" in text
    assert "max ULP" in text


@pytest.mark.parametrize("made", [good(), bad()], ids=["good", "bad"])
@pytest.mark.parametrize("verbose", [False, True])
def test_no_line_is_wider_than_80_columns(made: Report, verbose: bool) -> None:
    long = sublayer("layers/77/attention", tensor("layers/77/attention", "input_layernorm", 9.0))
    wide = report(*made.sublayers, long, extra=made.extra)
    assert max(map(len, shown(wide, verbose=verbose).splitlines())) <= 80


def test_colour_adds_nothing_that_a_pipe_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The marks and words carry the verdict; NO_COLOR leaves no colour behind."""
    plain = shown(bad())
    assert "\x1b" not in plain
    assert "\x1b[" in shown(bad(), color=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not any(f"\x1b[{code}m" in shown(bad(), color=True) for code in (31, 32, 33))


HOSTILE = "q[bold]\x1b[2J\n"


def test_names_of_a_file_cannot_write_to_the_terminal() -> None:
    """Control characters are escaped, markup is printed as it stands."""
    wrong = unscored(f"layers/00/{HOSTILE}", HOSTILE, "missing", f"said {HOSTILE}")
    made = report(
        sublayer(f"layers/00/{HOSTILE}", wrong),
        faults=(HOSTILE,),
        mode=HOSTILE,
        policy=HOSTILE,
    )
    text = shown(made, width=200)
    assert "\x1b" not in text
    assert r"q[bold]\x1b[2J\n" in text


def test_names_of_a_file_cannot_write_to_the_terminal_when_verbose() -> None:
    wrong = unscored(f"layers/00/{HOSTILE}", HOSTILE, "missing", "")
    text = shown(report(sublayer(f"layers/00/{HOSTILE}", wrong)), width=200, verbose=True)
    assert "\x1b" not in text
    assert r"q[bold]\x1b[2J\n" in text


def test_a_tensor_that_was_not_computed_is_not_marked_wrong() -> None:
    line = next(x for x in shown(good(), verbose=True).splitlines() if " scores " in x)
    assert not line.startswith("✗")


def test_cases_are_told_apart_when_there_are_several() -> None:
    one = sublayer("embedding", tensor("embedding", "output"))
    other = replace(one, name="cases/long/steps/00/embedding")
    text = shown(report(one, other))
    assert "✓  default: embedding" in text
    assert "✓  long: embedding" in text
