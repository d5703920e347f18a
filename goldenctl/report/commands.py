"""The exact commands that a report gives: to reproduce it, to rerun one op under a
debugger, to accept the change."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from goldenctl.flags import flags_of
from goldenctl.golden.calls import is_of_modules
from goldenctl.golden.selection import Selection
from goldenctl.places import short_name
from goldenctl.records.report import Provenance, Report
from goldenctl.report.answers import first_culprit
from goldenctl.report.blocks import Command
from goldenctl.shell import argv_of

_CLAIM = "the run file names this program: look at it first"
_OF_STEPS = ("decode", "force_tokens", "prefill_chunk")  # of a case in a recipe


def commands(report: Report) -> list[Command]:
    """Return the commands that fit the report, in the order of their use.

    Every word is ours or quoted. Where a program is one that the run file names, the purpose says
    so: whoever wrote the run chose it.
    """
    return [*_marked(report, _reproduce(report)), *_debug(report), *_accept(report)]


def compare_all(reports: Sequence[Report]) -> list[Command]:
    """Return the commands that compare several runs again, and each that is wrong by itself."""
    golden, runs = reports[0].golden.path, [report.run.path for report in reports]
    alone = [
        Command(
            f"See more of {report.run.path}",
            _line("diff", [golden, report.run.path], *_tolerance(report)),
        )
        for report in reports
        if not report.ok
    ]
    again = _line("diff", [golden, *runs], *_tolerance(reports[0]))
    return [Command("Compare again", again), *alone]


def _reproduce(report: Report) -> Iterator[Command]:
    golden, run, recipe = report.golden.path, report.run.path, report.run.recipe
    engine = _engine(recipe)
    if report.command == "selftest":
        yield Command(
            "Run the selftest again", _line("selftest", [golden], *engine, *_layers(recipe))
        )
    elif report.command == "check":
        wrong = [step for step in report.checks if not step.ok]
        names = dict.fromkeys(step.golden for step in wrong)
        if all(step.step == "integrity" for step in wrong):  # it made nothing
            yield Command("Check again", _line("check", list(names)))
        else:
            again = _line("check", list(names), "--keep", "kept")
            yield Command("Check again and keep what it makes", again)
    elif report.run.kind == report.golden.kind:
        yield Command("Compare again", _line("diff", [golden, run], *_tolerance(report)))
    else:
        blame = _line(
            "blame", [golden], *engine, *_layers(recipe), *_faults(report), *_tolerance(report)
        )
        if report.command == "blame":
            yield Command("Blame again", blame)
        elif report.run.kind == "run":
            options = [*_replay_options(report), "--force"]
            yield Command("Replay again", _line("replay", [golden, run], *options))
            yield Command("Compare again", _line("diff", [golden, run], *_tolerance(report)))
            if not report.ok and not report.simulated:
                yield Command("Find every culprit and name its bug", blame)


def _replay_options(report: Report) -> Iterator[str]:
    recipe = report.run.recipe
    yield from (*_engine(recipe), "--mode", report.mode, *_faults(report))
    yield from (*_named(recipe, "dtype", "attention"), *_layers(recipe))


def _named(recipe: dict[str, Any], *names: str) -> Iterator[str]:
    for name in names:
        if recipe.get(name):
            yield from (f"--{name}", str(recipe[name]))


def _tolerance(report: Report) -> list[str]:
    return [] if report.policy == "default" else ["--tolerance", report.policy]


def _marked(report: Report, made: Iterator[Command]) -> Iterator[Command]:
    """Say of commands that run a program which the run file names, that it does."""
    spec = _spec(_object(report.run.recipe.get("backend")))
    for command in made:
        yield _claimed(command) if ":" in spec and spec in command.argv else command


def _claimed(command: Command) -> Command:
    return Command(f"{command.purpose} ({_CLAIM})", command.argv)


def _debug(report: Report) -> Iterator[Command]:
    for sublayer in report.sublayers:
        place = short_name(sublayer.name) or sublayer.name
        purpose = f"Rerun {place} alone, under a debugger"
        argv = argv_of((sublayer.failure or {}).get("command")) or []
        program, chosen = argv[:-3], argv[-2:]
        # gdb takes what begins with a dash before the program for its own options.
        ours = chosen[:1] == ["--only"] and chosen[1].isdecimal()
        if not program or program[0].startswith("-") or not ours:
            continue
        plan = f"{report.run.path}.debug.json"
        if _object(report.run.recipe.get("backend")).get("name") == "torch":
            program = [sys.executable, "-m", "goldenctl.reference.torch_backend"]
            yield Command(purpose, ("gdb", "--args", *program, plan, *chosen))
        else:
            yield _claimed(Command(purpose, ("gdb", "--args", *program, plan, *chosen)))
    yield from _marked(report, _debug_culprit(report))


def _debug_culprit(report: Report) -> Iterator[Command]:
    if is_of_modules(report.golden.recipe):
        return  # what is of PyTorch is debugged there
    first = None if report.ok else first_culprit(report)
    replayed = report.run.kind == "run" and report.golden.kind == "golden"
    replayed = replayed and not report.simulated
    if first is not None and first.metrics is not None and replayed:
        name = short_name(first.sublayer)
        where = name.split(".")
        layers = ["--layers", where[1]] if where[0] == "layers" and len(where) > 1 else []
        recipe = report.run.recipe
        options = [*_engine(recipe), "--mode", "op", *layers, *_faults(report)]
        options += _named(recipe, "dtype", "attention")
        yield Command(
            f"Replay {name} from the golden's own inputs; this prints the command that runs it "
            "alone under a debugger",
            _line("replay", [report.golden.path, "one.h5"], *options, "--debug", name),
        )


def _accept(report: Report) -> Iterator[Command]:
    if report.selftest is not None or report.ok or report.golden.kind == "run":
        return
    if report.command == "check":
        for name in dict.fromkeys(s.golden for s in report.checks if s.state == "failed"):
            yield from _next_version(name)
        return
    newer, golden = _version(report.run.path), _version(report.golden.path)
    if report.run.kind == "golden" and newer:
        yield Command("Only if the new version is right: accept it", _renew(newer))
    elif golden:
        yield from _next_version(golden.rpartition("@")[0])
    else:
        yield from _record(report.golden)


def _next_version(name: str) -> Iterator[Command]:
    yield Command(
        "Only if the reference is what was wrong: record the next version of the set",
        _line("record", [], "--from-manifest", name),
    )
    yield Command("and accept it", _renew(name))


def _version(path: str) -> str:
    """``NAME@vN`` of a golden in a set's folder; empty for any other path."""
    found = re.search(r"(?:^|/)([\w.+-]+)/(v\d+)\.h5$", path)
    return f"{found[1]}@{found[2]}" if found else ""


