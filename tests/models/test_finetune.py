"Fine-tuning: it repeats, it leaves what it was given alone, and hours of it survive a kill."

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from waiting import group_is_gone, until

from transfergraph.data.dataset import Dataset, set_aside
from transfergraph.models import finetune as finetuning
from transfergraph.models.finetune import (
    Settings,
    append_line,
    failures,
    finetune,
    finetune_all,
    plan_runs,
    read_lines,
)
from transfergraph.models.loading import load_backbone
from transfergraph.models.training import batches, rate_at, shift_images
from transfergraph.run.tasks import thread_limit
from transfergraph.zoo.tables import TABLES, Zoo

WORDS = [f"w{i}" for i in range(60)]
FAST = {method: Settings(method, epochs=2) for method in ("full", "lora", "linear")}


def images(name="squares", seed=0, n=48):
    "Bright squares in one of three places."
    rng = np.random.default_rng(seed)
    labels = np.arange(2 * n) % 3
    images = rng.integers(0, 120, (2 * n, 16, 16, 3)).astype(np.uint8)
    for image, label in zip(images, labels):
        image[5 * label : 5 * label + 5, 4:12] += 120
    items, labels = {"train": images[:n], "test": images[n:]}, {"train": labels[:n], "test": labels[n:]}
    return Dataset(name, "image", items, labels, ["top", "middle", "bottom"])


