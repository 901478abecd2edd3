"""The merge job as a user meets it: outputs, honesty, reproducibility, resumption."""

from __future__ import annotations

import logging
import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from statsmerging.data.images import ImageSplit, SuiteImages
from statsmerging.errors import IncompleteError, UserError
from statsmerging.jobs import merge
from statsmerging.learning import joint
from statsmerging.learning.data_module import UnlabeledBatch, UnlabeledDataModule
from statsmerging.learning.module import StatsMerging
from statsmerging.merging import Decomposition, SpectralBank
from statsmerging.merging.methods.ties import Ties
from statsmerging.report.tables.accuracy import accuracy_content
from statsmerging.runs.finished import read_finished_run
from statsmerging.runs.outcomes import read_outcomes
from statsmerging.runs.results import read_results
from statsmerging.store.files import read_json
from statsmerging.store.hashing import file_sha256
from statsmerging.zoo.network import Network
from tests.conftest import ROOT, SMALL_VIT, JobRunner, run_in_process, write_suite
from tests.kills import KilledError, killed_in_step

METHODS = [
    "pretrained",
    "individual",
    "simple_average",
    "task_arithmetic",
    "task_arithmetic_tuned",
    "stats_merging",
]

#: All that conf/method/ has, cheap enough for a test.
EVERY_METHOD = [
    *sorted(path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")),
]


def coefficients(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "coefficients.parquet")


@pytest.fixture
def steps_taken(monkeypatch: pytest.MonkeyPatch) -> list[UnlabeledBatch]:
    """Grows by the batch of every learning step."""
    taken: list[UnlabeledBatch] = []
    step = StatsMerging.training_step

    def recording(self: StatsMerging, batch: UnlabeledBatch) -> torch.Tensor:
        loss = step(self, batch)
        taken.append(batch)
        return loss

    monkeypatch.setattr(StatsMerging, "training_step", recording)
    return taken


def test_run_directory_holds_the_whole_record(run_job: JobRunner, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    results = run_job()
    assert list(results["methods"]) == METHODS
    for row in results["methods"].values():
        assert set(row["accuracy"]) == {"parity", "size"}
        assert row["n"] == {"parity": 48, "size": 48}
        assert row["average"] == pytest.approx(sum(row["accuracy"].values()) / 2)
    agreements = [row.get("teacher_agreement") for row in results["methods"].values()]
    assert agreements[METHODS.index("individual")] is None
    assert all(0 < agreement <= 1 for agreement in agreements if agreement is not None)
    individual = results["methods"]["individual"]["accuracy"]
    merged = results["methods"]["stats_merging"]
    ratios = [merged["accuracy"][task] / individual[task] for task in individual]
    assert merged["normalised_average"] == pytest.approx(sum(ratios) / 2)
    assert results["methods"]["individual"]["normalised_average"] == pytest.approx(1.0)

    manifest = read_json(directory / "manifest.json")
    assert manifest["stamps"] == results["stamps"] == []
    assert manifest["packages"]["torch"] == torch.__version__.split("+")[0]
    assert set(manifest["data"]) == {
        f"{task}/{split}" for task in individual for split in ("train", "validation", "test")
    }
    assert len(manifest["weights"]["parity/backbone"]) == 64
    assert manifest["config"]["trainer"]["steps"] == 6
    table = coefficients(directory)
    layers = load_file(directory / "merged.safetensors")
    assert set(table["task"]) == {"parity", "size"}
    assert set(table["layer"]) <= set(layers)
    assert len(table) == 2 * table["layer"].nunique()


def test_outcomes_of_all_rows_are_kept_without_a_second_pass(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores that earlier versions left in the cache are all that outcomes need."""
    passes: list[str] = []
    features = Network.features

    def recording(
        self: Network, state: Mapping[str, torch.Tensor], images: torch.Tensor, *, description: str
    ) -> torch.Tensor:
        passes.append(description)
        return features(self, state, images, description=description)

    monkeypatch.setattr(Network, "features", recording)
    cache = f"cache={tmp_path}/cache"
    results = run_job("method=simple_average", cache, directory=tmp_path / "first")
    assert passes.count("pre-trained on parity") == passes.count("individual on size") == 1
    run_job("method=simple_average", "seed=1", cache, directory=tmp_path / "second")
    assert passes.count("pre-trained on parity") == passes.count("individual on size") == 1
    files = [tmp_path / name / "outcomes.safetensors" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()

    run = read_finished_run(tmp_path / "first")
    assert run.manifest["outputs"]["outcomes.safetensors"] == file_sha256(files[0])
    outcomes = read_outcomes(files[0], run.results)
    assert outcomes.methods == list(results["methods"])
    for name, row in results["methods"].items():
        shares = {task: outcomes.of(name, task).mean() for task in row["accuracy"]}
        assert shares == row["accuracy"]


def test_task_wise_gives_one_coefficient_per_task(run_job: JobRunner, tmp_path: Path) -> None:
    run_job("granularity=task_wise")
    table = coefficients(tmp_path / "run")
    assert table[["layer", "task"]].to_numpy().tolist() == [["all", "parity"], ["all", "size"]]


def test_singular_wise_gives_one_coefficient_per_direction(
    run_job: JobRunner, tmp_path: Path
) -> None:
    """The table holds all that is needed to merge again."""
    run_job("granularity=singular_wise", "spectral.split_attention=true")
    run_job("job=finetune", directory=tmp_path / "zoo")
    table = coefficients(tmp_path / "run")
    assert list(table) == [
        "method",
        "layer",
        "task",
        "coefficient",
        "direction",
        "singular_value",
    ]
    pretrained = load_file(tmp_path / "zoo" / "pretrained.safetensors")
    experts = {
        task: {
            name.removeprefix("backbone."): value
            for name, value in load_file(file).items()
            if name.startswith("backbone.")
        }
        for task in ("parity", "size")
        for file in [tmp_path / "zoo" / "experts" / f"{task}.safetensors"]
    }
    in_order = dict.fromkeys(name.partition("[")[0] for name in table["layer"])
    pretrained = {name: pretrained[name] for name in [*in_order, *pretrained]}
    bank = SpectralBank.from_state_dicts(pretrained, experts, Decomposition(split_attention=True))
    rows = torch.tensor(table["coefficient"].to_list())
    places = [(c.layer, c.task, c.direction, c.singular_value) for c in bank.listed(rows)]
    columns = ["layer", "task", "direction", "singular_value"]
    found = [tuple(place) for place in table[columns].itertuples(index=False)]
    assert [place[:3] for place in found] == [place[:3] for place in places]
    assert [place[3] for place in found] == pytest.approx([place[3] for place in places])
    queries = table[(table["layer"] == "blocks.0.attn.qkv.weight[0]") & (table["task"] == "size")]
    assert queries["direction"].tolist() == list(range(12))  # 24 // 2
    for name, value in load_file(tmp_path / "run" / "merged.safetensors").items():
        torch.testing.assert_close(bank.merge(rows)[name], value, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ["labels=soft", "labels.temperature=2"],
        ["learner=free", "link=sigmoid"],
        ["learner=per_layer", "statistics.of=task_vectors"],
        ["learner=constant_input", "link=softmax", "merge.anchor=none"],
        ["objective=entropy", "merge.precision=bfloat16", "merge.memory_map=true"],
        ["trainer.accumulate=per_task"],
        ["merge.compile=true"],
        ["granularity=singular_wise", "spectral.split_attention=true", "merge.precision=bfloat16"],
        ["granularity=singular_wise", "learner=free_per_layer", "trainer.accumulate=per_task"],
        ["granularity=singular_wise", "spectral.orthonormal=false", "learner.vectors=table"],
        ["granularity=singular_wise", "learner=per_layer", "merge.memory_map=true"],
    ],
)
def test_every_variant_runs(run_job: JobRunner, overrides: list[str]) -> None:
    assert 0 <= run_job(*overrides)["methods"]["stats_merging"]["average"] <= 1


def test_without_an_anchor_learning_starts_at_the_average(
    run_job: JobRunner, tmp_path: Path
) -> None:
    """At 1/K, of two experts 0.5, unless the row has a start of its own."""
    rows = run_job(
        "merge.anchor=none",
        "method=[simple_average,stats_merging,stats_merging_task_wise,free,adamerging_layer_wise]",
        "method.free.start=0.4",
        "trainer.learning_rate=0",
        "method.adamerging_layer_wise.learning_rate=0",
    )["methods"]
    table = coefficients(tmp_path / "run")
    starts = table.groupby("method")["coefficient"].unique().map(list).to_dict()
    assert starts == {
        "stats_merging": pytest.approx([0.5]),
        "stats_merging_task_wise": pytest.approx([0.5]),
        "free": pytest.approx([0.4]),
        "adamerging_layer_wise": pytest.approx([0.3]),  # always with θ₀, as published
    }
    assert rows["stats_merging"]["accuracy"] == rows["simple_average"]["accuracy"]


def test_every_method_runs_beside_the_others(run_job: JobRunner, tmp_path: Path) -> None:
    results = run_job(
        f"method=[{','.join(EVERY_METHOD)}]",
        "method.wemoe.steps=2",
        "method.surgery.steps=5",
        "method.prodistill.epochs=2",
        "method.twin_merging.epochs=2",
    )
    assert results["failed"] == {}
    rows = results["methods"]
    assert set(EVERY_METHOD) <= set(rows)
    assert {"ties_tuned", "regmean_tuned"} <= set(rows)
    for name in EVERY_METHOD:
        assert rows[name]["needs"] in (
            "nothing",
            "unlabeled images",
            "labels",
            "activations",
            "gradients",
        )
        assert 0 <= rows[name]["average"] <= 1
        assert 0 <= rows[name]["teacher_agreement"] <= 1
    assert {name for name in EVERY_METHOD if rows[name]["returns"] != "state dict"} == {
        "emr",
        "surgery",
        "tall_masks",
        "twin_merging",
        "wemoe",
    }
    learned = set(coefficients(tmp_path / "run")["method"])
    assert learned == {name for name in EVERY_METHOD if "learner" in rows[name]["parameters"]}


def test_the_jointly_trained_model_is_a_bound(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = (
        "joint=true",
        "method=simple_average",
        "learning.held_out=0",
        "zoo.finetuning.steps=400",  # of experts that guess, the agreement says nothing
    )
    rows = run_job(*whole)["methods"]
    assert list(rows)[:3] == ["pretrained", "individual", "joint"]
    # It learned: it fits the teachers on images that it was not trained on better than θ₀ does.
    assert rows["joint"]["teacher_agreement"] > rows["pretrained"]["teacher_agreement"]
    monkeypatch.setattr(joint, "create_trainer", None)
    again = run_job(*whole, directory=tmp_path / "again")
    assert again["methods"]["joint"] == rows["joint"]


def test_a_failing_method_leaves_the_others_rows(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Ties, bank: Any) -> Any:
        raise ZeroDivisionError("no")

    with monkeypatch.context() as patch:
        patch.setattr(Ties, "merge", broken)
        with pytest.raises(IncompleteError, match="1 of 3 methods failed: ties"):
            run_job("method=[simple_average,ties,tsv_m]")
        with pytest.raises(ZeroDivisionError):
            run_job("method=ties", directory=tmp_path / "alone")
    results = read_json(tmp_path / "run" / "results.json")
    assert results["failed"] == {"ties": "ZeroDivisionError: no"}
    assert {"simple_average", "tsv_m"} <= set(results["methods"])
    # It does not count as finished: the same command tries again.
    again = run_job("method=[simple_average,ties,tsv_m]")
    assert again["failed"] == {}
    assert "ties" in again["methods"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=ties", "method.ties.density=1.5"], "ties.density=1.5: must be above 0"),
        (
            ["+method.ties_merging={}"],
            "method=ties_merging: choose one of ace, breadcrumbs, cart, consensus",
        ),
        (["+method.simple_average.scale=1"], "simple_average.scale: unknown parameter"),
        (["method=model_stock", "+method.model_stock.tune=[1]"], "this method has nothing to tune"),
        (["method=free", "method.free.learner=oracle"], "method.free.learner=oracle: input"),
    ],
)
def test_mistakes_in_a_method(run_job: JobRunner, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as refused:
        run_job(*overrides)
    assert message in str(refused.value)


def test_tuning_takes_the_value_that_agrees_most(run_job: JobRunner, tmp_path: Path) -> None:
    rows = run_job("method=task_arithmetic", "method.task_arithmetic.tune=[0.0,1.0,0.4]")["methods"]
    agreements = {
        scale: run_job(
            "method=task_arithmetic",
            f"method.task_arithmetic.scale={scale}",
            "method.task_arithmetic.tune=null",
            directory=tmp_path / str(scale),
        )["methods"]["task_arithmetic"]["teacher_agreement"]
        for scale in (0.0, 1.0, 0.4)
    }
    tuned = rows["task_arithmetic_tuned"]
    assert tuned["teacher_agreement"] == max(agreements.values())
    assert agreements[tuned["parameters"]["scale"]] == max(agreements.values())

    choice = tuned["choice"]
    assert (choice["parameter"], choice["rule"]) == ("scale", "agreement")
    assert choice["value"] == tuned["parameters"]["scale"]
    assert choice["at_edge"] == (choice["value"] == 1.0)  # below 0 no scale is valid
    for tried in choice["tried"]:
        assert fmean(tried["agreement"].values()) == pytest.approx(agreements[tried["value"]])
        assert "average" not in tried  # test images tell nothing that nobody asked for


def test_the_oracle_is_told_and_chooses_nothing(run_job: JobRunner, tmp_path: Path) -> None:
    method = ["method=task_arithmetic", "method.task_arithmetic.tune=[0.0,0.4,1.0]"]
    plain = run_job(*method)["methods"]
    results = run_job(*method, "tuning.oracle=true", directory=tmp_path / "oracle")
    rows = results["methods"]
    choice = rows["task_arithmetic_tuned"].pop("choice")
    averages = {tried["value"]: tried.pop("average") for tried in choice["tried"]}
    assert choice == plain["task_arithmetic_tuned"].pop("choice")
    # Except for the passes of the oracle's own images, of which there are none in the record.
    assert rows["task_arithmetic_tuned"] == plain["task_arithmetic_tuned"]
    assert averages[choice["value"]] == rows["task_arithmetic_tuned"]["average"]
    assert (
        averages[0.4]
        == run_job(
            "method=task_arithmetic",
            "method.task_arithmetic.scale=0.4",
            directory=tmp_path / "alone",
        )["methods"]["task_arithmetic"]["average"]
    )
    tables = [accuracy_content([read_results(tmp_path / run)]) for run in ("run", "oracle")]
    assert ["oracle" in table.columns for table in tables] == [False, True]
    assert ["labels of the test images" in table.caption for table in tables] == [False, True]


def test_nothing_is_learned_from_the_images_that_choose(run_job: JobRunner, tmp_path: Path) -> None:
    """All learning images of a task are in a run's count; without a part held out they are more."""
    results = run_job("method=free")
    teachers, held = results["teachers"], results["held_out"]
    whole = run_job("method=free", "learning.held_out=0", directory=tmp_path / "whole")
    assert "held_out" not in whole or whole["held_out"] == {}
    for task, teacher in teachers.items():
        assert teacher["images"] + held[task] == whole["teachers"][task]["images"]
        assert held[task] == max(8, math.ceil(0.2 * whole["teachers"][task]["images"]))


def test_learning_rates_are_tuned_by_the_same_rule(run_job: JobRunner, tmp_path: Path) -> None:
    rows = run_job("method=free", "method.free.tune=[0.0,0.5]")["methods"]
    assert rows["free"]["parameters"]["learning_rate"] == 1e-2
    tuned = rows["free_tuned"]
    assert tuned["parameters"]["learning_rate"] in (0.0, 0.5)
    # At 0 nothing is learned: that is task arithmetic.
    still = run_job("method=free", "method.free.learning_rate=0", directory=tmp_path / "still")
    assert tuned["teacher_agreement"] >= still["methods"]["free"]["teacher_agreement"]
    assert set(coefficients(tmp_path / "run")["method"]) == {"free", "free_tuned"}


def test_a_learner_that_diverged_has_no_row(run_job: JobRunner, tmp_path: Path) -> None:
    """Scores that are no numbers would all be of the first class, and some of them right."""
    with pytest.raises(IncompleteError, match="1 of 2 methods failed: free"):
        run_job("method=[simple_average,free]", "method.free.learning_rate=1e30")
    results = read_json(tmp_path / "run" / "results.json")
    assert "NaN or infinite scores" in results["failed"]["free"]
    assert {"simple_average", "free"} & set(results["methods"]) == {"simple_average"}


def test_a_candidate_that_diverged_is_not_chosen(run_job: JobRunner) -> None:
    rows = run_job("method=free", "method.free.tune=[1e30,0.5]")["methods"]
    assert rows["free_tuned"]["parameters"]["learning_rate"] == 0.5


def test_what_the_grid_shares_with_the_config_is_learned_once(
    run_job: JobRunner, tmp_path: Path
) -> None:
    rows = run_job("method=free", "method.free.tune=[0.01,0.5]")["methods"]
    assert rows["free"]["parameters"]["learning_rate"] == 0.01
    assert {"free", "free_tuned"} <= rows.keys()
    learned = {path.name for path in (tmp_path / "run" / "learning_curves").iterdir()}
    assert learned == {"free", "free-0.5"}


def test_same_seed_gives_bit_identical_results(run_job: JobRunner, tmp_path: Path) -> None:
    first = run_job(directory=tmp_path / "first")
    second = run_job(directory=tmp_path / "second")
    other = run_job("seed=1", directory=tmp_path / "other")
    assert first.pop("measured").keys() == second.pop("measured").keys()
    assert first == second
    bytes_of = [
        (tmp_path / name / "merged.safetensors").read_bytes() for name in ("first", "second")
    ]
    assert bytes_of[0] == bytes_of[1]
    assert coefficients(tmp_path / "first").equals(coefficients(tmp_path / "second"))
    assert not coefficients(tmp_path / "first").equals(coefficients(tmp_path / "other"))
    assert other["run_hash"] != first["run_hash"]


def test_fit_sees_no_label_and_no_test_image(
    run_job: JobRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[UnlabeledBatch] = []
    fitting = False
    fit = L.Trainer.fit
    step = StatsMerging.training_step
    split = SuiteImages.split

    def guarded_fit(self: L.Trainer, model: Any, data: Any, **options: Any) -> None:
        nonlocal fitting
        fitting = isinstance(data, UnlabeledDataModule)
        fit(self, model, data, **options)
        fitting = False

    def guarded_split(self: SuiteImages, task: Any, name: Any) -> ImageSplit:
        assert not fitting, f"{name} images were opened during fit"
        return split(self, task, name)

    def recording_step(self: StatsMerging, batch: UnlabeledBatch) -> torch.Tensor:
        seen.append(batch)
        return step(self, batch)

    monkeypatch.setattr(L.Trainer, "fit", guarded_fit)
    monkeypatch.setattr(SuiteImages, "split", guarded_split)
    monkeypatch.setattr(StatsMerging, "training_step", recording_step)
    run_job()
    assert len(seen) == 6
    assert all(batch._fields == ("images", "indices") for batch in seen)


def test_wrong_labels_of_the_learning_images_change_nothing(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = run_job(directory=tmp_path / "honest")
    split = SuiteImages.split

    def mislabelled(self: SuiteImages, task: Any, name: Any) -> ImageSplit:
        found = split(self, task, name)
        if name != "validation":
            return found
        return ImageSplit(found.images, found.labels * 0 - 1, found.digests, found.key)

    monkeypatch.setattr(SuiteImages, "split", mislabelled)
    found = run_job(directory=tmp_path / "mislabelled")
    assert found["methods"] == honest["methods"]
    assert coefficients(tmp_path / "mislabelled").equals(coefficients(tmp_path / "honest"))
    # What is said of the teachers' labels is all that read them.
    assert {quality["label_agreement"] for quality in found["teachers"].values()} == {None}


@pytest.mark.parametrize(
    "chosen",
    ["granularity=layer_wise", "granularity=singular_wise", "learner.vectors=trained"],
)
def test_killed_fit_continues_and_ends_at_the_same_coefficients(
    run_job: JobRunner,
    tmp_path: Path,
    steps_taken: list[UnlabeledBatch],
    chosen: str,
) -> None:
    run_job(chosen, directory=tmp_path / "whole")
    with killed_in_step(StatsMerging, 4), pytest.raises(KilledError):
        run_job(chosen, directory=tmp_path / "killed")
    assert not (tmp_path / "killed" / "results.json").exists()

    run_job(chosen, directory=tmp_path / "killed")
    # Six, three before the kill, and four again: two were in the checkpoint.
    assert len(steps_taken) == 6 + 3 + 4
    assert coefficients(tmp_path / "killed").equals(coefficients(tmp_path / "whole"))
    merged = [load_file(tmp_path / name / "merged.safetensors") for name in ("killed", "whole")]
    assert all(torch.equal(merged[0][name], merged[1][name]) for name in merged[1])


def test_trained_vectors_are_in_the_merged_model(run_job: JobRunner, tmp_path: Path) -> None:
    """They are no combination of the experts' ones; the coefficients say their mean."""
    run_job("learner.vectors=trained", directory=tmp_path / "trained")
    run_job("learner.vectors=mean", directory=tmp_path / "mean")
    trained, mean = (load_file(tmp_path / n / "merged.safetensors") for n in ("trained", "mean"))
    table = coefficients(tmp_path / "trained").set_index("layer")["coefficient"]
    for name, layer in trained.items():
        if layer.squeeze().ndim < 2:
            assert not torch.equal(layer, mean[name])
            assert (table[name] == 0.5).all()


def test_finished_run_is_recognised_and_another_config_refused(
    run_job: JobRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    first = run_job()
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    monkeypatch.setattr(StatsMerging, "training_step", None)
    assert run_job() == first
    with pytest.raises(UserError, match="already holds the results of another config"):
        run_job("seed=5")
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert after == before


def test_a_finished_run_tells_that_its_inputs_changed(
    run_job: JobRunner, small_weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(small_weights, weights)
    run_job(f"backbone.weights={weights}")
    with caplog.at_level(logging.WARNING):
        run_job(f"backbone.weights={weights}")
        assert "changed" not in caplog.text
        save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
        run_job(f"backbone.weights={weights}")
    assert f"1 of its input files changed since, among them {weights}" in caplog.text


def test_a_killed_fit_does_not_continue_with_other_weights(
    run_job: JobRunner,
    small_weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps_taken: list[UnlabeledBatch],
) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(small_weights, weights)
    with monkeypatch.context() as patch:
        # Killed after the fit: its checkpoint is there, its results are not.
        patch.setattr(merge, "write_coefficients", None)
        with pytest.raises(TypeError):
            run_job(f"backbone.weights={weights}")
    save_file({name: 2 * value for name, value in load_file(weights).items()}, weights)
    before = len(steps_taken)
    run_job(f"backbone.weights={weights}")
    assert len(steps_taken) - before == 6


def test_merged_model_scores_the_same_in_plain_timm(
    run_job: JobRunner, tmp_path: Path, suite_root: Path
) -> None:
    """No code of ours: timm, datasets and the exported files alone."""
    import datasets
    import numpy as np
    import timm

    results = run_job()
    run_job("job=finetune", directory=tmp_path / "zoo")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SMALL_VIT)
    model.load_state_dict(load_file(tmp_path / "run" / "merged.safetensors"))
    model.eval()
    for task in ("parity", "size"):
        test = datasets.load_dataset(
            "parquet",
            data_files=str(suite_root / task / "test-*.parquet"),
            cache_dir=str(tmp_path / "plain"),
        )["train"]
        images = np.stack([np.asarray(i.convert("RGB").resize((32, 32), 3)) for i in test["image"]])
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        head = load_file(tmp_path / "zoo" / "experts" / f"{task}.safetensors")
        with torch.inference_mode():
            scores = model(pixels) @ head["head.weight"].T + head["head.bias"]
        accuracy = (scores.argmax(1) == torch.tensor(test["label"][:])).float().mean().item()
        assert accuracy == pytest.approx(results["methods"]["stats_merging"]["accuracy"][task])


def test_local_zoo_and_evaluate_repeat_the_numbers(
    run_job: JobRunner, small_run: list[str], tmp_path: Path
) -> None:
    merged = run_job()["methods"]
    made = run_job("job=finetune", directory=tmp_path / "zoo")["methods"]
    assert made["individual"] == merged["individual"]
    from_files = [item for item in small_run if not item.startswith("zoo.")]
    local = [*from_files, "zoo=local", f"zoo.root={tmp_path / 'zoo' / 'experts'}"]
    assert run_in_process(local, tmp_path / "local")["methods"] == merged
    # θ₀ is written beside the experts; without it nothing says what they started from.
    written = f"backbone.weights={tmp_path / 'zoo' / 'pretrained.safetensors'}"
    assert run_in_process([*local, written], tmp_path / "own")["methods"] == merged
    with pytest.raises(UserError, match="experts from files need the weights they started from"):
        run_in_process([*local, "backbone.weights=pretrain"], tmp_path / "none")
    checkpoint = f"job.checkpoint={tmp_path / 'run' / 'merged.safetensors'}"
    scored = run_job("job=evaluate", checkpoint, directory=tmp_path / "scored")["methods"]
    assert scored["checkpoint"]["accuracy"] == merged["stats_merging"]["accuracy"]


@pytest.mark.parametrize("name", ["pretrained", "individual"])
def test_a_checkpoint_named_like_a_bound_leaves_the_bound(
    run_job: JobRunner, tmp_path: Path, name: str
) -> None:
    bounds = run_job("job=finetune", directory=tmp_path / "zoo")["methods"]
    other = {
        tensor: value + 0.1 if value.is_floating_point() else value
        for tensor, value in load_file(tmp_path / "zoo" / "pretrained.safetensors").items()
    }
    file = tmp_path / f"{name}.safetensors"
    save_file(other, file)
    scored = run_job("job=evaluate", f"job.checkpoint={file}")["methods"]
    assert scored.pop("checkpoint")["title"] == f"{name}.safetensors"
    assert scored == bounds


def test_files_and_teachers_are_recorded_and_a_wrong_class_order_is_noticed(
    small_run: list[str], tmp_path: Path
) -> None:
    larger = [*small_run, f"suite.root={write_suite(tmp_path / 'suite', images_per_split=200)}"]
    made = [*larger, "job=finetune", "zoo.finetuning.steps=300"]
    run_in_process(made, tmp_path / "zoo")
    experts = tmp_path / "zoo" / "experts"
    from_files = [item for item in larger if not item.startswith("zoo.")]
    local = [*from_files, "zoo=local", f"zoo.root={experts}", "method.task_arithmetic.tune=null"]
    right = run_in_process(local, tmp_path / "right")
    assert right["warnings"] == []
    assert set(right["teachers"]) == {"parity", "size"}
    record = read_json(tmp_path / "right" / "manifest.json")["files"]["parity/backbone"]
    assert record["bytes"] == (experts / "parity.safetensors").stat().st_size
    assert record["sha256"] == file_sha256(experts / "parity.safetensors")

    state = load_file(experts / "parity.safetensors")
    for name in ("head.weight", "head.bias"):
        state[name] = state[name].flip(0).contiguous()
    save_file(state, experts / "parity.safetensors")
    wrong = run_in_process([*local, "seed=1"], tmp_path / "wrong")
    assert len(wrong["warnings"]) == 1
    assert "the expert of parity" in wrong["warnings"][0]


def test_report_gathers_finished_runs(run_job: JobRunner, tmp_path: Path) -> None:
    for seed in (0, 1):
        run_job(f"seed={seed}", directory=tmp_path / "runs" / str(seed))
    run_in_process(["job=report", f"job.runs={tmp_path / 'runs'}"], tmp_path / "report")
    report = tmp_path / "report"
    text = (report / "report.md").read_text()
    assert "seed 0, 1**" in text
    # Its accuracy, how far it moves the weights, and what it costs.
    assert text.count("| StatsMerging |") == 3
    for kind in ("accuracy", "movement", "cost"):
        assert len(list((report / "tables").glob(f"{kind}*.tex"))) == 1
        assert (report / "tables" / f"{kind}.csv").exists()
    pictures = re.findall(r"\]\((figures/.*)\.png\)", text)
    assert len(pictures) >= 4  # dots, map, depth and curves
    for name in pictures:
        assert (report / f"{name}.png").stat().st_size > 0
        assert (report / f"{name}.pdf").stat().st_size > 0
    page = (report / "report.html").read_text()
    assert all(f'"name": "{seed}", "path"' in page for seed in (0, 1))
    assert '"title": "Accuracy on every task' in page


def test_rerun_learns_from_the_beginning(
    run_job: JobRunner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps_taken: list[UnlabeledBatch],
) -> None:
    run_job()
    first = coefficients(tmp_path / "run")
    before = len(steps_taken)
    run_job("rerun=true")
    assert len(steps_taken) - before == 6
    assert coefficients(tmp_path / "run").equals(first)
