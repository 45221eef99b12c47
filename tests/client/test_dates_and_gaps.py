"""Dates in an order that is said, and rows that lack what is to be learnt."""

import json

import numpy as np
import pandas as pd
import pytest
from mlpd.client import Client, InvalidRequest
from mlpd.client.tables import Column, read_labelled, read_rows

from ..command_line import run

QUICK = ["--epoch-count", "2", "--device", "cpu", "--json", "--wait"]
DAY = (np.datetime64("2026-11-27") - np.datetime64("1970-01-01")).astype(int)


def days(text, order):
    frame = pd.DataFrame({"day": [text] * 2, "x": [1, 2], "y": [0, 1]})
    return read_labelled(frame, date_order=order).inputs[0, 0]


@pytest.fixture
def csv(tmp_path):
    def write(text, name="a.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize(
    ("text", "order", "expected"),
    [
        ("27.11.2026", "dmy", DAY),
        ("27/11/2026 06:00", "dmy", DAY + 0.25),
        ("27-Nov-2026", "dmy", DAY),
        ("27 November 2026 18:00:00", "dmy", DAY + 0.75),
        ("11/27/2026", "mdy", DAY),
        ("11/27/2026, 6:00 PM", "mdy", DAY + 0.75),
        ("11/27/2026 12:00 am", "mdy", DAY),
        ("Nov 27, 2026", "mdy", DAY),
        ("November 27 2026 12:00 PM", "mdy", DAY + 0.5),
        ("2026/11/27", "ymd", DAY),
        ("2026.11.27 08:00+02:00", "ymd", DAY + 0.25),
        ("2026-11-27", "dmy", DAY),
        ("2026-11-27T06:00Z", "mdy", DAY + 0.25),
    ],
)
def test_dates_are_read_in_the_order_that_is_said(text, order, expected):
    assert days(text, order) == expected


@pytest.mark.parametrize(
    ("text", "order"),
    [("31.02.2026", "dmy"), ("27.11.26", "dmy"), ("11/27/2026", "dmy"), ("27/11-2026", "dmy"), ("Nov 27, 2026", "dmy"),
     ("27 Nov 2026", "mdy"), ("27.11.2026 13:00 PM", "dmy"), ("27.11.2026 0:10 am", "dmy"), ("27.11.2026 24:10", "dmy")],
)  # fmt: skip
def test_a_date_that_is_none_in_its_order_is_refused(text, order):
    rows = pd.DataFrame({"day": [text]})
    with pytest.raises(InvalidRequest, match=f"must be a date in the order {order}, like .* four digits of its year"):
        read_rows(rows, [Column("day", "date")], "the model", date_order=order)


@pytest.mark.parametrize(
    ("cells", "way"),
    [
        (["03/04/2026", "13/04/2026"], "if its dates are in the order dmy, say --date-order dmy (date_order='dmy')"),
        (["03/04/2026", "04/13/2026"], "if its dates are in the order mdy, say --date-order mdy (date_order='mdy')"),
        (["3 Apr 2026", "13 Apr 2026"], "if its dates are in the order dmy, say --date-order dmy"),
        (["2026/4/3", "2026/4/13"], "if its dates are in the order ymd, say --date-order ymd"),
        (["03/04/2026", "04/03/2026"], "day or month can come first: say which, with --date-order dmy or mdy"),
        (["13/04/2026", "04/13/2026"], "if they are dates, write all as ISO dates"),
        (["3.4.26", "13.4.26"], "if they are dates, write all as ISO dates"),
    ],
)
def test_an_order_is_never_taken_unsaid_and_a_refusal_says_which_there_can_be(csv, cells, way):
    path = csv("day,x,y\n" + "".join(f"{cells[i % 2]},{i},{i % 2}\n" for i in range(20)))
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(path)
    assert "a.csv, line 2, column day, must be an ISO date" in str(caught.value)
    assert way in str(caught.value)


def test_an_order_there_is_not_is_refused(csv):
    with pytest.raises(InvalidRequest, match="date_order must be one of dmy, mdy, ymd, got 'dym'"):
        read_labelled(csv("day,y\n1.2.2026,0\n2.2.2026,1\n"), date_order="dym")


