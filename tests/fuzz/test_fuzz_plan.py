"""The harness's plan parser under sanitizers, over the corpus and mutations of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import goldenctl

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
HARNESS = Path(goldenctl.__file__).parent / "harness"
SOURCES = ("dtype.cpp", "json.cpp", "plan.cpp")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
MUTATIONS = 150


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    built = tmp_path_factory.mktemp("fuzz") / "fuzz-plan"
    sources = [HERE / "fuzz_plan.cpp", HERE / "standalone.cpp", *(HARNESS / s for s in SOURCES)]
    command = [compiler, "-std=c++17", "-O0", "-g1", *SANITIZERS, f"-I{HARNESS}", "-o", built]
    done = subprocess.run([*command, *sources], capture_output=True, text=True)
    if "cannot find -lasan" in done.stderr or "cannot find -lubsan" in done.stderr:
        pytest.skip("the compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return built


def test_no_mutation_of_a_plan_breaks_the_parser(program: Path) -> None:
    corpus = sorted((HERE / "corpus" / "plan").iterdir())
    command = [program, str(MUTATIONS), *corpus]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout == f"{MUTATIONS * len(corpus)} runs\n"
