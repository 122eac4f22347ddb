"""How long one target and one variant take: graph, learning, features and prediction together, imports aside.

    .venv/bin/python benchmarks/variant.py [ZOO]

The peer is the authors' code, which cannot be installed beside this environment (PecanPy needs numpy below 2,
its walks need torch-cluster): about 7 s for TG:XGB,N2V,all and 50 s for TG:XGB,GAT,all on the same kind of
machine. What this script compares in one run is our compiled skip-gram with the same objective under torch's
autograd, as the authors' code has it.
"""

import resource
import sys
import time

import numpy as np
import torch
import torch_geometric.nn  # noqa: F401  (imported here so that no timing holds it)
import xgboost  # noqa: F401

from transfergraph.graph.build import build_graph
from transfergraph.graph.embedding import Node2Vec, flatten, random_walks, to_csr
from transfergraph.predict.methods import predict_target
from transfergraph.zoo.tables import Zoo

LIMITS = {"TG:XGB,N2V,all": 2.0, "TG:XGB,GAT,all": 6.0}  # seconds on two cores


def seconds(call, repeats=3):
    "The median of a few runs."
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def node2vec_by_autograd(graph, epochs=50, dim=128, batch_size=64, walks_per_node=10, length=10):
    "Node2Vec with PyTorch's autograd and SparseAdam: the same walks, windows and loss as `Node2Vec`."
    index, weight, n_nodes = flatten(graph)
    csr, rng = to_csr(index, np.ones_like(weight), n_nodes), np.random.default_rng(0)
    z = torch.nn.Embedding(n_nodes, dim, sparse=True)
    optimiser = torch.optim.SparseAdam(z.parameters(), lr=0.01)
    for _ in range(epochs):
        order = rng.permutation(n_nodes)
        for at in range(0, n_nodes, batch_size):
            starts = np.repeat(order[at : at + batch_size], walks_per_node)
            walks = torch.tensor(random_walks(csr, starts, length, rng))
            noise = torch.tensor(
                np.column_stack([starts, rng.integers(0, n_nodes, (len(starts), length - 1))])
            )
            loss = 0
            for windows, sign in ((walks, 1), (noise, -1)):
                inner = (z(windows[:, :1]) * z(windows[:, 1:])).sum(-1)
                loss = loss - torch.nn.functional.logsigmoid(sign * inner).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()


def main():
    zoo = Zoo.load(sys.argv[1] if len(sys.argv) > 1 else "zoos/paper-image")
    target = zoo.targets[0]
    predict_target(zoo, target, ["TG:LR,N2V,all", "TG:LR,GAT,all"])  # compile once
    for method, limit in LIMITS.items():
        one, two = (seconds(lambda n=n, m=method: predict_target(zoo, target, [m], n_jobs=n)) for n in (1, 2))
        print(f"{method:16} {two:5.2f} s on two threads, {one:5.2f} s on one (limit {limit:.0f} s)")
    graph = build_graph(zoo, target)
    ours, autograd = (
        seconds(lambda: Node2Vec().fit_transform(graph)),
        seconds(lambda: node2vec_by_autograd(graph)),
    )
    print(
        f"Node2Vec training: {autograd / ours:.1f} times as fast as autograd ({ours:.2f} s, {autograd:.2f} s)"
    )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB")


if __name__ == "__main__":
    main()
