"""A replay in PyTorch gives the recorded bits, and budgets tell a port's bugs from rounding."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from module_subjects import FAMILIES, Recorded

from goldenctl.diff.judge import compare
from goldenctl.diff.tolerance import default_policy
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.places import short_name
from goldenctl.records.report import Report, worst_share
from goldenctl.reference.modules.replay import ModuleReplay, replay_modules, subject_of
from goldenctl.studies.module_blame import ModuleInvestigation


def judged(golden: GoldenFile, name: str, path: Path, **how: object) -> Report:
    asked = ModuleReplay(**how)  # type: ignore[arg-type]
    subject = subject_of(golden, f"module_subjects:{name}", None, asked)
    replay_modules(golden, subject, path, asked)
    return compare(golden, open_golden(path), default_policy())


def wrong(report: Report) -> list[str]:
    return [short_name(each.name) for each in report.sublayers if each.state != "passed"]


@pytest.mark.parametrize("name", [*FAMILIES, "toy"])
def test_a_module_passes_its_own_golden_and_as_a_chain_gives_the_same_bits(
    name: str, recorded: Recorded, tmp_path: Path
) -> None:
    golden = recorded(name)
    assert "unheld" not in golden.recipe["modules"]
    outputs = {n: i.digest for n, i in golden.tensors.items() if i.role == "output"}
    for mode in ("module", "chain"):
        report = judged(golden, name, tmp_path / f"{mode}.h5", mode=mode)
        run = open_golden(tmp_path / f"{mode}.h5")
        assert report.ok
        assert worst_share(report.tensors) < 0.5
        assert {tensor.rule for tensor in report.tensors} <= {"budget", "exact"}
        assert run.tensors.keys() == outputs.keys()
        equal = [name for name, info in run.tensors.items() if info.digest == outputs[name]]
        # Kernels give other bits where a tensor was a view in the model and is whole in a golden.
        assert len(equal) >= (0.9 if mode == "module" else 1.0) * len(outputs)
    assert_budgets_are_near(golden)


def assert_budgets_are_near(golden: GoldenFile) -> None:
    """The floor explains the reference's own error, and is not far above it."""
    for info in golden.tensors.values():
        if info.role != "budget" or "int" in golden.info(info.name.replace("/budget", "")).dtype:
            continue
        own, _, floor, _ = golden.verify(info.name)[1].reshape(-1, 4).T
        assert (own**2).sum() ** 0.5 <= 1.5 * (floor**2).sum() ** 0.5, info.name


def test_another_attention_passes_within_its_budget(recorded: Recorded, tmp_path: Path) -> None:
    golden = recorded("vit")
    for mode in ("module", "chain"):
        report = judged(golden, "vit", tmp_path / f"{mode}.h5", mode=mode, attention="sdpa")
        differs = [t for t in report.tensors if t.metrics and t.metrics.rel_l2]
        assert report.ok, wrong(report)
        assert differs or mode == "module"


def test_bugs_of_a_port_are_found_where_they_are(recorded: Recorded, tmp_path: Path) -> None:
    report = judged(recorded("vit"), "faulty_vit", tmp_path / "run.h5")
    assert not report.ok
    assert wrong(report) == [
        *("layers.0.attention", "layers.0"),
        *("layers.1.mlp.fc1", "layers.1.mlp", "layers.1", "ViTModel"),
    ]


def test_blame_names_the_module_that_is_wrong_by_itself(recorded: Recorded, tmp_path: Path) -> None:
    golden, how = recorded("vit"), ModuleReplay()
    subject = subject_of(golden, "module_subjects:faulty_vit", None, how)
    found = ModuleInvestigation(
        golden, subject, how, default_policy(), tmp_path, lambda _: None
    ).run()
    named = [short_name(culprit.sublayer) for culprit in found.culprits]
    assert named == ["layers.0.attention", "layers.1.mlp.fc1"]
    assert "its own code is not" in found.culprits[0].message
    assert found.findings is not None
    words = {short_name(each.name): each.word for each in found.findings.depths}
    assert words["layers.0.layernorm_before"] == ""
    assert words["layers.1.mlp.fc1"] == "culprit"
    assert words["layers.0.layernorm_after"] in ("victim", "amplifier")
    assert found.findings.graft is not None
    assert found.findings.graft.wrong_after < found.findings.graft.wrong_before


def test_modules_that_draw_or_cast_are_told(recorded: Recorded, tmp_path: Path) -> None:
    golden = recorded("odd")
    unheld = {short_name(k): v for k, v in golden.recipe["modules"]["unheld"].items()}
    assert unheld["drop"] == unheld["Odd"] == "draws random numbers (bernoulli)"
    assert unheld["cast"] == "casts to fewer bits inside (bfloat16)"
    assert "lin" not in unheld
    report = judged(golden, "odd", tmp_path / "run.h5")
    states = {short_name(t.sublayer): t.state for t in report.tensors}
    assert states == {"drop": "random", "cast": "passed", "lin": "passed", "Odd": "random"}
    cast = next(t for t in report.tensors if short_name(t.sublayer) == "cast")
    assert cast.message.startswith("its budget says little: it casts")


def test_a_golden_of_a_function_is_not_called_unasked(recorded: Recorded) -> None:
    from goldenctl.errors import UsageError

    with pytest.raises(UsageError, match="to call it, pass --module module_subjects:toy"):
        subject_of(recorded("toy"), None, None, ModuleReplay())


def test_compiled_modules_are_judged_too(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    report = judged(recorded("toy"), "toy", tmp_path / "run.h5", mode="module", compiled=True)
    assert report.ok, wrong(report)
