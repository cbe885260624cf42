"""Files of rows → records: the right line, the right bytes, and what is wrong with the broken ones."""

import io
import sys
import types

import pytest

from metier.errors import DataError
from metier.sources.records import BadRecord, read_csv, read_hub, read_json, read_jsonl


def read_lines(text):
    return read_jsonl(io.BytesIO(text.encode()))[0]


def test_jsonl_rows_know_their_line_and_their_bytes_with_the_newline():
    records = read_lines('\ufeff{"a": "é"}\n\n{"a": 1}\r\n{"a": 2}')
    assert [(r.line, r.n_bytes) for r in records] == [(1, 15), (3, 10), (4, 8)]
    assert records[0].fields == {"a": "é"}


def test_a_line_separator_inside_a_string_does_not_end_a_row():
    assert len(read_lines('{"a": "x\u2028y"}\n')) == 1


@pytest.mark.parametrize(
    ("line", "why"),
    [("{", "is not JSON"), ("[1]", "is not an object"), ('"x"', "is not an object"), ("[" * 100_000, "is not JSON")],
)
def test_a_jsonl_line_that_is_no_object_is_a_bad_record_and_the_next_is_read(line, why):
    bad, good = read_lines(line + '\n{"a": 1}\n')
    assert isinstance(bad, BadRecord)
    assert bad.why.startswith(why)
    assert bad.line == 1
    assert good.line == 2


def test_json_holds_a_list_or_an_object_with_one_list_and_rows_know_their_line():
    listed = '[\n  {"a": 1},\n  {"a": 2}\n]\n'
    held = '{"version": 1, "empty": [], "numbers": [1, 2],\n "data": [{"a": 1},\n {"a": 2}]}'
    assert [(r.line, r.n_bytes, r.fields) for r in read_json(listed, "a.json")] == [(2, 8, {"a": 1}), (3, 8, {"a": 2})]
    assert [(r.line, r.fields) for r in read_json(held, "a.json")] == [(2, {"a": 1}), (3, {"a": 2})]


def test_json_rows_that_share_a_line_are_numbered_so_that_no_two_have_the_same_id():
    assert [r.line for r in read_json('[{"a": 1}, {"a": 2}]', "a.json")] == [1, 2]


def test_an_item_of_a_json_list_that_is_no_object_is_a_bad_record():
    good, bad = read_json('[{"a": 1},\n"x"]', "a.json")
    assert good.line == 1
    assert (bad.line, bad.why) == (2, "is not an object with fields (str)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}\n {"a": 2}]', "a.json:2 is not JSON"),
        ('[{"a": 1},]', "a.json:1 is not JSON"),
        ('[{"a": 1}', "a.json:1 is not JSON"),
        ('[{"a": 1}] x', "a.json:1 is not JSON"),
        ('{"a": [{"b": 1}], "c": [{"d": 1}]}', r"a.json:1 holds several lists of objects \(a, c\)"),
        ('{"a": 1}', "a.json:1 holds no list of objects"),
        ("3", "a.json:1 holds no list of objects"),
    ],
)
def test_json_that_holds_no_rows_is_an_error_with_its_line(text, words):
    with pytest.raises(DataError, match=words):
        read_json(text, "a.json")


def test_csv_rows_know_their_first_line_when_cells_hold_newlines():
    text = 'q,a\n"one\ntwo",x\n\nthree,"y ""z"""\n'
    records = read_csv(text, "a.csv", ",")
    assert [(r.line, r.n_bytes, r.fields) for r in records] == [
        (2, 12, {"q": "one\ntwo", "a": "x"}),
        (5, 16, {"q": "three", "a": 'y "z"'}),
    ]


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("one,two,three\n", "has 3 columns where the header has 2"),
        ("one\n", "has 1 columns where the header has 2"),
        ('"one"x,two\n', "is not a row"),
    ],
)
def test_a_broken_csv_line_is_bad_and_its_neighbours_are_read(broken, why):
    first, bad, last = read_csv("q,a\nx,y\n" + broken + "z,w\n", "a.csv", ",")
    assert (first.line, last.line) == (2, 4)
    assert isinstance(bad, BadRecord)
    assert (bad.line, bad.n_bytes) == (3, len(broken))
    assert bad.why.startswith(why)


def test_a_quote_that_is_never_closed_spoils_its_own_line_only():
    records = read_csv('q,a\nx,"y\nz,w\n', "a.csv", ",")
    assert [(r.line, isinstance(r, BadRecord)) for r in records] == [(2, True), (3, False)]
    assert records[0].why == "has a quote that is never closed"


def test_a_cell_may_be_large_and_semicolons_may_separate():
    assert len(read_csv(f"text\n{'x' * 300_000}\n", "a.csv", ",")[0].fields["text"]) == 300_000
    assert read_csv("q;a\nx, y;z\n", "a.csv", ",")[0].fields == {"q": "x, y", "a": "z"}


def test_columns_of_the_same_name_are_refused():
    with pytest.raises(DataError, match=r"a.csv:1 has several columns called 'a'"):
        read_csv("a,a\n1,2\n", "a.csv", ",")


def fake_hub(monkeypatch, load_dataset):
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))


def test_a_hub_data_set_gives_its_train_split_and_counts_the_bytes_of_its_values(monkeypatch):
    rows = [{"question": "é", "answer": "b", "n": 12, "list": ["xy"], "none": None}]
    fake_hub(monkeypatch, {"owner/name": {"train": rows, "test": []}}.get)
    assert [(r.line, r.n_bytes) for r in read_hub("owner/name")] == [(1, 2 + 1 + 2 + 2)]


def test_a_hub_that_does_not_answer_is_one_sentence(monkeypatch):
    def refuse(name):
        raise ConnectionError(f"Couldn't reach {name}\nlong trace")

    fake_hub(monkeypatch, refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        DataError, match=r"HF_HUB_OFFLINE is set\): Couldn't reach owner/name; check the name"
    ) as caught:
        read_hub("owner/name")
    assert "\n" not in str(caught.value)


def test_the_hub_needs_an_extra_and_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install metier\[hub\]"):
        read_hub("owner/name")
