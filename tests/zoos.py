"""Random zoos for tests of properties."""

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from transfergraph.zoo.tables import Zoo


@st.composite
def zoos(draw, min_records=0):
    "A random zoo of one modality with at least one target."
    n_models, n_datasets = draw(st.integers(1, 6)), draw(st.integers(1, 5))
    models, datasets = [f"m{i}" for i in range(n_models)], [f"d{i}" for i in range(n_datasets)]
    some = st.sampled_from(datasets)
    pairs = [(m, d) for m in models for d in datasets]
    unit = st.floats(0, 1)
    records = draw(st.lists(st.tuples(st.sampled_from(pairs), unit), min_size=min_records, max_size=20))
    scores = draw(
        st.lists(st.tuples(st.sampled_from(pairs), st.floats(-5, 5)), max_size=10, unique_by=lambda s: s[0])
    )
    known = draw(st.lists(st.integers(0, 100), min_size=n_datasets, max_size=n_datasets))
    i, j = np.triu_indices(n_datasets, 1)
    keep = [k for k in range(len(i)) if draw(st.booleans())]
    return Zoo(
        models=pd.DataFrame(
            {
                "model": models,
                "modality": "image",
                "family": draw(
                    st.lists(st.sampled_from(["vit", "swin", None]), min_size=n_models, max_size=n_models)
                ),
                "pretrained_on": draw(st.lists(st.none() | some, min_size=n_models, max_size=n_models)),
                "pretrained_accuracy": draw(st.lists(st.none() | unit, min_size=n_models, max_size=n_models)),
                "n_params": draw(
                    st.lists(st.none() | st.floats(0, 1e9), min_size=n_models, max_size=n_models)
                ),
            }
        ),
        datasets=pd.DataFrame({"dataset": datasets, "modality": "image", "role": "target", "n_samples": 10}),
        records=pd.DataFrame(
            {
                "model": [m for (m, _), _ in records],
                "dataset": [d for (_, d), _ in records],
                "accuracy": [a for _, a in records],
                "runtime_s": 1.0,
            }
        ),
        scores=pd.DataFrame(
            {
                "model": [m for (m, _), _ in scores],
                "dataset": [d for (_, d), _ in scores],
                "metric": "LogME",
                "score": [s for _, s in scores],
            }
        ),
        distances=pd.DataFrame(
            {
                "dataset": [datasets[i[k]] for k in keep],
                "other": [datasets[j[k]] for k in keep],
                "distance": [abs(known[i[k]] - known[j[k]]) for k in keep],
            }
        ),
    ).validate()
