"""The CPU build of InfiniCore that goldenctl makes from the pinned source package.

It is built beside its place, stamped with the digest of every file, and only then put there.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from dataclasses import replace
from importlib import resources
from pathlib import Path, PurePosixPath

from goldenctl.errors import DamagedError, MissingError, UsageError, printable
from goldenctl.folders import provisioned_prefix
from goldenctl.infini.build import (
    Progress,
    Task,
    cmake_build,
    cmake_install,
    compiler,
    run_logged,
    silent,
)
from goldenctl.infini.find import Install, find_install, what_is_wrong
from goldenctl.infini.place import log_beside, put, scratch_beside, sole_builder
from goldenctl.infini.sdist import find_sdist
from goldenctl.infini.stamp import STAMP, digest_file, read_stamp, write_stamp

VERSION = "0.1.0"
REQUIREMENTS = "requirements-infinicore.txt"
MAX_UNPACKED_BYTES = 64 << 20
INSTALLED = {"include", "lib", STAMP}


def install(
    prefix: Path | None = None, *, progress: Progress = silent, sdist: Path | None = None
) -> Install:
    """Build InfiniCore's CPU libraries into ``prefix`` unless they are there already, whole.

    ``sdist`` is the source package where pip cannot fetch it; its digest is checked either
    way. Two processes do not build at once. Raises UsageError where ``prefix`` holds anything
    but an install of goldenctl, MissingError and DamagedError.
    """
    prefix = (prefix or provisioned_prefix()).expanduser().absolute()
    place = prefix.resolve()  # a link to a folder stays, and the folder is replaced
    refuse_foreign(place)
    with sole_builder(place, progress):
        if is_whole(place):
            progress(f"InfiniCore {VERSION} is already in {prefix}")
        else:
            _build(place, sdist, progress)
            progress(f"InfiniCore {VERSION} is in {prefix}")
    if prefix == provisioned_prefix():
        return _as_provisioned(prefix)
    return find_install(prefix)


def is_whole(prefix: Path) -> bool:
    """Tell whether ``prefix`` is an install of this version with every byte in its place."""
    stamp = read_stamp(prefix)
    return (
        stamp is not None
        and stamp.sdist == pinned_digest()
        and not what_is_wrong(prefix, digests=True)
    )


def refuse_foreign(place: Path) -> None:
    """Raise UsageError unless ``place`` is absent, empty, or an install of goldenctl alone."""
    if not place.exists():
        return
    if not place.is_dir():
        message = f"{place}: is a file, expected a folder"
        raise UsageError(message)
    held = {path.name for path in place.iterdir()}
    foreign = held - INSTALLED if STAMP in held else held
    if foreign:
        message = (
            f"{place}: holds {min(foreign)}, which goldenctl did not install; expected "
            "an empty folder, none, or one that goldenctl installed InfiniCore into"
        )
        raise UsageError(message, hint="name another folder by --prefix")


def pinned_digest() -> str:
    """Return the ``sha256:hex`` that the requirements file pins."""
    return _data(REQUIREMENTS).strip().rpartition("--hash=")[2]


def _as_provisioned(prefix: Path) -> Install:
    found = find_install(prefix)
    return Install(found.root, "provisioned", found.include, found.libraries, found.version)


def _data(name: str) -> str:
    return resources.files("goldenctl.infini").joinpath(name).read_text(encoding="utf-8")


def _build(place: Path, sdist: Path | None, progress: Progress) -> None:
    if (place / STAMP).is_file() and (wrong := what_is_wrong(place, digests=True)):
        progress(f"building the install in {place} again: {wrong}")
    compiler()  # before anything is fetched for it
    with log_beside(place) as log, scratch_beside(place) as work:
        archive = sdist or fetch(work, log, progress)
        _check_digest(archive)
        source = unpack(archive, work / "source")
        whole = work / "install"
        _compile(source, whole, log, progress)
        write_stamp(whole, version=VERSION, sdist=pinned_digest())
        refuse_foreign(place)  # the build took its time
        put(whole, place)


def fetch(work: Path, log: Path, progress: Progress = silent) -> Path:
    """Fetch the pinned source package into the folder ``work``, from where pip would.

    None of the package's own code runs. Where no place of pip's could be read so, pip fetches
    it, which checks the hash and then builds its metadata. Raises MissingError with pip's own
    words.
    """
    progress(f"fetching the InfiniCore {VERSION} source package")
    (work / "sdist").mkdir(exist_ok=True)
    archive = work / "sdist" / f"infinicore-{VERSION}.tar.gz"
    problem = find_sdist("infinicore", archive.name, archive)
    if problem:
        progress(f"asking pip for it: {printable(problem)}")
        _fetch_with_pip(work, log, progress)
    _check_digest(archive)
    return archive


def _fetch_with_pip(work: Path, log: Path, progress: Progress) -> None:
    requirements = work / REQUIREMENTS
    requirements.write_text(_data(REQUIREMENTS), encoding="utf-8")
    options = ["--no-deps", "--no-binary", "infinicore", "--require-hashes", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options]
    command += ["--requirement", str(requirements), "--dest", str(work / "sdist")]
    remedy = f"without network: --sdist infinicore-{VERSION}.tar.gz"
    run_logged(command, Task("fetching InfiniCore", remedy, log, progress))


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


def _compile(source: Path, whole: Path, log: Path, progress: Progress) -> None:
    """Build ``source`` beside it, and install the result as ``whole``."""
    project, build = source.with_name("project"), source.with_name("build")
    project.mkdir()
    (project / "CMakeLists.txt").write_text(_data("infinicore.cmake"), encoding="utf-8")
    defines = {"INFINICORE_SOURCE": str(source), "CMAKE_INSTALL_PREFIX": str(whole)}
    remedy = "name another compiler by $CXX"
    task = Task("building InfiniCore", remedy, log, progress)
    cmake_build(project, build, defines, task)
    cmake_install(build, replace(task, progress=silent))
