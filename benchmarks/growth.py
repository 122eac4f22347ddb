"""How time and memory grow: of a fit and a ranking with the zoo, of each pairwise score with the items.

    .venv/bin/python benchmarks/growth.py [--figure docs/growth.png] [--quick]

Each size is measured in a process of its own with one thread: seconds of the processor, and the largest
memory less what it was before. The exponent is that of a power of the size, fitted to the two largest of
the sizes: 1 grows with the size, 2 with its square. A fit is of the default method; zoos are drawn by
`transfergraph.zoo.synthetic.make_zoo`, nine of ten pairs with a record.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZES = {"models": [250, 500, 1000], "datasets": [30, 60, 120], "items": [2000, 4000, 8000]}
BESIDE = {"models": 30, "datasets": 100}  # datasets where models grow, and models where datasets do
SCORES = ["RSA", "DDS", "PARC", "k-NN", "MSC", "LogME", "H-score"]
FEATURES, CLASSES = 256, 10
TABLE = "{:<24} {:>8} {:>9} {:>9} {:>9}"


def peak():
    "Largest resident memory since it was last cleared, in GB."
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 2**20 for line in file if line.startswith("VmHWM"))


def timed(call):
    "Seconds of the processor, and memory beyond what was there, in GB."
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before, start = peak(), time.process_time()
    call()
    return time.process_time() - start, peak() - before


def measure_zoo(n_models, n_datasets):
    "A fit, and a ranking for one dataset more."
    from transfergraph.recommend.transfergraph import TransferGraph
    from transfergraph.zoo.synthetic import make_zoo

    small = make_zoo(20, 6, 5, n_targets=1)
    TransferGraph(method="kriging").fit(small.zoo.validate()).rank(
        small.targets[0]
    )  # what is imported is not measured
    drawn = make_zoo(n_models, n_datasets, round(0.9 * n_datasets), n_targets=1)
    zoo, graph = drawn.zoo.validate(), TransferGraph(method="kriging")
    return {"fit": timed(lambda: graph.fit(zoo)), "rank": timed(lambda: graph.rank(drawn.targets[0]))}


def measure_score(metric, n):
    "A score of random features."
    from transfergraph.scores.registry import inputs_of, score

    def given(n):
        rng = np.random.default_rng(0)
        features, reference = rng.standard_normal((2, n, FEATURES), dtype=np.float32)
        values = {"features": features, "reference": reference, "labels": rng.integers(0, CLASSES, n)}
        return [values[name] for name in inputs_of(metric)]

    score(metric, *given(200))
    arguments = given(n)
    return {metric: timed(lambda: score(metric, *arguments))}


def in_a_process(*step):
    "What is measured in a process of its own."
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--step", *map(str, step)]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(told.stdout.splitlines()[-1])


def grown(sizes, values):
    "The exponent between the two largest sizes; NaN where nothing was used."
    low, high = values[-2:]
    return np.log(high / low) / np.log(sizes[-1] / sizes[-2]) if min(low, high) > 0 else np.nan


def figure(rows):
    "Seconds by size, a panel each for models, datasets and items."
    from transfergraph.report.figures import new_figure, styled

    @styled
    def drawn():
        made = new_figure(9, 4.2)
        for axes, kind in zip(made.subplots(1, 3), SIZES):
            for row in rows:
                if row["of"] == kind:
                    label = f"{row['what']}: {row['exponent']:.1f}"
                    axes.loglog(row["sizes"], row["seconds"], "o-", label=label, markersize=4)
            axes.set(xlabel=f"number of {kind}", ylabel="seconds, one core" if kind == "models" else "")
            axes.set_xticks(SIZES[kind], [f"{size:,}" for size in SIZES[kind]])
            axes.minorticks_off()
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2), "frameon": False}
            axes.legend(title="exponent", ncols=2, fontsize=8, title_fontsize=8, **below)
        return made

    return drawn()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--figure", type=Path, help="draw seconds by size into this PNG file")
    parser.add_argument("--quick", action="store_true", help="sizes of a quarter, to see that it runs")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.step is not None:
        kind, *given = args.step
        found = measure_score(kind, int(given[0])) if kind in SCORES else measure_zoo(*map(int, given))
        return print(json.dumps(found))
    if args.quick:
        SIZES.update({kind: [size // 4 for size in sizes] for kind, sizes in SIZES.items()})
    found = {}
    for kind, sizes in SIZES.items():
        for size in sizes:
            pair = (size, BESIDE["models"]) if kind == "models" else (BESIDE["datasets"], size)
            steps = [(metric, size) for metric in SCORES] if kind == "items" else [("zoo", *pair)]
            for step in steps:
                for what, value in in_a_process(*step).items():
                    found.setdefault((kind, what), []).append(value)
    rows = []
    print(TABLE.format("", "largest", "seconds", "GB", "exponent"))
    for (kind, what), values in found.items():
        seconds, memory = zip(*values)
        row = {"of": kind, "what": what, "sizes": SIZES[kind], "seconds": seconds, "memory": memory}
        rows.append(row | {"exponent": grown(SIZES[kind], seconds)})
        told = f"{seconds[-1]:.2f}", f"{memory[-1]:.2f}", f"{rows[-1]['exponent']:.1f}"
        print(TABLE.format(f"{what}, by {kind}", f"{SIZES[kind][-1]:,}", *told))
    if args.figure is not None:
        from transfergraph.report.figures import save_figure

        save_figure(figure(rows), args.figure)


if __name__ == "__main__":
    main()
