"""The static site in a real browser: this repository's own reports, and a zoo of hostile names."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from transfergraph.cli.program import main
from transfergraph.report.site import build_site, describe_images, learn_map
from transfergraph.zoo.tables import Zoo

ROOT = Path(__file__).resolve().parents[2]
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser():
    "Headless Chromium; skipped where there is none, an error in CI."
    found = [p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome")) if p]
    if not found:
        message = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found[0], args=QUIET.split())
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def site(pulled, tmp_path_factory):
    "The reports that the repository holds, as a site."
    folder = tmp_path_factory.mktemp("site") / "site"
    n = build_site(pulled / "reports", pulled / "zoos", pulled / "results", folder, progress=False)
    assert n == len(list(folder.rglob("*.html"))) > 40
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    "A zoo whose names are markup, and a report that holds some, as a site."
    folder = tmp_path_factory.mktemp("hostile")
    models = [f"{EVIL}{i}" for i in range(6)]
    sets = ["</script><script>alert(2)</script>", "b'\"&", "ünï çode"]
    zoo = Zoo(
        pd.DataFrame(
            {"model": models, "modality": "image", "family": ["<i>f</i>", "g"] * 3, "n_params": 2e6}
        ),
        pd.DataFrame({"dataset": sets, "modality": "image", "role": "target"}),
        pd.DataFrame(
            [(m, d, (i + 2 * j) / 12) for i, m in enumerate(models) for j, d in enumerate(sets)],
            columns=["model", "dataset", "accuracy"],
        ),
    )
    zoo.save(folder / "zoos" / "z")
    cells = [nbformat.v4.new_markdown_cell("# Title\n\nprose"), nbformat.v4.new_code_cell("1")]
    cells[1].outputs = [
        nbformat.v4.new_output("display_data", data={"text/markdown": f"## {EVIL} {sets[0]}"}),
        nbformat.v4.new_output("display_data", data={"text/html": f"<p onclick='alert(3)'>{EVIL}</p>"}),
    ]
    (folder / "reports" / "z").mkdir(parents=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "reports" / "z" / "summary.ipynb")
    args = [
        "site",
        *(f"--{n}={folder / n}" for n in ("reports", "zoos", "results")),
        f"--out={folder / 'site'}",
    ]
    assert main(args) == 0
    return folder / "site"


def opened(browser, path, width=1280, scheme="light", **options):
    "A page, and what went wrong on it so far."
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **options
    )
    page, wrong = context.new_page(), []
    page.on("console", lambda m: wrong.append(m.text))
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    page.on("request", lambda r: r.url.startswith(("file:", "data:")) or wrong.append(r.url))
    page.on("requestfailed", lambda r: wrong.append(r.url))
    page.goto(path.as_uri())
    return page, wrong


def test_every_page_opens_from_the_disk_without_an_error(browser, site):
    "No request leaves the folder, links lead somewhere, images have words, nothing is wider than a phone."
    for path in sorted(site.rglob("*.html")):
        page, wrong = opened(browser, path, width=390)
        if path.name == "map.html":
            page.wait_for_selector(".map[data-ready]")
        assert not wrong, (path, wrong)
        for link in page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))"):
            if not link.startswith(("http", "#")):
                assert (path.parent / link).resolve().is_file(), (path, link)
        texts = page.eval_on_selector_all("img", "all => all.map(i => i.alt)")
        assert all(len(text) > 15 and "No description" not in text for text in texts), (path, texts)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert len(page.query_selector_all("h1")) == 1 and page.title()
        page.context.close()


def test_the_index_names_every_target_and_its_best_method(browser, site):
    page, _ = opened(browser, site / "index.html")
    rows = page.eval_on_selector_all(
        "#targets-nano-image tbody tr", "all => all.map(r => [...r.cells].map(c => c.textContent))"
    )
    assert {row[0] for row in rows} == {"digits", "cyrillic", "silhouettes", "attractors", "mosaics"}
    assert all(float(row[2]) >= float(row[4]) and float(row[2]) >= float(row[6]) for row in rows)
    page.click("#targets-nano-image tbody a")
    assert page.url.endswith(".html") and "nano-image" in page.url and page.query_selector("h1")
    page.context.close()


def test_the_leaderboard_sorts_and_filters(browser, site):
    page, wrong = opened(browser, site / "nano-image" / "models.html")

    def column(i):
        cells = f"#models tbody tr:not([hidden]) td:nth-child({i})"
        return page.eval_on_selector_all(cells, "all => all.map(c => c.dataset.value ?? c.textContent)")

    sizes = [float(v) for v in column(3)]
    assert len(sizes) == 31 and sizes != sorted(sizes, reverse=True)
    page.click("#models th:nth-child(3) button")
    assert [float(v) for v in column(3)] == sorted(sizes, reverse=True)
    page.focus("#models th:nth-child(3) button")
    page.keyboard.press("Enter")  # no mouse is needed
    assert [float(v) for v in column(3)] == sorted(sizes)
    assert page.get_attribute("#models th:nth-child(3)", "aria-sort") == "ascending"
    page.click("#models th:nth-child(1) button")
    assert column(1) == sorted(column(1), key=str.lower)

    page.select_option("select[data-column=family]", "resnet")
    assert set(column(2)) == {"resnet"} and len(column(2)) == 6
    assert page.text_content("form output") == "6 of 31 models"
    page.fill("input[data-column=model]", "MNIST")
    assert column(1) == ["resnet-mnist"]
    page.click("button[type=reset]")
    page.wait_for_function("document.querySelector('form output').textContent === '31 of 31 models'")
    page.fill("input[data-rule=least]", "0.3")
    page.fill("input[data-rule=most]", "1")
    chosen = [float(v) for v in column(3)]
    assert 0 < len(chosen) == sum(3e5 <= s <= 1e6 for s in sizes) < 31
    page.fill("input[data-rule=least]", "")
    page.fill("input[data-rule=most]", "")
    licences = page.eval_on_selector_all("select[data-column=licence] option", "all => all.map(o => o.value)")
    for licence in licences[1:]:
        page.select_option("select[data-column=licence]", licence)
        assert column(4) and set(column(4)) == {licence}
    assert not wrong
    page.context.close()


def test_the_map_answers_a_hover_a_click_and_a_choice(browser, site):
    page, wrong = opened(browser, site / "nano-text" / "map.html")
    page.wait_for_selector(".map[data-ready]")
    dots = page.query_selector_all(".map .scatterlayer .point")
    box = dots[0].bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(at[0] - 30, at[1])
    page.mouse.move(*at)
    hover = page.wait_for_selector(".map .hoverlayer .hovertext")
    named = hover.text_content()
    assert any(
        f">{name}<" in f">{named}<" or name in named for name in ("minilm", "topics", "hotels", "code")
    )
    page.mouse.click(*at)
    page.wait_for_selector("#history table")
    assert page.text_content("#history h2") in named
    assert re.match(r"0\.\d{3}$", page.text_content("#history tbody td:nth-child(2)"))
    buttons = page.eval_on_selector_all(".map .modebar-btn", "all => all.map(b => b.dataset.title)")
    assert "Zoom in" in buttons and not [b for b in buttons if re.search("(?i)share|cloud|studio", b)]
    page.select_option("#node", label="topics")
    assert page.text_content("#history h2") == "topics" and "dataset" in page.text_content("#history p")
    assert len(page.query_selector_all("#history tbody tr")) == 20
    assert not wrong
    page.context.close()


def test_light_and_dark_are_readable_and_remembered(browser, site):
    def contrast(page, selector):
        "Ratio of luminances of a text and what it stands on (WCAG 2)."
        return page.evaluate(
            """selector => {
              const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
                .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
                return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
              const found = document.querySelector(selector);
              let under = found;
              const ground = (e) => getComputedStyle(e).backgroundColor;
              while (under && /, 0\\)$|transparent/.test(ground(under))) under = under.parentElement;
              const [a, b] = [getComputedStyle(found).color, ground(under || document.body)].map(light);
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            }""",
            selector,
        )

    grounds = set()
    for scheme in ("light", "dark"):
        page, wrong = opened(browser, site / "nano-image" / "digits.html", scheme=scheme)
        assert page.get_attribute("html", "data-theme") == scheme
        page.click("details summary")
        for selector in (
            "main p",
            "main th",
            "main td",
            "main summary",
            "main h1",
            "header a",
            "#theme",
            "main pre",
        ):
            assert contrast(page, selector) >= 4.5, (scheme, selector)
        kinds = page.eval_on_selector_all(
            ".highlight span[class]", "all => [...new Set(all.map(s => s.className))]"
        )
        low = {
            k
            for k in kinds
            if page.is_visible(f".highlight .{k}") and contrast(page, f".highlight .{k}") < 4.5
        }
        assert not low, (scheme, low)
        grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.click("#theme")
        page.reload()
        assert page.get_attribute("html", "data-theme") != scheme and not wrong
        page.context.close()
    assert len(grounds) == 2


def test_names_that_are_markup_stay_names(browser, hostile):
    for path in sorted(hostile.rglob("*.html")):
        page, wrong = opened(browser, path)
        if path.name == "map.html":
            page.wait_for_selector(".map[data-ready]")
            page.select_option("#node", index=2)
            page.wait_for_selector("#history h2")
        page.wait_for_timeout(100)
        assert not wrong, (path, wrong)
        assert not page.query_selector_all("main img:not([alt])")
        page.context.close()
    page, _ = opened(browser, hostile / "z" / "models.html")
    assert page.text_content("#models tbody td") == f"{EVIL}5"
    assert page.eval_on_selector_all("select[data-column=family] option", "o => o.map(x => x.value)")[1:] == [
        "<i>f</i>",
        "g",
    ]
    page.context.close()


def test_without_scripts_tables_are_still_there(browser, site):
    page, _ = opened(browser, site / "nano-image" / "models.html", java_script_enabled=False)
    assert len(page.query_selector_all("#models tbody tr")) == 31
    page.context.close()


def test_the_same_reports_give_the_same_bytes(hostile, tmp_path):
    source = hostile.parent
    build_site(source / "reports", source / "zoos", source / "results", tmp_path / "again", progress=False)
    for path in hostile.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(hostile)).read_bytes(), path


def test_nothing_else_is_overwritten_and_nothing_is_left_half_made(hostile, tmp_path, capsys):
    source = hostile.parent
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    args = [f"--{n}={source / n}" for n in ("reports", "zoos", "results")]
    assert main(["site", *args, f"--out={tmp_path / 'mine'}"]) == 2
    assert "expected a new folder, or one that holds a site" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    assert main(["site", f"--reports={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"]) == 2
    assert "no executed notebooks; expected those that `make repro`" in capsys.readouterr().err
    shutil.copytree(source / "reports", tmp_path / "reports")
    (tmp_path / "reports" / "z" / "broken.ipynb").write_text("{")
    assert main(["site", f"--reports={tmp_path / 'reports'}", f"--out={tmp_path / 'out'}"]) == 2
    assert "broken.ipynb: not a notebook" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "reports"]


def test_a_zoo_of_one_model_and_one_data_set_has_a_map():
    zoo = Zoo(
        pd.DataFrame({"model": ["a"], "modality": "text"}),
        pd.DataFrame({"dataset": ["x"], "modality": "text"}),
        pd.DataFrame(columns=["model", "dataset", "accuracy"]),
    ).validate()
    places = learn_map(zoo)
    assert places["name"].tolist() == ["a", "x"] and places[["x", "y"]].notna().all(axis=None)


def test_every_picture_of_a_notebook_gets_words():
    cell = nbformat.v4.new_code_cell("show(figure_map(a, b, 't'))")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## What it learnt"), cell])
    assert describe_images(notebook) == 1
    alt = cell.outputs[0]["metadata"]["image/png"]["alt"]
    assert alt.startswith("What it learnt: Models and datasets on a map")
