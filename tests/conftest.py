"""Where the published records are, for tests that need them; a Ctrl-C that reaches what tests start."""

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONG = ["test_make", "test_predictors", "test_executors", "test_building"]  # files that take minutes


def pytest_collection_modifyitems(items):
    "Long files first, so that no process waits for another at the end."
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


@pytest.fixture(scope="session")
def paper():
    "The authors' folder resources/experiments; skipped on a machine without it, an error in CI."
    folder = Path(os.environ.get("TRANSFERGRAPH_PAPER") or ROOT.parent / "shared/paper/resources/experiments")
    if not folder.is_dir():
        message = f"the published records are not at {folder}; set TRANSFERGRAPH_PAPER to their folder"
        pytest.fail(message) if os.environ.get("CI") == "true" else pytest.skip(message)
    return folder


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard():
    "A shell starts background commands deaf to SIGINT, and what they start inherits that."
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