def test_a_model_of_dates_is_used_by_the_order_of_each_file(server, csv):
    path = csv("day,x,seen\n" + "".join(f"{i % 28 + 1}/01/2026,{i},{i % 2}\n" for i in range(40)), "dated.csv")
    assert run("train", path, *QUICK, server=server).returncode == 1
    assert run("train", path, *QUICK, "--date-order", "dmy", server=server).returncode == 0
    refused = run("predict", "dated", path, server=server)
    assert "line 2, column day, must be an ISO date" in refused.stderr
    assert "say which, with --date-order dmy or mdy" in refused.stderr
    other = csv("x,day\n" + "".join(f"{i},2026-01-{i % 28 + 1:02}\n" for i in range(40)))
    answers = [
        json.loads(run("predict", "dated", *flags, "--json", server=server).stdout)["probabilities"]
        for flags in ([path, "--date-order", "dmy"], [other])
    ]
    assert answers[0] == answers[1]


GAPS = "id,colour,size,kind\n" + "".join(
    f"{i},{'red' if i % 10 else 'only here'},{i % 7},{('', 'a', 'b')[min(i % 10, 1) * (i % 2 + 1)]}\n"
    for i in range(50)
)


def test_rows_without_a_target_are_refused_and_the_way_is_told(csv):
    with pytest.raises(InvalidRequest) as caught:
        read_labelled(csv(GAPS))
    assert str(caught.value) == (
        "a.csv, line 2, column kind, must have a value in every row, got none; 5 of 50 rows lack it; "
        "--drop-unlabelled leaves them out (drop_unlabelled=True)"
    )


def test_dropping_rows_gives_the_table_without_them(csv):
    dropped = read_labelled(csv(GAPS), drop_unlabelled=True)
    plain = read_labelled(csv("\n".join(line for line in GAPS.splitlines() if not line.endswith(",")) + "\n", "b.csv"))
    assert np.array_equal(dropped.inputs, plain.inputs)
    assert dropped.labels is not None
    assert plain.labels is not None
    assert np.array_equal(dropped.labels, plain.labels)
    assert (dropped.columns, dropped.class_names) == (plain.columns, plain.class_names)
    assert "5 of 50 rows are left out, as they lack kind" in dropped.notes
    assert "5 of 50 rows" not in " ".join(read_labelled(csv("a,y\n1,0\n2,1\n"), drop_unlabelled=True).notes)


def test_errors_name_the_lines_of_the_file_whatever_is_dropped(csv):
    path = csv("a,y\n1,0\n2,\n3,1\nx,0\n5,1\n")
    with pytest.raises(InvalidRequest, match=r"a\.csv, line 5, column a, must be a number, got 'x'"):
        read_labelled(path, drop_unlabelled=True)


def test_rows_that_lack_any_of_several_targets_are_dropped(csv):
    table = read_labelled(csv("a,y,z\n1,0.5,1\n2,,1\n3,1,\n4,2,2\n"), target=["y", "z"], drop_unlabelled=True)
    assert table.targets is not None
    assert (table.inputs.tolist(), table.targets.tolist()) == ([[1], [4]], [[0.5, 1], [2, 2]])
    assert "2 of 4 rows are left out, as they lack y, z" in table.notes


def test_a_table_without_any_target_is_refused(csv):
    with pytest.raises(InvalidRequest, match="must hold a row that has y, got none of 2"):
        read_labelled(csv("a,y\n1,\n2,\n"), drop_unlabelled=True)
    with pytest.raises(InvalidRequest, match="must hold a row that has y, z, got none of 2"):
        read_labelled(csv("a,y,z\n1,,2\n2,1,\n"), target=["y", "z"], drop_unlabelled=True)


def test_frames_and_commands_drop_rows_too(server, csv):
    frame = pd.DataFrame({"a": range(20), "y": [None if i == 3 else "uv"[i % 2] for i in range(20)]})
    with Client(server.address) as client:
        assert client.upload("gappy-frame", frame, drop_unlabelled=True).row_count == 19
    path = csv(GAPS, "gappy.csv")
    done = json.loads(run("train", path, "--drop-unlabelled", *QUICK, server=server).stdout)
    assert "5 of 50 rows are left out, as they lack kind" in done["notes"]
    assert run("evaluate", "gappy", path, server=server).returncode == 1
    scored = json.loads(run("evaluate", "gappy", path, "--drop-unlabelled", "--json", server=server).stdout)
    assert scored["row_count"] == 45
    refused = run("evaluate", "gappy", "gappy", "--drop-unlabelled", server=server)
    assert "drop_unlabelled must be unset for a stored data set" in refused.stderr
