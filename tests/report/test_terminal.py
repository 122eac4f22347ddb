"""Figures that are readable and the same from run to run, and notebooks that are run as reports."""

import hashlib
import itertools
import json
import os
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from transfergraph.report import figures, page_figures
from transfergraph.report.terminal import NotebookError, run_notebook, strip_volatile

LONG = "a dataset with, a rather, long list of, class names, that goes on, and on, and on {} $x_1$"


def tables(n_targets=8, n_methods=24, n_models=60, seed=0):
    "Made-up predictions, truth, metrics and summary, with long names."
    rng = np.random.default_rng(seed)
    methods = ["mean", "LR{all,LogME}", *(f"TG:XGB,learner-{i},all+LogME" for i in range(n_methods - 2))]
    targets = [LONG.format(i) for i in range(n_targets)]
    models = [f"some-organisation/a-model-with-a-very-long-name-{i}" for i in range(n_models)]
    truth = pd.Series(rng.random(n_models), models)
    predictions = pd.DataFrame(
        [(m, name, truth[name] + rng.normal(), s) for m in methods[:6] for name in models for s in (0, 1)],
        columns=["method", "model", "score", "seed"],
    )
    metrics = pd.DataFrame(
        [
            (t, m, metric, rng.random())
            for metric in ("pearson", "regret@5")
            for t in targets
            for m in methods
        ],
        columns=["target", "method", "metric", "value"],
    )
    summary = metrics.groupby(["method", "metric"])["value"].mean().rename("mean").reset_index()
    return predictions, truth, metrics, summary.assign(low=summary["mean"] - 0.1, high=summary["mean"] + 0.2)


def distances(n, seed=0):
    points = np.random.default_rng(seed).normal(size=(n, 3))
    names = [LONG.format(i) for i in range(n)]
    return pd.DataFrame(np.linalg.norm(points[:, None] - points[None], axis=-1), names, names)


class Graph(dict):
    "What the drawing asks of a HeteroData."

    edge_types = property(lambda self: [key for key in self if isinstance(key, tuple)])


class Nodes:
    def __init__(self, name):
        self.name = name


def graph(n_models=180, n_datasets=70, n_tuned=12, seed=0):
    rng = np.random.default_rng(seed)

    def edges(pairs):
        index = np.array(pairs, int).reshape(-1, 2).T
        return {"edge_index": index, "edge_weight": rng.random(index.shape[1])}

    tuned = [(m, d) for m in range(n_models) for d in range(1, n_tuned)]
    return Graph(
        {
            "model": Nodes([f"model {i}" for i in range(n_models)]),
            "dataset": Nodes([LONG.format(i) for i in range(n_datasets)]),
            ("model", "finetuned_on", "dataset"): edges(tuned),
            ("model", "pretrained_on", "dataset"): edges([(m, m * m % n_datasets) for m in range(n_models)]),
            ("model", "transfers_to", "dataset"): edges(tuned[::3]),
            ("dataset", "similar_to", "dataset"): edges([(0, d) for d in range(1, n_datasets)]),
        }
    )


def drawn():
    "Every kind of figure at the size of the published zoos."
    predictions, truth, metrics, summary = tables()
    sweep = pd.concat(metrics.assign(history_ratio=r) for r in (0.1, 0.5, 1.0))
    sweep = sweep[sweep["method"].isin(metrics["method"].unique()[:5])]
    groups = {"features": metrics["method"].unique()[:5].tolist(), "learners": ["mean", "no such method"]}
    return {
        "predicted_vs_true": figures.figure_predicted_vs_true(
            predictions, truth, predictions["method"].unique()
        ),
        "methods": figures.figure_methods(summary, "pearson"),
        "methods regret": figures.figure_methods(summary, "regret@5"),
        "by target": figures.figure_metric_by_target(metrics, "pearson"),
        "distances": page_figures.figure_distances(distances(70), [LONG.format(3), LONG.format(5)]),
        "few distances": page_figures.figure_distances(distances(8), [LONG.format(3)]),
        "graph": page_figures.figure_graph(graph(), LONG.format(0)),
        "ablation": figures.figure_ablation(metrics, groups, "pearson"),
        "sweep": figures.figure_sweep(sweep, "pearson"),
    }


def hashes(made):
    return {name: hashlib.sha256(figures.figure_png(figure)).hexdigest() for name, figure in made.items()}


@pytest.fixture(scope="module")
def all_figures():
    return drawn()


