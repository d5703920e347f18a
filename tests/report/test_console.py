"""Tests of what a person reads: whole outputs."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from reports import (
    EVERY,
    STEP,
    bad,
    blamed,
    checked,
    good,
    provenance,
    report,
    selftested,
    sublayer,
    tensor,
    unscored,
)
from rich.console import Console

from goldenctl.diff.metrics import score
from goldenctl.records.checks import CheckStep
from goldenctl.records.report import Report, SublayerResult
from goldenctl.records.units import factor, plural
from goldenctl.records.words import duration, of_tolerance, percent, ratio
from goldenctl.report import html, markdown
from goldenctl.report.answers import UNTOLD, answers
from goldenctl.report.console import print_report
from goldenctl.report.render_console import make_console
from goldenctl.report.sections.choice import Choice


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
    options["brief"] = not options.pop("verbose", False)
    print_report(made, Choice(**options), console)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


GOOD = """\
✓ PASS  4 tensors of 3 sublayers within tolerance, at most 90% of it used
  1 use more than 80%: layers.00.attention.output
  not computed by this backend, so not judged: scores
  rule: tolerance default (4); mode: sublayer

   sublayer             used   rel L2    cosine
✓  embedding              0%  0.0e+00  1.000000
✓  layers.00.attention   90%  9.0e-03  1.000000
✓  lm_head               50%  5.0e-03  1.000000"""

BAD = """\
SIMULATED: no engine computed these outputs
INJECTED FAULTS: rope_interleaved
✗ FAIL  4 of 5 tensors are wrong; 1 sublayer crashed (1 tensor not compared)
  first wrong: layers.00.attention.q_proj (op linear)
  200% of its tolerance: relative L2 2.00e-02, cosine 1.000000
  only a recorded budget (record --oracle) can tell a bug from rounding
  worst at batch 0, token 3, hidden 7; largest error: expected -1, got -1.02
  rule: tolerance default (3); mode: sublayer
✗ layers.00.mlp did not run to the end
    signal at gate_proj: SIGSEGV
1 sublayer crashed: goldenctl inspect run.h5 shows its reason and command

   sublayer                         used   rel L2    cosine
✓  embedding                          0%  0.0e+00  1.000000
✗  layers.00.attention (q_proj)     200%  2.0e-02  1.000000
✗  layers.00.mlp (output)        crashed        -         -
✗  lm_head (output)              missing        -         -"""

EMPTY = """\
✗ FAIL  nothing was compared
  rule: default; mode: sublayer"""


@pytest.mark.parametrize(
    ("made", "want"),
    [(good(), GOOD), (bad(), BAD), (report(), EMPTY)],
    ids=["good", "bad", "empty"],
)
def test_the_whole_output(made: Report, want: str) -> None:
    assert shown(made) == want


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "diff",
            "goldenctl inspect 'my runs/a long name.h5' shows the reason and command of each",
        ),
        (
            "verify",
            "goldenctl inspect 'my runs/a long name.h5' shows the reason and command of each",
        ),
        ("check", "with --keep FOLDER, goldenctl inspect shows why"),
        ("alone-vs-batched", None),
    ],
)
def test_above_the_table_stands_how_to_see_why_sublayers_crashed(
    command: str, line: str | None
) -> None:
    """On one line however narrow the console; scratch runs are gone when it is read."""
    crashed = [
        sublayer(name, unscored(name, "output", "crashed", "status at output"), state="crashed")
        for name in ("layers/00/attention", "layers/00/mlp")
    ]
    run = replace(provenance("run"), path="my runs/a long name.h5")
    made = report(*good().sublayers, *crashed, run=run, command=command)
    for options in ({}, {"worst": 1}, {"verbose": True}):
        lines = shown(made, width=60, **options).splitlines()
        want = [] if line is None else [f"2 sublayers crashed: {line}"]
        assert [said for said in lines if "crashed: " in said] == want


def test_worst_shows_so_many_worst_first() -> None:
    lines = shown(good(), worst=2).splitlines()
    assert [line.split()[1] for line in lines[6:]] == ["layers.00.attention", "lm_head"]


def narrow() -> Report:
    """A note that fits beside its sublayer, and one that does not."""
    return report(
        sublayer("layers/00/attention", tensor("layers/00/attention", "q_proj")),
        sublayer("layers/00/mlp", tensor("layers/00/mlp", "up_proj", 9.0)),
        sublayer(
            "layers/01/self_attention",
            tensor("layers/01/self_attention", "post_attention_layernorm", 9.0),
        ),
    )


def test_a_narrow_console_loses_times_before_scores_and_breaks_no_name() -> None:
    def table(width: int) -> list[str]:
        lines = shown(narrow(), width=width, times=True).splitlines()
        return lines[next(i for i, line in enumerate(lines) if "sublayer  " in line) :]

    titles = {width: table(width)[0].split() for width in (100, 80, 60, 53, 44)}
    kept = ["sublayer", "used", "rel", "L2"]
    assert titles[100] == titles[80] == [*kept, "cosine", "golden", "run", "ratio"]
    assert titles[60] == [*kept, "cosine", "ratio"]
    assert titles[53] == [*kept, "cosine"]
    assert titles[44] == kept
    assert "✗  layers.01.self_attention (post_attention_layernorm)  900%" in shown(
        narrow(), width=100
    )
    for width in (80, 60, 53, 44):
        assert "     (post_attention_layernorm)" in table(width)
        assert len({line.index(" 900%") for line in table(width) if "900%" in line}) == 1


def test_a_report_longer_than_the_screen_ends_in_its_verdict() -> None:
    def lines(height: int, *, terminal: bool = True) -> list[str]:
        file = io.StringIO()
        console = Console(
            file=file, width=100, height=height, force_terminal=terminal, color_system=None
        )
        print_report(bad(), console=console)
        return file.getvalue().splitlines()

    whole = len(lines(height=100))
    last = "✗ FAIL  4 of 5 tensors are wrong, first layers.00.attention.q_proj"
    assert lines(height=whole)[-1] == last
    assert not lines(height=whole + 1)[-1].startswith("✗ FAIL")
    assert not lines(height=whole, terminal=False)[-1].startswith("✗ FAIL")


def test_of_two_goldens_the_sides_are_old_and_new_everywhere() -> None:
    made = replace(EVERY["timed"](), run=provenance("golden"))
    text = shown(made, width=120, times=True)
    assert "3 ms" in text
    assert ": old " in text
    assert ", new " in text
    assert "old  " in text
    for words in (text, markdown.render(made), html.render(made)):
        assert "old" in words
        assert ", run " not in words.split("Provenance")[0]


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


SEVERAL = """\
✗ FAIL  1 of 5 tensors is wrong
  first wrong: long/01: layers.00.mlp.up_proj (op linear)
  900% of its tolerance: relative L2 9.00e-02, cosine 1.000000
  only a recorded budget (record --oracle) can tell a bug from rounding
  worst at batch 0, token 3, hidden 7; largest error: expected -1, got -1.09
  rule: tolerance default (5); mode: sublayer

   case        tensors  wrong  used  first wrong
