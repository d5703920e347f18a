"""The table of ops in Python and that of the harness say the same."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

import goldenctl
from goldenctl.ops.plan import PlanOp
from goldenctl.ops.table import ELEMENTARY, LAUNCHES, OPS
from goldenctl.reference.kernels import ARITHMETIC

HARNESS = Path(goldenctl.__file__).parent / "harness"


def test_the_harness_knows_the_ops_of_plans_by_the_same_operands() -> None:
    text = (HARNESS / "op_kinds.h").read_text(encoding="utf-8")
    rows = re.findall(r'^OP\("(\w+)", "([\w ]*)", .*?, (\{.*\})\)$', text, re.MULTILINE)
    assert len(rows) == text.count("\nOP(")
    known = {name: (views.count("{") - 1, set(given.split())) for name, given, views in rows}
    assert known == {name: (each.args, set(each.parameters)) for name, each in LAUNCHES.items()}


def test_a_plan_can_state_every_parameter() -> None:
    stated = {field.name for field in msgspec.structs.fields(PlanOp)}
    assert {name for each in LAUNCHES.values() for name in each.parameters} <= stated


def test_every_op_of_the_reference_has_a_kernel() -> None:
    assert tuple(ARITHMETIC) == ELEMENTARY
    assert all((each.before is None) == OPS[kind].row_errors for kind, each in ARITHMETIC.items())
