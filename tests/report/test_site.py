"""The static site in a real browser: this repository's own reports, and a zoo of hostile names."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml

from transfergraph.cli.program import main
from transfergraph.report.page_tables import learn_map
from transfergraph.report.site import build_site, notebook_markdown
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
    "The reports that the repository holds, its chapters, how-tos and interface, as a site."
    folder = tmp_path_factory.mktemp("site") / "site"
    parts = (pulled / name for name in ("reports", "zoos", "results"))
    n = build_site(*parts, folder, pulled, progress=False)
    assert n == len(list(folder.rglob("*.html"))) > 150
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
    at = folder / "results" / "z" / "targets" / "x" / "clean"
    at.mkdir(parents=True)
    rows = pd.DataFrame({"target": sets[0], "method": "TG:ensemble", "model": models, "score": 0.5})
    rows.to_csv(at / "predictions.csv", index=False)
    metric = {"target": [sets[0]], "method": ["TG:ensemble"], "metric": ["pearson"], "value": [0.25]}
    pd.DataFrame(metric).to_csv(at / "metrics.csv", index=False)
    parts = (f"--{n}={folder / n}" for n in ("reports", "zoos", "results", "project"))
    assert main(["site", *parts, f"--out={folder / 'site'}"]) == 0
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
    page.on("requestfailed", lambda r: "ERR_ABORTED" in (r.failure or "") or wrong.append(r.url))
    page.goto(path.as_uri())
    return page, wrong


def test_every_page_opens_from_the_disk_without_an_error(browser, site):
    "No request leaves the folder, links lead somewhere, images have words, nothing is wider than a phone."
    page, wrong = opened(browser, site / "index.html", width=390)
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        if path.name == "map.html":
            page.wait_for_selector("#map .scatterlayer .point", state="attached")
        assert not wrong, (path, wrong)
        for link in page.eval_on_selector_all("a[href]", "all => all.map(a => a.getAttribute('href'))"):
            if not link.startswith(("http", "#")):
                assert (path.parent / link.partition("#")[0]).resolve().is_file(), (path, link)
        texts = page.eval_on_selector_all("article img", "all => all.map(i => i.alt)")
        assert all(len(text) > 15 and "No description" not in text for text in texts), (path, texts)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert len(page.query_selector_all("h1")) == 1 and page.title()
    page.context.close()


def test_search_works_from_the_disk(browser, site):
    page, wrong = opened(browser, site / "index.html")
    page.click(".md-search__input")
    page.keyboard.type("separation", delay=30)
    page.wait_for_selector(".md-search-result__link")
    links = page.query_selector_all(".md-search-result__link")
    found = [link.get_attribute("href") for link in links]
    assert any("03_separation.html" in link for link in found) and any("api/" in link for link in found)
    page.click(".md-search-result__link >> nth=0")
    page.wait_for_url("**/*separation*")
    assert not wrong
    page.context.close()


def rows_of(page, selector):
    "Texts of the rows that are shown."
    rows = f"{selector} tbody tr:not([hidden])"
    return page.eval_on_selector_all(rows, "all => all.map(r => [...r.cells].map(c => c.textContent))")


def test_the_index_answers_which_model_for_my_data(browser, site):
    "A dataset that is like one's own shows its ranking; filters keep the places; a model leads to its row."
    page, wrong = opened(browser, site / "index.html")
    page.fill("#question", "10 classes image")
    names = page.eval_on_selector_all("#answers b", "all => all.map(b => b.textContent)")
    assert "digits" in names and "hotels" not in names
    page.click("#answers button:has-text('digits')")
    rows = rows_of(page, "#ranked")
    predicted = [float(row[2]) for row in rows]
    assert len(rows) == 15 and predicted == sorted(predicted, reverse=True)
    assert "Pearson".lower() in page.text_content("#ranking p").lower()
    page.click("#ranking .more")
    assert len(rows_of(page, "#ranked")) == 31
    page.select_option("#ranking select[data-rule=family]", "resnet")
    chosen = rows_of(page, "#ranked")
    assert 0 < len(chosen) < 15 and {row[4] for row in chosen} == {"resnet"} and chosen[0][0] != "2"
    page.click("#ranked tbody tr:not([hidden]) a")
    page.wait_for_url("**/models.html*")
    assert [row[0] for row in rows_of(page, "#models")] == [chosen[0][1]]
    page.go_back()
    page.fill("#question", "no such thing")
    assert "Nothing known" in page.text_content("#answers")
    assert not wrong
    page.context.close()


def test_the_index_says_how_right_rankings_are(browser, site, pulled):
    page, _ = opened(browser, site / "index.html")
    rows = rows_of(page, "#targets-nano-image")
    assert {row[0] for row in rows} == {"digits", "cyrillic", "silhouettes", "attractors", "mosaics"}
    metrics = pd.read_csv(pulled / "results/nano-image/targets/digits/clean/metrics.csv")
    headline = yaml.safe_load((ROOT / "params.yaml").read_text())["headline"]
    kept = metrics[(metrics["method"] == headline) & (metrics["metric"] == "pearson")]
    assert dict((row[0], row[1]) for row in rows)["digits"] == f"{kept['value'].iloc[0]:.3f}"
    page.click("#targets-nano-image tbody a")
    assert page.url.endswith(".html") and "nano-image" in page.url and page.query_selector("h1")
    page.context.close()


def test_the_leaderboard_sorts_filters_and_folds(browser, site):
    page, wrong = opened(browser, site / "zoos" / "nano-image" / "models.html")

    def column(i):
        return [row[i - 1] for row in rows_of(page, "#models")]

    assert len(column(1)) == 15 and page.text_content(".more") == "All 31 models"
    page.click(".more")
    sizes = [float(v) for v in column(4)]
    assert len(sizes) == 31 and sizes != sorted(sizes, reverse=True)
    page.click("#models th:nth-child(4) button")
    assert [float(v) for v in column(4)] == sorted(sizes, reverse=True)
    page.focus("#models th:nth-child(4) button")
    page.keyboard.press("Enter")  # no mouse is needed
    assert [float(v) for v in column(4)] == sorted(sizes)
    assert page.get_attribute("#models th:nth-child(4)", "aria-sort") == "ascending"
    page.click("#models th:nth-child(1) button")
    assert column(1) == sorted(column(1), key=str.lower)

    page.select_option("select[data-rule=family]", "resnet")
    assert set(column(2)) == {"resnet"} and len(column(2)) == 6
    assert page.text_content(".filters output") == "6 of 31 models"
    page.fill("input[data-rule='name has']", "MNIST")
    assert column(1) == ["resnet-mnist"]
    page.click(".filters button[type=reset]")
    page.wait_for_function("document.querySelector('.filters output').textContent === '31 of 31 models'")
    page.fill("input[data-rule='at least, in millions']", "0.3")
    page.fill("input[data-rule='at most, in millions']", "1")
    chosen = [float(v) for v in column(4)]
    assert 0 < len(chosen) == sum(0.3 <= s <= 1 for s in sizes) < 31
    page.click(".filters button[type=reset]")
    for licence in page.eval_on_selector_all("select[data-rule=licence] option", "o => o.map(x => x.value)")[
        1:
    ]:
        page.select_option("select[data-rule=licence]", licence)
        assert column(3) and set(column(3)) == {licence}
    assert not wrong
    page.context.close()


def test_the_map_answers_a_hover(browser, site):
    page, wrong = opened(browser, site / "zoos" / "nano-text" / "map.html")
    page.wait_for_selector("#map .scatterlayer .point", state="attached")
    box = page.query_selector_all("#map .scatterlayer .point")[0].bounding_box()
    at = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(at[0] - 30, at[1])
    page.mouse.move(*at)
    named = page.wait_for_selector("#map .hoverlayer .hovertext").text_content()
    assert re.search(r"0\.\d{3}", named) or "no record is known" in named
    buttons = page.eval_on_selector_all("#map .modebar-btn", "all => all.map(b => b.dataset.title)")
    assert "Zoom in" in buttons and not [b for b in buttons if re.search("(?i)share|cloud|studio", b)]
    assert not wrong
    page.context.close()


def test_a_report_shows_results_first_and_one_fold_a_section(browser, site):
    page, _ = opened(browser, site / "zoos" / "nano-image" / "targets" / "digits.html")
    folds = page.query_selector_all("article details")
    assert 0 < len(folds) <= len(page.query_selector_all("article h1, article h2"))
    assert not any(fold.get_attribute("open") for fold in folds)
    assert not [pre for pre in page.query_selector_all("article pre") if pre.is_visible()]
    assert "paper-image" not in page.text_content("article")
    page.context.close()


def test_the_interface_says_what_comments_say_of_parameters(browser, site):
    page, _ = opened(browser, site / "api" / "report" / "site.html")
    text = page.text_content("article")
    assert "folder of executed notebooks, a folder for each zoo" in text and "build_site" in text
    page.context.close()


def test_light_and_dark_are_readable_and_remembered(browser, site):
    def contrast(page, selector):
        "Ratio of luminances of a text and what it stands on (WCAG 2)."
        return page.evaluate(
            """selector => {
              const light = (c) => { const v = c.map(x => x / 255)
                .map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
                return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
              const found = document.querySelector(selector), read = (c) => c.match(/[\\d.]+/g).map(Number);
              let layers = [];
              for (let e = found; e; e = e.parentElement)
                layers.unshift(read(getComputedStyle(e).backgroundColor));
              const over = (under, [r, g, b, alpha = 1]) =>
                [r, g, b].map((v, i) => alpha * v + (1 - alpha) * under[i]);
              const ground = layers.reduce(over, [255, 255, 255]);
              const [a, b] = [over(ground, read(getComputedStyle(found).color)), ground].map(light);
              return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
            }""",
            selector,
        )

    grounds = set()
    for scheme in ("light", "dark"):
        page, wrong = opened(browser, site / "zoos" / "nano-image" / "targets" / "digits.html", scheme=scheme)
        wanted = {"light": "default", "dark": "slate"}[scheme]
        assert page.get_attribute("body", "data-md-color-scheme") == wanted
        page.click("details summary")
        for selector in (
            "article p",
            "article th",
            "article td",
            "article summary",
            "article h1",
            "article h2",
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
        page.click("label[for^=__palette]:visible")
        page.reload()
        assert page.get_attribute("body", "data-md-color-scheme") != wanted and not wrong
        page.context.close()
    assert len(grounds) == 2


def test_names_that_are_markup_stay_names(browser, hostile):
    for path in sorted(hostile.rglob("*.html")):
        page, wrong = opened(browser, path)
        if path.name == "map.html":
            page.wait_for_selector("#map .scatterlayer .point", state="attached")
        if path.name == "index.html":
            page.click("#answers button")
            assert len(page.query_selector_all("#ranked tbody tr")) == 6
        page.wait_for_timeout(100)
        assert not wrong, (path, wrong)
        assert not page.query_selector_all("main img:not([alt])")
        page.context.close()
    page, _ = opened(browser, hostile / "zoos" / "z" / "models.html")
    assert page.text_content("#models tbody td") == f"{EVIL}5"
    assert page.eval_on_selector_all("select[data-rule=family] option", "o => o.map(x => x.value)")[1:] == [
        "<i>f</i>",
        "g",
    ]
    page.context.close()


def test_a_zoo_that_nobody_evaluated_says_how_to(hostile, tmp_path):
    source, nothing = hostile.parent, tmp_path / "none"
    assert build_site(nothing, source / "zoos", nothing, tmp_path / "site", nothing, progress=False) == 3
    text = (tmp_path / "site" / "index.html").read_text()
    assert "No rankings yet" in text and "transfergraph evaluate zoos/z --out results/z" in text


def test_without_scripts_tables_are_still_there(browser, site):
    page, _ = opened(browser, site / "zoos" / "nano-image" / "models.html", java_script_enabled=False)
    assert len(page.query_selector_all("#models tbody tr")) == 31
    page.context.close()


def test_the_same_reports_give_the_same_bytes(hostile, tmp_path):
    source = hostile.parent
    parts = (source / name for name in ("reports", "zoos", "results"))
    build_site(*parts, tmp_path / "again", source / "project", progress=False)
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
    nothing = [f"--{n}={tmp_path / 'none'}" for n in ("reports", "zoos")]
    assert main(["site", *nothing, f"--out={tmp_path / 'out'}"]) == 2
    assert "no executed notebooks, and" in capsys.readouterr().err
    shutil.copytree(source / "reports", tmp_path / "reports")
    (tmp_path / "reports" / "z" / "broken.ipynb").write_text("{")
    args = [f"--reports={tmp_path / 'reports'}", f"--zoos={tmp_path / 'none'}", f"--out={tmp_path / 'out'}"]
    assert main(["site", *args]) == 2
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


def test_every_picture_of_a_notebook_gets_words(tmp_path):
    cell = nbformat.v4.new_code_cell("show(figure_map(a, b, 't'))")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("## What it learnt"), cell])
    text = notebook_markdown(notebook, tmp_path / "page")
    assert 'alt="What it learnt: Models and datasets on a map' in text
    assert [p.suffix for p in tmp_path.iterdir()] == [".png"]
