"""InfiniCore's own infiniop-test, built from the pinned source package against our CPU build."""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from goldenctl.folders import harness_cache
from goldenctl.infini import provision
from goldenctl.infini.build import compiler
from goldenctl.infini.find import Install
from goldenctl.infini.place import exclusive


@dataclass(frozen=True)
class Verdicts:
    """What the tester said: the status of every test, and all of its output."""

    statuses: list[str]
    output: str


def build_tester(install: Install) -> Path:
    """Return the program, built on the first run of the tests and kept in the user's cache."""
    folder = harness_cache().parent / f"infiniop-test-{provision.VERSION}"
    program = folder / "infiniop-test"
    with exclusive(folder.with_name(folder.name + ".lock")):
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            sdist = provision.fetch(folder, folder / "log")
            _compile(provision.unpack(sdist, folder / "source"), install, program)
    return program


def run_tester(program: Path, case: Path, atol: float) -> Verdicts:
    """Run it on the CPU; a test passes within ``atol`` of every element."""
    command = [str(program), str(case), "--cpu", "--atol", repr(atol), "--rtol", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment
    )
    output = re.sub(r"\x1b\[\d+m", "", done.stdout + done.stderr)
    return Verdicts(re.findall(r"^Status: (.+)$", output, re.MULTILINE), output)


def _compile(source: Path, install: Install, program: Path) -> None:
    tester = source / "src" / "infiniop-test"
    units = [*tester.glob("src/*.cpp"), *tester.glob("src/ops/*.cpp")]
    units += (source / "src" / "utils").glob("*.cc")
    options = ["-O0", "-std=c++17", "-w", f"-I{tester / 'include'}", f"-I{install.include}"]

    def object_of(unit: Path) -> str:
        out = program.parent / f"{unit.parent.name}-{unit.stem}.o"
        _run([compiler(), *options, "-c", str(unit), "-o", str(out)])
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(object_of, units))
    libraries = install.root / "lib"
    links = [f"-L{libraries}", "-linfiniop", "-linfinirt", f"-Wl,-rpath,{libraries}"]
    unfinished = program.with_suffix(".part")
    _run([compiler(), *objects, *links, "-o", str(unfinished)])
    unfinished.rename(program)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
