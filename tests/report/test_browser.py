"""The HTML page in a real browser, offline: clicked through, by keyboard too, in both themes.

Needs Chromium and the playwright package; skipped, with the reason, where one is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from reports import EVERY, STORED, matrix, pictured, report, sublayer, tensor

from goldenctl.report import html
from goldenctl.report.json import load_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PLAYWRIGHT = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with PLAYWRIGHT.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield launched
        launched.close()


class Opened:
    """A page in a window of its own; ``troubles`` are failed requests and console messages."""

    def __init__(self, browser: Any, path: Path, *, width: int, theme: str, **options: Any) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True, **options
        )
        self.page = self.context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("requestfailed", lambda request: self.troubles.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Return what opens a report; at the end nothing may have gone wrong."""
    windows = []

    def open_(made: Any, *, width: int = DESKTOP, theme: str = "light", **options: Any) -> Any:
        path = tmp_path / "report.html"
        text = html.render_matrix(made) if isinstance(made, list) else html.render(made)
        path.write_text(text, encoding="utf-8")
        windows.append(Opened(browser, path, width=width, theme=theme, **options))
        return windows[-1].page

    yield open_
    for window in windows:
        assert window.troubles == []
        asked = [url for url in window.requests if not url.startswith(("file:", "data:"))]
        assert asked == []
        window.context.close()


def blamed() -> Any:
    return load_report(STORED / "blamed.json")


