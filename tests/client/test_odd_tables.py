"""Tables as strangers have them: read as they mean them, or refused in one sentence that says what to type."""

import gzip
import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from mlpd.client import InvalidRequest
from mlpd.client.tables import read_labelled, read_rows
from pyarrow import Codec, feather

from ..command_line import run

QUICK = ["--epoch-count", "2", "--device", "cpu"]
LIKERT = ["Strongly disagree", "Disagree", "Neutral", "Agree", "Strongly agree"]


def lines(header, row, count=60, separator=","):
    """Return the text of a table whose rows are what ``row`` gives for their numbers."""
    return "\n".join([header, *(separator.join(map(str, row(i))) for i in range(count))]) + "\n"


SEMICOLONS = lines("x;y;kind", lambda i: (f"{i},5", f"{i % 7},25", "ab"[i % 2]), separator=";")


def refusal(path, **options):
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(path, **options)
    return str(caught.value)


@pytest.fixture
def write(tmp_path):
    def write(name, content, encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return path

    return write


@pytest.mark.parametrize(
    "content",
    [
        SEMICOLONS.encode("utf-8-sig"),
        f"sep=;\r\n{SEMICOLONS}".encode(),
        f'"sep=;"\n{SEMICOLONS}'.encode(),
        f"sep=;\r\n{SEMICOLONS}".encode("utf-8-sig"),
        f"SEP=;\n{SEMICOLONS}".encode("utf-16"),
        SEMICOLONS.encode("utf-32"),
        f"sep=\t\r\n{SEMICOLONS}".replace(";", "\t").encode("utf-16"),
        SEMICOLONS.replace(";", "\t").encode("utf-16"),
    ],
)
def test_a_table_is_read_as_excel_writes_it(write, content):
    table = read_labelled(write("a.csv", content))
    assert table.input_names == ("x", "y")
    assert table.inputs[:2].tolist() == [[0.5, 0.25], [1.5, 1.25]]
    assert "numbers have a decimal comma" in table.notes


def test_lines_are_counted_with_one_that_says_the_separator(write):
    assert "a.csv, line 4, column a, must be a number" in refusal(write("a.csv", "sep=;\na;y\n1;0\nx;1\n3;1\n"))
    assert "a.csv, line 4, must have 2 cells" in refusal(write("a.csv", "sep=;\na;y\n1;0\n1\n"))
    rows = read_labelled(write("a.csv", "sep=;\n1;0\n2;1\n3;1\n"), header=False)
    assert rows.inputs.tolist() == [[1], [2], [3]]


def test_a_separator_that_is_said_wins_over_a_line_that_says_another(write):
    table = read_labelled(write("a.csv", "sep=;\na,y\n1,0\n2,1\n"), separator=",")
    assert (table.input_names, [note for note in table.notes if "separated" in note]) == (("a",), [])


def test_a_decimal_comma_after_many_whole_numbers_is_found(write):
    text = lines("x;y", lambda i: (i if i < 60 else f"{i},5", i % 2), 80, ";")
    assert read_labelled(write("a.csv", text)).inputs[60:62, 0].tolist() == [60.5, 61.5]


@pytest.mark.parametrize("cell", ["1.100", "-2.345", "999.001"])
def test_a_point_that_may_stand_between_thousands_is_not_guessed(write, cell):
    path = write("a.csv", lines("x;y", lambda i: (cell, i % 2), separator=";"))
    assert f"a.csv can hold thousands or fractions, like {cell}; say --decimal ." in refusal(path)
    assert read_labelled(path, decimal=".").inputs[0, 0] == np.float64(cell)
    assert "must be a plain number" in refusal(path, decimal=",")


@pytest.mark.parametrize("other", ["0.125", "1.25", "1234.567", ".5"])
def test_a_point_is_one_where_a_number_can_be_no_thousand(write, other):
    text = lines("x;y", lambda i: (other if i == 30 else "1.100", i % 2), separator=";")
    assert read_labelled(write("a.csv", text)).inputs[0, 0] == 1.1


@pytest.mark.parametrize(
    "cell",
    ["USD 1.50", "1.50 EUR", "(12.5)", "($3)", "₹1,10,100", "1 234,50", "2.5%", "$1,200.50", "12 kr", "1'100"],
)
def test_amounts_become_no_categories_unasked(write, cell):
    path = write("a.tsv", lines("amount\ty", lambda i: (cell, i % 2), separator="\t"))
    said = refusal(path)
    assert "a.tsv, line 2, column amount, must be a plain number" in said
    assert "take away signs of money, percent and thousands" in said
    assert read_labelled(path, category=["amount"]).columns[0].kind == "category"


def test_infinities_among_texts_become_no_categories(write):
    text = lines("w,y", lambda i: ("Inf" if i % 3 else i, i % 2))
    assert "column w, must be a number, got 'Inf'" in refusal(write("a.csv", text))


def test_the_missing_value_of_excel_is_one(write):
    table = read_labelled(write("a.csv", lines("w,y", lambda i: ("#N/A" if i % 3 else i, i % 2))))
    assert (table.columns[0].kind, int(np.isnan(table.inputs).sum())) == ("number", 40)


def test_what_stands_above_a_header_is_told(write):
    rows = lines("a,b,y", lambda i: (i, i % 3, i % 2))
    said = refusal(write("a.csv", f"# produced by X\n{rows}"))
    assert "a.csv, line 1, must have 3 cells as the lines after it, got 1; delete it if it is a title" in said


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.csv", gzip.compress(b"a,b\n", mtime=0), "a.csv must be text, got gzip: name it .csv.gz"),
        ("a.csv", b"PK\x03\x04rest", "a zip archive or a workbook: unpack it, or save it as .csv"),
        ("a.csv", b"PAR1rest", "got Parquet: name it .parquet"),
        ("a.csv", "a,y\n1,0\n".encode("utf-16-le"), "if it is UTF-16 without its mark, say --encoding utf-16-le"),
        ("a.csv", "a,y\n1,0\n".encode("utf-16-be"), "if it is UTF-16 without its mark, say --encoding utf-16-be"),
        ("a.csv.gz", b"a,y\n1,0\n", "it must be gzip, all of it: make it again, or without .gz if it is text"),
        ("a.csv.gz", gzip.compress(b"a,y\n1,0\n" * 999, mtime=0)[:-9], "it must be gzip, all of it"),
        ("a.xlsx", b"PK\x03\x04", "got .xlsx; save it as .csv there"),
        ("a.zip", b"PK\x03\x04", "got .zip; unpack it"),
        ("a.json", b"[]", "got .json; write an object a line, as .jsonl"),
        ("a", b"a,y\n1,0\n", "got no suffix; rename it to what it holds"),
        ("a.csv", b"a,y\n", "a.csv must hold at least one row, got none below its header"),
        ("a.csv", b"", "a.csv must hold at least one row, got none"),
        ("a.csv", b"\xef\xbb\xbf\n\n", "a.csv must hold at least one row, got none"),
    ],
)
def test_other_files_are_told_from_tables(write, name, content, sentence):
    assert sentence in refusal(write(name, content))


