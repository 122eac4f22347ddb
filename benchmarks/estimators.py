"""What the transferability scores cost, side by side in one run: ratios of times, and peak memory.

    .venv/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/pytest benchmarks/estimators.py

The peer is LogME by its fixed point on a singular value decomposition, as transformer-ranker 0.2.0 has it
(the published code of LogME iterates in the same way). It is correct where there are as many samples as
features or more, so the values are compared as well. All runs share one process and its threads, one method
after the other; medians of several rounds. The table at the end gives ratios: times belong to a machine.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from transfergraph.scores.pairwise import NEIGHBOURS
from transfergraph.scores.registry import QUICK, TRANSFERABILITY_SCORES, inputs_of, score, score_all

SHAPES = [(2_000, 768, 10), (10_000, 768, 100), (10_000, 2_048, 100)]
PEERS = ["transfergraph", "transformer-ranker"]
# Some scores share the decomposition only; others compare all pairs of samples; the rest iterate.
TOGETHER = {"seven": QUICK, "ten": [*QUICK, *NEIGHBOURS]}
# All pairs of samples compared: no way to do RSA goes below two products and two sorts of that many numbers.
PAIRWISE = ["RSA", "DDS", "PARC"]
MEMORY = ["LogME", "transformer-ranker", "H-score", "TransRate", "SFDA", "PARC", "k-NN", "N-LEEP"]


def sample(n, d, c, random_state=0):
    "Features whose variances fall as those of a network do, with a mean of their own in each class."
    rng = np.random.default_rng(random_state)
    labels = rng.integers(0, c, n)
    features = rng.standard_normal((n, d), dtype=np.float32)
    features *= np.exp(-np.arange(d, dtype=np.float32) / (d / 3))
    features += 0.05 * rng.standard_normal((c, d), dtype=np.float32)[labels]
    features += np.float32(0.3)
    return features, labels


def peer(features, labels):
    "LogME as transformer-ranker computes it; skipped where it, or what it requires, is not installed."
    import torch

    needed = "benchmarks/requirements.txt names transformer-ranker; install it with what it requires"
    estimators = pytest.importorskip("transformer_ranker.estimators", reason=needed, exc_type=ImportError)
    return estimators.LogME().fit(embeddings=torch.from_numpy(features), labels=torch.from_numpy(labels))


def name(shape):
    return " x ".join(f"{number:,}" for number in shape)


@pytest.fixture(scope="module")
def medians(request):
    "Medians by (group, method), printed as ratios when all is done."
    found = {}
    yield found
    lines = ["", "Ratios of medians, one run"]
    for shape in SHAPES:
        if len(times := [found.get((name(shape), method)) for method in PEERS]) == 2 and None not in times:
            lines.append(
                f"  LogME, {name(shape)}: {times[1] / times[0]:.1f} times as fast as transformer-ranker"
            )
    for shape in SHAPES[:2]:
        if (alone := found.get((name(shape), "LogME"))) is None:
            continue
        for together, metrics in TOGETHER.items():
            if (time := found.get((name(shape), together))) is not None:
                lines.append(
                    f"  {name(shape)}: {', '.join(metrics)} cost {time / alone:.2f} times LogME alone"
                )
        costs = {
            metric: found[(name(shape), metric)] / alone
            for metric in TRANSFERABILITY_SCORES
            if (name(shape), metric) in found
        }
        if (limit := found.get((name(shape), "limit"))) is not None:
            shares = [
                f"{m} {found[(name(shape), m)] / limit:.1f}" for m in PAIRWISE if (name(shape), m) in found
            ]
            lines.append(f"  {name(shape)}: in units of two products and two sorts: {', '.join(shares)}")
        table = ", ".join(
            f"{metric} {cost:.1f}" for metric, cost in sorted(costs.items(), key=lambda x: x[1])
        )
        lines.append(f"  {name(shape)}: each by itself, in units of LogME alone: {table}")
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n".join(lines))


def measure(benchmark, medians, group, method, call, rounds):
    benchmark.group = group
    result = benchmark.pedantic(call, rounds=rounds, warmup_rounds=int(rounds > 1))
    medians[(group, method)] = benchmark.stats.stats.median
    return result


VALUES = {}


@pytest.mark.parametrize("method", PEERS)
@pytest.mark.parametrize("shape", SHAPES, ids=name)
def test_logme_and_its_peer(benchmark, medians, shape, method):
    features, labels = sample(*shape)
    call = {
        "transfergraph": lambda: score("LogME", features, labels),
        "transformer-ranker": lambda: peer(features, labels),
    }
    VALUES[shape, method] = measure(benchmark, medians, name(shape), method, call[method], rounds=5)
    if method == PEERS[1]:
        assert VALUES[shape, PEERS[0]] == pytest.approx(VALUES[shape, PEERS[1]], rel=1e-4)


def inputs(metric, features, labels):
    "What a score takes. The second model's features are noisy copies; source labels are ten times as many."
    rng = np.random.default_rng(1)
    wide = min(features.shape[1], 10 * int(labels.max() + 1))
    likelihood = np.exp(features[:, :wide].astype(np.float64))
    values = {"features": features, "labels": labels}
    values["reference"] = features + rng.standard_normal(features.shape, dtype=np.float32)
    values["probabilities"] = likelihood / likelihood.sum(axis=1, keepdims=True)
    return [values[key] for key in inputs_of(metric)]


@pytest.mark.parametrize("together", TOGETHER)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=name)
def test_scores_together(benchmark, medians, shape, together):
    features, labels = sample(*shape)
    call = lambda: score_all(features, labels, TOGETHER[together])  # noqa: E731
    assert len(measure(benchmark, medians, name(shape), together, call, rounds=5)) == len(TOGETHER[together])


@pytest.mark.parametrize("metric", TRANSFERABILITY_SCORES)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=name)
def test_each_score_by_itself(benchmark, medians, shape, metric):
    arguments = inputs(metric, *sample(*shape))
    rounds = 3 if metric in QUICK else 1  # seconds to half a minute each
    value = measure(benchmark, medians, name(shape), metric, lambda: score(metric, *arguments), rounds)
    assert np.isfinite(value)


def products_and_sorts(features):
    "Two products of all pairs of rows, and as many numbers sorted as there are pairs, twice."
    n = len(features)
    for _ in range(2):
        np.sort((features @ features.T).ravel()[: n * (n - 1) // 2])


@pytest.mark.parametrize("shape", SHAPES[:2], ids=name)
def test_limit_of_pairwise_scores(benchmark, medians, shape):
    features, _ = sample(*shape)
    measure(benchmark, medians, name(shape), "limit", lambda: products_and_sorts(features), rounds=1)


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("method", MEMORY)
def test_peak_memory(medians, method, request):
    shape = SHAPES[1]
    command = [sys.executable, __file__, method, json.dumps(shape)]
    if method == PEERS[1]:
        peer(*sample(50, 4, 2))  # skips where it is not installed
    copies = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(
            f"\n  {method}, {name(shape)}: {copies:.2f} times the memory of the features, beyond them", end=""
        )


def peak_memory(method, shape):
    "Largest resident memory while a score is computed, less that before, in units of the features."
    features, labels = sample(*shape)
    call = (lambda x, y: peer(x, y)) if method == PEERS[1] else (lambda x, y: score(method, x, y))
    call(
        features[:2000, :16].copy(), labels[:2000] % 10
    )  # imports, threads and their buffers are not the score's
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")

    def status(key):
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith(key))

    before = status("VmRSS")
    call(features, labels)
    return (status("VmHWM") - before) / features.nbytes


if __name__ == "__main__":
    print(peak_memory(sys.argv[1], json.loads(sys.argv[2])))
