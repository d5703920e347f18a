"""A golden that was damaged: no replay feeds it to an engine, which would be charged with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from goldenctl.cli import run
from goldenctl.digests import matches
from goldenctl.errors import DamagedError
from goldenctl.golden.file import open_golden

LAYER = "cases/random-0/steps/00/layers/02"


def damaged(golden: Path, name: str, folder: Path) -> Path:
    """Copy a golden and overwrite 40 bytes inside a tensor."""
    copy = Path(shutil.copyfile(golden, folder / "damaged.h5"))
    with copy.open("r+b") as file:
        file.seek(open_golden(copy).info(name).offset + 8)
        file.write(b"\x3f" * 40)
    return copy


def line(capsys: pytest.CaptureFixture[str]) -> str:
    (said,) = capsys.readouterr().err.splitlines()
    return str(said)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--mode", "op"],
        ["--shuffle"],
        ["--workers", "2"],
        ["--resume"],
        ["--dtype", "bfloat16", "--layers", "2"],
        ["--backend", "simulated"],
    ],
    ids=" ".join,
)
def test_replay_names_the_tensor_and_starts_no_engine(
    options: list[str],
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = f"{LAYER}/attention/{'output' if 'simulated' in options else 'input'}"
    own = open_golden(golden_of()).info(name).name
    golden, started = damaged(golden_of(), name, tmp_path), tmp_path / "started"
    backend = ["--backend", stand_in(start=f"open({str(started)!r}, 'w')")]
    capsys.readouterr()
    assert run(["replay", str(golden), str(tmp_path / "r.h5"), *backend, *options]) == 4
    assert line(capsys) == (
        f"goldenctl: {golden}: {own} does not match its digest; "
        "the file was changed after it was written"
    )
    assert not started.exists()
    assert not (tmp_path / "r.h5").exists()


@pytest.mark.parametrize("command", ["blame", "bench"])
def test_what_replays_refuses_it(
    command: str,
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    golden = damaged(golden_of(), f"{LAYER}/attention/input", tmp_path)
    capsys.readouterr()
    assert run([command, str(golden), "--backend", stand_in()]) == 4
    assert "does not match its digest" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["token_ids", "steps/00/attention_mask"])
def test_rows_of_a_batch_are_cut_from_checked_bytes(
    name: str,
    golden_of: Callable[..., Path],
    stand_in: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    batch = golden_of("tiny", "float32", "--prompt", "a much longer prompt", "--prompt", "ab",
                      "--batch")  # fmt: skip
    golden = damaged(batch, f"cases/batch/{name}", tmp_path)
    capsys.readouterr()
    arguments = ["replay", str(golden), str(tmp_path / "r.h5"), "--backend", stand_in()]
    assert run([*arguments, "--alone-vs-batched"]) == 4
    assert f"cases/batch/{name} does not match its digest" in line(capsys)


def test_a_chain_checks_only_what_it_loads(
    golden_of: Callable[..., Path], stand_in: Callable[..., str], tmp_path: Path
) -> None:
    golden = damaged(golden_of(), f"{LAYER}/attention/input", tmp_path)
    chain = ["replay", str(golden), str(tmp_path / "r.h5"), "--mode", "chain", "--backend"]
    assert run([*chain, stand_in(bad=-1)]) == 0


def test_a_tensor_is_hashed_once_while_the_file_is_open(
    golden_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []

    def counting(digest: str, data: memoryview) -> bool:
        hashed.append(data.nbytes)
        return matches(digest, data)

    name = f"{LAYER}/attention/input"
    golden = open_golden(golden_of())
    broken = open_golden(damaged(golden_of(), name, tmp_path))
    monkeypatch.setattr("goldenctl.golden.file.matches", counting)
    golden.verify_all([name, golden.info(name).name, name])
    golden.verify(name)
    assert hashed == [golden.info(name).nbytes]
    for _ in range(2):
        with pytest.raises(DamagedError, match="does not match its digest"):
            broken.verify(name)
