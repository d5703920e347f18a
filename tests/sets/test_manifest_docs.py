"""The manifest against its JSON Schema and its bars of size, on a real recording."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from goldenctl.cli import run
from goldenctl.model.config import parse_config
from goldenctl.model.synth import synth_config

DOCS = Path(__file__).parent.parent.parent / "docs"
SCHEMA = json.loads((DOCS / "manifest.schema.json").read_text(encoding="utf-8"))
# As deep as Qwen3-0.6B, as thin as can be: a manifest's size hardly knows the width.
DEEP: dict[str, Any] = {
    "model_type": "qwen3",
    "num_hidden_layers": 28,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "vocab_size": 64,
    "max_position_embeddings": 64,
    "rope_theta": 1e6,
}


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synth_config(parse_config(DEEP, where="test"), tmp_path_factory.mktemp("deep") / "model")


@pytest.mark.parametrize(("taps", "limit_kib"), [("op", 1024), ("sublayer", 200)])
def test_size_and_schema(deep: Path, tmp_path: Path, taps: str, limit_kib: int) -> None:
    """28 layers, one prompt of 32 tokens, budgets and sketches included."""
    arguments = ["--name", "deep", "--goldens", str(tmp_path), "--random-tokens", "32"]
    assert run(["record", str(deep), *arguments, "--oracle", "--taps", taps]) == 0
    data = (tmp_path / "deep" / "manifest.json").read_bytes()
    assert len(data) < limit_kib * 1024
    raw = json.loads(data)
    assert all("sketch" in t for t in raw["tensors"] if t["role"] in ("tap", "output"))
    assert any("row_budget" in t.get("sketch", {}) for t in raw["tensors"])
    jsonschema.validate({**raw, "x-note": 1}, SCHEMA)


@pytest.mark.parametrize(
    "change", [{"unknown": 1}, {"name": "../x"}, {"version": 0}, {"tensors": [{"name": "a"}]}]
)
def test_the_schema_refuses_what_the_program_does(change: dict[str, Any]) -> None:
    good = {"format": "goldenctl-manifest", "format_version": 2, "name": "a", "version": 1,
            "versions": [], "recipe": {}, "tolerance": {"name": "x", "table": {}},
            "tensors": [], "digest": f"blake3:{'0' * 64}"}  # fmt: skip
    jsonschema.validate(good, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(good | change, SCHEMA)


def test_the_schema_is_up_to_date() -> None:
    path = DOCS / "manifest_schema.py"
    spec = importlib.util.spec_from_file_location("manifest_schema", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (DOCS / "manifest.schema.json").read_text(encoding="utf-8")
    assert written == module.render(), "run: python docs/manifest_schema.py"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