def _renew(name: str) -> tuple[str, ...]:
    return _line("manifest", [name], "--renew")


def _record(golden: Provenance) -> Iterator[Command]:
    """The command that records a golden again, where options can say all of its recipe."""
    recipe = golden.recipe
    if is_of_modules(recipe):
        yield from _record_modules(golden)
        return
    inputs = _inputs(recipe.get("cases"))
    if inputs is None or not isinstance(recipe.get("model"), dict):
        return
    options = [*inputs, *_named(recipe, "dtype"), *_kept(recipe)]
    computed_on = _object(recipe.get("reference")).get("device", "cpu")
    options += ["--device", str(computed_on)] if computed_on != "cpu" else []
    yield Command(
        "Only if the reference is what was wrong: record it again",
        _line("record", [str(recipe["model"].get("path")), golden.path], *options, "--force"),
    )


def _kept(recipe: dict[str, Any]) -> Iterator[str]:
    """The options that keep what was kept, where that is not the default."""
    for field, how in flags_of(Selection):
        value = recipe.get(field.name)
        if value and value != field.default:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            yield from (how.option(field.name), text)


def _record_modules(golden: Provenance) -> Iterator[Command]:
    """The command that records a golden of modules again, where options can say all of it."""
    recipe, modules = golden.recipe, _object(golden.recipe["modules"])
    options = [
        word for pattern in _listed(modules.get("match")) for word in ("--match", str(pattern))
    ]
    options += ["--depth", str(modules["depth"])] if modules.get("depth") is not None else []
    options += ["--oracle"] if recipe.get("oracle", "none") != "none" else []
    options += ["--dtype", str(recipe.get("dtype"))] if modules.get("cast") else []
    if modules.get("function"):
        words = ["--module", str(modules["function"]), *options, "--force"]
        purpose = "Only if the reference is what was wrong: record it again"
        yield Command(purpose, _line("record", [golden.path], *words))