✓  default/00        1      0   25%
✓  long/00           1      0   25%
✗  long/01           3      1  900%  layers.00.mlp.up_proj

   sublayer                          used   rel L2    cosine
✓  long/01: embedding                 25%  2.5e-03  1.000000
✗  long/01: layers.00.mlp (up_proj)  900%  9.0e-02  1.000000"""


def moved(made: SublayerResult, step: str) -> SublayerResult:
    tensors = tuple(replace(t, name=t.name.replace(STEP, step)) for t in made.tensors)
    return replace(made, name=made.name.replace(STEP, step), tensors=tensors)


def several() -> Report:
    """Two cases, one of two steps; the last step is wrong."""
    right = sublayer("embedding", tensor("embedding", "output"))
    wrong = sublayer(
        "layers/00/mlp",
        tensor("layers/00/mlp", "up_proj", 9.0),
        tensor("layers/00/mlp", "output"),
    )
    last = "cases/long/steps/01"
    return report(
        right, moved(right, "cases/long/steps/00"), moved(right, last), moved(wrong, last)
    )


def test_cases_and_steps_have_a_line_each_and_the_wrong_one_its_sublayers() -> None:
    assert shown(several(), width=100) == SEVERAL


@pytest.mark.parametrize("only", ["up_proj", "layers.*.up_*", "mlp/up_proj", "layers.00.mlp.up"])
def test_only_shows_what_matches_and_judges_everything(only: str) -> None:
    text = shown(several(), width=100, only=only, verbose=True)
    assert text.startswith("✗ FAIL  1 of 5 tensors is wrong")
    rows = [line for line in text.splitlines() if line.startswith(("✓", "✗"))][4:]
    assert [row.split()[1] for row in rows] == ["long/01:", "up_proj"]


def test_only_without_a_match_shows_no_sublayer() -> None:
    assert shown(several(), width=100, only="nothing").endswith("sublayer  used  rel L2  cosine")


BLAMED = """\
✗ FAIL  2 of 5 tensors are wrong; 2 ops are wrong by themselves
✗ culprit layers.00.attention.q_rope (rope)
    99.9% of the error is explained by 'interleaved RoPE'
