"""How long it takes to fit a zoo, to rank its models for a new dataset, and to do so from the command line.

    .venv/bin/python benchmarks/recommend.py [ZOO]

ZOO is a zoo of images, zoos/paper-image unless told. Compared in one run: leaving out every dataset by the
formula of `Process.left_out`, and by fitting the Gaussian process again without it; ranking for one more
dataset with a fit at hand, next to TG:XGB,N2V,all, which learns anew for each; and loading timm as
`import_timm` does, without torch's compiler, and as it loads itself.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from transfergraph.predict.gaussian_process import fit_process
from transfergraph.predict.methods import predict_target
from transfergraph.predict.records import RecordTable
from transfergraph.recommend.transfergraph import TransferGraph
from transfergraph.zoo.matrices import DatasetDescription
from transfergraph.zoo.tables import Zoo

LIMITS = {"fit": 20.0, "rank": 0.5, "command line": 6.0}  # seconds on two cores
OURS = "from transfergraph.models.preparation import import_timm; import_timm()"
PROGRAM = "import sys; from transfergraph.cli.program import main; sys.exit(main())"


def seconds(call, repeats=3):
    "The median of a few runs."
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def images(folder):
    "A small folder of images: ten classes, ten images each."
    rng = np.random.default_rng(0)
    for label in range(10):
        (folder / f"class-{label}").mkdir(parents=True)
        for i in range(10):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / f"class-{label}" / f"{i}.png")


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else "zoos/paper-image"
    zoo = Zoo.load(folder)
    graph, found = TransferGraph(n_jobs=2), {}
    found["fit"] = seconds(lambda: graph.fit(zoo), 1)
    new = DatasetDescription(
        "mine", "image", 1000, 10, 0.2, distances={t: 0.3 + 0.01 * i for i, t in enumerate(zoo.targets)}
    )
    found["rank, first"] = seconds(lambda: graph.rank(new), 1)
    found["rank"] = seconds(lambda: graph.rank(new))
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        found["save"] = seconds(lambda: graph.save(scratch / "fit"))
        found["load"] = seconds(lambda: TransferGraph.load(scratch / "fit"))
        images(scratch / "mine")
        command = [sys.executable, "-c", PROGRAM, "rank", folder, "--data", scratch / "mine", "--quiet"]
        environment = os.environ | {"XDG_CACHE_HOME": str(scratch / "cache")}
        call = lambda: subprocess.run(command, env=environment, check=True, capture_output=True)  # noqa: E731
        found["command line, first"] = seconds(call, 1)
        found["command line"] = seconds(call)
    for name, value in found.items():
        print(f"{name:22} {value:6.2f} s" + (f" (limit {LIMITS[name]:g} s)" if name in LIMITS else ""))
    table = RecordTable.from_zoo(zoo, "image")
    known = np.flatnonzero(~np.isnan(table.accuracy).all(0)).tolist()

    def by_formula():
        process = fit_process(table, known)
        return [process.left_out(d) for d in known]

    def again():
        return [fit_process(table, [k for k in known if k != d]).predict(d) for d in known]

    one, other = seconds(by_formula), seconds(again)
    print(
        f"left out by formula: {other / one:.1f} times as fast as fitting again ({one:.1f} s, {other:.1f} s)"
    )
    target = zoo.targets[0]
    predict_target(zoo, target, ["TG:XGB,N2V,all"])  # compile once
    published = seconds(lambda: predict_target(zoo, target, ["TG:XGB,N2V,all"], n_jobs=2))
    print(
        f"a ranking more: {published / found['rank']:.1f} times as fast as TG:XGB,N2V,all ({published:.2f} s)"
    )
    alone = lambda code: subprocess.run([sys.executable, "-c", code], check=True)  # noqa: E731
    theirs, ours = (seconds(lambda code=code: alone(code), 5) for code in ("import timm", OURS))
    print(f"timm without the compiler: {theirs / ours:.2f} times as fast ({ours:.1f} s, {theirs:.1f} s)")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