def texts(figure):
    "Every text that is drawn; matplotlib keeps ticks beyond the ends of an axis, but does not draw them."
    yield from figure.texts
    for legend in figure.legends:
        yield from legend.get_texts()
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        yield from (ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts)
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            if ax.axison:
                yield from (t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high)


def test_no_label_is_cut_off(all_figures):
    for name, figure in all_figures.items():
        renderer, frame = figure.canvas.get_renderer(), figure.bbox
        for text in texts(figure):
            if text.get_text().strip() and text.get_visible():
                box = text.get_window_extent(renderer)
                inside = min(box.x0, box.y0) >= -1 and box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1
                assert inside, f"{name}: {text.get_text()!r}"


def test_rows_of_labels_do_not_overlap(all_figures):
    for name, figure in all_figures.items():
        renderer = figure.canvas.get_renderer()
        for ax in figure.axes:
            boxes = [t.get_window_extent(renderer) for t in ax.get_yticklabels() if t.get_text()]
            boxes = sorted(boxes, key=lambda box: box.y0)
            for low, high in itertools.pairwise(boxes):
                assert low.y1 <= high.y0 + 2, name


def test_figures_are_small(all_figures):
    sizes = {name: len(figures.figure_png(figure)) for name, figure in all_figures.items()}
    assert max(sizes.values()) < 60_000, sizes