def test_a_line_of_many_megabytes_is_refused(write):
    for text, line in (("1," * 3_000_000, 1), ("a,b,y\n1," + "x" * 6_000_000 + ",1\n", 2)):
        assert f"a.csv, line {line}, must end within the first 4,194,304 characters of the file" in refusal(
            write("a.csv", text)
        )


def test_a_row_longer_than_the_first_look_is_read(write):
    names = [f"t{i}" for i in range(12)]
    text = lines(f"{','.join(names)},a,y", lambda i: (*["x" * 100_000] * 12, i, i % 2), count=2)
    assert read_labelled(write("a.csv", text), leave_out=names).inputs.tolist() == [[0], [1]]


def test_paths_that_are_no_files_are_refused(tmp_path):
    pipe, loop, folder = tmp_path / "pipe.csv", tmp_path / "loop.csv", tmp_path / "folder.csv"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    folder.mkdir()
    assert "pipe.csv must be a file, got a pipe or a device; write its content to a file first" in refusal(pipe)
    assert "Too many levels of symbolic links" in refusal(loop)
    assert "folder.csv must hold folders of pictures, one a class, got none" in refusal(folder)
    assert "standard input is read but once; write it to a file first" in refusal("-")
    for suffix in ("npz", "npy", "parquet", "jsonl", "idx"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        assert "got a pipe or a device" in refusal(tmp_path / f"pipe.{suffix}")
        assert "there is no such file" in refusal(tmp_path / f"nothing.{suffix}")


@pytest.mark.parametrize("read", [read_labelled, read_rows])
def test_a_file_that_grows_while_it_is_read_is_refused(write, read):
    path = write("a.csv", lines("a,y", lambda i: (i, i % 2)))

    def grow(done, size):
        with path.open("a") as file:
            file.write("7,1\n")

    with pytest.raises(InvalidRequest, match=r"a\.csv must stay as it is while it is read, and was changed"):
        read(path, on_progress=grow)


def test_a_survey_is_read_without_a_word_of_its_own(write):
    rows = lines(
        "id,mood,note,satisfied",
        lambda i: (i, LIKERT[i % 5], f'"well, {i} said ""hi""\nand left"', "Yes" if i % 3 else "No"),
    )
    table = read_labelled(write("survey.csv", rows))
    assert (table.input_names, table.columns[1].categories) == (("id", "mood"), tuple(sorted(LIKERT)))
    assert (table.class_names, table.left_out) == (("No", "Yes"), ("note",))


def test_names_with_spaces_are_quoted_where_they_are_to_be_typed(write):
    table = read_labelled(write("a.csv", lines("my note,x,y", lambda i: (f"text {i}", i, i % 2))))
    assert table.warnings == ("my note is left out: 60 different texts in 60 rows; keep it with --category 'my note'",)
    text = lines("the sum,y", lambda i: ("5 EUR", i % 2))
    assert "say --category 'the sum'; if it is no input, --leave-out 'the sum'" in refusal(write("b.csv", text))


def test_a_single_class_is_refused_before_anything_is_stored(server, write):
    path = write("onlydogs.csv", lines("a,b,y", lambda i: (i, i % 3, "dog")))
    done = run("train", path, *QUICK, server=server)
    assert (done.returncode, done.stderr) == (
        1,
        "mlpd: onlydogs.csv, column y, must have at least two classes, got 'dog' alone; --target takes another\n",
    )
    assert "onlydogs" not in run("datasets", "list", server=server).stdout
    table = read_labelled(write("flat.csv", lines("a,y", lambda i: (i, "1.5"))))
    assert "always the same, so there is nothing to learn: y" in table.notes


def test_progress_is_told_for_every_kind_of_file(tmp_path):
    frame = pd.DataFrame({"a": np.arange(100_000) % 1000 / 8, "y": np.arange(100_000) % 2})
    arrays = {"inputs": frame[["a"]].to_numpy(), "labels": frame["y"].to_numpy()}
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "a.csv.gz", index=False)
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=25_000)
    feather.write_feather(frame, tmp_path / "a.feather")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    np.savez(tmp_path / "a.npz", **arrays)
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.feather", "a.jsonl", "a.npz"):
        told, on_progress = told_of()
        table = read_labelled(tmp_path / name, on_progress=on_progress)
        assert len(table.inputs) == len(frame)
        check_told(told, tmp_path / name)
    np.save(tmp_path / "a.npy", arrays["inputs"])
    told, on_progress = told_of()
    assert np.array_equal(read_rows(tmp_path / "a.npy", on_progress=on_progress).inputs, arrays["inputs"])
    check_told(told, tmp_path / "a.npy")


