"""Goldens of modules on the command line: record, inspect, replay, diff, blame, sets, check."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ran import Call

PORT = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, wrong):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.wrong = wrong

    def forward(self, x, *, scale):
        for layer in self.layers:
            x = x + torch.tanh(layer(x)) * scale
        return {"y": x, "best": (x + self.wrong).argmax(-1)}

def made(wrong=0.0, scale=1.0):
    torch.manual_seed(0)
    net = Net(wrong).eval()
    net.layers[1].weight.data *= scale
    x = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    return net, {"x": x, "scale": torch.tensor(0.5)}

def original():
    return made()

def port():
    return made(scale=1.01)
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the name of a module of functions beside the user."""
    (tmp_path / "cli_ported.py").write_text(PORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "cli_ported"
    sys.modules.pop("cli_ported", None)


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_from_record_to_blame(call: Call, package: str, tmp_path: Path) -> None:
    golden, run, page = tmp_path / "g.h5", tmp_path / "r.h5", tmp_path / "page.html"
    assert "4 calls" in call("record", "--module", f"{package}:original", golden, "--oracle").out
    shown = call("inspect", golden).out
    assert "case          default\n" in shown
    assert "Net from cli_ported:original" in shown
    assert "layers.1" in shown
    port = ("--backend", "torch", "--module", f"{package}:port")
    assert call("replay", golden, run, *port).code == 0
    found = call("diff", golden, run, "--html", page)
    assert found.code == 1
    assert "✗  layers.1 (output)" in found.out
    assert "✓  layers.2" in found.out
    text = page.read_text()
    assert 'class="tree"' in text
    assert f"--module {package}:port" in text
    blamed = call("blame", golden, *port)
    assert blamed.code == 1
    assert "✗ culprit layers.1.output (Linear)" in blamed.out
    own = ("--backend", "torch", "--module", f"{package}:original", "--mode", "chain")
    assert call("replay", golden, tmp_path / "chain.h5", *own).code == 0
    assert call("diff", golden, tmp_path / "chain.h5").code == 0


def test_a_golden_set_of_modules_is_checked(call: Call, package: str, tmp_path: Path) -> None:
    sets = ("--goldens", tmp_path / "goldens")
    given = ("--module", f"{package}:original")
    assert call("record", *given, "--name", "net", "--oracle", *sets).code == 0
    assert "case          default\n" in call("show", "net", *sets).out
    ran = call("check", "net", "--record", *given, *sets)
    assert (ran.code, ran.out.count("✓")) == (0, 4), ran.out
    (tmp_path / "goldens/net/v1.h5").unlink()
    assert call("check", "net", *given, *sets).code == 0  # by its manifest alone
    assert "pass --module cli_ported:original" in call("check", "net", *sets).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--module", "cli_ported", "g.h5"), "expected PACKAGE:FUNCTION"),
        (("--module", "no.such:thing", "g.h5"), "no.such cannot be imported"),
        (("--module", "./cli_ported.py:original", "g.h5"), "; try cli_ported:original"),
        (("--module", "cli_ported:nn", "g.h5"), "nn is a module, expected a function"),
        (("--module", "cli_ported:none", "g.h5"), "cli_ported has no function none"),
        (("--module", "cli_ported:original", "g.h5", "--taps", "op"), "--taps: does not go with"),
        (("--module", "cli_ported:original", "a", "b"), "GOLDEN is the only argument"),
        (("--module", "cli_ported:original", "g.h5", "--match", "x"), "no module of Net has"),
        (
            ("--reference", "transformers", "x", "g.h5", "--inputs", "i.npz", "--prompt", "hi"),
            "--prompt: does not go with --inputs",
        ),
        (("synth:tiny?seed=0", "g.h5", "--depth", "1"), "--depth: goes with --module"),
    ],
)
@pytest.mark.usefixtures("package", "in_folder")
def test_what_is_asked_for_wrongly_is_one_line(
    arguments: tuple[str, ...], said: str, call: Call, tmp_path: Path
) -> None:
    ran = call("record", *arguments)
    assert ran.code == 2
    assert said in ran.line
    assert not (tmp_path / "g.h5").exists()


def test_a_golden_of_modules_says_what_it_is_not_for(
    call: Call, package: str, golden: Path, tmp_path: Path
) -> None:
    own = tmp_path / "g.h5"
    call("record", "--module", f"{package}:original", own)
    said = call("replay", own, tmp_path / "r.h5", "--backend", "torch").line
    assert "to call it, pass --module cli_ported:original" in said
    assert "--backend torch" in call("replay", own, tmp_path / "r.h5").line
    assert "is one of modules" in call("selftest", own).line
    assert "is one of modules" in call("bench", own).line
    assert "No such option '--module'" in call("selftest", own, "--module", "a:b").line
    named = (own, "--backend", "torch", "--module", f"{package}:original")
    assert "--inject: does not go with" in call("blame", *named, "--inject", "no_rope").line
    assert "not of modules" in call("replay", golden, tmp_path / "r.h5", "--mode", "module").line
