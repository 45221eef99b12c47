"""Rows for a model, from files that differ from its table: matched by name, or told, never by place without a word."""

import json

import pytest

from ..command_line import run

ROWS = "colour,size,kind\n" + "".join(f"{'red' if i % 3 else 'blue'},{i % 7}.5,{'ab'[i % 2]}\n" for i in range(40))


@pytest.fixture(scope="module")
def model(server, tmp_path_factory):
    path = tmp_path_factory.mktemp("matched") / "matched.csv"
    path.write_text(ROWS)
    done = run("train", path, "--epoch-count", 2, "--device", "cpu", "--wait", "--json", server=server)
    return json.loads(done.stdout)["model_version"]


@pytest.fixture
def predicted(server, tmp_path, model):
    """Predict rows in a file of that name; return what came of it."""

    def predict(name, content, *flags):
        (tmp_path / name).write_text(content)
        done = run("predict", model, tmp_path / name, *flags, "--json", server=server)
        return json.loads(done.stdout)

    return predict


WANTED = "colour,size\nred,1.5\nblue,2.5\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "size,colour\n1.5,red\n2.5,blue\n"),
        ("a.csv", "sep=;\nsize;kind;colour\n1,5;a;red\n2,5;b;blue\n"),
        ("a.tsv", "kind\tsize\tcolour\tother\n\t1.5\tred\tx\n\t2.5\tblue\ty\n"),
        ("a.jsonl", '{"size": 1.5, "colour": "red"}\n{"colour": "blue", "size": 2.5}\n'),
        ("a.jsonl", '{"other": [1], "size": "1.5", "colour": "red"}\n{"colour": "blue", "size": "2.5"}\n'),
    ],
)
def test_columns_in_any_order_and_format_give_the_same_answers(predicted, name, content):
    assert predicted(name, content)["probabilities"] == predicted("b.csv", WANTED)["probabilities"]


@pytest.mark.parametrize(
    ("content", "flags", "sentence"),
    [
        ("size\n1.5\n2.5\n", [], "it lacks colour; it has size"),
        ("Colour,Size\nred,1.5\n", [], "it lacks colour, size; it has Colour, Size"),
        ("colour,size\nred,large\n", [], "a.csv, line 2, column size, must be a number, got 'large'"),
        ("colour,size\nred,true\n", [], "a.csv, line 2, column size, must be a number, got 'true'"),
        ("red,1.5\nblue,2.5\n", [], "a.csv, line 1, red,1.5, has names and numbers: say which"),
        ("red,1.5,7\nblue,2.5,8\n", ["--no-header"], "a.csv must have 2 columns, as"),
        ("1.5,red\n2.5,blue\n", ["--no-header"], "a.csv, line 1, column 2, must be a number, got 'red'"),
    ],
)
def test_rows_that_do_not_fit_by_name_are_refused(predicted, content, flags, sentence):
    assert sentence in predicted("a.csv", content, *flags)["error"]["message"]


def test_rows_without_names_are_taken_in_their_order_and_that_is_said(predicted, server, model, tmp_path):
    found = predicted("a.csv", "red,1.5\nblue,2.5\n", "--no-header")
    said = "columns are taken in their order, since a.csv has no names of columns"
    assert found["notes"].count(said) == 1
    assert found["probabilities"] == predicted("b.csv", WANTED)["probabilities"]
    (tmp_path / "c.csv").write_text("red,1.5,a\nblue,2.5,b\n")
    done = run("evaluate", model, tmp_path / "c.csv", "--no-header", "--target", "-1", "--json", server=server)
    assert said.replace("a.csv", "c.csv") in json.loads(done.stdout)["notes"]


def test_categories_that_the_model_has_not_seen_are_counted(predicted):
    notes = predicted("a.csv", "size,colour\n1.5,green\n2.5,Red\n1.5,7\n1.5,green\n")["notes"]
    assert [note for note in notes if "4 rows have a colour that" in note and "'7', 'Red', 'green'" in note]


def test_json_lines_become_a_csv(server, model, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"size": 1.5, "colour": "red"}\n{"colour": null, "size": null}\n')
    done = run("predict", model, tmp_path / "a.jsonl", "--output", tmp_path / "out.csv", server=server)
    assert done.returncode == 0
    header, *answers = (tmp_path / "out.csv").read_text().splitlines()
    assert (header, len(answers)) == ("class,probability_a,probability_b", 2)
    assert {answer.partition(",")[0] for answer in answers} <= {"a", "b"}
    for pipe, sentence in (("-", "standard input is read but once"), ("/dev/null", "got a pipe or a device")):
        assert sentence in run("predict", model, pipe, server=server).stderr
