"""A report as JUnit XML: one test suite for each sublayer, one test case for each tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from goldenctl.diff.finite import NO_REFERENCE
from goldenctl.errors import printable
from goldenctl.records.report import CRASHED, NEUTRAL, Report, SublayerResult, TensorResult
from goldenctl.records.trials import Selftest
from goldenctl.records.uncompared import uncompared
from goldenctl.records.words import Places, banners, labels_of, of_tolerance, plural
from goldenctl.report.answers import answers
from goldenctl.report.measures import MEASURES
from goldenctl.report.sections.verdict import warnings
from goldenctl.shell import argv_of, quoted

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_ERRORS = ("crashed", "missing", "extra", "shape_mismatch", "dtype_mismatch")


def render(report: Report) -> str:
    """Return the XML, with its declaration."""
    return _document(report.command, list(_suites(report)))


def render_matrix(reports: Sequence[Report]) -> str:
    """Return the XML of several reports: the names of suites and classes start with
    their run's."""
    suites = []
    for label, report in zip(labels_of(reports), reports, strict=True):
        for suite in _suites(report):
            suite.set("name", clean(f"{label}: {suite.get('name')}"))
            for case in suite.iter("testcase"):
                case.set("classname", clean(f"{label}: {case.get('classname')}"))
            suites.append(suite)
    return _document(reports[0].command, suites)


def _document(command: str, suites: list[ET.Element]) -> str:
    root = ET.Element("testsuites", _attributes(f"goldenctl {command}", suites))
    root.extend(suites)
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _suites(report: Report) -> Iterator[ET.Element]:
    if report.selftest is not None:
        yield from _of_selftest(report.selftest)
        return
    places = Places(report)
    if report.checks:
        wrongs = (() if step.ok else (step.state, step.said) for step in report.checks)
        steps = zip(report.checks, wrongs, strict=True)
        yield _finish("check", [_verdict(s.golden, s.step, *wrong) for s, wrong in steps])
    if report.trace is not None:
        found = [_verdict(f.place, f.op, "failed", f.text) for f in report.structure]
        yield _finish("structure", found or [_verdict("trace", "structure")])
    for sublayer in report.sublayers:
        yield _suite(report, places, sublayer)
    if report.extra:
        yield _finish("extra", [_case(places, tensor) for tensor in report.extra])
    if silent := [_element("not compared", item) for item in uncompared(report)]:
        for case in silent:
            ET.SubElement(case, "skipped", {"message": "not compared, so not judged"})
        yield _finish("not compared", silent)
    if not report.tensors and not report.checks:
        yield _finish(
            "nothing", [_verdict("goldenctl", "compared", "failed", answers(report).verdict)]
        )
    if report.culprits:
        cases = [_verdict(c.sublayer, c.tap, "failed", c.summary) for c in report.culprits]
        yield _finish("culprits", cases)


def _suite(report: Report, places: Places, sublayer: SublayerResult) -> ET.Element:
    cases = [_case(places, tensor, sublayer.first_wrong) for tensor in sublayer.tensors]
    suite = _finish(places.sublayer(sublayer.name), cases)
    if _TIME.fullmatch(report.run.created_utc):
        suite.set("timestamp", report.run.created_utc)
    properties = ET.Element("properties")
    for name, value in (
        ("golden", report.golden.path),
        ("golden_digest", report.golden.content_digest),
        ("run", report.run.path),
        ("run_digest", report.run.content_digest),
        ("tolerance", report.policy),
        ("mode", report.mode),
        *(banner.split(": ", 1) for banner in banners(report)),
        *(line.split(": ", 1) for line in warnings(report)),
    ):
        ET.SubElement(properties, "property", {"name": name, "value": clean(value)})
    suite.insert(0, properties)
    if sublayer.failure is not None:
        claimed = quoted(argv_of(sublayer.failure.get("command")) or ())
        said = {**sublayer.failure, **({"command": claimed} if claimed else {})}
        lines = [f"{key}: {value}" for key, value in said.items()]
        ET.SubElement(suite, "system-out").text = clean("\n".join(lines))
    return suite


