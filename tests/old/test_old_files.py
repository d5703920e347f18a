"""What goldenctl 0.1.0 wrote, when SHA-256 was the only algorithm, is read and checked as before.

The files here are its own: the set ``old`` with its one version and manifest (made by ``record
synth:tiny?seed=0 --random-tokens 3 --force-tokens 5 --layers 0 --logits none --oracle --dtype
bfloat16``), a run of it (``replay --backend torch --mode op``), the report of ``diff`` on both,
what ``attest`` said of the run, and a part of the golden as ``export`` wrote it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from goldenctl.cli import run
from goldenctl.errors import DamagedError
from goldenctl.golden.file import GoldenFile, open_golden
from goldenctl.golden.schema import FORMAT_VERSION, TensorSpec
from goldenctl.golden.writer import GoldenWriter
from goldenctl.remote.stores import FolderStore
from goldenctl.remote.transfer import fetch, send
from goldenctl.report.json import load_report
from goldenctl.sets.manifest import parse_manifest, read_manifest
from goldenctl.studies.attestation import digest_of, load

HERE = Path(__file__).parent
OLD = HERE / "goldens" / "old" / "v1.h5"
MANIFEST = OLD.with_name("manifest.json")
RUN = HERE / "run.h5"
CONTENT = "sha256:36ceb417dde9b7b25355a75c6fdb5b7eeedd1075d9eee3ee877ab44949323a95"
OUTPUT = "cases/random-0/steps/00/layers/00/mlp/output"


@pytest.fixture
def goldens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the old set's folder, named by $GOLDENS_DIR."""
    folder = tmp_path / "goldens"
    shutil.copytree(HERE / "goldens", folder)
    monkeypatch.setenv("GOLDENS_DIR", str(folder))
    return folder


def test_a_golden_and_a_run_are_read_and_every_digest_holds() -> None:
    golden, of_golden = open_golden(OLD, kind="golden"), open_golden(RUN, kind="run")
    assert (golden.format_version, golden.tool_version) == (1, "0.1.0")
    assert golden.content_digest == of_golden.recipe["golden"]["content_digest"] == CONTENT
    for file in (golden, of_golden):
        assert {info.digest[:7] for info in file.tensors.values()} == {"sha256:"}
        file.verify_all(file.tensors)
    assert golden.created_utc  # of the times beside it
    assert golden.info(OUTPUT).time_ns > 0


def test_damage_to_an_old_golden_is_seen(tmp_path: Path) -> None:
    damaged = tmp_path / "g.h5"
    data = bytearray(OLD.read_bytes())
    data[open_golden(OLD).info(OUTPUT).offset] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(DamagedError, match="does not match its digest"):
        open_golden(damaged).verify(OUTPUT)


def test_an_old_run_is_judged_as_it_was(tmp_path: Path) -> None:
    assert run(["diff", str(OLD), str(RUN), "--json", str(tmp_path / "now.json")]) == 0
    then, now = load_report(HERE / "report.json"), load_report(tmp_path / "now.json")
    assert (now.golden.content_digest, now.run.content_digest) == (
        then.golden.content_digest,
        then.run.content_digest,
    )
    assert [(t.name, t.state, t.metrics) for t in now.tensors] == [
        (t.name, t.state, t.metrics) for t in then.tensors
    ]


def test_an_old_set_is_checked_and_recorded_again(goldens: Path, tmp_path: Path) -> None:
    assert run(["check", "old", "--record", "--backend", "torch"]) == 0
    (goldens / "old" / "v1.h5").unlink()
    assert run(["check", "old", "--backend", "torch", "--json", str(tmp_path / "out.json")]) == 0


