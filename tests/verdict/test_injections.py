"""Tests injections: what their text means, where they hit, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from goldenctl.errors import UsageError
from goldenctl.model.config import preset_config
from goldenctl.model.graph import Sublayer, decoder
from goldenctl.ops.catalogue import FAULTS
from goldenctl.ops.inject import Injection, inject, parse_injection

QWEN3 = preset_config("tiny")


def _graph() -> dict[str, Sublayer]:
    return {s.name: s for s in decoder(QWEN3)}


@pytest.mark.parametrize(
    "text",
    [
        "no_norm",
        "no_norm@layers.03",
        "scale_1.02@layers.00.mlp.swiglu",
        "cache_lost@cases/Prompt-1/steps/01",
    ],
)
def test_injection_round_trip(text: str) -> None:
    assert str(parse_injection(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus", "there is no fault bogus"),
        ("", "there is no fault "),
        ("no_norm@", "'' is not a place"),
        ("no_norm@layers//03", "'layers//03' is not a place"),
        ("no_norm@a@b", "'a@b' is not a place"),
    ],
)
def test_injections_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_injection(text)


def test_a_place_is_a_whole_name() -> None:
    """layers.1 is not the beginning of layers.10."""
    config = replace(QWEN3, num_hidden_layers=11)
    graph = {s.name: s for s in decoder(config)}
    changed = inject(graph, [parse_injection("no_residual@layers.01")], config)
    different = {name for name in graph if changed[name] != graph[name]}
    assert different == {"layers.01.attention", "layers.01.mlp"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("no_norm@layers.09", "no sublayer or op that is replayed has that name"),
        ("no_norm@layers.01.mlp.swiglu", "no op there can have this fault"),
        ("theta_1e6", "no op that is replayed can have this fault"),
        ("no_bias", "no op that is replayed can have this fault"),
    ],
)
def test_an_injection_that_hits_nothing_is_refused(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        inject(_graph(), [parse_injection(text)], QWEN3)


def test_two_injections_add_up() -> None:
    texts = ["rope_interleaved@layers.02.attention.q_rope", "scale_2@layers.02.attention.q_rope"]
    graph = _graph()
    changed = inject(graph, [parse_injection(t) for t in texts], QWEN3)
    attrs = changed["layers.02.attention"].producer("q_rope").attrs
    assert attrs == {"algo": "gptj", "fault": "scale_2"}
    assert graph == _graph()


def test_an_injection_hits_below_its_place() -> None:
    mlp = _graph()["layers.00.mlp"]
    op = mlp.producer("swiglu")
    for where, hit in (
        ("", True),
        ("layers.00", True),
        ("layers.00.mlp", True),
        ("layers.00.mlp.swiglu", True),
        ("layers.0", False),
        ("layers.00.mlp.swi", False),
        ("layers.00.mlp.gate_proj", False),
        ("cases/default/steps/01", True),
        ("cases/default/steps/01/layers/00/mlp/swiglu", True),
        ("cases/default/steps/0", False),
        ("cases/default/steps/00", False),
    ):
        path = "cases/default/steps/01/layers/00/mlp"
        assert Injection(FAULTS["gelu"], where).hits(path, mlp, op) is hit
