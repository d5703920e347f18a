"""Owns the CPU build of InfiniCore that goldenctl makes for itself from the pinned source package.

An install is whole when its stamp is there: the stamp is written last, into a folder that is
renamed into place only then.
"""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
import tempfile
from importlib import resources
from pathlib import Path, PurePosixPath

from goldenctl.errors import DamagedError, MissingError
from goldenctl.infini.build import (
    Progress,
    cmake_build,
    cmake_install,
    exclusive,
    run_logged,
    silent,
)
from goldenctl.infini.find import (
    LIBRARIES,
    STAMP,
    Install,
    digest_file,
    find_install,
    what_it_lacks,
)
from goldenctl.infini.paths import provisioned_prefix

VERSION = "0.1.0"
REQUIREMENTS = "requirements-infinicore.txt"
MAX_UNPACKED_BYTES = 64 << 20
WHAT = "building InfiniCore"


def install(
    prefix: Path | None = None,
    *,
    progress: Progress = silent,
    sdist: Path | None = None,
    force: bool = False,
) -> Install:
    """Build InfiniCore's CPU libraries into ``prefix`` unless they are there already, whole.

    ``sdist`` is the source package where pip cannot fetch it; its digest is checked either
    way. Two processes do not build at once. Raises MissingError and DamagedError.
    """
    prefix = (prefix or provisioned_prefix()).expanduser().absolute()
    with exclusive(prefix.with_name(prefix.name + ".lock"), progress):
        if force or not is_whole(prefix):
            _build_into(prefix, sdist, progress)
        else:
            progress(f"InfiniCore {VERSION} is already in {prefix}")
    if prefix == provisioned_prefix():
        return _as_provisioned(prefix)
    return find_install(prefix)


def is_whole(prefix: Path) -> bool:
    """Tell whether ``prefix`` has the stamp of this version and libraries that match it."""
    try:
        stamp = json.loads((prefix / STAMP).read_text(encoding="utf-8"))
        digests = {name: digest_file(prefix / name) for name in _library_names()}
    except (OSError, ValueError):
        return False
    return bool(
        stamp.get("sdist") == pinned_digest()
        and stamp.get("files") == digests
        and not what_it_lacks(prefix)
    )


def pinned_digest() -> str:
    """Return the ``sha256:hex`` that the requirements file pins."""
    return _data(REQUIREMENTS).strip().rpartition("--hash=")[2]


def _as_provisioned(prefix: Path) -> Install:
    found = find_install(prefix)
    return Install(found.root, "provisioned", found.include, found.libraries, found.version)


def _library_names() -> list[str]:
    return [f"lib/lib{name}.so" for name in LIBRARIES]


def _data(name: str) -> str:
    return resources.files("goldenctl.infini").joinpath(name).read_text(encoding="utf-8")


def _build_into(prefix: Path, sdist: Path | None, progress: Progress) -> None:
    log = prefix.with_name(prefix.name + ".log")
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{prefix.name}.", dir=prefix.parent) as scratch:
        work = Path(scratch)
        archive = sdist or fetch(work, log, progress)
        _check_digest(archive)
        source = unpack(archive, work / "source")
        whole = work / "install"
        _compile(source, work, whole, log=log, progress=progress)
        _stamp(whole)
        if prefix.exists():
            shutil.rmtree(prefix)
        whole.rename(prefix)
    progress(f"InfiniCore {VERSION} is in {prefix}")


def fetch(work: Path, log: Path, progress: Progress = silent) -> Path:
    """Fetch the pinned source package into the folder ``work`` with pip, which checks its hash.

    Raises MissingError with pip's own words.
    """
    requirements = work / REQUIREMENTS
    requirements.write_text(_data(REQUIREMENTS), encoding="utf-8")
    progress(f"fetching the InfiniCore {VERSION} source package with pip")
    # pip asks the package for its metadata before it hands it over, for which it makes an
    # environment of its own; the hash is checked before that.
    options = ["--no-deps", "--no-binary", "infinicore", "--require-hashes", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    command += ["--requirement", str(requirements), "--dest", str(work / "sdist")]
    try:
        run_logged(command, log, "fetching InfiniCore", progress)
    except MissingError as error:
        hint = f"{error.hint}; without network: --sdist infinicore-{VERSION}.tar.gz"
        raise MissingError(error.message, hint=hint) from error
    return next((work / "sdist").glob("*.tar.gz"))


def _check_digest(archive: Path) -> None:
    try:
        actual = digest_file(archive)
    except OSError as error:
        message = f"the InfiniCore source package {archive} cannot be read: {error.strerror}"
        raise MissingError(message) from error
    if actual != pinned_digest():
        message = f"{archive}: expected {pinned_digest()}, got {actual}"
        raise DamagedError(message, hint=f"fetch infinicore {VERSION} again")


def unpack(archive: Path, target: Path) -> Path:
    """Write the regular files of ``archive`` under ``target``; return its one top folder."""
    total = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            total += member.size
            if path.is_absolute() or ".." in path.parts or total > MAX_UNPACKED_BYTES:
                message = f"{archive}: member {member.name} is outside or too large"
                raise DamagedError(message)
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                continue
            place = target.joinpath(*path.parts)
            place.parent.mkdir(parents=True, exist_ok=True)
            with content, place.open("wb") as file:
                shutil.copyfileobj(content, file)
    return next(target.iterdir())


def _compile(source: Path, work: Path, whole: Path, *, log: Path, progress: Progress) -> None:
    project = work / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(_data("infinicore.cmake"), encoding="utf-8")
    defines = {"INFINICORE_SOURCE": str(source), "CMAKE_INSTALL_PREFIX": str(whole)}
    cmake_build(project, work / "build", defines, what=WHAT, log=log, progress=progress)
    cmake_install(work / "build", what=WHAT, log=log, progress=silent)


def _stamp(whole: Path) -> None:
    stamp = {
        "version": VERSION,
        "sdist": pinned_digest(),
        "files": {name: digest_file(whole / name) for name in _library_names()},
    }
    (whole / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", encoding="utf-8")