def _case(places: Places, tensor: TensorResult, first: str = "") -> ET.Element:
    """One tensor; a crash is an error of the ``first`` tensor alone, of others nothing is known."""
    case = _element(places.sublayer(tensor.sublayer), tensor.tap, tensor.actual_ns / 1e9)
    if tensor.state in NEUTRAL or (tensor.state == CRASHED and tensor.tap != first):
        ET.SubElement(case, "skipped", {"message": clean(tensor.message)})
    elif tensor.ok and tensor.not_judged_rows:
        said = f"{plural(tensor.not_judged_rows, 'row')} not judged: {NO_REFERENCE}"
        ET.SubElement(case, "system-out").text = said
    elif not tensor.ok:
        kind = "error" if tensor.state in _ERRORS else "failure"
        message = tensor.message or of_tolerance(tensor.share)
        found = ET.SubElement(case, kind, {"type": clean(tensor.state), "message": clean(message)})
        found.text = clean("\n".join(_details(tensor)))
    return case


def _details(tensor: TensorResult) -> Iterator[str]:
    yield f"{tensor.name}: op {tensor.op}, {tensor.dtype} {list(tensor.shape)}"
    if tensor.metrics is not None:
        yield ", ".join(f"{each.title} {each.said(tensor.metrics)}" for each in MEASURES)
    if tensor.local is not None:
        yield f"by itself: {of_tolerance(tensor.local.share)} ({tensor.part or 'right'})"
    for check in tensor.checks:
        yield f"{check.metric}: {check.value:.6g}, limit {check.limit:.6g}"
    if tensor.worst:
        yield f"worst at {tensor.worst}"


def _of_selftest(result: Selftest) -> Iterator[ET.Element]:
    """Suites of caught faults, of located ones, and of what is right."""
    caught = []
    for trial in result.visible:
        got = f"got {', '.join(trial.causes) or 'nothing'}"
        wrong = () if trial.named else ("not named", got)
        wrong = wrong if trial.caught else ("escaped", "the fault was not caught")
        caught.append(_verdict(trial.place, trial.fault, *wrong))
    yield _finish("faults", caught)
    for name, verdicts in (("culprits", result.located), ("correct", result.correct)):
        wrongs = (() if verdict.ok else ("wrong verdict", name) for verdict in verdicts)
        pairs = zip(verdicts, wrongs, strict=True)
        yield _finish(name, [_verdict(v.place, v.what, *wrong) for v, wrong in pairs])


def _verdict(classname: str, name: str, kind: str = "", message: str = "") -> ET.Element:
    """A case that passed, or failed in some ``kind`` of way."""
    case = _element(classname, name)
    if kind:
        attributes = {"type": clean(kind), "message": clean(message)}
        ET.SubElement(case, "failure", attributes).text = clean(message)
    return case


def _element(classname: str, name: str, seconds: float = 0.0) -> ET.Element:
    attributes = {"classname": clean(classname), "name": clean(name), "time": f"{seconds:.6f}"}
    return ET.Element("testcase", attributes)


def _finish(name: str, cases: list[ET.Element]) -> ET.Element:
    suite = ET.Element("testsuite", {"name": clean(name), **_counts(cases)})
    suite.extend(cases)
    return suite


def _counts(cases: list[ET.Element]) -> dict[str, str]:
    found = {kind: sum(c.find(kind) is not None for c in cases) for kind in _KINDS}
    seconds = sum(float(case.get("time", "0")) for case in cases)
    return {
        "tests": str(len(cases)),
        "failures": str(found["failure"]),
        "errors": str(found["error"]),
        "skipped": str(found["skipped"]),
        "time": f"{seconds:.6f}",
    }


_KINDS = ("failure", "error", "skipped")


def _attributes(name: str, suites: list[ET.Element]) -> dict[str, str]:
    cases = [case for suite in suites for case in suite.iter("testcase")]
    return {"name": clean(name), **_counts(cases)}


def clean(text: str) -> str:
    """Return the text with what XML cannot hold, and what turns or hides text, as escapes."""
    return "\n".join(map(printable, text.split("\n")))
