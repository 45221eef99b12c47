"""``mlpd train TABLE``: what becomes of a table of one's own, from its file to the names that it predicts."""

import json

import numpy as np
import pandas as pd
import pytest
from mlpd.client import Client

from ..command_line import run

SEED = 5
QUICK = ["--epoch-count", "2", "--device", "cpu"]


@pytest.fixture
def weather(tmp_path):
    """The cells of 60 days, whose last says whether it rains; every seventh lacks one."""
    print(f"seed {SEED}")
    random = np.random.default_rng(SEED)
    rows = [("day", "sky", "heat", "share", "rain")]
    for day in range(60):
        sky, heat = random.choice(["blue", "grey"]), f"{random.normal(20, 5):.1f}"
        rows.append((f"day {day}", sky, heat if day % 7 else "", "1", "yes" if sky == "grey" else "no"))

    def write(name, columns=range(5), separator=",", decimal=".", encoding="utf-8"):
        lines = [separator.join(row[column].replace(".", decimal) for column in columns) for row in rows]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding=encoding)
        return tmp_path / name

    return write


def answer(*arguments, server):
    done = run(*arguments, "--json", server=server)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_a_test_file_needs_the_columns_of_the_inputs_and_the_target_alone(server, weather):
    table, test = weather("weather.csv"), weather("later.csv", columns=[4, 2, 1])
    flags = ["--target", "rain", "--leave-out", "day", "--weight", "share", "--test", test, *QUICK]
    done = answer("train", table, *flags, "--model-id", "weather", "--wait", server=server)
    assert done["test"]["row_count"] == 60
    with Client(server.address) as client:
        assert client.dataset("weather").row_count == 60
        assert list(client.model("weather").input_names) == ["sky", "heat"]


def test_a_table_is_read_by_the_separator_decimal_point_and_encoding_that_flags_say(server, weather):
    table = weather("other.csv", columns=[1, 2, 4], separator=" ", decimal=",", encoding="utf-16-le")
    refused = run("train", table, *QUICK, server=server)
    assert refused.returncode == 1
    flags = ["--separator", " ", "--decimal", ",", "--encoding", "utf-16-le"]
    done = answer("train", table, *QUICK, *flags, "--model-id", "other", "--wait", server=server)
    assert done["test"]["row_count"] == 12
    found = answer("predict", "other", table, *flags, server=server)
    assert len(found["labels"]) == 60


def test_a_model_of_numbers_is_scored_in_their_units(server, tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("area,price\n" + "".join(f"{area}.5,{area * 3000}.25\n" for area in range(100)))
    done = run("train", path, *QUICK, "--model-id", "prices-of-areas", server=server)
    assert (done.returncode, "mean absolute error" in done.stdout, "r2" in done.stdout) == (0, True, True)
    refused = run("predict", "prices-of-areas", path, "--top", 2, server=server)
    assert "has no classes that exclude each other" in refused.stderr


def test_categories_that_a_model_has_not_seen_are_told_where_stored_rows_are_scored(server, tmp_path):
    for name, sky in (("seen", "blue"), ("unseen", "green")):
        rows = "".join(f"{sky if row % 3 else 'grey'},{row % 2}\n" for row in range(30))
        (tmp_path / f"{name}.csv").write_text(f"sky,rain\n{rows}")
    answer("train", tmp_path / "seen.csv", *QUICK, "--model-id", "skies", "--wait", server=server)
    answer("datasets", "add", "unseen-skies", tmp_path / "unseen.csv", server=server)
    notes = answer("evaluate", "skies", "unseen-skies", server=server)["notes"]
    assert notes == ["datasets/unseen-skies has a sky that models/skies/versions/1 has not seen: 'green'"]


def test_a_table_of_the_same_name_and_other_rows_is_told(server, tmp_path):
    path = tmp_path / "namesake.csv"
    for rows, steps in ((30, "mlpd predict namesake "), (40, "mlpd predict namesake/2 ")):
        path.write_text("a,label\n" + "".join(f"{row}.5,{row % 2}\n" for row in range(rows)))
        done = run("train", path, *QUICK, server=server)
        assert (done.returncode, steps in done.stdout) == (0, True), done.stdout + done.stderr
    assert "namesake has other rows already: these are namesake-2" in done.stdout


def test_a_missing_value_that_a_model_never_saw_missing_is_told(server, tmp_path):
    table = "width,height,kind\n" + "".join(f"{i},{i % 5},{'ab'[i % 2]}\n" for i in range(40))
    (tmp_path / "filled.csv").write_text(table)
    flags = ["--epoch-count", "1", "--test-fraction", "0", "--json", "--wait"]
    trained = run("train", tmp_path / "filled.csv", *flags, server=server)
    model = json.loads(trained.stdout)["model_version"]
    (tmp_path / "rows.csv").write_text("height,width\n1,\n2,4\n,\n")
    done = run("predict", model, tmp_path / "rows.csv", server=server)
    assert f"2 rows lack width, which {model} never saw missing: they count as its median, 19.5" in done.stdout
    with Client(server.address) as client, pytest.warns(UserWarning, match="1 rows lack height, which"):
        client.predict(model, pd.DataFrame({"width": [1.0, 2.0], "height": [None, 2.0]}))


def test_a_table_with_categories_is_no_picture(server, tmp_path):
    rows = "".join(f"{value},{'ab'[value % 2]},{'yes' if value > 99 else 'no'}\n" for value in range(256))
    (tmp_path / "greys.csv").write_text(f"value,kind,bright\n{rows}")
    flags = ["--category", "kind", "--test-fraction", "0", *QUICK, "--wait", "--json"]
    done = json.loads(run("train", tmp_path / "greys.csv", *flags, server=server).stdout)
    model = done["job"]["spec"]["model"]
    assert (model["standardize_inputs"], model["input_scale"]) == (True, 1.0)
    added = run("datasets", "add", "greys-alone", tmp_path / "greys.csv", "--category", "kind", "--json", server=server)
    assert not [note for note in json.loads(added.stdout)["notes"] if "1/255" in note]
