"""Goldens that mean harm: each an edit of a sound one, and what is said of it.

``python tests/integrity/hostile_goldens.py FILE...`` opens each and prints what was said, one
line a file; the test runs that under limits and a trace of the files it opens.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from goldenctl.errors import GoldenctlError
from goldenctl.golden.file import open_golden

SECRET = "secret"  # the file, beside the golden, that no reading may open
GROUP = "cases/a/steps/00/embedding"
OUTPUT = f"{GROUP}/output"
LINKS = ("cases/a/steps/00/layers/00/attention/input",)
Edit = Callable[[h5py.File], None]
EDITS: dict[str, tuple[Edit, str]] = {}


def edit(said: str) -> Callable[[Edit], Edit]:
    """Register a hostile edit and what the refusal must say."""

    def register(function: Edit) -> Edit:
        EDITS[function.__name__] = (function, said)
        return function

    return register


def drop(file: h5py.File) -> None:
    """Remove the tensor with all its links, to make room for another of that name."""
    for name in (OUTPUT, *LINKS):
        del file[name]


def secret(file: h5py.File) -> Path:
    return Path(file.filename).with_name(SECRET)


@edit("soft and external links are not allowed")
def external_link(file: h5py.File) -> None:
    file["cases/elsewhere"] = h5py.ExternalLink(str(secret(file)), "/")


@edit("soft and external links are not allowed")
def external_link_in_place_of_a_tensor(file: h5py.File) -> None:
    drop(file)
    file[OUTPUT] = h5py.ExternalLink(str(secret(file)), "/x")


@edit("storage is not contiguous in this file")
def external_storage(file: h5py.File) -> None:
    drop(file)
    external = [(os.fsencode(secret(file)), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset(OUTPUT, (4,), "u1", external=external)


@edit("storage is not contiguous in this file")
def virtual_dataset(file: h5py.File) -> None:
    drop(file)
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(secret(file)), "x", (4,))
    file.create_virtual_dataset(OUTPUT, layout)


@edit("storage is not contiguous in this file")
def growing_virtual_dataset(file: h5py.File) -> None:
    drop(file)
    layout = h5py.VirtualLayout((4,), "f4", maxshape=(None,))
    source = h5py.VirtualSource(str(secret(file)), "x", (4,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset(OUTPUT, layout)


@edit("soft and external links are not allowed")
def soft_link_loop(file: h5py.File) -> None:
    file["one"] = h5py.SoftLink("/two")
    file["two"] = h5py.SoftLink("/one")


@edit("a group is linked twice")
def hard_link_loop(file: h5py.File) -> None:
    file["cases/again"] = file["cases"]


@edit("a group is linked twice")
def root_in_itself(file: h5py.File) -> None:
    file["cases/root"] = file["/"]


@edit("exceed the file's end")
def giant_shape(file: h5py.File) -> None:
    attributes = dict(file[OUTPUT].attrs)
    drop(file)
    file.create_dataset(OUTPUT, (1 << 40, 1 << 8, 4), "f8").attrs.update(attributes)


@edit("storage is not contiguous in this file")
def compressed_bomb(file: h5py.File) -> None:
    drop(file)
    file.create_dataset(OUTPUT, (1 << 24,), "f8", chunks=(1 << 20,), compression="gzip")


@edit("metadata_digest is not|content_digest is not")
def attribute_bomb(file: h5py.File) -> None:
    for number in range(20_000):
        file[OUTPUT].attrs[f"a{number}"] = number
    file[OUTPUT].attrs["op"] = np.bytes_(b"other")


@edit("is not a short fixed-length text")
def giant_attribute(file: h5py.File) -> None:
    file[OUTPUT].attrs.create("op", np.zeros((), "S90000000"))


@edit("is not a short fixed-length text")
def attribute_of_many(file: h5py.File) -> None:
    file[OUTPUT].attrs.create("op", np.zeros(4_000_000, "S8"))


@edit("is not a short fixed-length text")
def attribute_of_variable_length(file: h5py.File) -> None:
    file["/"].attrs["recipe"] = "{}"


@edit("is not a short fixed-length text")
def attribute_that_is_a_reference(file: h5py.File) -> None:
    file[OUTPUT].attrs["op"] = file["cases"].ref


@edit("is not a 64-bit integer")
def order_that_is_a_region(file: h5py.File) -> None:
    file[OUTPUT].attrs["order"] = file[OUTPUT].regionref[0:1]


@edit("its type or shape is none")
def object_references(file: h5py.File) -> None:
    file.create_dataset("refs", (2,), h5py.ref_dtype)


@edit("its type or shape is none")
def region_references(file: h5py.File) -> None:
    file.create_dataset("regions", (2,), h5py.regionref_dtype)


def _of_type(name: str, kind: object) -> None:
    @edit("its type or shape is none")
    def of_type(file: h5py.File) -> None:
        attributes = dict(file[OUTPUT].attrs)
        drop(file)
        file.create_dataset(OUTPUT, (2, 3, 4), kind).attrs.update(attributes)

    EDITS[name] = EDITS.pop("of_type")


_of_type("compound", np.dtype([("a", "f4"), ("b", "i4")]))
_of_type("opaque", np.dtype("V4"))
_of_type("big_endian", ">f4")
_of_type("unsigned", "u4")
_of_type("enum", h5py.enum_dtype({"a": 1}, "i4"))
_of_type("strings", "S4")
_of_type("variable_strings", h5py.string_dtype())
_of_type("ragged", h5py.vlen_dtype("f4"))
_of_type("array_elements", np.dtype(("f4", (4,))))
_of_type("long_double", np.longdouble)


@edit("its type or shape is none")
def odd_float(file: h5py.File) -> None:
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"odd", kind, space)


def _named(name: str, leaf: bytes) -> None:
    @edit("not a name that a golden may hold|nested|deeper groups")
    def named(file: h5py.File) -> None:
        dataset = file[OUTPUT]
        dataset.attrs["name"] = np.bytes_(GROUP.encode() + b"/" + leaf)
        h5py.h5o.link(dataset.id, file[GROUP].id, leaf)
        drop(file)

    EDITS[name] = EDITS.pop("named")


_named("name_up", b"..")
_named("name_escape", b"\x1b[2Joutput")
_named("name_newline", b"out\nput")
_named("name_backwards", "out\u202eput".encode())
_named("name_long", b"x" * 5000)


@edit("utf-8")
def name_of_no_encoding(file: h5py.File) -> None:
    h5py.h5o.link(file[OUTPUT].id, file[GROUP].id, b"\xff\xfe")


@edit("not a name that a golden may hold")
def group_up(file: h5py.File) -> None:
    h5py.h5g.create(file["cases"].id, b"..")


@edit("neither a group nor a dataset")
def named_type(file: h5py.File) -> None:
    file["kind"] = np.dtype("f4")


@edit("two datasets claim the name")
def two_of_one_name(file: h5py.File) -> None:
    file.copy(file[OUTPUT], file[GROUP], "second")


@edit("deeper groups")
def deep_groups(file: h5py.File) -> None:
    file.create_group("/".join("x" * 5000))


@edit("is not that of|there is no attribute")
def many_groups(file: h5py.File) -> None:
    for number in range(5000):
        file.create_group(f"many/{number}")
    del file[OUTPUT].attrs["op"]


def write_all(sound: bytes, folder: Path) -> dict[Path, str]:
    """Write every hostile golden; return what each must be refused with."""
    written = {}
    for name, (change, said) in EDITS.items():
        path = folder / f"{name}.h5"
        path.write_bytes(sound)
        with h5py.File(path, "r+", libver="v110") as file:
            change(file)
        written[path] = said
    path = folder / "user_block.h5"
    path.write_bytes(bytes(512) + sound)
    return {**written, path: "starts with a user block|not a usable golden"}


def main(paths: list[str]) -> None:
    for path in paths:
        try:
            open_golden(Path(path))
        except GoldenctlError as error:
            sys.stdout.write(f"{path}\t{error.exit_code}\t{error}\n")
        else:
            sys.stdout.write(f"{path}\t0\taccepted\n")


if __name__ == "__main__":
    main(sys.argv[1:])