def sentences(name="words", seed=0, n=48):
    "Words of which each class has its own."
    rng = np.random.default_rng(seed)
    labels = np.arange(2 * n) % 3
    texts = [" ".join(rng.choice(WORDS[20 * y : 20 * y + 20], rng.integers(2, 12))) for y in labels]
    texts = np.array(texts, dtype=object)
    items, labels = {"train": texts[:n], "test": texts[n:]}, {"train": labels[:n], "test": labels[n:]}
    return Dataset(name, "text", items, labels, ["a", "b", "c"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    "A saved timm model and a saved BERT."
    import transformers

    folder = tmp_path_factory.mktemp("models")
    load_backbone("test_resnet", input_size=32, random_state=0).save(folder / "resnet")
    (folder / "bert").mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=65, max_position_embeddings=32, **sizes)
    transformers.BertModel(config).save_pretrained(folder / "bert")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    return folder


@pytest.fixture(scope="module")
def cases(folders):
    return {
        "image": (load_backbone(str(folders / "resnet"), input_size=32), images()),
        "text": (load_backbone(str(folders / "bert")), sentences()),
    }


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("method", list(FAST))
def test_a_run_repeats_and_leaves_the_backbone_alone(cases, modality, method, tmp_path):
    backbone, dataset = cases[modality]
    before, random_before = backbone.revision, torch.random.get_rng_state()
    first, again = (finetune(backbone, dataset, FAST[method], 3) for _ in range(2))
    assert first.history == again.history and first.accuracy == again.accuracy and first.epochs == 2
    assert first.backbone.revision == again.backbone.revision != before
    assert first.history != finetune(backbone, dataset, FAST[method], 4).history
    assert backbone.revision == before and torch.equal(torch.random.get_rng_state(), random_before)

    made = first.backbone
    found = made.probabilities(dataset.items["test"])
    assert (found.argmax(1) == dataset.labels["test"]).mean() == pytest.approx(first.accuracy, abs=0.03)
    assert made.label_names == dataset.label_names and made.metadata["pretrained_on"] == dataset.name
    names = lambda b: {n: v.shape for n, v in b.body.state_dict().items()}  # noqa: E731
    assert names(made) == names(backbone)
    made.save(tmp_path / "made")
    options = {"input_size": 32} if modality == "image" else {}
    reloaded = load_backbone(str(tmp_path / "made"), **options)
    np.testing.assert_allclose(reloaded.probabilities(dataset.items["test"]), found, atol=1e-5)
    changed = [not torch.equal(a, b) for a, b in zip(backbone.body.parameters(), made.body.parameters())]
    assert any(changed) == (method != "linear") and (method != "full" or sum(changed) > len(changed) / 2)


@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize("method", list(FAST))
def test_every_method_learns_what_can_be_learnt(cases, modality, method):
    backbone, dataset = cases[modality]
    rate = {"full": 2e-3, "lora": 1e-2, "linear": 1e-2}[method]
    settings = Settings(method, 15, 8, rate, head_learning_rate=1e-2)
    assert finetune(backbone, dataset, settings).accuracy > 0.6


def test_lora_touches_linear_and_convolutional_layers_only(cases):
    for modality, part in (("image", "conv"), ("text", "attention")):
        backbone, dataset = cases[modality]
        made = finetune(backbone, dataset, FAST["lora"]).backbone
        before = dict(backbone.body.named_parameters())
        changed = {n for n, v in made.body.named_parameters() if not torch.equal(v, before[n])}
        assert changed and all(before[n].ndim > 1 and n.endswith("weight") for n in changed)
        assert any(part in n for n in changed) and not any("embeddings" in n for n in changed)


def test_frozen_parameters_stay_and_a_wrong_name_is_refused(cases):
    backbone, dataset = cases["text"]
    made = finetune(backbone, dataset, Settings(epochs=1, freeze=("embeddings",))).backbone
    before = dict(backbone.body.named_parameters())
    same = {n: torch.equal(v, before[n]) for n, v in made.body.named_parameters()}
    assert all(v for n, v in same.items() if "embeddings" in n) and not all(same.values())
    with pytest.raises(ValueError, match="freeze names 'embedings', which no parameter holds"):
        finetune(backbone, dataset, Settings(freeze="embedings"))


def test_copies_are_not_trained_on_and_validated_on(cases, monkeypatch):
    backbone, dataset = cases["text"]
    texts = np.repeat(np.array([f"w{i} w{i + 1}" for i in range(12)], object), 4)
    labels = np.repeat(np.arange(12) % 2, 4)
    parts = []
    monkeypatch.setattr(finetuning, "set_aside", lambda *given: parts.append(set_aside(*given)) or parts[-1])
    items, known = dataset.items | {"train": texts}, dataset.labels | {"train": labels}
    finetune(backbone, replace(dataset, items=items, labels=known), Settings(epochs=1, validation_share=0.25))
    stay, aside = parts[0]
    assert set(texts[stay]).isdisjoint(texts[aside]) and len(aside) % 4 == 0


def test_early_stopping_keeps_the_best_epoch(cases):
    backbone, dataset = cases["image"]
    settings = Settings(epochs=40, learning_rate=3e-3, patience=3, validation_share=0.25)
    result = finetune(backbone, dataset, settings)
    seen = [(h["validation_accuracy"], -h["validation_loss"]) for h in result.history]
    assert result.epochs == len(seen) < 40 and seen.index(max(seen)) == len(seen) - 1 - 3
    own = Dataset("own", "image", dataset.items | {"validation": dataset.items["test"]},
                  dataset.labels | {"validation": dataset.labels["test"]}, dataset.label_names)  # fmt: skip
    stopped = finetune(backbone, own, Settings(epochs=6, patience=1))
    best = max(h["validation_accuracy"] for h in stopped.history)
    assert stopped.accuracy == pytest.approx(best)
    assert "validation_loss" not in finetune(backbone, own, Settings(epochs=1)).history[0]
    with pytest.raises(ValueError, match="expected a validation_share, or such a split in squares"):
        finetune(backbone, dataset, Settings(patience=1))


def test_dropout_of_zero_makes_training_passes_repeat(cases):
    import copy

    from transfergraph.models.training import trainable

    backbone, dataset = cases["text"]
    batch = backbone.prepare(dataset.items["train"][:8])
    for p, same in ((0.0, True), (0.5, False)):
        body = trainable(copy.deepcopy(backbone.body), Settings(dropout=p)).train()
        assert torch.equal(body(batch), body(batch)) == same


def test_a_text_has_the_same_logits_whatever_its_batch(cases):
    from transfergraph.models.training import Inputs, predict_logits

    backbone, dataset = cases["text"]
    head = torch.nn.Linear(backbone.n_features, 3)
    inputs = Inputs(backbone, dataset.items["test"], torch.device("cpu"))
    alone, together = (
        predict_logits(backbone.body, head, inputs, 1),
        predict_logits(backbone.body, head, inputs, 48),
    )
    np.testing.assert_allclose(alone, together, atol=1e-5)
    widths = [inputs(index)["input_ids"].shape[1] for index in batches(48, 8, inputs.lengths)]
    assert widths == sorted(widths) and widths[0] < widths[-1]


def test_images_that_do_not_fit_are_prepared_batch_by_batch_with_the_same_result(cases, monkeypatch):
    backbone, dataset = cases["image"]
    whole = finetune(backbone, dataset, FAST["full"])
    monkeypatch.setattr("transfergraph.models.training.KEEP", 0)
    assert finetune(backbone, dataset, FAST["full"]).history == whole.history


@pytest.mark.parametrize("size", [1, 2, 7])
def test_training_batches_hold_each_item_once_and_none_is_alone(size):
    for n in (2, 15, 22):
        for lengths in (None, np.arange(n) % 5):
            parts = batches(n, size, lengths, np.random.default_rng(n))
            assert sorted(np.concatenate(parts)) == list(range(n))
            assert size == 1 or min(map(len, parts)) > 1


def test_rates_rise_then_fall():
    for schedule in ("cosine", "linear"):
        rates = [rate_at(step, 50, 0.2, schedule) for step in range(50)]
        assert np.all(np.diff(rates[:11]) > 0) and np.all(np.diff(rates[10:]) < 0)
        assert max(rates) == 1 and 0 < min(rates) < 0.1
    assert rate_at(0, 1) == 1


def test_a_shift_moves_each_image_by_itself_and_no_further_than_said():
    torch.manual_seed(0)
    image = torch.zeros(64, 1, 16, 16)
    image[:, :, 8, 8] = 1
    spots = shift_images(image).flatten(1).argmax(1)
    rows, columns = spots // 16 - 8, spots % 16 - 8
    assert rows.abs().max() == 2 and columns.abs().max() == 2
    assert len(set(zip(rows.tolist(), columns.tolist()))) > 15


# --- many runs -------------------------------------------------------------------------------------------


def resnet(random_state=0):
    return load_backbone("test_resnet", input_size=32, random_state=random_state)


def vit():
    return load_backbone("test_vit", input_size=32, random_state=0)


def lost():
    raise FileNotFoundError("weights.safetensors is not there\nsecond line")


def diverging():
    backbone = resnet()
    next(backbone.body.parameters()).data.fill_(float("nan"))
    return backbone


def greedy():
    torch.empty(10**16)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def steady(frame):
    return frame.drop(columns="runtime_s").reset_index(drop=True)


@pytest.mark.slow
def test_one_process_or_two_give_one_table_and_failures_are_recorded_with_their_reason(folders, tmp_path):
    good = [(f"net-{i}", functools.partial(resnet, i)) for i in range(2)]
    bad = [("lost", lost), ("nan", diverging), ("greedy", greedy), ("text", str(folders / "bert"))]
    datasets = [images("one"), images("two", 1)]
    call = functools.partial(finetune_all, datasets=datasets, settings=FAST["full"], progress=False)
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    with pytest.warns(UserWarning, match="8 of 12 runs failed"):
        alone = call([good[0], *bad, good[1]], records=one, n_jobs=1)
    with pytest.warns(UserWarning, match="10 of 14 runs failed"):
        pair = call([good[0], ("killed", killed), *bad, good[1]], records=two, n_jobs=2)
    pd.testing.assert_frame_equal(steady(alone), steady(pair))
    assert list(alone["model"]) == ["net-0"] * 2 + ["net-1"] * 2 and set(alone["quality"]) == {"ok"}
    assert list(alone.columns) == [*TABLES["records"], "run"] and alone["accuracy"].between(0, 1).all()
    reasons = failures(two).groupby("model")["quality"].agg(set)
    assert failures(two)["accuracy"].isna().all() and len(failures(two)) == 10
    assert reasons["lost"] == {"failed: FileNotFoundError: weights.safetensors is not there"}
    assert reasons["nan"] == {"failed: NaN loss in epoch 1"}
    assert reasons["greedy"] == {"failed: out of memory"}
    assert reasons["killed"] == {"failed: process ended by SIGKILL, as for want of memory"}
    assert all("reads texts, one holds images" in r or "two holds images" in r for r in reasons["text"])

    models = pd.DataFrame({"model": ["net-0", "net-1"], "modality": "image"})
    table = pd.DataFrame({"dataset": ["one", "two"], "modality": "image"})
    assert len(Zoo(models=models, datasets=table, records=alone).validate().records) == 4

    size = two.stat().st_size
    with pytest.warns(UserWarning, match="10 of 14"):
        again = call([good[0], ("killed", killed), *bad, good[1]], records=two, n_jobs=2)
    pd.testing.assert_frame_equal(pair, again)
    assert two.stat().st_size == size and len(failures(two)) == 10
    pd.testing.assert_frame_equal(call([good[1]], records=two, n_jobs=1), pair[2:].reset_index(drop=True))
    with pytest.warns(UserWarning):
        call([bad[0]], records=two, n_jobs=1, retry=True)
    assert len(read_lines(tmp_path / "two.failed.jsonl")) == 12 and len(failures(two)) == 10
    append_line(two, pair.iloc[0].to_dict() | {"run": failures(two)["run"][0]})
    assert len(failures(two)) == 9


def test_what_a_run_depends_on_makes_it_another_run(folders, tmp_path):
    def keys(backbones=(("a", resnet),), data=None, settings=FAST["full"], seed=0):
        return {run.key for run in plan_runs(backbones, [data or images()], settings, [seed])}

    (folder := tmp_path / "model").mkdir()
    (folder / "config.json").write_text("{}")
    first = keys([("a", str(folder))])
    assert keys([("a", str(folder))]) == first
    (folder / "config.json").write_text("{ }")
    different = [first, keys([("a", str(folder))]), keys(), keys([("b", resnet)]), keys([("a", vit)])]
    different += [keys([("a", functools.partial(resnet, 1))]), keys([("a", functools.partial(resnet, 2))])]
    different += [keys(data=images(seed=1)), keys(settings=FAST["linear"]), keys(seed=1)]
    assert len(set.union(*different)) == len(different)
    chosen = lambda model, dataset: FAST["full" if model == "a" else "lora"]  # noqa: E731
    by_model = plan_runs([("a", resnet), ("b", resnet)], [images()], chosen, [0])
    assert [run.settings.method for run in by_model] == ["full", "lora"]
    with pytest.raises(ValueError, match="backbones names 'a' twice"):
        plan_runs([("a", resnet), ("a", vit)], [images()], FAST["full"], [0])


def test_backbones_are_saved_and_a_run_whose_backbone_is_gone_is_made_again(tmp_path):
    from transfergraph.models.finetune import saved_at

    options = {"records": tmp_path / "r.jsonl", "n_jobs": 1, "progress": False, "save": tmp_path / "tuned"}
    backbones, data = [("a/b", resnet)], images()
    table = finetune_all(backbones, [data], FAST["full"], **options)
    path = saved_at(tmp_path / "tuned", plan_runs(backbones, [data], FAST["full"], [0])[0])
    tuned = load_backbone(str(path), input_size=32)
    found = tuned.probabilities(data.items["test"]).argmax(1)
    assert (found == data.labels["test"]).mean() == pytest.approx(table["accuracy"][0], abs=0.03)
    shutil.rmtree(path)
    again = finetune_all(backbones, [data], FAST["full"], **options)
    assert path.exists() and again["accuracy"].tolist() == table["accuracy"].tolist()


def test_half_a_line_is_cut_off_and_any_other_bad_line_is_named(tmp_path):
    path = tmp_path / "r.jsonl"
    rows = [{"run": "1", "model": "ä"}, {"run": "2"}]
    for row in rows:
        append_line(path, row)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        assert (
            read_lines(path, mend=True) == rows[: whole[: cut + 1].count(b"\n")]
        )  # all of a line but its end is a line
        append_line(path, {"run": "3"})
        assert read_lines(path)[-1] == {"run": "3"}
    path.write_bytes(b'{"run": "1"}\n{"ru\n{"run": "3"}\n')
    with pytest.raises(ValueError, match=r"r\.jsonl: line 2 is .* expected an object in JSON"):
        read_lines(path)


MODELS = [("net", resnet), ("vit", vit)]
SCRIPT = """
from test_finetune import *
finetune_all(MODELS, [images()], Settings(epochs=6), range(5), {records!r}, n_jobs={n_jobs}, progress=False)
"""


def in_a_process(records, n_jobs):
    script = SCRIPT.format(records=str(records), n_jobs=n_jobs)
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, "-c", script], env=env, start_new_session=True)


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_with_the_table_of_an_undisturbed_one(tmp_path):
    records, calm = tmp_path / "killed.jsonl", tmp_path / "calm.jsonl"
    process = in_a_process(records, 2)
    until(lambda: len(lines(records)) >= 3, process)
    process.send_signal(signal.SIGKILL)  # the parent alone: its workers must end by themselves
    assert process.wait() == -signal.SIGKILL
    before = lines(records)
    assert 3 <= len(before) < 10
    with records.open("ab") as file:
        file.write(b'{"model": "net", "da')  # what a kill in the middle of a write leaves behind
    until(lambda: group_is_gone(process.pid))  # no worker outlives its parent
    call = functools.partial(finetune_all, MODELS, [images()], Settings(epochs=6), range(5))
    resumed = call(records=records, n_jobs=1, progress=False)
    undisturbed = call(records=calm, n_jobs=1, progress=False)
    pd.testing.assert_frame_equal(steady(resumed), steady(undisturbed))
    after = lines(records)
    assert after[: len(before)] == before and len(after) == 10, "a finished run was made again"
    assert len({json.loads(line)["run"] for line in after}) == 10


def test_settings_and_data_that_make_no_sense_are_refused(cases, tmp_path):
    for settings, said in (
        ({"method": "half"}, "method is 'half'; expected one of full, lora, linear"),
        ({"epochs": 0}, "epochs is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"label_smoothing": 1}, "label_smoothing is 1"),
        ({"augment": "cut"}, "augment is 'cut'; expected one of none, shift"),
        ({"method": "linear", "augment": "flip"}, "expected 'none' where only a head is trained"),
    ):
        with pytest.raises(ValueError, match=said):
            Settings(**settings)
    (image, squares), (text, words) = cases["image"], cases["text"]
    with pytest.raises(ValueError, match="reads images, words holds texts"):
        finetune(image, words)
    with pytest.raises(ValueError, match="expected 'none' for words, which holds texts"):
        finetune(text, words, Settings(augment="shift"))
    with pytest.raises(ValueError, match="n_jobs is 0; expected 1 or more"):
        finetune_all([("a", resnet)], [squares], n_jobs=0, progress=False, records=tmp_path / "never.jsonl")
    assert not any(tmp_path.iterdir())


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), thread_limit(1):
        raise KeyError
    assert torch.get_num_threads() == before
