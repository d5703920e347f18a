"""The shim fits whatever headers an InfiniCore has; what it does not understand it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from goldenctl.errors import MissingError
from goldenctl.infini.find import Install
from goldenctl.trace.generate import source
from goldenctl.trace.headers import read_headers
from goldenctl.trace.operators import Operator, operators
from tests.trace.stand_in import write_headers


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_headers(tmp_path_factory.mktemp("newer"), newer=True)


@pytest.fixture(scope="module")
def found(newer: Path) -> dict[str, Operator]:
    return {o.op: o for o in operators(read_headers(newer))[0]}


def roles(operator: Operator) -> dict[str, tuple[str, int | None]]:
    return {o.name: (o.io, o.tensor) for o in operator.operands}


def test_older_headers_are_read_as_newer_ones_are(tmp_path: Path, newer: Path) -> None:
    older = operators(read_headers(write_headers(tmp_path, newer=False)))[0]
    assert [o.op for o in older] == ["Gemm", "RMSNorm", "SwiGLU"]
    assert set(older) <= set(operators(read_headers(newer))[0])


ROLES = {
    "AddRMSNorm": {
        "y": ("out", 0),
        "residual_out": ("out", 1),
        "a": ("in", 2),
        "b": ("in", 3),
        "weight": ("in", 4),
    },
    "SiluAndMul": {"output": ("out", 0), "input": ("in", 1)},
    "FlashAttention": {
        "out": ("out", 0),
        "q": ("in", 1),
        "k": ("in", 2),
        "v": ("in", 3),
        "total_kv_len": ("in", 4),
    },
    "PagedCaching": {
        "k_cache": ("inout", 0),
        "v_cache": ("inout", 1),
        "k": ("in", 2),
        "v": ("in", 3),
        "slot_mapping": ("in", 4),
    },
    "Tan": {"output": ("out", 1), "input": ("in", 0)},  # its descriptors come the other way round
    "Topksoftmax": {"values": ("out", None), "indices": ("out", None), "x": ("in", 0)},
    "QuantGemm": {"c": ("out", 0), "a": ("in", 1), "b_scales": ("in", 2)},
    "Axpy": {"alpha": ("in", 0), "x": ("in", 1), "y": ("inout", 2)},
}


@pytest.mark.parametrize("op", ROLES)
def test_data_is_paired_with_its_descriptors(found: dict[str, Operator], op: str) -> None:
    assert roles(found[op]) == ROLES[op]


def test_caches_that_attention_only_reads_are_inputs(found: dict[str, Operator]) -> None:
    assert {io for io, _ in roles(found["PagedAttention"]).values()} == {"in", "out"}


def test_a_product_reads_its_output_only_where_beta_is_not_zero(found: dict[str, Operator]) -> None:
    (c,) = (o for o in found["Gemm"].operands if o.name == "c")
    assert (c.io, c.read_if) == ("out", "beta != 0")


def test_what_points_to_unknown_things_is_named(found: dict[str, Operator]) -> None:
    assert found["Pad"].opaque == ("pad",)


def test_functions_of_no_operator_are_passed_through_or_named(newer: Path) -> None:
    headers = read_headers(newer)
    assert operators(headers)[1] == ["infiniopByValue", "infiniopGather", "infiniopSetSpeed"]
    text = source(headers)
    assert 'passed_through("infiniopGather")' in text
    assert "infiniopByValue: its declaration is not understood, its calls are not seen" in text
    assert "int infiniopByValue(" not in text


def test_enumerations_are_read_with_their_values(newer: Path) -> None:
    enums = read_headers(newer).enums
    assert enums["infiniopTwist_t"] == {0: "INFINIOP_TWIST_PAIRS", 1: "INFINIOP_TWIST_HALVES"}
    assert enums["infiniDevice_t"][1] == "INFINI_DEVICE_NVIDIA"


def test_the_installed_headers_are_understood_whole(infini_install: Install) -> None:
    found, others = operators(read_headers(infini_install.include))
    assert len(found) == 17
    assert others == []
    assert {o.op for o in found if len(o.operands) != len(o.tensors)} == {"Topkrouter"}


def test_an_include_folder_without_headers_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"infinicore\.h: cannot be read"):
        read_headers(tmp_path)
