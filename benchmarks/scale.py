"""What a zoo of up to a hundred thousand models costs to load, to put into a graph, to fit and to rank.

    .venv/bin/python benchmarks/scale.py [--models 1000 10000 100000] [--json FILE]

And whether `TG:factors` still orders models better than the plain mean of their records. Zoos are drawn by
`transfergraph.zoo.synthetic.make_zoo`: 2,000 datasets, 20 records a model, 20 further datasets of which the
truth is known. Every size is drawn in one process and measured in another, so that peak memory is its own.
Quality is weighted Kendall against the truth, the mean over those 20 datasets; the gain over the better
of two means (accuracies scaled by minimum and maximum, or as z-scores) has a 95% bootstrap interval over
datasets.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

LIMITS = {"load": 10, "graph": 30, "fit": 600, "rank": 1}  # seconds at 100,000 models on two cores


def draw(models, folder):
    "Draw a zoo and its targets into a folder."
    from transfergraph.zoo.synthetic import make_zoo

    drawn = make_zoo(models)
    drawn.zoo.save(folder / "zoo")
    np.savez(
        folder / "targets.npz",
        truth=np.stack(drawn.truth),
        embedding=np.stack([t.embedding for t in drawn.targets]),
        sizes=[[t.n_samples, t.n_classes] for t in drawn.targets],
    )


def means(records, models):
    "Mean scaled accuracy of every model, two ways: by minimum and maximum, and as z-scores."
    by = records.groupby("dataset")["accuracy"]
    low, high, centre, spread = (by.transform(way) for way in ("min", "max", "mean", "std"))
    scaled = {"mean": (records["accuracy"] - low) / (high - low).where(high > low)}
    scaled["mean:z"] = (records["accuracy"] - centre) / spread.where(spread > 0)
    found = {}
    for name, values in scaled.items():
        mean = values.groupby(records["model"]).mean().reindex(models)
        found[name] = mean.fillna(mean.mean()).to_numpy()
    return found


def measure(folder):
    "Seconds, gigabytes and quality, as JSON."
    import torch_geometric.data  # noqa: F401 - before the clock starts

    from transfergraph.graph.build import build_graph
    from transfergraph.metrics import weighted_kendall
    from transfergraph.recommend.transfergraph import TransferGraph
    from transfergraph.zoo.matrices import DatasetDescription
    from transfergraph.zoo.tables import Zoo

    found = {}

    def timed(name, call):
        start = time.perf_counter()
        result = call()
        found[name] = time.perf_counter() - start
        return result

    zoo = timed("load", lambda: Zoo.load(folder / "zoo"))
    found["models"], found["records"] = len(zoo.models), len(zoo.records)
    hidden = zoo.records["dataset"].value_counts().index[-1]
    graph = timed("graph", lambda: build_graph(zoo, hidden))
    found["edges"] = sum(store.edge_index.shape[1] for store in graph.edge_stores)
    del graph
    fitted = timed("fit", lambda: TransferGraph(method="factors").fit(zoo))
    given = np.load(folder / "targets.npz")
    targets = [
        DatasetDescription(f"target-{i}", "image", int(s), int(c), embedding=e)
        for i, (e, (s, c)) in enumerate(zip(given["embedding"], given["sizes"], strict=True))
    ]
    timed("rank, first", lambda: fitted.rank(targets[0], 10))
    timed("rank", lambda: fitted.rank(targets[1], 10))
    timed("save", lambda: fitted.save(folder / "fit"))
    again = timed("load fit", lambda: TransferGraph.load(folder / "fit"))
    timed("rank, loaded", lambda: again.rank(targets[1], 10))
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    models = zoo.models["model"]
    by_mean, worth = means(zoo.records, models), {"mean": [], "mean:z": [], "TG:factors": []}
    regret = {name: [] for name in worth}
    for target, truth in zip(targets, given["truth"], strict=True):
        ours = fitted.rank(target).set_index("model")["accuracy"].reindex(models).to_numpy()
        for name, guess in {**by_mean, "TG:factors": ours}.items():
            worth[name].append(weighted_kendall(truth, guess))
            regret[name].append(truth.max() - truth[np.argsort(-guess, kind="stable")[:5]].max())
    best = max(("mean", "mean:z"), key=lambda name: np.mean(worth[name]))
    gain = np.array(worth["TG:factors"]) - np.array(worth[best])
    draws = np.random.default_rng(0).integers(len(gain), size=(10_000, len(gain)))
    found["interval"] = np.quantile(gain[draws].mean(1), [0.025, 0.975]).tolist()
    found["gain"], found["worse on"] = float(gain.mean()), int((gain <= 0).sum())
    found["quality"] = {name: float(np.mean(values)) for name, values in worth.items()}
    found["regret@5"] = {name: float(np.mean(values)) for name, values in regret.items()}
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--models", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--step", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is not None:
        what, folder = args.step[0], Path(args.step[1])
        return measure(folder) if what == "measure" else draw(int(what), folder)
    rows = []
    print(
        "models   records    load  graph     fit   rank  load fit  memory   mean  mean:z  factors  gain [95%]"
    )
    for models in args.models:
        with tempfile.TemporaryDirectory() as folder:
            call = [sys.executable, __file__, "--step"]
            subprocess.run([*call, str(models), folder], check=True)
            told = subprocess.run([*call, "measure", folder], check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(told.stdout.splitlines()[-1])
        rows.append(row)
        quality, (low, high) = row["quality"], row["interval"]
        print(
            f"{models:<8,} {row['records']:<9,} {row['load']:5.1f}s {row['graph']:5.1f}s {row['fit']:6.1f}s"
            f" {row['rank']:5.2f}s {row['load fit']:8.1f}s {row['memory']:4.1f} GB  {quality['mean']:.3f}"
            f"   {quality['mean:z']:.3f}    {quality['TG:factors']:.3f}"
            f"  {row['gain']:+.3f} [{low:.3f}, {high:.3f}]",
            flush=True,
        )
    print("\nseconds, times as many as at the size before (n log n would be):")
    for before, row in itertools.pairwise(rows):
        n, m = before["models"], row["models"]
        grown = ", ".join(f"{step} {row[step] / before[step]:.1f}" for step in LIMITS)
        print(f"{n:,} to {m:,}: {grown} ({m * np.log(m) / (n * np.log(n)):.1f})")
    over = [f"{step} {row[step]:.1f} s" for row in rows for step in LIMITS if row[step] > LIMITS[step]]
    print(f"over the limits of {LIMITS}: {', '.join(over) or 'none'}")
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
