"""What a new version changes: each state of a tensor, from files made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from goldenctl.cli import run
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.sets.names import GoldenSet, open_set
from goldenctl.sets.renew import compare_versions, manifest_or_none
from goldenctl.sets.triage import Change, Triage

STEP = "cases/tokens/steps/00"
LOGITS = f"{STEP}/lm_head/output"
BUDGET = f"{STEP}/lm_head/budget/output"
TRUTH = f"{STEP}/lm_head/oracle/output"
Arrays = dict[str, NDArray[Any]]


@dataclass
class Sets:
    """A set with one version, and a way to add others to it."""

    golden_set: GoldenSet

    def triage(self, change: Callable[[Arrays], None]) -> Triage:
        """Write version 2 as ``change`` leaves the tensors of version 1, and sort it."""
        old = open_golden(self.golden_set.path(1))
        arrays = {name: np.array(old.map(name)) for name in old.tensors}
        change(arrays)
        write(old, arrays, self.golden_set.path(2))
        manifest = manifest_or_none(self.golden_set)
        assert manifest is not None
        return compare_versions(self.golden_set, manifest, 2)


def write(like: GoldenFile, arrays: Arrays, path: Path) -> None:
    specs = []
    for name, array in arrays.items():
        info = like.tensors.get(name)
        dims = info.dims if info is not None else ("token",) * array.ndim
        role, op = (info.role, info.op) if info is not None else ("tap", "linear")
        specs.append(TensorSpec(name, array.dtype.name, array.shape, dims, role, op))
    links = {link: name for link, name in like.aliases.items() if name in arrays}
    with GoldenWriter(
        path,
        kind="golden",
        recipe=like.recipe,
        tensors=specs,
        links=links,
        groups=list(like.sublayers),
    ) as writer:
        for name, array in arrays.items():
            writer.write(name, memoryview(np.ascontiguousarray(array).reshape(-1)).cast("B"))
        writer.seal(sublayers=[replace(each) for each in like.sublayers.values()])


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    goldens = tmp_path_factory.mktemp("triage")
    arguments = ["--name", "t", "--goldens", str(goldens), "--oracle", "keep", "--layers", "1"]
    assert run(["record", "synth:tiny?seed=0", *arguments, "--token-ids", "1,2,3"]) == 0
    return goldens


@pytest.fixture
def sets(recorded: Path, tmp_path: Path) -> Sets:
    """A set of version 1 whose manifest and file are linked from ``recorded``."""
    golden_set = open_set("t", tmp_path)
    golden_set.folder.mkdir()
    for name in ("v1.h5", "manifest.json"):
        (golden_set.folder / name).hardlink_to(recorded / "t" / name)
    return Sets(golden_set)


def only(triage: Triage, state: str) -> Change:
    (change,) = [change for change in triage.changes if change.state != "same"]
    assert change.state == state, change
    return change


def test_nothing_changed(sets: Sets) -> None:
    triage = sets.triage(lambda _: None)
    assert triage.identical
    assert triage.ok
    assert triage.differs == ()


def test_within_rounding(sets: Sets) -> None:
    def change(arrays: Arrays) -> None:
        arrays[LOGITS][..., 7] = np.nextafter(arrays[LOGITS][..., 7], np.float32(np.inf))

    triage = sets.triage(change)
    found = only(triage, "within")
    assert (found.name, triage.ok) == (LOGITS, True)
    assert 0.0 < found.share < 1.0


def away_from_truth(arrays: Arrays, times: float) -> None:
    """Move the logits along their distance from the truth of the chain, and their budget."""
    truth = arrays[TRUTH][2]
    arrays[LOGITS] = (truth + times * (arrays[LOGITS] - truth)).astype(np.float32)
    error = np.abs(arrays[LOGITS] - truth)
    arrays[BUDGET][2, ..., 0] = np.sqrt(np.sum(error**2, axis=-1))
    arrays[BUDGET][2, ..., 1] = error.max(axis=-1)


def test_closer_to_the_truth(sets: Sets) -> None:
    triage = sets.triage(lambda arrays: away_from_truth(arrays, 0.25))
    (closer,) = triage.of("closer")
    assert closer.name == LOGITS
    assert "from the truth, was" in closer.message
    assert triage.ok


def test_another_truth_is_never_closer(sets: Sets) -> None:
    """The new one says it is nearly exact, but it is further from the old one than both say."""

    def change(arrays: Arrays) -> None:
        distance = np.sqrt(np.sum((arrays[LOGITS] - arrays[TRUTH][2]) ** 2))
        arrays[LOGITS][..., 0] += np.float32(2.5 * distance)
        arrays[BUDGET][2, ..., :2] *= 0.01

    assert not sets.triage(change).of("closer")


def test_changed_meaning(sets: Sets) -> None:
    def change(arrays: Arrays) -> None:
        arrays[LOGITS] *= np.float32(1.01)

    found = only(sets.triage(change), "changed")
    assert found.share > 1.0
    assert found.rel_l2 == pytest.approx(0.01, rel=1e-3)


def test_a_nan_is_a_changed_meaning(sets: Sets) -> None:
    def change(arrays: Arrays) -> None:
        arrays[LOGITS][..., 3] = np.nan

    assert only(sets.triage(change), "changed").message == "1 NaN and 0 Inf, expected 0 and 0"


def test_a_budget_that_grew_is_a_changed_meaning(sets: Sets) -> None:
    """Otherwise a wrong yardstick would pass everything from then on."""

    def change(arrays: Arrays) -> None:
        arrays[BUDGET] *= np.float32(3.0)

    found = only(sets.triage(change), "changed")
    assert found.message == "its budget changed by a factor of 3"


def test_another_input_is_a_changed_meaning(sets: Sets) -> None:
    def change(arrays: Arrays) -> None:
        arrays["cases/tokens/token_ids"][0, 0] = 9

    assert only(sets.triage(change), "changed").message == "the input is another one"


def test_a_table_may_move_by_its_rounding(sets: Sets) -> None:
    def move(arrays: Arrays) -> None:
        arrays["constants/rope_cos"] *= np.float32(1 + 2**-23)

    def change(arrays: Arrays) -> None:
        arrays["constants/rope_cos"] *= np.float32(1 + 2**-20)

    assert only(sets.triage(move), "within").name == "constants/rope_cos"
    sets.golden_set.path(2).unlink()
    assert only(sets.triage(change), "changed").name == "constants/rope_cos"


def test_what_came_went_or_has_another_kind(sets: Sets) -> None:
    def change(arrays: Arrays) -> None:
        arrays[f"{STEP}/lm_head/extra"] = np.zeros((3,), np.float32)
        del arrays[TRUTH]
        arrays[BUDGET] = arrays[BUDGET].astype(np.float64)
        arrays[LOGITS] = arrays[LOGITS][..., :5]

    said = {
        c.name.removeprefix(f"{STEP}/lm_head/"): c.message
        for c in sets.triage(change).of("changed")
    }
    assert said == {
        "extra": "is new",
        "oracle/output": "is not there any more",
        "budget/output": "float32 → float64",
        "output": "float32 [1, 1, 512] → float32 [1, 1, 5]",
    }


def test_by_the_manifest_alone(sets: Sets) -> None:
    """Without the old file, digests and sketches judge, and find the same."""

    def within(arrays: Arrays) -> None:
        arrays[LOGITS][..., 7] = np.nextafter(arrays[LOGITS][..., 7], np.float32(np.inf))

    def changed(arrays: Arrays) -> None:
        arrays[LOGITS] *= np.float32(1.01)

    def budget(arrays: Arrays) -> None:
        arrays[BUDGET] *= np.float32(3.0)

    def truth(arrays: Arrays) -> None:
        arrays[TRUTH] *= 2.0

    old, manifest = sets.golden_set.path(1), manifest_or_none(sets.golden_set)
    assert manifest is not None
    kept = old.with_name("kept.h5")
    for change, name, state in (
        (within, LOGITS, "within"),
        (changed, LOGITS, "changed"),
        (budget, BUDGET, "changed"),
        (truth, TRUTH, "changed"),
    ):
        sets.triage(change)
        old.rename(kept)
        assert only(compare_versions(sets.golden_set, manifest, 2), state).name == name
        kept.rename(old)
        sets.golden_set.path(2).unlink()
