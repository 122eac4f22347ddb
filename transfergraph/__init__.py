"""Rank pre-trained models for a dataset by learning from a model zoo."""

__version__ = "0.2.0"

# Names of the package and where they are. Each is loaded when it is first asked for, so that importing the package
# is cheap. `evaluate` is the part of that name, which can be called: a sub-package always shadows a function here.
_HOMES = {
    "Zoo": "zoo.tables",
    "TransferGraph": "recommend.transfergraph",
    "load_dataset": "data.dataset",
    "load_backbone": "models.loading",
    "score": "scores.registry",
    "score_models": "recommend.score_models",
    "evaluate": "evaluate",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    home = import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = home if name == "evaluate" else getattr(home, name)
    return value


def __dir__():
    return sorted({*globals(), *_HOMES})
