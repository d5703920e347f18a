"""Tests of the command lines that a report gives: each is one that the program takes."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
from msgspec.structs import replace
from reports import STORED, bad, checked, good, provenance, report, selftested, sublayer, tensor

from goldenctl.cli import cli
from goldenctl.records.report import Report
from goldenctl.report.commands import commands
from goldenctl.report.json import load_report


def lines(made: Report) -> list[str]:
    return [command.text for command in commands(made)]


def blamed(**changes: Any) -> Report:
    return replace(load_report(STORED / "blamed.json"), **changes)


def diffed(path: str = "g.h5", **recipe: Any) -> Report:
    """A failed diff of a run of InfiniCore on another device."""
    full = {"model": {"path": "m o"}, "dtype": "bfloat16", "oracle": "budget", **recipe}
    return report(
        sublayer("layers/02/mlp", tensor("layers/02/mlp", "up_proj", 9.0)),
        golden=replace(provenance("golden", **full), path=path),
        run=provenance("run", backend={"name": "infinicore"}, device="nvidia", dtype="bfloat16"),
        faults=("no_norm@layers.02",),
    )


EVERY = {
    "good": good(), "bad": bad(), "blamed": blamed(), "check": checked(), "selftest": selftested(),
    "texts": diffed(
        cases=[{"name": "prompt-1", "text": "it's"}, {"name": "prompt-2", "text": "-x"}]
    ),
    "set": diffed("goldens/tiny/v2.h5"),
    "two goldens": report(
        sublayer("mlp", tensor("mlp", "output", 9.0)),
        golden=replace(provenance("golden"), path="goldens/tiny/v1.h5"),
        run=replace(provenance("golden"), path="goldens/tiny/v2.h5"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_one_that_the_program_takes(name: str) -> None:
    for line in lines(EVERY[name]):
        words = shlex.split(line)
        if words[0] == "gdb":
            continue
        assert words[0] == "goldenctl"
        command = cli.commands[words[1]]
        # Parses the words as the program would; raises for an unknown or missing one.
        command.make_context(words[1], words[2:], resilient_parsing=False)


def test_a_diff_is_reproduced_debugged_and_accepted() -> None:
    assert lines(diffed(cases=[{"name": "prompt", "text": "it's"}])) == [
        "goldenctl replay g.h5 run.h5 --backend infinicore --device nvidia --mode sublayer "
        "--inject no_norm@layers.02 --dtype bfloat16 --force",
        "goldenctl diff g.h5 run.h5",
        "goldenctl blame g.h5 --backend infinicore --device nvidia --inject no_norm@layers.02",
        "goldenctl replay g.h5 one.h5 --backend infinicore --device nvidia --mode op --layers 02 "
        "--inject no_norm@layers.02 --dtype bfloat16 --debug layers.02.mlp",
        "goldenctl record 'm o' g.h5 --prompt 'it'\"'\"'s' --dtype bfloat16 --oracle budget "
        "--force",
    ]


PROMPT = {"name": "prompt", "text": "Hi"}


@pytest.mark.parametrize(
    ("cases", "options"),
    [
        ([PROMPT], "--prompt Hi"),
        ([{"name": "default", "text": "Hello"}], ""),
        ([PROMPT | {"decode": 3, "prefill_chunk": 4}], "--prompt Hi --decode 3 --prefill-chunk 4"),
        (
            [PROMPT | {"decode": 3, "force_tokens": [[5, 6, 7]]}],
            "--prompt Hi --force-tokens 5,6,7",
        ),
    ],
)
def test_the_command_that_records_again_says_all_of_the_recipe(
    cases: list[dict[str, Any]], options: str
) -> None:
    recipe = {"layers": [1, 2], "taps": "op", "budget_dtypes": ["float16"], "cases": cases}
    wanted = (
        f"goldenctl record 'm o' g.h5 {options} --dtype bfloat16 --layers 1,2 "
        "--oracle budget --budget-dtypes float16 --force"
    )
    assert lines(diffed(**recipe))[-1] == wanted.replace("  ", " ")


@pytest.mark.parametrize(
    "cases",
    [
        [PROMPT | {"position_offset": 400}],
        [{"name": "late", "text": "Hi"}],
        [{"name": "prompt", "text": None}],
        [PROMPT | {"padding": [0, 1]}],
        [{"name": "prompt-1", "text": "a", "decode": 1}, {"name": "prompt-2", "text": "b"}],
        [],
    ],
)
def test_what_options_cannot_say_is_not_recorded_as_something_else(
    cases: list[dict[str, Any]],
) -> None:
    assert not any("goldenctl record" in line for line in lines(diffed(cases=cases)))


def test_a_simulated_run_is_made_again_with_its_noise_and_not_debugged() -> None:
    backend = {"name": "simulated", "noise": 0.1, "seed": 3}
    made = replace(diffed(), simulated=True, run=provenance("run", backend=backend), faults=())
    replayed, compared, *others = lines(made)
    assert replayed.startswith(
        "goldenctl replay g.h5 run.h5 --backend simulated --noise 0.1 --seed 3 --mode"
    )
    assert compared == "goldenctl diff g.h5 run.h5"
    assert not any("blame" in line or "--debug" in line for line in others)


def test_commands_keep_the_tolerance() -> None:
    made = replace(diffed(), policy="tight.toml")
    assert "goldenctl diff g.h5 run.h5 --tolerance tight.toml" in lines(made)


def test_an_engine_is_named_as_it_was_given() -> None:
    install = {"root": "/opt/infini", "source": "option"}
    for backend, given in (
        ({"name": "exec", "path": "/opt/my engine", "program": "mine 1"}, "'exec:/opt/my engine'"),
        ({"name": "infinicore", "infinicore": install}, "infinicore:/opt/infini"),
        ({"name": "infinicore", "infinicore": {**install, "source": "home"}}, "infinicore"),
    ):
        made = replace(diffed(), run=provenance("run", backend=backend))
        assert f"goldenctl replay g.h5 run.h5 --backend {given} --mode " in lines(made)[0]


def test_a_crash_comes_with_its_own_command() -> None:
    assert "gdb --args h run.h5.debug.json --only 0" in lines(bad())


ONLY = ["run.h5.debug.json", "--only", "0"]
CRASHES = {
    "words": (["/opt/a b", "$(id)", *ONLY], "gdb --args '/opt/a b' '$(id)' "),
    "of older files": ("h; id && x P --only 0", "gdb --args 'h;' id '&&' x "),
    "control characters": (["h\x1b['\u202e", *ONLY], "gdb --args $'h\\x1b[\\x27\\xe2\\x80\\xae' "),
    "an option of gdb": (["-ex", "shell id", "h", *ONLY], None),
    "no program": (ONLY, None),
    "not closed": ("h 'P --only 0", None),
    "no number": (["h", "P", "--only", "$(id)"], None),
    "no words": ({"h": 1}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CRASHES)
def test_what_a_run_says_of_a_crash_is_quoted_and_called_its_claim(name: str) -> None:
    command, wanted = CRASHES[name]
    failure = {"reason": "signal", "command": command}
    made = report(sublayer("lm_head", state="crashed", failure=failure))
    debug = [each for each in commands(made) if "gdb" in each.text]
    assert [each.text for each in debug] == (
        [f"{wanted}run.h5.debug.json --only 0"] if wanted else []
    )
    assert all("the run file names this program: look at it first" in d.purpose for d in debug)


def test_a_program_that_is_ours_is_named_by_us() -> None:
    failure = {"reason": "signal", "command": ["evil", *ONLY]}
    crashed = sublayer("lm_head", state="crashed", failure=failure)
    made = report(crashed, run=provenance("run", backend={"name": "torch"}))
    (debug,) = (each for each in commands(made) if "gdb" in each.text)
    assert "evil" not in debug.text
    assert "look at it first" not in debug.purpose


@pytest.mark.parametrize("path", ["/x/backend", "/x/a b;id"])
def test_a_backend_that_a_run_names_is_called_its_claim(path: str) -> None:
    made = replace(bad(), run=provenance("run", backend={"name": "exec", "path": path}))
    named = [each for each in commands(made) if "exec:" in each.text]
    assert named
    assert all("look at it first" in each.purpose for each in named)
    assert all(f"exec:{path}" in shlex.split(each.text) for each in named)


def test_places_that_look_like_options_stand_behind_two_dashes() -> None:
    made = replace(bad(), golden=replace(provenance("golden"), path="--html=x"))
    made = replace(made, run=replace(provenance("run"), path="-r.h5"))
    assert [line for line in lines(made) if " diff " in line] == [
        "goldenctl diff -- --html=x -r.h5"
    ]
    for line in lines(made):
        words = shlex.split(line)
        if words[0] == "goldenctl":
            cli.commands[words[1]].make_context(words[1], words[2:], resilient_parsing=False)


def test_a_golden_of_a_set_is_accepted_by_its_manifest() -> None:
    assert lines(EVERY["set"])[-2:] == [
        "goldenctl record --from-manifest tiny",
        "goldenctl manifest tiny --renew",
    ]
    assert lines(EVERY["two goldens"]) == [
        "goldenctl diff goldens/tiny/v1.h5 goldens/tiny/v2.h5",
        "goldenctl manifest tiny@v2 --renew",
    ]


def test_a_check_is_repeated_for_what_is_wrong() -> None:
    assert lines(checked()) == [
        "goldenctl check qwen3 llama --keep kept",
        "gdb --args h run.h5.debug.json --only 0",
        "goldenctl replay golden.h5 one.h5 --mode op --layers 00 --debug layers.00.attention",
        "goldenctl record --from-manifest qwen3",
        "goldenctl manifest qwen3 --renew",
    ]


def test_nothing_is_accepted_that_passed() -> None:
    assert not [line for line in lines(good()) if "record" in line or "renew" in line]


def test_click_is_asked() -> None:
    with pytest.raises(click.UsageError):
        cli.commands["diff"].make_context("diff", ["a", "b", "--none-such"])
