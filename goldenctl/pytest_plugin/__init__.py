"""The pytest plugin: its options, the ``golden`` fixture, what is said at the end of a run.

pytest imports this in every run of every project, so nothing heavier than pytest is imported
before a test asks for the fixture (docs/pytest-plugin.md).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from goldenctl.pytest_plugin.places import golden_path
from goldenctl.pytest_plugin.tally import Tally

if TYPE_CHECKING:
    from goldenctl.pytest_plugin.fixture import Golden

_TALLY = pytest.StashKey[Tally]()
_PASSED = pytest.StashKey[bool]()
_WORKER_KEY = "goldenctl"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golden", "golden tensors (goldenctl)")
    group.addoption(
        "--golden-update",
        action="store_true",
        help="write golden tensors that are missing or beyond their tolerance",
    )
    parser.addini(
        "golden_dir", "folder of all golden tensors, from the root; default: goldens/ by each test"
    )
    parser.addini(
        "golden_max_bytes",
        "keep only a sketch of a tensor that is larger (default 1048576)",
        default="1048576",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Iterator[Golden]:
    """Compare tensors with the ones recorded for this test: ``golden.check("out", tensor)``."""
    from goldenctl.pytest_plugin.fixture import Golden

    item = request.node
    config = request.config
    case = Golden(
        golden_path(item, config),
        nodeid=item.nodeid,
        update=config.getoption("golden_update"),
        max_bytes=_max_bytes(config),
    )
    yield case
    case.finish(passed=item.stash.get(_PASSED, False), tally=config.stash[_TALLY])


def _max_bytes(config: pytest.Config) -> int:
    text = config.getini("golden_max_bytes")
    if not str(text).isdecimal():
        message = f"golden_max_bytes: expected a number of bytes, got {text!r}"
        raise pytest.UsageError(message)
    return int(text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


def pytest_itemcollected(item: pytest.Item) -> None:
    item.config.stash[_TALLY].own(golden_path(item, item.config))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Modules of which only named tests were collected say nothing of the others' goldens."""
    for argument in session.config.args:
        path, selected, _ = argument.partition("::")
        if selected:
            session.config.stash[_TALLY].partial(session.config.invocation_params.dir / path)


def pytest_sessionfinish(session: pytest.Session) -> None:
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_WORKER_KEY] = session.config.stash[_TALLY].to_plain()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    plain = getattr(node, "workeroutput", {}).get(_WORKER_KEY)
    if plain is not None:
        node.config.stash[_TALLY].merge(Tally.from_plain(plain))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash[_TALLY].lines(config.rootpath)
    if lines:
        terminalreporter.section("golden tensors", sep="-")
        for line in lines:
            terminalreporter.line(line)
