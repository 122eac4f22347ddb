"""Do readers of tables refuse what is broken, and do nothing but refuse it? Files are damaged at random.

    .venv/bin/python benchmarks/fuzz.py --minutes 10

A well-formed file of every kind is changed: bytes flipped, cut, doubled, swapped with pieces of other files
or with values that are often wrong, and cells of CSV tables and values of JSON and YAML replaced. What may
come out is a result, or one of the errors that the library promises (`ValueError` or `OSError`, with a
message). Anything else, a reader that takes more than 20 seconds, and a file that is left beside the input,
is a finding: it is printed with the seed that makes it again (`--seed`), and the exit code is 1.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from transfergraph.zoo import TABLES, Zoo

VALUES = [
    *(
        "",
        "nan",
        "NaN",
        "inf",
        "-inf",
        "1e999",
        "-1",
        "0",
        "1",
        "1.0000001",
        "9" * 400,
        "0x10",
        "1_000",
        "=1+1",
        "null",
    ),
    *(
        "None",
        "true",
        "[]",
        "{}",
        "[1,",
        '"',
        "'",
        ",",
        ";",
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\ufeff",
        "\u202e",
        "é",
    ),
    *(
        "e\u0301",
        "../..",
        "/",
        "a" * 70_000,
        "full",
        "lora",
        "image",
        "text",
        "m0",
        "d0",
        "!!python/object:os.system",
    ),
    *(
        "&a [*a]",
        "*a",
        "<<: *a",
        "%TAG ! x",
        "2026-11-23",
        "1e5",
        "+1",
        "١٢",
        "½",
        "1,5",
        "12:30:00",
        "~",
        "yes",
        "- -",
    ),
]


def zoo_tables():
    rng = np.random.default_rng(0)
    m, d = [f"m{i}" for i in range(6)], [f"d{i}" for i in range(4)]
    pairs = [(a, b) for a in m for b in d]
    return Zoo(
        pd.DataFrame(
            {"model": m, "modality": "image", "family": "f", "n_params": 1e6, "pretrained_on": "d0"}
        ),
        pd.DataFrame({"dataset": d, "modality": "image", "role": "target", "n_samples": 100, "n_classes": 5}),
        pd.DataFrame([(*p, rng.random()) for p in pairs], columns=["model", "dataset", "accuracy"]),
        pd.DataFrame(
            [(*p, "LogME", rng.normal()) for p in pairs], columns=["model", "dataset", "metric", "score"]
        ),
        pd.DataFrame([("d0", "d1", 0.5), ("d1", "d2", 0.2)], columns=["dataset", "other", "distance"]),
        pd.DataFrame({"dataset": d, "vector": [[float(i), 1.0] for i in range(4)]}),
    ).validate()


def readers(home):
    "Name -> content of a well-formed file, its name, and what reads it."
    from transfergraph.building import read_spec
    from transfergraph.cards import front_matter, read_list
    from transfergraph.data import load_dataset
    from transfergraph.finetune import read_lines
    from transfergraph.imports import join_results, read_results
    from transfergraph.metrics import read_predictions

    zoo, found = zoo_tables(), {}
    zoo.save(home / "zoo")
    for table in TABLES:
        frame = getattr(zoo, table)
        content = (home / "zoo" / f"{table}.parquet").read_bytes()

        def load(path, table=table):
            for other in TABLES:
                for old in path.parent.glob(f"{other}.*"):
                    if other != table:
                        old.unlink()
                if other != table and (source := home / "zoo" / f"{other}.parquet").exists():
                    (path.parent / source.name).write_bytes(source.read_bytes())
            got = Zoo.load(path.parent)
            got.validate()

        found[f"{table}.parquet"] = content, f"{table}.parquet", load
        if table != "embeddings":  # vectors are in Parquet only
            found[f"{table}.csv"] = frame.to_csv(index=False).encode(), f"{table}.csv", load
    results = (
        b"architecture,source,target,top1\nresnet50,imagenet-1k,pets,91.3\nresnet50,imagenet-1k,cars,84.9\n"
    )
    names = {"accuracy": "top1", "model": "architecture", "dataset": "target", "pretrained_on": "source"}

    def results_of(path):
        join_results(read_results(path, names, True), zoo, "image", str(path)).zoo.validate()

    found["results.csv"] = results, "results.csv", results_of
    frame = pd.DataFrame({"architecture": ["a", "b"], "source": "s", "target": "t", "top1": [91.3, 2.0]})
    frame.to_parquet(home / "results.parquet")
    found["results.parquet"] = (home / "results.parquet").read_bytes(), "results.parquet", results_of
    lines = "".join(json.dumps({"run": f"r{i}", "model": "m", "accuracy": i / 9}) + "\n" for i in range(9))
    found["records.jsonl"] = lines.encode(), "records.jsonl", lambda path: read_lines(path)
    found["predictions.csv"] = (
        b"target,method,model,score,seed\nd0,mean,m0,0.5,0\nd0,mean,m1,,0\n",
        "p.csv",
        read_predictions,
    )
    texts = [("good day" + str(i % 7), "ab"[i % 2]) for i in range(40)]
    frame = pd.DataFrame(texts, columns=["text", "label"])

    def texts_of(path):
        load_dataset(path, cache=False, progress=False)

    found["texts.csv"] = frame.to_csv(index=False).encode(), "texts.csv", texts_of
    found["texts.jsonl"] = frame.to_json(orient="records", lines=True).encode(), "texts.jsonl", texts_of
    frame.to_parquet(home / "texts.parquet")
    found["texts.parquet"] = (home / "texts.parquet").read_bytes(), "texts.parquet", texts_of
    listed = b"models:\n  - timm/resnet18.a1_in1k\n  - {id: a/b, revision: 3f49326}\ndatasets:\n"
    listed += b"  - {id: cifar10, role: target, aliases: [c10]}\nprobe: a/b\n"
    found["list.yaml"] = listed, "list.yaml", read_list
    card = b"---\nlicense: mit\ntags: [a, b]\nmodel-index:\n- name: x\n  results: []\n---\n# Card\n"

    def card_of(path):
        front_matter(path.read_text(encoding="utf-8", errors="replace"))

    found["card.md"] = card, "card.md", card_of
    spec = b"modality: image\nprobe: {spec: efficientnet-lite0}\nmodels: {a: b}\n"
    spec += b"targets: {digits: {spec: digits, per_class: 6}}\nfinetune: {epochs: 8}\nseeds: [0]\n"
    spec += b"metrics: [LogME]\n"

    def spec_of(path):
        import yaml

        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, ValueError, RecursionError):
            return
        if isinstance(content, dict):
            read_spec("z", content)

    found["spec.yaml"] = spec, "spec.yaml", spec_of
    return found


def damaged(rng, content, others):
    "A few changes at random."
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(9)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.randrange(256)
        elif kind == 2:
            del data[at : at + rng.choice([1, 2, 10, 1000])]
        elif kind == 3:
            data[at:at] = data[at : at + rng.choice([1, 10, 200])]
        elif kind == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.choice([1, 10, 200])]
        elif kind == 5:
            data = data[:at]
        elif kind == 6:
            data[at:at] = rng.choice(VALUES).encode()
        else:  # a whole cell or value
            ends = [i for i, byte in enumerate(data) if byte in b",\n:[]{} "] or [at]
            start = rng.choice(ends)
            stop = min((e for e in ends if e > start), default=len(data))
            data[start + 1 : stop] = rng.choice(VALUES).encode()
    return bytes(data)


def attempt(seed, found, home):
    "One damaged file; what came out, and a finding or None."
    rng = random.Random(seed)
    name = rng.choice(sorted(found))
    content, file, read = found[name]
    path = home / "at" / file
    for old in path.parent.iterdir():
        old.unlink()
    path.write_bytes(damaged(rng, content, [c for c, _, _ in found.values()]))

    def late(*_):
        raise SystemError("takes more than 20 seconds")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        read(path)
        outcome = "read"
    except (ValueError, OSError) as e:
        outcome = "refused" if str(e).strip() else "refused without a word"
    except BaseException as e:
        if isinstance(e, KeyboardInterrupt):
            raise
        outcome = f"{type(e).__name__}: {str(e)[:200]}"
    finally:
        signal.alarm(0)
    beside = sorted(
        p.name for p in path.parent.iterdir() if p.name not in (file, *(f"{t}.parquet" for t in TABLES))
    )
    if beside:
        outcome = f"left {beside[0]}"
    return name, outcome, None if outcome in ("read", "refused") else f"{name}, seed {seed}: {outcome}"


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, help="one seed, again")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    for module in ("torch", "transformers", "datasets", "timm"):  # loading them is not the readers' time
        __import__(module)
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "at").mkdir()
        found, counts, findings = readers(home), Counter(), []
        for content, file, read in found.values():  # what is whole is read
            for old in (home / "at").iterdir():
                old.unlink()
            (home / "at" / file).write_bytes(content)
            read(home / "at" / file)
        if args.seed is not None:
            print(*attempt(args.seed, found, home)[:2])
            print((home / "at" / found[attempt(args.seed, found, home)[0]][1]).read_bytes()[:3000])
            return
        end, seed = time.monotonic() + 60 * args.minutes, args.first
        while time.monotonic() < end:
            name, outcome, finding = attempt(seed, found, home)
            counts[name, outcome if outcome in ("read", "refused") else "finding"] += 1
            if finding:
                findings.append(finding)
                print(finding, flush=True)
            seed += 1
    table = pd.Series(counts).unstack(fill_value=0)
    print(table.to_string())
    print(f"{seed - args.first} files, {len(findings)} findings")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
