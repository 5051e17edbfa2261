"""Pages as Chromium shows them: nothing fails, nothing is fetched, and they can be read by anyone on anything."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

import unnoise as un
from tests.chromium import check_page, in_chromium

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = in_chromium


@pytest.fixture(scope="module")
def pages(reported: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A card, one of a run that was not evaluated, and a comparison of runs with long names."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [Path(shutil.copytree(reported, folder / f"a-run-with-a-rather-long-name-{k}")) for k in range(3)]
    (runs[0] / "evaluation.json").unlink()
    un.report(runs[0])
    un.compare(*runs, out=folder / "comparison.html")
    return {"card": reported / "report.html", "bare": runs[0] / "report.html", "comparison": folder / "comparison.html"}


@pytest.mark.parametrize("name", ["card", "bare", "comparison"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_pages(pages: dict[str, Path], chromium: "Browser", name: str, scheme: Literal["light", "dark"], width: int) -> None:
    """No message, no request, no scrolling sideways, the scheme's own colours, and no serious finding of axe."""
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})
    page, messages, requests = context.new_page(), list[str](), list[str]()
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(pages[name].as_uri())
    assert not messages and [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    check_page(page, scheme)
    if name == "card":  # its table, too, is read without scrolling; those of many runs are not
        assert page.evaluate("[...document.querySelectorAll('.scroll')].every(e => e.scrollWidth <= e.clientWidth)")
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    context.close()


def test_the_slider_by_keyboard(pages: dict[str, Path], chromium: "Browser") -> None:
    """It shows one stage at a time, the last one first, and says which."""
    page = chromium.new_page()
    page.goto(pages["card"].as_uri())
    slider = page.get_by_role("slider", name="Stage of the training")
    stages = page.locator(".stage")
    count = stages.count()
    assert count >= 2 and page.locator(".stage:visible").count() == 1 and stages.last.is_visible()
    slider.focus()
    page.keyboard.press("Home")
    assert stages.first.is_visible() and page.locator(".stage:visible").count() == 1
    assert page.locator("output").inner_text() == "Step 0" == slider.get_attribute("aria-valuetext")
    page.keyboard.press("ArrowRight")
    assert stages.nth(1).is_visible()
    page.close()


def test_without_scripts(pages: dict[str, Path], chromium: "Browser") -> None:
    """The last stage is shown, and no slider that would do nothing."""
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(pages["card"].as_uri())
    assert page.locator(".stage").last.is_visible() and not page.locator(".slider").is_visible()
    context.close()
