"""A report as JUnit XML: one test suite for each sublayer, one test case for each tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from goldenctl.diff.finite import NO_REFERENCE
from goldenctl.records.checks import CheckStep
from goldenctl.records.report import NEUTRAL, Report, SublayerResult, TensorResult
from goldenctl.records.trials import Selftest
from goldenctl.records.uncompared import uncompared
from goldenctl.records.words import Places, banners, labels_of, of_tolerance, plural
from goldenctl.report.answers import answers
from goldenctl.report.measures import MEASURES
from goldenctl.report.sections.verdict import warnings
from goldenctl.shell import argv_of, quoted

# What XML 1.0 can hold; anything else is written as an escape.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
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
        yield _finish("check", [_step(step) for step in report.checks])
    if report.trace is not None:
        found = [_failing(f.place, f.op, f.text) for f in report.structure]
        yield _finish("structure", found or [_element("trace", "structure", 0.0)])
    for sublayer in report.sublayers:
        yield _suite(report, places, sublayer)
    if report.extra:
        yield _finish("extra", [_case(places, tensor) for tensor in report.extra])
    if silent := uncompared(report):
        yield _finish("not compared", [_skipped("not compared", item) for item in silent])
    if not report.tensors and not report.checks:
        yield _finish("nothing", [_failing("goldenctl", "compared", answers(report).verdict)])
    if report.culprits:
        cases = [_failing(c.sublayer, c.tap, c.summary) for c in report.culprits]
        yield _finish("culprits", cases)


def _step(step: CheckStep) -> ET.Element:
    case = _element(step.golden, step.step, 0.0)
    if not step.ok:
        _fail(case, step.state, step.said)
    return case


def _suite(report: Report, places: Places, sublayer: SublayerResult) -> ET.Element:
    suite = _finish(
        places.sublayer(sublayer.name), [_case(places, tensor) for tensor in sublayer.tensors]
    )
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


def _case(places: Places, tensor: TensorResult) -> ET.Element:
    case = _element(places.sublayer(tensor.sublayer), tensor.tap, tensor.actual_ns / 1e9)
    if tensor.state in NEUTRAL:
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
        case = _element(trial.place, trial.fault, 0.0)
        if not trial.caught:
            _fail(case, "escaped", "the fault was not caught")
        elif not trial.named:
            _fail(case, "not named", f"got {', '.join(trial.causes) or 'nothing'}")
        caught.append(case)
    yield _finish("faults", caught)
    for name, verdicts in (("culprits", result.located), ("correct", result.correct)):
        cases = []
        for verdict in verdicts:
            case = _element(verdict.place, verdict.what, 0.0)
            if not verdict.ok:
                _fail(case, "wrong verdict", name)
            cases.append(case)
        yield _finish(name, cases)


def _failing(classname: str, name: str, message: str) -> ET.Element:
    case = _element(classname, name, 0.0)
    _fail(case, "failed", message)
    return case


def _skipped(classname: str, name: str) -> ET.Element:
    case = _element(classname, name, 0.0)
    ET.SubElement(case, "skipped", {"message": "not compared, so not judged"})
    return case


def _fail(case: ET.Element, kind: str, message: str) -> None:
    attributes = {"type": clean(kind), "message": clean(message)}
    ET.SubElement(case, "failure", attributes).text = clean(message)


def _element(classname: str, name: str, seconds: float) -> ET.Element:
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
    """Return the text with every character that XML 1.0 cannot hold written as an escape."""
    return _FORBIDDEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)
