"""A stand-in engine that misbehaves on demand: failure reports, header ages, memory kept apart."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from harness_plans import Plan, run_plan

from goldenctl.errors import MissingError
from goldenctl.folders import harness_cache
from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install, find_install
from goldenctl.infini.harness import build_harness, devices
from goldenctl.infini.place import exclusive

FAKE = Path(__file__).parent / "fake_infini"


def build_fake(*, old: bool) -> Install:
    """Return the stand-in as an install, kept by content so that its harness stays cached too."""
    files = sorted(path for path in FAKE.rglob("*") if path.is_file())
    content = b"".join(path.read_bytes() for path in files) + str(old).encode()
    root = harness_cache().parent / "test-engines" / hashlib.sha256(content).hexdigest()[:16]
    with exclusive(root.with_name(root.name + ".lock")):
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
                _compile_fake(Path(scratch) / "root", old=old)
                (Path(scratch) / "root").rename(root)
    return find_install(root)


def _compile_fake(root: Path, *, old: bool) -> None:
    shutil.copytree(FAKE / "include", root / "include")
    if old:
        header = root / "include" / "infinicore.h"
        header.write_text("#define FAKE_INFINI_OLD\n" + header.read_text())
    (root / "lib").mkdir()
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    flags += ["-I", str(root / "include"), "-I", str(FAKE)]
    for library in ("infinirt", "infiniop"):
        output = root / "lib" / f"lib{library}.so"
        source = FAKE / f"{library}.cpp"
        subprocess.run([compiler(), *flags, str(source), "-o", str(output)], check=True)


@pytest.fixture(scope="session")
def new_engine() -> Install:
    return build_fake(old=False)


@pytest.fixture(scope="session")
def old_engine() -> Install:
    return build_fake(old=True)


@pytest.fixture(scope="session")
def fake(new_engine: Install) -> Path:
    return build_harness(new_engine)


def adding(tmp_path: Path, **top: object) -> Plan:
    """Return two sublayers: one that only adds, and one that only rearranges every second place."""
    plan = Plan(tmp_path, top=dict(top))
    first = plan.sublayer("first")
    first.load("x", np.arange(8, dtype=np.float32))
    first.store("y", [8])
    first.op("add", "y", "x", "x", tap="sum")
    second = plan.sublayer("second")
    second.load("x", np.arange(8, dtype=np.float32))
    second.store("y", [8])
    for start in (0, 1):
        part = second.view("y", [4], [2], start)
        second.op("rearrange", part, second.view("x", [4], [2], start), tap=f"part{start}")
    return plan


def fault(name: str, op: str, call: int | None = None) -> dict[str, str]:
    env = {"FAKE_FAULT": name, "FAKE_FAULT_OP": op}
    return env if call is None else {**env, "FAKE_FAULT_CALL": str(call)}


def test_device_memory_is_never_touched_directly(tmp_path: Path, fake: Path) -> None:
    """Addresses of the stand-in are not of this process: any slip would be a crash."""
    ran = adding(tmp_path, device="nvidia", device_id=1, repeat=2).run(
        fake, env={"FAKE_DEVICES": "2"}
    )
    assert ran.status == 0
    assert ran.events[0]["device"] == "nvidia:1"
    assert ran.events[0]["quirks"] == []
    assert ran.outputs["first/y"].tolist() == [2.0 * i for i in range(8)]
    assert ran.outputs["second/y"].tolist() == list(range(8))


REPORTS = [
    ("status", "status", "infiniopAdd returned INFINI_STATUS_BAD_PARAM (3)"),
    (
        "unsupported",
        "unsupported",
        "infiniopCreateAddDescriptor returned INFINI_STATUS_NOT_IMPLEMENTED (2)",
    ),
    ("throw", "status", "the engine threw: a stand-in's exception"),
    ("unwritten", "unwritten", "element 7 of the output was never written"),
    ("overrun", "overrun", 'bytes before or behind tensor "y" were changed'),
    ("underrun", "overrun", 'bytes before or behind tensor "y" were changed'),
]


@pytest.mark.parametrize(("name", "reason", "message"), REPORTS, ids=[r[0] for r in REPORTS])
def test_failure_of_one_op(
    tmp_path: Path, fake: Path, name: str, reason: str, message: str
) -> None:
    ran = adding(tmp_path).run(fake, env=fault(name, "add"))
    assert ran.status == 0
    assert ran.failure == {
        "event": "failed",
        "sublayer": 0,
        "tap": "sum",
        "op": "add",
        "reason": reason,
        "message": message,
    }
    assert ran.outputs["first/y"].tolist() == [0] * 8, "a failed sublayer stores nothing"
    assert ran.outputs["second/y"].tolist() == list(range(8))


def test_failure_at_the_last_of_the_repeats(tmp_path: Path, fake: Path) -> None:
    """Three launches after a warm-up; a gap that the next launch would fill is still a gap."""
    for name in ("unwritten", "status"):
        ran = adding(tmp_path, repeat=3).run(fake, env=fault(name, "add", 3))
        assert ran.failure["reason"] == name


def test_bytes_between_the_elements_are_watched(tmp_path: Path, fake: Path) -> None:
    ran = adding(tmp_path).run(fake, env=fault("stray", "rearrange", 1))
    assert (ran.failure["tap"], ran.failure["reason"]) == ("part1", "overrun")
    assert ran.failure["message"] == "bytes between the elements of the output were changed"


@pytest.mark.parametrize("name", ["", "stale", "stale scratch"])
@pytest.mark.parametrize("repeat", [1, 2])
def test_other_poison_shows_an_uninitialised_read(
    tmp_path: Path, fake: Path, name: str, repeat: int
) -> None:
    """Whatever is read before it is written differs from poison to poison; else nothing does."""
    sums = []
    for poison in "012":
        ran = adding(tmp_path, repeat=repeat).run(fake, "--poison", poison, env=fault(name, "add"))
        assert ran.failures() == []
        sums.append(ran.outputs["first/y"].tobytes())
    assert len(set(sums)) == (3 if name else 1)


def test_a_changed_guard_of_the_workspace(tmp_path: Path, fake: Path) -> None:
    failure = adding(tmp_path).run(fake, env=fault("scratch overrun", "add")).failure
    assert failure["reason"] == "overrun"
    assert failure["message"] == "bytes before or behind the workspace were changed"


def test_no_device_memory(tmp_path: Path, fake: Path) -> None:
    plan = adding(tmp_path)
    plan.sublayers[1].scratch("large", [4096])
    ran = plan.run(fake, env={"FAKE_FAULT": "memory"})
    assert ran.failure["reason"] == "memory"
    assert ran.failure["sublayer"] == 1
    assert "tap" not in ran.failure


def test_crash_is_pinned_to_an_op(tmp_path: Path, fake: Path) -> None:
    ran = adding(tmp_path).run(fake, env=fault("abort", "add"))
    assert ran.status == -6
    assert ran.events[-1] == {"event": "op_start", "sublayer": 0, "tap": "sum"}


def test_hang_is_pinned_to_an_op(tmp_path: Path, fake: Path) -> None:
    """The last line before the hang arrives while the program still runs."""
    plan = adding(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps(plan.document()))
    with subprocess.Popen(
        [fake, tmp_path / "plan.json"],
        stdout=subprocess.PIPE,
        env=fault("sleep", "add"),
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        assert process.poll() is None
        process.kill()
    assert json.loads(lines[1]) == {"event": "op_start", "sublayer": 0, "tap": "sum"}


def rope(tmp_path: Path, algo: str) -> Plan:
    plan = Plan(tmp_path)
    layer = plan.sublayer()
    layer.load("x", np.zeros((1, 1, 4), np.float32))
    layer.load("positions", np.zeros(1, np.int32))
    layer.load("table", np.zeros((1, 2), np.float32))
    layer.store("y", [1, 1, 4])
    layer.op("rope", "y", "x", "positions", "table", "table", algo=algo)
    return plan


@pytest.mark.parametrize(("algo", "asked"), [("gptj", 10), ("neox", 11)])
def test_rope_of_new_headers(tmp_path: Path, fake: Path, algo: str, asked: int) -> None:
    assert rope(tmp_path, algo).run(fake).outputs["y"].ravel().tolist() == [asked] * 4


def test_old_headers(tmp_path: Path, old_engine: Install) -> None:
    """Without `algo` RoPE means gptj; neox is unsupported, and not rotated wrongly."""
    old = build_harness(old_engine)
    assert rope(tmp_path, "gptj").run(old).outputs["y"].ravel().tolist() == [9] * 4
    failure = rope(tmp_path, "neox").run(old).failure
    assert failure["reason"] == "unsupported"
    assert "means gptj, the plan wants neox" in failure["message"]
    found = devices(old_engine)
    assert found.rope == ["gptj"]
    assert "hygon" in found.counts
    assert "qy" not in found.counts


def test_new_headers(new_engine: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_DEVICES", "2")
    found = devices(new_engine)
    assert found.counts["nvidia"] == 2
    assert found.counts["moore"] == 0
    assert {"hygon", "qy", "ali"} <= set(found.counts)
    assert set(found.quirks) == {"cpu", "nvidia"}


def test_headers_that_do_not_compile(
    new_engine: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLDENCTL_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "broken"
    shutil.copytree(new_engine.root, root)
    with (root / "include" / "infiniop" / "ops" / "add.h").open("a") as header:
        header.write("\nthis is not C\n")
    with pytest.raises(MissingError) as caught:
        build_harness(find_install(root))
    assert f"failed: {root}/include/infiniop/ops/add.h:" in caught.value.message
    log = Path(caught.value.hint.rpartition("the full log is ")[2])
    assert "this is not C" in log.read_text()


@pytest.mark.slow
def test_mutated_plans_under_sanitizers(tmp_path: Path, infini_install: Install) -> None:
    """AddressSanitizer, UndefinedBehaviorSanitizer: a good plan, then 120 damaged ones."""
    program = build_harness(infini_install, sanitize=True)
    plan = adding(tmp_path, repeat=2)
    assert plan.run(program).status == 0
    text = bytearray((tmp_path / "plan.json").read_bytes())
    rng = random.Random(5)
    seen = set()
    for _ in range(120):
        damaged = bytearray(text)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] = rng.choice(b'0123456789-[]{},":.eE \xff')
        (tmp_path / "damaged.json").write_bytes(bytes(damaged))
        ran = run_plan(program, tmp_path / "damaged.json")
        assert ran.status in {0, 3, 4}, (bytes(damaged), ran.stderr)
        assert "Sanitizer" not in ran.stderr
        seen.add(ran.status)
    assert {0, 4} <= seen