def told_of():
    """Return a list, and what appends to it how far a file is read, and its size."""
    told = []
    return told, lambda done, size: told.append((done, size))


def check_told(told, path):
    assert len(told) > 1, path
    assert {size for _, size in told} == {path.stat().st_size}, path
    assert max(done for done, _ in told) == path.stat().st_size, path


def test_an_archive_under_the_name_of_a_table_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
        archive.writestr("a.csv", "a,y\n1,0\n")
    assert "unpack it" in refusal(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("suffix", "compression"), [(".jsonl.gz", "gzip"), (".JSONL.GZ", "gzip"), (".ndjson.zst", "zstd")]
)
def test_json_lines_are_read_however_they_are_compressed(write, suffix, compression):
    text = "".join(f'{{"x": {i}, "kind": "{"ab"[i % 2]}"}}\n' for i in range(20)).encode()
    content = Codec(compression).compress(text, asbytes=True) if compression == "zstd" else gzip.compress(text)
    table = read_labelled(write(f"rows{suffix}", content), target="kind")
    assert table.class_names == ("a", "b")
    np.testing.assert_array_equal(table.inputs[:, 0], np.arange(20))


def test_what_is_to_be_typed_can_be_typed(write):
    table = read_labelled(write("a.csv", lines("row id,zip code,x,kind", lambda i: (i, f"0{i}", i % 7, "ab"[i % 2]))))
    said = " ".join((*table.notes, *table.warnings))
    assert "--leave-out 'row id'" in said
    assert "--category 'zip code'" in said