@pytest.mark.parametrize("name", [*EVERY, "matrix"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_every_report_opens_without_trouble_and_fits_the_screen(
    opened: Any, name: str, width: int
) -> None:
    page = opened({**EVERY, "matrix": matrix}[name](), width=width)
    assert page.locator("h1").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("typeof window.alert.mock") == "undefined"


def test_a_click_on_an_op_shows_its_numbers_and_leads_to_its_figures(opened: Any) -> None:
    page = opened(blamed())
    panel = page.locator("#op")
    assert "layers.02.attention.q_rope" in panel.inner_text()  # the culprit, from the start
    page.locator('.map a:has(title:text-matches("q_norm"))').click()
    assert "layers.02.attention.q_norm" in panel.inner_text()
    page.locator('.map a:has(title:text-matches("q_rope"))').click()
    shown = panel.inner_text()
    for text in ("failed", "rope", "rel L2", "cosine", "budget"):
        assert text in shown
    panel.get_by_role("link", name="See where and how it is wrong").click()
    assert page.locator("#p0").get_attribute("open") is not None
    assert page.locator("#p0 svg").count() == 4


def test_the_map_is_walked_by_keyboard(opened: Any) -> None:
    page = opened(blamed())
    start = page.locator('.map a[tabindex="0"]')
    assert start.count() == 1
    start.focus()
    for key, tap in (("ArrowRight", "k_rope"), ("ArrowLeft", "q_rope"), ("ArrowLeft", "k_norm")):
        page.keyboard.press(key)
        assert page.evaluate(
            "document.activeElement.querySelector('title').textContent"
        ).startswith(f"layers.02.attention.{tap}:")
    page.keyboard.press("Enter")
    assert "layers.02.attention.k_norm" in page.locator("#op").inner_text()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    assert "layers.02.attention.input_layernorm" in page.locator("#op").inner_text()


def test_all_of_it_is_reached_by_tab(opened: Any) -> None:
    page = opened(blamed())
    seen = []
    for _ in range(80):
        page.keyboard.press("Tab")
        tag = page.evaluate(
            "document.activeElement.tagName + '.' + document.activeElement.className"
        )
        if tag.startswith("BODY"):
            break
        seen.append(tag)
    kinds = {tag.split(".")[0] for tag in seen}
    assert {"A", "BUTTON", "SUMMARY", "PRE", "DIV"} <= {k.upper() for k in kinds}
    assert len(seen) < 80
    assert seen[0] == "A.skip"


def test_the_theme_follows_the_system_and_can_be_chosen(opened: Any) -> None:
    def paper(page: Any) -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    dark = opened(blamed(), theme="dark")
    light = opened(blamed(), theme="light")
    assert paper(dark) != paper(light)
    button = light.get_by_role("button", name="Theme: system")
    button.click()
    assert paper(light) != paper(dark)  # light, chosen
    light.locator("#theme").click()
    assert paper(light) == paper(dark)
    light.reload()
    assert light.locator("#theme").inner_text() == "Theme: dark"
    assert paper(light) == paper(dark)


def test_the_table_is_filtered_and_sorted(opened: Any) -> None:
    page = opened(blamed())
    page.locator("#all summary").click()
    rows = page.locator("#tensors tbody tr:visible")
    everything = rows.count()
    page.locator("#wrong").check()
    assert rows.count() == 1
    page.locator("#wrong").uncheck()
    page.locator("#filter").fill("Q_Rope")
    assert rows.count() == 1
    page.locator("#filter").fill("")
    assert rows.count() == everything
    page.get_by_role("button", name="used").click()
    assert "q_rope" in rows.first.inner_text()
    head = page.locator("#tensors th", has_text="used")
    assert head.get_attribute("aria-sort") == "descending"


def test_commands_are_copied(opened: Any) -> None:
    page = opened(blamed(), permissions=["clipboard-read", "clipboard-write"])
    page.locator("#commands button").first.click()
    page.get_by_role("button", name="Copied").wait_for(timeout=3000)
    assert page.evaluate("navigator.clipboard.readText()").startswith("goldenctl blame")


def test_without_script_a_click_leads_to_the_row(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html.render(blamed()), encoding="utf-8")
    window = Opened(browser, path, width=DESKTOP, theme="light", java_script_enabled=False)
    window.page.locator('.map a:has(title:text-matches("q_rope"))').click()
    assert window.page.url.rpartition("#")[2].startswith("t")
    assert window.troubles == []
    window.context.close()


def test_it_prints(opened: Any, tmp_path: Path) -> None:
    page = opened(blamed(), theme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    page.pdf(path=tmp_path / "r.pdf", format="A4")
    assert (tmp_path / "r.pdf").stat().st_size > 20_000


CONTRAST = """() => {
  const bent = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const channel = (v) => bent(v / 255);
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = numbers(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.closest("title,desc,script,style,meter")) continue;
    const style = getComputedStyle(e);
    const ink = numbers(e.closest("svg") ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([e.tagName, e.textContent.slice(0, 30), ink]);
  }
  return bad;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["blamed", "good", "selftest", "matrix"])
def test_text_has_contrast(opened: Any, theme: str, name: str) -> None:
    page = opened({**EVERY, "matrix": matrix}[name](), theme=theme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate(CONTRAST) == []


def test_controls_have_names(opened: Any) -> None:
    page = opened(blamed())
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for role in ("button", "link", "checkbox", "searchbox", "img"):
        for control in page.get_by_role(role).all():
            name = control.get_attribute("aria-label") or control.text_content() or ""
            label = control.evaluate(
                "e => e.labels ? [...e.labels].map(l => l.textContent).join() : ''"
            )
            assert (name + label).strip(), role


def test_on_a_phone_the_rows_of_a_scrolled_map_and_the_axis_of_depth_are_read(opened: Any) -> None:
    page = opened(blamed(), width=PHONE)
    area = page.locator(".map .scroll").first
    assert area.evaluate("e => e.scrollLeft") == 0
    assert "scroll sideways" in page.locator(".map .more").first.inner_text()
    area.evaluate("e => { e.scrollLeft = 60; }")
    left = area.bounding_box()["x"]
    for text in area.locator(".rows text").all():
        box = text.bounding_box()
        assert left <= box["x"] < box["x"] + box["width"] <= left + 86
    axis = page.get_by_text("sublayers in order of computation").bounding_box()
    assert axis["x"] + axis["width"] <= PHONE


@pytest.mark.skipif(not os.environ.get("SCREENSHOTS"), reason="SCREENSHOTS names no folder")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_screenshots_for_people(opened: Any, theme: str, width: int) -> None:
    """Writes pictures of every kind of report into the folder $SCREENSHOTS."""
    folder = Path(os.environ["SCREENSHOTS"])
    for name, make in EVERY.items():
        page = opened(make(), width=width, theme=theme)
        page.screenshot(path=folder / f"{name}-{theme}-{width}.png", full_page=True)


def test_a_picture_of_nothing_but_nan_is_drawn(opened: Any) -> None:
    lost = tensor("mlp", "output", float("nan"))
    page = opened(report(sublayer("mlp", lost), pictures=(pictured(lost.name),)))
    assert "not finite, not drawn" in page.locator("#p0").inner_text()
