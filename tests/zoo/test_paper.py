"""The importer on the published records, and on rows made up for what the copy at hand does not hold."""

import pandas as pd
import pytest

from transfergraph.zoo.matrices import accuracy_matrix, distance_matrix
from transfergraph.zoo.paper import (
    TARGETS,
    read_paper,
    read_published,
    read_rank_final,
    read_records,
)
from transfergraph.zoo.tables import ZooError


def test_every_good_row_is_kept_and_every_other_is_listed(paper):
    read = {modality: read_paper(paper, modality) for modality in ("image", "text")}
    (image, _), (text, _) = read.values()
    report = pd.concat([found.assign(zoo=f"paper-{modality}") for modality, (_, found) in read.items()])
    assert (len(image.models), len(image.records), len(image.scores)) == (185, 2254, 2346)
    assert (len(text.models), len(text.records), len(text.scores)) == (164, 1756, 2510)
    assert image.targets == TARGETS["image"] and text.targets == TARGETS["text"]
    assert accuracy_matrix(image).shape == (180, 12) and accuracy_matrix(text).shape == (164, 10)
    assert distance_matrix(image).shape == (69, 69) and distance_matrix(text).shape == (23, 23)

    found = report.groupby(["zoo", "file", "action"]).size().to_dict()
    lines = {"image": 2254 + 1, "text": 1762 + 1}
    assert found["paper-text", "records.csv", "dropped"] == lines["text"] - 1 - 1756
    assert found["paper-image", "transferability_score_records.csv", "dropped"] == 2468 - 2346
    reasons = report[report["zoo"].eq("paper-text") & report["action"].eq("dropped")].set_index("line")[
        "reason"
    ]
    assert reasons.loc[[1759, 1760, 1762, 1763]].eq("columns are shifted").all()
    assert "'lor'" in reasons[1761] and "accuracy is missing" in reasons[1758]


def test_repeated_runs_stay_separate_records(paper):
    text, _ = read_paper(paper, "text")
    runs = text.records.groupby(["model", "dataset"]).size()
    assert (runs > 1).sum() == 317 and runs.max() == 2


def test_broken_food101_is_marked_and_not_learnt_from(paper):
    image, _ = read_paper(paper, "image")
    marked = image.records[image.records["quality"] != "ok"]
    assert set(marked["dataset"]) == {"food101"} and len(marked) == 112
    assert "food101" not in accuracy_matrix(image) and "food101" in accuracy_matrix(image, quality=None)


def test_wrong_class_counts_are_corrected(paper):
    classes = {
        m: read_paper(paper, m)[0].datasets.set_index("dataset")["n_classes"] for m in ("image", "text")
    }
    assert classes["image"]["flowers"] == 102 and classes["text"]["tweet_eval/offensive"] == 2


def write_source(folder, records, scores):
    "A tiny text folder in the authors' layout."
    folder = folder / "sequence_classification"
    folder.mkdir(parents=True)
    (folder / "records.csv").write_text(records)
    (folder / "transferability_score_records.csv").write_text(scores)
    (folder / "model_config_dataset.csv").write_text(
        ",model,architectures,model_type,number_of_parameters,dataset,accuracy\n"
        "0,a,BertModel,bert,10,glue/sst2,0.9\n1,b,BertModel,bert,10,,\n"
    )
    (folder / "target_dataset_features.csv").write_text(
        "finetune_dataset,size,number_of_classes\nglue/cola,9,2\n"
    )
    (folder / "corr_domain_similarity_EleutherAI_gpt-neo-125m_gpt.csv").write_text(
        ",glue/cola,glue/sst2\nglue/cola,0,1\nglue/sst2,1,0\n"
    )
    return folder.parent


def test_lora_runs_are_kept_apart_and_infinite_scores_dropped(tmp_path):
    records = (
        ",model,finetuned_dataset,task_type,batch_size,learning_rate,num_train_epochs,seed,"
        "train_runtime,eval_accuracy,peft_method\n"
        "0,a,glue/cola,sequence_classification,16,2e-5,5,42,10,0.8,\n"
        "1,a,glue/cola,sequence_classification,32,4e-4,4,42,5,0.7,lora\n"
        "2,a,glue/cola,sequence_classification,16,2e-5,5,42,10,0.81,\n"
        "3,unheard-of,glue/cola,sequence_classification,16,2e-5,5,42,10,0.8,\n"
    )
    scores = (
        ",model,target_dataset,metric,runtime,score\n"
        "0,a,glue/cola,TransferabilityMethod.LOG_ME,1,-inf\n"
        "1,b,glue/cola,TransferabilityMethod.LOG_ME,1,0.5\n"
    )
    zoo, report = read_paper(write_source(tmp_path, records, scores), "text")
    assert zoo.records["method"].tolist() == ["full", "lora", "full"]
    assert accuracy_matrix(zoo).loc["a", "glue/cola"] == pytest.approx(0.805)
    assert zoo.records["learning_rate"].tolist() == [2e-5, 4e-4, 2e-5] and zoo.records["epochs"].tolist() == [
        5,
        4,
        5,
    ]
    assert zoo.scores["score"].tolist() == [0.5]
    assert report["reason"].tolist() == [
        "model 'unheard-of' is not in the metadata",
        "score '-inf' is not a finite number",
    ]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model_config_dataset\.csv: no such file"):
        read_paper(tmp_path, "image")
    with pytest.raises(FileNotFoundError, match="no predictions found"):
        read_rank_final(tmp_path, ["x"])
    with pytest.raises(FileNotFoundError, match=r"records\.csv"):
        read_records(tmp_path, pd.Series(["a"]))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"model,architectures\na,b\n", "no column 'model_type'; it has model, architectures"),
        (b"", "no column 'model'; it has nothing"),
        (b"model,model\na,b\n", "no column 'architectures'"),
        ("model,d\u00e9but\n".encode("latin-1"), "cannot be read as a table"),
    ],
)
def test_a_file_of_another_layout_is_named(content, told, tmp_path):
    folder = write_source(tmp_path, "", "")
    (folder / "sequence_classification" / "model_config_dataset.csv").write_bytes(content)
    with pytest.raises(ZooError, match=r"model_config_dataset\.csv: " + told):
        read_paper(folder, "text")


def test_published_tables_hold_the_twelve_variants(paper):
    for modality, folder in (("image", "image_classification"), ("text", "sequence_classification")):
        table = read_published(paper / folder / "result_analysis")
        variants = table[table["method"].str.startswith("TG:")]
        assert variants["method"].nunique() == 12 and set(variants["target"]) == set(TARGETS[modality])
        found = read_rank_final(paper / folder / "rank_final", TARGETS[modality])
        assert found["method"].nunique() == 12
        records = read_paper(paper, modality)[0].records.query("method == 'full'")
        runs = records.groupby(["dataset", "model"]).size().loc[TARGETS[modality]]
        rows = found.groupby(["target", "model"]).size() / 12  # of each variant
        assert rows.equals(runs.reindex(rows.index).astype(float))  # one for each run
        assert (rows.max() > 1) == (modality == "text")
