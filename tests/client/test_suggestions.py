"""Settings by the data: the rules, what is given in their place, and whether a server takes them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlpd.client import Client, InvalidRequest, training_spec
from mlpd.client.suggestions import DataSummary, suggested_settings

SMALL = DataSummary(row_count=300, encoded_size=7, task="regression")
LARGE = DataSummary(row_count=50_000, encoded_size=30, task="binary", class_row_counts=[45_000, 5_000])
TASKS = ["multiclass", "binary", "multilabel", "regression"]


def step_count(settings: dict[str, Any], row_count: int) -> int:
    rows = row_count - round(row_count * settings.get("validation_fraction", 0))
    return int(-(-rows // settings["batch_size"]) * settings["epoch_count"])


def test_a_small_data_set_keeps_all_its_rows():
    settings = suggested_settings(SMALL)
    assert "validation_fraction" not in settings
    assert "early_stopping_patience" not in settings
    assert settings["layer_sizes"][0] == settings["layer_sizes"][-1] == 0
    assert (settings["task"], settings["standardize"], settings["seed"]) == ("regression", True, 0)


def test_a_large_data_set_holds_rows_out_to_stop_by():
    settings = suggested_settings(LARGE)
    assert settings["validation_fraction"] == 0.1
    assert settings["early_stopping_patience"] >= 10
    assert settings["batch_size"] == 1024
    assert settings["weight_decay"] < suggested_settings(SMALL)["weight_decay"]


def test_rows_that_classes_need_are_not_held_out():
    assert "validation_fraction" not in suggested_settings(DataSummary(3000, 5, "multiclass", [3] * 1000))
    assert "validation_fraction" in suggested_settings(DataSummary(3000, 5, "multiclass", [2900, 98, 0, 2]))


def test_a_million_rows_are_seen_ten_times():
    assert suggested_settings(DataSummary(1_000_000, 100, "multiclass", [1000] * 1000))["epoch_count"] == 10


def test_pixels_are_scaled_as_pixels():
    assert "standardize" not in suggested_settings(DataSummary(60_000, 784, "multiclass", [6000] * 10, are_pixels=True))
    assert "standardize" not in suggested_settings(SMALL, input_scale=0.5)


def test_what_is_given_wins_and_the_rest_follows():
    as_suggested = suggested_settings(SMALL)
    settings = suggested_settings(SMALL, batch_size=64, seed=5, weight_decay=None)
    assert (settings["batch_size"], settings["seed"]) == (64, 5)
    assert settings["weight_decay"] == as_suggested["weight_decay"]
    assert step_count(settings, 300) == pytest.approx(step_count(as_suggested, 300), rel=0.01)
    assert "weight_decay" not in suggested_settings(SMALL, optimizer="adam")
    assert "standardize_targets" not in suggested_settings(SMALL, loss="poisson")
    assert suggested_settings(SMALL, optimizer="sgd")["learning_rate"] > as_suggested["learning_rate"]
    assert suggested_settings(LARGE, epoch_count=100)["early_stopping_patience"] == 25
    every_other = suggested_settings(LARGE, epoch_count=100, validation_interval_epochs=2)
    assert every_other["early_stopping_patience"] == 12


def test_validation_rows_of_one_s_own_take_the_place_of_held_out_ones():
    settings = suggested_settings(LARGE, validation_dataset="others")
    assert "validation_fraction" not in settings
    assert "early_stopping_patience" in settings
    assert "early_stopping_patience" in suggested_settings(SMALL, validation_fraction=0.2)
    assert "early_stopping_patience" not in suggested_settings(LARGE, validation_fraction=0.0)


def test_a_warm_start_leaves_the_network_to_its_model():
    settings = suggested_settings(SMALL, warm_start="prices", warm_start_scope="weights")
    assert not settings.keys() & {"layer_sizes", "activation", "dropout", "standardize"}
    assert settings["batch_size"] == 32


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ((0, 5, "binary"), "row_count must be at least 1, got 0"),
        ((5, 0, "binary"), "encoded_size must be at least 1, got 0"),
        ((5, 5, "ranking"), "task must be one of multiclass, binary, multilabel, regression, got ranking"),
    ],
)
def test_what_no_data_set_can_be_is_refused(facts, sentence):
    with pytest.raises(InvalidRequest, match=sentence):
        DataSummary(*facts)


def test_a_setting_of_the_wrong_kind_is_refused():
    with pytest.raises(InvalidRequest, match="batch_size must be a whole number of 64 bits, got 'all'"):
        suggested_settings(SMALL, batch_size="all")
    with pytest.raises(InvalidRequest, match="did you mean batch_size"):
        training_spec(**suggested_settings(SMALL, batchsize=3))


@given(st.integers(1, 2_000_000), st.integers(1, 100_000), st.sampled_from(TASKS), st.booleans())
def test_the_settings_of_any_data_set_make_a_spec(row_count, encoded_size, task, are_pixels):
    data = DataSummary(row_count, encoded_size, task, (), are_pixels)
    settings = suggested_settings(data)
    assert settings == suggested_settings(data)
    rows = row_count - round(row_count * settings.get("validation_fraction", 0))
    assert 1 <= settings["batch_size"] <= rows
    assert step_count(settings, row_count) >= 1000
    assert training_spec(**settings).seed == 0


@given(
    st.integers(1, 100_000),
    st.fixed_dictionaries(
        {},
        optional={
            "batch_size": st.integers(-1, 10_000),
            "accumulation_steps": st.integers(-1, 100),
            "epoch_count": st.integers(-1, 1000),
            "validation_fraction": st.floats(-1, 2),
            "validation_interval_epochs": st.integers(-1, 100),
            "optimizer": st.sampled_from(["sgd", "adam", "adamw", "rmsprop", "adagrad", "lion", "unknown"]),
        },
    ),
)
def test_given_settings_are_kept_whatever_they_are(row_count, settings):
    found = suggested_settings(DataSummary(row_count, 5, "regression"), **settings)
    assert found | settings == found


@pytest.mark.parametrize("row_count", [2, 50, 700, 2500])
@pytest.mark.parametrize("task", TASKS)
def test_a_server_takes_the_settings(server, row_count, task):
    random = np.random.default_rng(row_count)
    print(f"seed {row_count}")
    rows = random.normal(size=(row_count, 3))
    class_count = {"multiclass": min(row_count, 20), "binary": 2}.get(task, 0)
    answers: dict[str, Any] = {"labels": np.arange(row_count) % class_count} if class_count else {}
    if task == "multilabel":
        answers = {"targets": random.integers(0, 2, (row_count, 2))}
    elif task == "regression":
        answers = {"targets": rows[:, :1] + random.normal(size=(row_count, 1))}
    with Client(server.address) as client:
        data = client.upload(f"suggested-{task}-{row_count}", rows, **answers)
        settings = suggested_settings(DataSummary(row_count, data.input_size, task, data.class_row_counts))
        spec = client.resolve(training_spec(train_dataset=data.name, **settings))
    assert spec.task == task
    assert spec.model.layer_sizes[0] == 3
    assert spec.model.layer_sizes[-1] == (class_count if task == "multiclass" else max(data.target_size, 1))