✗ culprit layers.00.attention.output (add)
    not explained by a known fault; the error looks like: only head 3

sublayer             isolated  inherited  chained  growth  part
embedding             0.0e+00    0.0e+00  0.0e+00       -
layers.00.attention   5.0e-01    0.0e+00  5.0e-01       -  culprit
layers.00.mlp         1.0e-07    5.0e-01  4.0e-01    0.8×  victim

isolated    relative L2 error of the output, from the golden's input
inherited   of what came in along the chain
chained     of what went out along the chain
growth      chained over inherited
culprit     wrong though its input is right
victim      right by itself, only its input is wrong

graft: the chain once more, with the golden's tensor in place of 2 culprits: 0
wrong sublayers instead of 2; top-1 token 7 → 5, golden 5: healed"""


def test_what_blame_found() -> None:
    assert shown(blamed()) == BLAMED


def test_one_bug_in_several_steps_is_one_culprit() -> None:
    one = blamed()
    step = "cases/default/steps/01"
    sublayers = (*one.sublayers, *(moved(s, step) for s in one.sublayers))
    assert one.findings is not None
    named = one.findings.culprits[0]
    again = replace(named, name=named.name.replace(STEP, step))
    depths = one.findings.depths
    depths += tuple(replace(d, name=d.name.replace(STEP, step)) for d in depths)
    findings = replace(one.findings, culprits=(named, again), depths=depths)
    made = replace(one, sublayers=sublayers, findings=findings)
    lines = shown(made, width=100).splitlines()
    where = "layers.00.attention.q_rope in default/00, default/01"
    assert lines[1] == f"✗ culprit {where} (rope)"
    assert [line for line in lines if "default/01: " in line] == []
    assert [line for line in shown(made, verbose=True).splitlines() if "default/01: " in line]


def test_a_selftest_names_what_escaped() -> None:
    text = shown(selftested(caught=False))
    assert text.startswith("✗ FAIL  bfloat16: 189 of 192 visible faults caught, 189 named")
    assert "counted apart: 8 faults that this input does not show" in text
    assert "  escaped: fault_2 at layers.00.mlp.tap_197" in text
    assert "fault_4" not in text.split("gate")[1]
    assert shown(selftested()).startswith("✓ PASS")


def test_a_pipe_breaks_no_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert make_console().width > 200
    monkeypatch.setenv("COLUMNS", "90")
    assert make_console().width == 90


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("verbose", [False, True])
def test_every_report_prints_clean_lines_of_80_columns(name: str, verbose: bool) -> None:
    text = shown(EVERY[name](), verbose=verbose)
    assert max(map(len, text.splitlines())) <= 80
    assert all(char.isprintable() for char in text.replace("\n", ""))


CHECKED = """\
   golden  step       judged by  used
✓  tiny    integrity                   v1 here
✓  tiny    replay     79 budget   40%
✗  qwen3   replay     3 budget      ∞  failed
✗  llama   replay                      missing

