"""Tests of the HTML page as text: whole, closed, escaped, small. A browser opens it in
test_browser.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from pages import Page
from reports import EVERY, HOSTILE, STEP, STORED, blamed, good, pictured, report, sublayer, tensor

from goldenctl.commands.reporting import Outputs, write_outputs
from goldenctl.errors import printable
from goldenctl.records.report import Report
from goldenctl.report import html
from goldenctl.report.html_tensors import MOST_TENSORS
from goldenctl.report.json import load_report

TAPS = {
    "attention": (
        "input_layernorm", "q_proj", "k_proj", "v_proj", "q_norm", "k_norm", "q_rope", "k_rope",
        "scores", "probs", "context", "o_proj", "output",
    ),
    "mlp": ("post_attention_layernorm", "gate_proj", "up_proj", "swiglu", "down_proj", "output"),
}  # fmt: skip


def big(*, layers: int = 28, steps: int = 1, share: float = 0.4) -> Report:
    """A model of the size of Qwen3-1.7B with all taps."""
    made = []
    for step in range(steps):
        for layer in range(layers):
            for kind, taps in TAPS.items():
                name = f"layers/{layer:02d}/{kind}"
                right = sublayer(name, *(tensor(name, tap, share) for tap in taps))
                made.append(moved(right, f"cases/default/steps/{step:02d}"))
    names = [t.name for t in made[0].tensors[:8]]
    return report(*made, pictures=tuple(pictured(name) for name in names))


def moved(made: Any, step: str) -> Any:
    tensors = tuple(replace(t, name=t.name.replace(STEP, step)) for t in made.tensors)
    return replace(made, name=made.name.replace(STEP, step), tensors=tensors)


def every() -> list[Any]:
    stored = [pytest.param(load_report(p), id=p.stem) for p in sorted(STORED.glob("*.json"))]
    return [pytest.param(make(), id=name) for name, make in EVERY.items()] + stored


@pytest.mark.parametrize("made", every())
def test_a_page_is_whole_and_refers_to_nothing_else(made: Report) -> None:
    text = html.render(made)
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name, attributes in page.elements:
        for key in ("href", "src", "action", "xlink:href"):
            if key in attributes:
                assert attributes[key] == "data:," or attributes[key][1:] in ids, name
        assert not any(key.startswith("on") or key == "style" for key in attributes), name
    assert page.of("html")[0]["lang"] == "en"
    assert {"header", "main", "nav", "footer", "title"} <= {name for name, _ in page.elements}
    assert all(f.get("aria-label") or f.get("aria-hidden") for f in page.of("svg"))
    without = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|url\(|@import|//cdn", without)


@pytest.mark.parametrize("made", every())
def test_its_policy_allows_its_own_script_and_styles_alone(made: Report) -> None:
    page = Page(html.render(made))
    metas = [m for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    policy = metas[0]["content"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert (len(page.of("script")), len(page.of("style"))) == (1, 1)


def test_names_of_a_file_are_text_alone() -> None:
    text = html.render(EVERY["hostile"]())
    page = Page(text)
    assert page.of("img") == []
    assert len(page.of("script")) == 1
    assert "onerror=alert" in "".join(page.texts)
    assert printable(HOSTILE) in "".join(page.texts)
    assert all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize(
    ("made", "word"), [(good(), "Pass"), (blamed(), "Fail")], ids=["pass", "fail"]
)
def test_it_answers_in_order(made: Report, word: str) -> None:
    text = html.render(made)
    assert f"</span>{word}</span>" in text
    if word == "Fail":
        places = [text.index(f"<dt>{question}</dt>") for question in (
            "Where first", "What kind of bug", "How sure")]  # fmt: skip
        assert places == sorted(places)
        assert places[0] > text.index("<h1>")
        assert "<dd>interleaved RoPE</dd>" in text
        assert "<dd>reproduced: the reference with this bug explains 99.9% of the error" in text


def test_each_op_of_the_map_leads_to_its_numbers() -> None:
    page = Page(html.render(blamed()))
    links = [a["href"] for a in page.of("a") if re.fullmatch(r"#t\d+", a["href"])]
    rows = [row["id"] for row in page.of("tr") if "id" in row]
    assert sorted(links) == sorted(f"#{row}" for row in rows)
    assert len(rows) == 5


@pytest.mark.parametrize("share", [0.4, 9.0], ids=["right", "wrong"])
def test_a_model_of_28_layers_with_all_taps_is_below_one_mebibyte(share: float) -> None:
    made = big(share=share)
    assert len(made.tensors) == 28 * 19
    assert len(html.render(made).encode()) < 1 << 20


def test_very_many_steps_stay_below_one_mebibyte_and_show_the_worst() -> None:
    made = big(layers=8, steps=24)
    last = made.sublayers[-1]
    failed = replace(last.tensors[-1], state="failed", share=50.0)
    wrong = replace(
        last, tensors=(*last.tensors[:-1], failed), state="failed", first_wrong="output"
    )
    made = replace(made, sublayers=(*made.sublayers[:-1], wrong))
    assert len(made.tensors) > MOST_TENSORS
    text = html.render(made)
    assert len(text.encode()) < 1 << 20
    assert 'data-state="failed" data-name="default/23: layers.07.mlp.output"' in text
    assert f"{len(made.tensors) - MOST_TENSORS:,} that passed are left out here" in text


def test_a_failing_render_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    monkeypatch.setattr("goldenctl.report.figures.scatter", lambda _picture: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_outputs([blamed()], Outputs(html=path))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
