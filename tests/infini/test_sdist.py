"""The source package comes from where pip looks, and none of its code runs on the way."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pretend import small_sdist

from goldenctl.errors import DamagedError
from goldenctl.infini import provision
from goldenctl.infini.sdist import find_sdist
from goldenctl.infini.stamp import digest_file

NAME = f"infinicore-{provision.VERSION}.tar.gz"


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that pip's settings name, and they name nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "index").as_uri())
    return folder


def test_it_is_fetched_without_pip_and_its_digest_checked(
    links: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = small_sdist(links / NAME)
    monkeypatch.setattr(provision, "run_logged", lambda *_: pytest.fail("pip was run"))
    monkeypatch.setattr(provision, "pinned_digest", lambda: digest_file(archive))
    fetched = provision.fetch(tmp_path, tmp_path / "log")
    assert fetched.read_bytes() == archive.read_bytes()
    monkeypatch.setattr(provision, "pinned_digest", lambda: "sha256:other")
    with pytest.raises(DamagedError, match="expected sha256:other"):
        provision.fetch(tmp_path, tmp_path / "log")


def test_an_index_is_followed(links: Path, tmp_path: Path) -> None:
    page = tmp_path / "index" / "infinicore" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(f'<a href="../files/{NAME}#sha256=1">x</a><a>no link</a>')
    (tmp_path / "index" / "files").mkdir()
    (tmp_path / "index" / "files" / NAME).write_bytes(b"package")
    assert find_sdist("infinicore", NAME, tmp_path / "got") == ""
    assert (tmp_path / "got").read_bytes() == b"package"
    page.write_text('<a href="ftp://host/x/infinicore-0.1.0.tar.gz">x</a>')
    said = find_sdist("infinicore", NAME, tmp_path / "none")
    assert "No such file or directory" in said
    assert said.endswith("ftp: is not read")
    assert not (tmp_path / "none").exists()