@pytest.mark.slow
def test_figures_are_the_same_in_every_process(all_figures):
    code = "import json, test_terminal as t\nprint(json.dumps(t.hashes(t.drawn())))"
    env = os.environ | {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == hashes(all_figures)


def test_a_saved_figure_names_no_software_and_no_time(all_figures, tmp_path):
    path = tmp_path / "new" / "figure.png"
    figures.save_figure(all_figures["methods"], path)
    assert os.listdir(path.parent) == ["figure.png"]
    assert not any(chunk in path.read_bytes() for chunk in (b"tEXt", b"iTXt", b"tIME", b"atplotlib"))


def test_figures_of_little_and_of_gaps():
    predictions, truth, metrics, summary = tables(n_targets=1, n_methods=2, n_models=3)
    predictions.loc[predictions["method"] == "mean", "score"] = np.nan  # a method without an opinion
    figures.figure_predicted_vs_true(predictions.drop(columns="seed"), truth, ["mean"])
    figures.figure_methods(summary.assign(low=np.nan, high=np.nan), "pearson", baseline="absent")
    figures.figure_metric_by_target(metrics.assign(value=np.nan), "pearson")
    figures.figure_ablation(metrics, {"one": ["mean"]}, "pearson")
    figures.figure_sweep(metrics.assign(history_ratio=1.0), "pearson")
    one_unknown = distances(4)
    one_unknown.iloc[0, 1] = one_unknown.iloc[1, 0] = np.nan
    for matrix in (one_unknown, distances(2), distances(1)):
        page_figures.figure_distances(matrix)
    page_figures.figure_graph(graph(n_models=2, n_datasets=2, n_tuned=2), LONG.format(0))
    bare = graph(n_models=3, n_datasets=3)
    for kind in bare.edge_types:
        del bare[kind]
    page_figures.figure_graph(bare, LONG.format(1))


def test_wrong_questions_get_one_line():
    predictions, truth, metrics, summary = tables(n_targets=2, n_methods=3)
    for call in (
        lambda: figures.figure_methods(summary, "acuracy"),
        lambda: figures.figure_metric_by_target(metrics, "acuracy"),
        lambda: figures.figure_sweep(metrics.assign(history_ratio=1.0), "acuracy"),
    ):
        with pytest.raises(ValueError, match=r"metric 'acuracy' has no rows.*'pearson'"):
            call()
    with pytest.raises(ValueError, match="expected 1 to 6"):
        figures.figure_predicted_vs_true(predictions, truth, [])
    with pytest.raises(ValueError, match="groups: none of their methods"):
        figures.figure_ablation(metrics, {"a": ["b"]}, "pearson")


# Notebooks


NOISY = """
import random, sys, time, warnings
from tqdm.auto import tqdm
for _ in tqdm(range(3)):
    time.sleep(0.01)
warnings.warn("said on standard " + "error")
print(object(), flush=True)
class Thing: pass
[Thing(), lambda: 1, n, name]
"""
FIGURE = """
import matplotlib.pyplot as plt
from transfergraph.report.figures import new_figure, show
figure = new_figure(2, 2)
figure.subplots().plot([1, n])
show(figure)
"""


def write(path, *sources, parameters="n = 1\nname: str = 'x'"):
    cells = [nbformat.v4.new_markdown_cell("# A report")]
    if parameters:
        cells.append(nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.mark.slow
def test_two_runs_are_the_same_bytes(tmp_path):
    notebook = write(tmp_path / "noisy.ipynb", NOISY, FIGURE)
    for name in ("a", "b"):
        run_notebook(notebook, tmp_path / name / "out.ipynb", {"n": 2}, progress=False)
    first, second = (tmp_path / name / "out.ipynb" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    node = nbformat.read(first, as_version=4)
    nbformat.validate(node)
    text = first.read_text()
    assert "said on standard error" not in text and "it/s" not in text and str(tmp_path) not in text
    assert node.metadata["papermill"] == {"parameters": {"n": 2}}
    assert "image/png" in node.cells[-1].outputs[0].data
    assert os.listdir(tmp_path / "a") == ["out.ipynb"]


def test_stripping_twice_is_stripping_once(tmp_path):
    out = tmp_path / "out.ipynb"
    run_notebook(write(tmp_path / "noisy.ipynb", NOISY), out, progress=False)
    node = nbformat.read(out, as_version=4)
    assert strip_volatile(node) == node


def test_a_failed_run_leaves_the_old_report(tmp_path):
    out = tmp_path / "reports" / "out.ipynb"
    notebook = write(
        tmp_path / "fails.ipynb", "print('first')", "# a comment\nvalue = 1 / n\nvalue", "print('never')"
    )
    run_notebook(notebook, out, {"n": 2}, progress=False)
    before = out.read_bytes()
    with pytest.raises(NotebookError) as e:
        run_notebook(notebook, out, {"n": 0}, progress=False)
    message = str(e.value)
    assert "'value = 1 / n' failed: ZeroDivisionError: division by zero" in message and "\n" not in message
    failed = out.with_suffix(".failed.ipynb")
    assert str(failed) in message and out.read_bytes() == before
    half = failed.read_text()
    assert "first" in half and "ZeroDivisionError" in half
    run_notebook(notebook, out, {"n": 2}, progress=False)
    assert os.listdir(out.parent) == ["out.ipynb"] and out.read_bytes() == before


def test_a_kernel_that_dies_is_an_error_too(tmp_path):
    notebook = write(tmp_path / "dies.ipynb", "import os\nos._exit(1)")
    with pytest.raises(NotebookError, match="the kernel died"):
        run_notebook(notebook, tmp_path / "out.ipynb", progress=False)
    assert sorted(os.listdir(tmp_path)) == ["dies.ipynb", "out.failed.ipynb"]


def test_wrong_input_is_refused_before_anything_runs(tmp_path):
    notebook = write(tmp_path / "good.ipynb", "n")
    bare = write(tmp_path / "bare.ipynb", "1", parameters=None)
    (tmp_path / "broken.ipynb").write_text("not json")
    out = tmp_path / "reports" / "out.ipynb"
    for arguments, message in (
        ((tmp_path / "absent.ipynb", out), "no such notebook"),
        ((tmp_path / "broken.ipynb", out), "not a notebook"),
        ((notebook, out, {"m": 1}), "'m' is not one of its parameters; they are n, name"),
        ((bare, out, {"n": 1}), "no cell has the tag 'parameters'"),
        ((notebook, notebook), "this is the notebook to run"),
        ((notebook, tmp_path / "out.html"), "ends in .ipynb"),
    ):
        with pytest.raises(ValueError, match=message):
            run_notebook(*arguments, progress=False)
    assert not out.parent.exists()
    run_notebook(bare, out, progress=False)


def test_the_interpreter_is_the_one_in_use_and_stderr_is_seen(tmp_path):
    "Even where another kernel of the name python3 is installed and no environment is active."
    spec = tmp_path / "jupyter" / "kernels" / "python3"
    spec.mkdir(parents=True)
    wrong = {"argv": ["/bin/false", "{connection_file}"], "display_name": "wrong", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(wrong))
    source = "import sys\nprint('seen ' + 'live', file=sys.stderr)\nsys.prefix"
    notebook, out = write(tmp_path / "asks.ipynb", source), tmp_path / "out.ipynb"
    call = f"run_notebook({str(notebook)!r}, {str(out)!r})"
    code = f"from transfergraph.report.terminal import run_notebook; {call}"
    env = {k: v for k, v in os.environ.items() if k not in ("PATH", "VIRTUAL_ENV")}
    env |= {
        "PATH": "/usr/bin:/bin",
        "JUPYTER_PATH": str(tmp_path / "jupyter"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    text = out.read_text()
    assert sys.prefix in text and "seen live" in run.stderr and "seen live" not in text
    assert "100%" in run.stderr and "without encryption" not in run.stderr