def _inputs(cases: Any) -> list[str] | None:
    """The options that give just these cases: prompts, all of the same steps; else None."""
    entries = [_object(case) for case in _listed(cases)]
    names = [entry.get("name") for entry in entries]
    texts = [entry.get("text") for entry in entries]
    several = len(entries) > 1
    prompts = [f"prompt-{n}" for n in range(1, len(entries) + 1)] if several else ["prompt"]
    steps = [[entry.get(key) for key in _OF_STEPS] for entry in entries]
    if names not in (prompts, ["default"]) or not all(isinstance(text, str) for text in texts):
        return None
    if any(set(entry) - {"name", "text", *_OF_STEPS} for entry in entries):
        return None
    if any(each != steps[0] for each in steps):
        return None
    options = [x for text in texts if names == prompts for x in ("--prompt", str(text))]
    decode, forced, chunk = steps[0]
    if forced:
        options += ["--force-tokens", ",".join(map(str, forced[0]))]
    elif decode:
        options += ["--decode", str(decode)]
    return [*options, "--prefill-chunk", str(chunk)] if chunk else options


def _engine(recipe: dict[str, Any]) -> list[str]:
    backend = _object(recipe.get("backend"))
    options = ["--backend", _spec(backend)] if backend.get("name") else []
    for key in ("noise", "seed"):
        options += [f"--{key}", str(backend[key])] if key in backend else []
    for key, option in (("module", "--module"), ("compiled", "--compile")):
        if backend.get(key):
            options += [option, *([str(backend[key])] if key == "module" else [])]
    device = recipe.get("device")
    return [*options, "--device", str(device)] if device and device != "cpu" else options


def _spec(backend: dict[str, Any]) -> str:
    """What --backend was given: with the program, or with the install that it names."""
    name, install = str(backend.get("name", "")), _object(backend.get("infinicore"))
    if name == "exec":
        return f"exec:{backend.get('path') or backend.get('program', '')}"
    return f"{name}:{install['root']}" if install.get("source") == "option" else name


def _faults(report: Report) -> list[str]:
    return [word for fault in report.faults for word in ("--inject", fault)]


def _layers(recipe: dict[str, Any]) -> list[str]:
    """The option that chooses decoder layers; none where all were taken."""
    if is_of_modules(recipe):
        return []
    names = [short_name(str(name)).split(".") for name in _listed(recipe.get("sublayers"))]
    found = {parts[1] for parts in names if parts[0] == "layers" and len(parts) > 1}
    found |= {str(layer) for layer in _listed(recipe.get("layers"))}
    layers = sorted({int(layer) for layer in found if layer.isdecimal()})
    config = _object(_object(recipe.get("model")).get("config"))
    every = len(layers) == config.get("num_hidden_layers")
    return ["--layers", ",".join(map(str, layers))] if layers and not every else []


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(command: str, places: Sequence[str], *options: str) -> tuple[str, ...]:
    """A command line; places that look like options stand behind ``--``."""
    if any(place.startswith("-") for place in places):
        return ("goldenctl", command, *options, "--", *places)
    return ("goldenctl", command, *places, *options)
