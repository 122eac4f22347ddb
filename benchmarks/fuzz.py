"""Do readers of tables refuse what is broken, and do nothing but refuse it? atheris damages files at random.

    .venv/bin/pip install -r benchmarks/requirements.txt
    .venv/bin/python benchmarks/fuzz.py --minutes 10

It starts from a well-formed file of every kind, and keeps a damaged one that reaches lines of the library
which none before did, to change it further; half of the time it begins again with a whole file. Half of the
changes are libFuzzer's (bytes flipped, cut, doubled, pieces of other files), half put a value that is often
wrong in the place of a cell. What may come out is a result, or one of the errors that the library promises
(`ValueError` or `OSError`, with a message). Anything else, a reader that takes more than 20 seconds, and a
file that is left beside the input, is a finding: it ends the run with exit code 1 and lies in the
folder `--out`; `--again FILE` reads it once more.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path

import atheris
import numpy as np
import pandas as pd

for module in ("torch", "transformers", "datasets", "timm"):  # loading them is not the readers' time
    __import__(module)
with atheris.instrument_imports(include=["transfergraph"]):
    from transfergraph.zoo.tables import TABLES, Zoo

COUNTS, WHOLE = Counter(), []

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
    from transfergraph.build.hub_cards import front_matter, read_list
    from transfergraph.build.zoo_spec import read_spec
    from transfergraph.data.dataset import load_dataset
    from transfergraph.evaluate.summary import read_predictions
    from transfergraph.models.finetune import read_lines
    from transfergraph.zoo.results import join_results, read_results

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
    sentence = "Ada{} B-PER\nLovelace I-PER\nlived O\nin O\nLondon {}\n\n"
    words = "".join(sentence.format(i, ("B-LOC", "B-ORG")[i % 2]) for i in range(24)).encode()

    def words_of(path):
        load_dataset(path, task="token-classification", cache=False, progress=False)

    found["words.conll"] = words, "words.conll", words_of
    numbers = frame.assign(label=[i / 7 for i in range(len(frame))]).to_csv(index=False).encode()

    def numbers_of(path):
        load_dataset(path, task="regression", cache=False, progress=False)

    found["numbers.csv"] = numbers, "numbers.csv", numbers_of
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
    return found | published_readers(home)


PUBLISHED = {  # what others publish, in small: zoo of the catalogue -> options of its reader, files
    "text-recycling": (
        {"tested": "t.csv", "seeds": {"b": "s.csv"}, "spearman": ["stsb"]},
        {
            "t.csv": "model_name,base_model,size,model_type,mnli_lp,cola,rte,stsb\n"
            + "".join(f"me/{i},b,1e8,bert,0.5,0.8{i},0.6{i},0.9{i}\n" for i in range(8)),
            "s.csv": "\tdataset name\taccuracy\tspearmanr\n0\tcola\t0.7\t\n1\tstsb\t\t0.8\n2\trte\t0.5\t\n",
        },
    ),
    "clip": (
        {"results": "r.csv", "profile": "p.csv", "leave_out": {"Flickr": "retrieval"}},
        {
            "r.csv": "name,pretrained,params (M),FLOPs (B),Average perf.,MNIST,Flickr\n"
            "A,x,1,1,0,0.5,0.1\nA,y,2,1,0,0.6,0.1\n",
            "p.csv": "model,image_size\nA,224\n",
        },
    ),
    "text-european": (
        {"tables": ["danish_nlu.csv"], "tasks": {"Mood": {"place": 1, "metric": "macro-F1"}}},
        {
            "danish_nlu.csv": "Task,,,,~~~Mood~~~,,hidden,\n"
            "Model,Type,Parameters,Open,tweets,news,tweets_version,news_version\n"
            "<a href='x'>me/e</a>,🔍,1e8,✓,20.5 ± 1.0 / 45.5 ± 1.9@@x,80.5 ± 1.0 / 70.5 ± 1.9@@x,1,1\n"
            "me/c (val),🤔,?,✗,-@@-1,,1,1\n",
        },
    ),
    "image-vtab": (
        {"table": "r.csv"},
        {
            "r.csv": "model_identifier,framework,train_dataset_name,epochs,batch_size,configs,train_slice,"
            "test_accuracy\n"
            + "me/a,HuggingFace,clevr,25,64,\"{'lr': 0.01, 'preprocess': 'clevr_count'}\",:800,0.4\n" * 2
            + "me/a,HuggingFace,smallnorb,25,64,\"{'lr': 0.01, 'label_name': 'label_a'}\",:800,0.4\n",
        },
    ),
    "text-mteb": (
        {"root": ".", "datasets": ["X"]},
        {
            "m/r/X.json": '{"scores": {"test": [{"hf_subset": "default", "main_score": 0.5, "accuracy": 0.5, '
            '"scores_per_experiment": [{"accuracy": 0.4}, {"accuracy": 0.6}]}]}}',
            "m/r/model_meta.json": '{"name": "me/m", "n_parameters": 5e7, "languages": ["eng-Latn"], '
            '"modalities": ["text"], "license": "mit", "open_weights": true}',
        },
    ),
    "paper-text": (
        {"root": ".", "modality": "text"},
        {
            "sequence_classification/" + name: content
            for name, content in {
                "model_config_dataset.csv": "model,architectures,model_type,number_of_parameters,dataset,"
                "accuracy\na,['Bert'],bert,10,glue/sst2,0.9\nb,['Bert'],bert,10,\"['x', 'y']\",\n",
                "records.csv": "model,finetuned_dataset,batch_size,train_runtime,eval_accuracy,peft_method\n"
                "a,glue/cola,16,10,0.8,\nb,glue/cola,16,10,0.7,lora\n",
                "transferability_score_records.csv": "model,target_dataset,metric,runtime,score\n"
                "a,glue/cola,T.LOG_ME,1,0.5\n",
                "target_dataset_features.csv": "finetune_dataset,size,number_of_classes\nglue/cola,9,2\n",
                "corr_domain_similarity_EleutherAI_gpt-neo-125m_gpt.csv": ",glue/cola,glue/sst2\n"
                "glue/cola,0,1\nglue/sst2,1,0\n",
            }.items()
        },
    ),
}
TRAINED = {  # runs of a Trainer
    "m/d/trainer_state.json": '{"log_history": [{"epoch": 1.0, "eval_accuracy": 0.5}, {"epoch": 2.0, '
    '"eval_accuracy": 0.4}], "best_metric": 0.5, "best_model_checkpoint": "x", "epoch": 3}',
    "m/d/README.md": "---\nbase_model: me/base\n---\n- learning_rate: 2e-05\n- seed: 7\n",
    "m/e/all_results.json": '{"epoch": 3.0, "eval_accuracy": 0.5}',
}


def published_readers(home):
    "For each file of `PUBLISHED` and `TRAINED` what reads it, where the other files beside it are whole."
    from dataclasses import replace

    from transfergraph.build.catalogue import catalogue_entry, read_entry
    from transfergraph.build.run_folders import read_trainer_runs
    from transfergraph.zoo.results import join_results

    def reader(source, name, files, read):
        def read_damaged(path):
            at = home / "published" / source
            shutil.rmtree(at, ignore_errors=True)
            for other, content in files.items():
                (at / other).parent.mkdir(parents=True, exist_ok=True)
                (at / other).write_bytes(path.read_bytes() if other == name else content.encode())
            read(at)

        return files[name].encode(), "damaged", read_damaged

    found = {}
    for zoo, (options, files) in PUBLISHED.items():
        more = {"least": 1, "splits": {}} if zoo == "text-mteb" else {}
        entry = replace(catalogue_entry(zoo), options=options | more, files={})
        for name in files:
            found[f"{zoo}: {name}"] = reader(zoo, name, files, partial(read_entry, entry))

    def trained(at):
        join_results(read_trainer_runs(at, "model/dataset"), None, "text")

    for name in TRAINED:
        found[f"trainer: {name}"] = reader("trainer", name, TRAINED, trained)
    return found


def changed(data, limit, seed):
    "Another cell, or what libFuzzer makes of it. The first byte says which reader it is for."
    rng = random.Random(seed)
    if rng.random() < 0.5:  # left to itself, libFuzzer forgets Parquet: what reads it is not counted
        data = rng.choice(WHOLE)
    if len(data) < 2 or rng.random() < 0.5:
        return atheris.Mutate(data, len(data))[:limit]
    ends = [i for i, byte in enumerate(data) if i and byte in b",\n:[]{} "] or [0]
    start = rng.choice(ends)
    stop = min((e for e in ends if e > start), default=len(data))
    return (data[: start + 1] + rng.choice(VALUES).encode() + data[stop:])[:limit]


def reads(data, found, folder):
    "Write a file and read it; raises what nobody promised."
    name = list(found)[data[0] % len(found)]
    _, file, read = found[name]
    for old in folder.iterdir():
        old.unlink()
    (folder / file).write_bytes(data[1:])
    signal.alarm(20)
    try:
        read(folder / file)
        COUNTS[name, "read"] += 1
    except (ValueError, OSError) as e:
        COUNTS[name, "refused"] += 1
        if not str(e).strip():
            raise RuntimeError(f"{file} was refused without a word") from e
    finally:
        signal.alarm(0)
    left = {p.name for p in folder.iterdir()} - {file, *(f"{t}.parquet" for t in TABLES)}
    if left:
        raise RuntimeError(f"{file} left {sorted(left)}")


def late(*_):
    raise SystemError("a reader takes more than 20 seconds")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1, help="of the random changes")
    parser.add_argument("--out", type=Path, default=Path("findings"), help="folder for a finding")
    parser.add_argument("--again", type=Path, metavar="FILE", help="read a finding once more, nothing else")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, late)
    os.environ["TQDM_DISABLE"] = "1"
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        for name in ("at", "files"):
            (home / name).mkdir()
        found = readers(home)
        for i, content in enumerate(content for content, _, _ in found.values()):  # what is whole is read
            WHOLE.append(bytes([i]) + content)
            reads(WHOLE[i], found, home / "at")
            (home / "files" / str(i)).write_bytes(WHOLE[i])
        assert COUNTS == dict.fromkeys(((name, "read") for name in found), 1), COUNTS
        if args.again:
            reads(args.again.read_bytes(), found, home / "at")
            return
        args.out.mkdir(parents=True, exist_ok=True)
        end = time.monotonic() + 60 * args.minutes

        def one(data):
            code = 0
            try:
                if data:
                    reads(data, found, home / "at")
                if time.monotonic() < end:
                    return
                print(pd.Series(COUNTS).unstack(fill_value=0).to_string())
                print(f"{sum(COUNTS.values())} files, no finding", flush=True)
            except BaseException:
                code, finding = 1, args.out / hashlib.sha256(data).hexdigest()[:16]
                finding.write_bytes(data)
                traceback.print_exc()
                print(f"after {sum(COUNTS.values())} files: {finding}", flush=True)
            shutil.rmtree(home)
            os._exit(code)  # libFuzzer has no other end

        options = [f"-seed={args.seed}", "-timeout=0", "-rss_limit_mb=0", "-len_control=0", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, str(home / "files")], one, custom_mutator=changed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
