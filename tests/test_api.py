"""`import transfergraph as tg`: the names that most people need, loaded when they are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

import transfergraph as tg

ROOT = Path(__file__).resolve().parent.parent
NAMES = ["TransferGraph", "Zoo", "evaluate", "load_backbone", "load_dataset", "score"]
HEAVY = {"torch", "pandas", "numpy", "sklearn", "scipy", "pydantic", "typer", "rich", "transformers", "timm"}


def fresh(code):
    "What code prints in a fresh interpreter."
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def test_importing_the_package_loads_nothing_heavy():
    loaded = fresh("import sys, transfergraph; dir(transfergraph); print(*sys.modules)")
    assert HEAVY & {name.split(".")[0] for name in loaded} == set()
    assert not [name for name in loaded if name.startswith("transfergraph.")]


def test_names_are_listed_and_lead_to_what_they_say():
    from transfergraph.data.dataset import load_dataset
    from transfergraph.models.loading import load_backbone
    from transfergraph.recommend.transfergraph import TransferGraph
    from transfergraph.scores.registry import score
    from transfergraph.zoo.tables import Zoo

    assert set(NAMES) <= set(dir(tg))
    found = [tg.TransferGraph, tg.Zoo, tg.load_backbone, tg.load_dataset, tg.score]
    assert found == [TransferGraph, Zoo, load_backbone, load_dataset, score]


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'transfergraph' has no attribute 'rank'"):
        _ = tg.rank
    with pytest.raises(ImportError, match="rank"):
        from transfergraph import rank  # noqa: F401


EVALUATE = """
import sys
{first}
import transfergraph as tg
{second}
import transfergraph.evaluate.summary
from transfergraph.evaluate import leave_one_out
leave_one_out.evaluate = lambda *args, **options: [*args, *options.items()]
assert tg.evaluate is sys.modules["transfergraph.evaluate"] is transfergraph.evaluate
assert tg.evaluate.summary.summarise and tg.evaluate.leave_one_out is leave_one_out
print(*tg.evaluate("zoo", "methods", seeds=0))
"""


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("", "called = tg.evaluate"),
        ("import transfergraph.evaluate.summary", ""),
        (
            "from transfergraph.evaluate.leave_one_out import evaluate as e; assert e.__name__ == 'evaluate'",
            "",
        ),
        ("from transfergraph import evaluate; assert callable(evaluate)", "assert evaluate is tg.evaluate"),
    ],
)
def test_evaluate_is_the_same_in_every_order_of_imports(first, second):
    assert fresh(EVALUATE.format(first=first, second=second)) == ["zoo", "methods", "('seeds',", "0)"]


def test_evaluate_runs(tmp_path):
    import pandas as pd

    rows = [(m, d, 0.5 + 0.1 * i + 0.02 * j) for i, m in enumerate("abc") for j, d in enumerate("xyz")]
    zoo = tg.Zoo(
        models=pd.DataFrame({"model": list("abc"), "modality": "image"}),
        datasets=pd.DataFrame({"dataset": list("xyz"), "modality": "image", "role": "target"}),
        records=pd.DataFrame(rows, columns=["model", "dataset", "accuracy"]),
    ).validate()
    predictions, metrics, summary = tg.evaluate(zoo, ["mean"], seeds=[0], progress=False)
    assert (
        len(predictions) == 9
        and {"pearson"} <= set(metrics["metric"])
        and set(summary["method"]) == {"history-mean"}
    )