def test_the_same_bytes_under_other_digests_are_the_same(
    goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = open_golden(OLD), as_today(goldens / "old" / "v2.h5")
    assert new.format_version == FORMAT_VERSION
    assert {info.digest[:7] for info in new.tensors.values()} == {"blake3:"}
    assert new.content_digest.startswith("blake3:")
    assert new.content_in("sha256") == old.content_digest
    before = read_manifest(MANIFEST)
    for old_is_here in (True, False):
        shutil.copy(MANIFEST, goldens / "old")
        if not old_is_here:
            (goldens / "old" / "v1.h5").unlink()
        assert run(["manifest", "old", "--renew"]) == 0
        assert "86 the same bytes" in " ".join(capsys.readouterr().out.split())
    after = read_manifest(goldens / "old" / "manifest.json")
    assert after.versions[0] == before.versions[0]
    assert after.current.digest.startswith("blake3:")
    assert run(["check", "old", "--integrity"]) == 0


def as_today(path: Path) -> GoldenFile:
    """Write the old golden's tensors to ``path`` as they are written today."""
    old = open_golden(OLD)
    with GoldenWriter(
        path,
        kind="golden",
        recipe=old.recipe,
        tensors=[
            TensorSpec(i.name, i.dtype, i.shape, i.dims, i.role, i.op) for i in old.tensors.values()
        ],
        links=old.aliases,
        groups=list(old.sublayers),
    ) as writer:
        for name in old.tensors:
            writer.write(name, memoryview(old.map(name).tobytes()))
        writer.seal()
    return open_golden(path)


def test_an_old_attestation_is_judged_again(goldens: Path) -> None:
    assert run(["check", "old", "--attestation", str(HERE / "run.attestation.json")]) == 0
    assert load(HERE / "run.attestation.json").golden.content_digest == CONTENT


def test_an_old_export_is_brought_back_with_its_digests(tmp_path: Path) -> None:
    assert run(["import", str(HERE / "part.safetensors"), str(tmp_path / "part.h5")]) == 0
    part, golden = open_golden(tmp_path / "part.h5"), open_golden(OLD)
    assert part.recipe["part_of"] == CONTENT
    part.verify_all(part.tensors)
    assert _digests(part).items() <= _digests(golden).items()


def _digests(file: GoldenFile) -> dict[str, str]:
    return {name: info.digest for name, info in file.tensors.items()}


def test_an_old_store_is_pulled_from_and_gone_on_with(tmp_path: Path) -> None:
    """Its parts and their list are named by bare digits of SHA-256."""
    data, part_bytes = OLD.read_bytes(), 32 << 10
    store = FolderStore(tmp_path)
    parts = [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]
    names = [hashlib.sha256(part).hexdigest() for part in parts]
    for name, part in zip(names, parts, strict=True):
        store.write(f"sha256/{name[:2]}/{name[2:]}", memoryview(part))
    whole = hashlib.sha256(data).hexdigest()
    listed = {"parts_version": 1, "bytes": len(data), "part_bytes": part_bytes, "parts": names}
    listed_bytes = memoryview(json.dumps(listed).encode())
    store.write(f"sha256/{whole[:2]}/{whole[2:]}.parts", listed_bytes)
    back = tmp_path / "back.h5"
    assert fetch(store, f"sha256:{whole}", len(data), back) == len(data)
    assert back.read_bytes() == data
    assert send(store, OLD, f"sha256:{whole}").sent_bytes == 0


def test_a_digest_of_no_known_algorithm_is_refused_by_name(tmp_path: Path) -> None:
    said = json.loads(MANIFEST.read_bytes())
    said["tensors"][0]["sha256"] = "xxh128:" + "0" * 32
    with pytest.raises(DamagedError, match=r"m\.json: .*'xxh128'.*; goldenctl 0\.1\.0 wrote it"):
        parse_manifest(json.dumps(said).encode(), "m.json")
    attested = json.loads((HERE / "run.attestation.json").read_bytes())
    attested["digest"] = "xxh128:" + digest_of(attested).rpartition(":")[2][:32]
    (tmp_path / "a.json").write_bytes(msgspec.json.encode(attested))
    with pytest.raises(DamagedError, match=r"a\.json: .*'xxh128'.*; goldenctl 0\.1\.0 wrote it"):
        load(tmp_path / "a.json")