✗ qwen3 replay: 1 of 3 wrong, first q_proj
✗ llama replay: there is no InfiniCore
✗ FAIL  2 of 3 golden sets fail"""


def test_a_check_shows_its_steps_and_with_verbose_the_tensors_of_the_wrong_one() -> None:
    assert shown(checked()) == CHECKED
    text = shown(checked(), verbose=True)
    assert text.startswith(CHECKED)
    assert "first wrong: layers.00.attention.q_proj" in text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5.4e-05, "<0.01×"),
        (0.0, "0×"),
        (0.018, "0.018×"),
        (0.138, "0.14×"),
        (1.0, "1×"),
        (2.53, "2.5×"),
        (99.6, "100×"),
        (423.0, "420×"),
        (1012.0, "1000×"),
        (3.3e5, ">9999×"),
        (float("inf"), ">9999×"),
        (float("nan"), "-"),
    ],
)
def test_a_factor_has_two_digits_and_no_exponent(value: float, said: str) -> None:
    assert factor(value) == said


def test_one_has_no_plural() -> None:
    said = ["0 cases", "1 case", "2 cases", "1,200 cases"]
    assert [plural(n, "case") for n in (0, 1, 2, 1200)] == said


@pytest.mark.parametrize(
    ("rule", "share", "sure", "printed"),
    [
        (
            "default",
            9.9,
            "990% of its tolerance; only a recorded budget (record --oracle) can",
            True,
        ),
        ("default", 10.0, "1,000% of its tolerance: rounding hardly does that", False),
        ("budget", 3.9, "beyond what rounding does, but near", False),
        ("truth", 4.0, "400% of its tolerance: rounding does not do that", False),
        ("default", float("inf"), "certain: NaN is not rounding", False),
    ],
)
def test_how_sure(rule: str, share: float, sure: str, printed: bool) -> None:
    wrong = tensor("layers.00/mlp", "output", share, state="failed", rule=rule)
    made = report(sublayer("layers.00/mlp", wrong, state="failed", share=share))
    assert sure in answers(made).sure
    assert (UNTOLD in shown(made)) == printed


@pytest.mark.parametrize(
    ("share", "cell", "sentence"),
    [
        (0.69, "69%", "69% of its tolerance"),
        (8.5, "850%", "850% of its tolerance"),
        (1_210, "1,210×", "1,210 times its tolerance"),
        (1.77e6, "1.77 million×", "1.77 million times its tolerance"),
        (3e15, "3,000 trillion×", "3,000 trillion times its tolerance"),
        (float("inf"), "∞", "beyond any tolerance"),
    ],
)
def test_shares_of_a_tolerance_are_numbers_for_people(
    share: float, cell: str, sentence: str
) -> None:
    assert (percent(share), of_tolerance(share)) == (cell, sentence)


def test_one_bug_in_two_ops_of_several_layers_is_one_culprit() -> None:
    one = blamed()
    assert one.findings is not None
    first = one.findings.culprits[0]
    alike = [
        replace(first, name=f"{STEP}/layers/{layer:02d}/attention/{tap}", tap=tap,
                sublayer=f"{STEP}/layers/{layer:02d}/attention")
        for layer in range(3)
        for tap in ("q_rope", "k_rope")
    ]  # fmt: skip
    made = replace(one, findings=replace(one.findings, culprits=tuple(alike)))
    assert shown(made).splitlines()[:2] == [
        "✗ FAIL  2 of 5 tensors are wrong; 6 ops are wrong by themselves",
        "✗ culprit layers.00-02.attention.q_rope and k_rope (rope)",
    ]


def test_equal_crashes_are_one_finding_and_their_ops_are_not_wrong() -> None:
    failure = {"reason": "signal", "tap": "up_proj", "message": "SIGSEGV", "stderr": "bad pointer"}
    names = [f"layers/{layer:02d}/mlp" for layer in range(3)]
    crashed = [
        sublayer(
            name,
            *(unscored(name, tap, "crashed", "signal") for tap in ("gate_proj", "up_proj")),
            state="crashed",
            failure=failure,
        )
        for name in names
    ]
    made = report(*good().sublayers, *crashed)
    text = shown(made)
    assert text.startswith(
        "✗ FAIL  0 of 4 tensors are wrong; 3 sublayers crashed (6 tensors not compared)"
    )
    assert "✗ layers.00-02.mlp did not run to the end\n    signal at up_proj: SIGSEGV" in text
    assert "bad pointer" not in text
    assert "bad pointer" in shown(made, verbose=True)
    page = html.render(made)
    assert page.count("did not run to the end") == 1
    assert "What is wrong" in page
    assert markdown.render(made).count("did not run to the end") == 1


def test_a_nan_is_not_told_as_the_fine_numbers_of_the_rest() -> None:
    expected = np.ones((1, 4, 8), np.float32)
    actual = expected.copy()
    actual[0, 2, 3] = np.nan
    metrics = score(actual, expected, atol=0.0, rtol=1e-6)
    assert metrics.cosine == 1.0
    lost = tensor("mlp", "output", float("inf"), state="failed", metrics=metrics)
    text = shown(report(sublayer("mlp", lost)))
    row = next(line.split() for line in text.splitlines() if line.startswith("✗  mlp"))
    assert row[-3:] == ["NaN", "NaN", "NaN"]
    assert "beyond any tolerance: NaN or Inf on one side alone in 1 of 32 elements" in text


def test_a_ratio_stands_where_both_times_are_above_the_noise() -> None:
    assert (ratio(90_000, 30_000), ratio(90_000, 29_999), ratio(0, 90_000)) == ("3×", "-", "-")
    assert [duration(ns) for ns in (0, 999, 23_456, 236_500_000)] == [
        "-",
        "1 µs",
        "23 µs",
        "240 ms",
    ]
    assert "ratio is run over golden, where both took 30 µs or more" in " ".join(
        shown(good(), times=True).split()
    )


def test_a_damaged_golden_set_is_told_in_its_own_words() -> None:
    step = CheckStep("tiny", "integrity", "damaged", said="does not match its digest")
    made = report(command="check", checks=(step,), golden=provenance(""), run=provenance(""))
    page = html.render(made)
    for words in ("What kind of bug", "judged by", "<th>used", "--keep"):
        assert words not in page
    assert "certain: these are not the bytes that were recorded" in page
    assert shown(made).splitlines()[0].split() == ["golden", "step"]
