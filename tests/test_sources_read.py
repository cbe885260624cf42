"""The corpus: files found, bad input refused with file, line and remedy, duplicates gone, documents joined."""

import json
import subprocess
import sys

import pyarrow
import pyarrow.parquet
import pytest

from metier.errors import DataError
from metier.sources.read import ReadOptions, read_corpus

ROW = {"question": "Why is the sky blue?", "answer": "Because of scattering."}
TEXT = "A plain text that is long enough to be learned.\n"


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def qa(number, **more):
    return {"question": f"Question {number}?", "answer": f"Answer {number}.", **more}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1 fits no format .* body; say which to learn with --question FIELD"),
        ("a.jsonl", b"", r"a\.jsonl:1 is empty: give a file with text in it"),
        ("a.txt", b"\n \n", r"a\.txt:1 is empty: give a file"),
        ("a.csv", b"question,answer\n", r"a\.csv:1 is empty: give a file"),
        ("a.jsonl", b"\x89PNG\n\x00\x00", r"a\.jsonl is binary, not text \(line 1\): save it as UTF-8"),
        ("a.jsonl", b"PK\x03\x04\n\x00\x00", r"a\.jsonl is binary, not text \(line 1\): save it as UTF-8"),
        (
            "a.jsonl",
            b'{"question": "a", "answer": "b"}\n{"question": "a", "answer": null}\n',
            r"a\.jsonl:2 has a null answer",
        ),
        ("a.jsonl", b'{"question": "a", "answer": "b"}\n{"question": \n', r"a\.jsonl:2 is not JSON"),
        ("a.csv", b"question,answer\na,b\nc,d,e\n", r"a\.csv:3 has 3 columns where the header has 2: mend the row"),
        ("a.csv", b'question,answer\na,b\nc,"d\n', r"a\.csv:3 has a quote that is never closed: mend the row"),
        ("a.jsonl", b"{\n[\n", r"a\.jsonl:1 is not JSON .*: mend the row"),
        ("a.parquet", b"PAR1 not really", r"a\.parquet:1 is not a parquet file that can be read"),
        ("a.json", b'{"a": \n', r"a\.json:2 is not JSON .*: mend the file"),
        ("a.pdf", b"%PDF", r"a\.pdf is damaged: no PDF can be read from it: get it again"),
        ("a.zip", b"PK", r"a\.zip is damaged: no zip archive can be read from it: get it again"),
        ("a.png", b"\x89PNG", r"a\.png is a kind of file that is not read: give \.txt"),
    ],
)
def test_bad_input_is_refused_with_file_line_and_remedy(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_corpus([str(tmp_path / name)])


@pytest.mark.parametrize(
    "name",
    ["nowhere.jsonl", "", "no such thing", "tests/absent", "pack:nowhere"],
    ids=["file", "empty", "words", "local", "pack"],
)
def test_a_name_that_is_nothing_is_refused_without_asking_the_hub(tmp_path, monkeypatch, name):
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"does not exist: give a file|There is no pack called 'nowhere': choose from"):
        read_corpus([name])


def test_bad_rows_are_counted_and_listed_when_they_are_to_be_skipped(tmp_path):
    path = tmp_path / "a.jsonl"
    bad = ["{", '{"question": "x", "answer": ""}', '{"question": "x"}']
    path.write_text("\n".join([json.dumps(ROW), *bad]), encoding="utf-8")
    corpus = read_corpus([str(path)], ReadOptions(skip_bad_rows=True))
    account = corpus.ledger.as_json()
    assert [example.id for example in corpus.examples] == ["a.jsonl:1"]
    assert {bucket: n for bucket, n in account["rows"].items() if n} == {"total": 4, "read": 1, "rejected": 3}
    assert account["bytes"]["rejected"] == len("\n".join(bad))
    assert [entry["where"] for entry in account["rejected"]] == ["a.jsonl:2", "a.jsonl:3", "a.jsonl:4"]
    assert account["rejected"][1]["why"] == "has an empty answer"


BINARY = bytes(range(1, 9)) * 4


def test_a_bad_file_stops_a_run_only_when_it_was_named(tmp_path):
    write_rows(tmp_path / "a.jsonl", [ROW])
    (tmp_path / "b.txt").write_bytes(BINARY)
    (tmp_path / "c.jsonl").write_text(json.dumps(ROW | {"answer": "Another one."}) + "\n{\n")
    corpus = read_corpus([str(tmp_path)])
    account = corpus.ledger.as_json()
    assert [(file["path"], file["status"]) for file in account["files"]] == [
        ("a.jsonl", "ok"),
        ("b.txt", "rejected"),
        ("c.jsonl", "partial"),
    ]
    assert account["files"][2]["reason"] == "1 of 2 rows cannot be read"
    assert account["bytes"]["rejected"] == len(BINARY) + len("{\n")
    for name in ("b.txt", "c.jsonl"):
        named = [str(tmp_path / "a.jsonl"), str(tmp_path / name)]
        with pytest.raises(DataError, match=name):
            read_corpus(named)
        assert len(read_corpus(named, ReadOptions(skip_bad_rows=True)).files) == 2


def test_every_file_says_how_many_documents_and_characters_it_gave(tmp_path):
    write_rows(tmp_path / "a.jsonl", [ROW, ROW])
    (tmp_path / "b.txt").write_text(TEXT)
    files = read_corpus([str(tmp_path)]).files
    row = len(ROW["question"]) + len(ROW["answer"])
    assert [(file.documents, file.characters) for file in files] == [(2, 2 * row), (1, len(TEXT.strip()))]


def test_the_only_file_is_not_skipped_but_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(BINARY)
    with pytest.raises(DataError, match=r"^[^ ]*a\.txt is binary"):
        read_corpus([str(tmp_path / "a.txt")], ReadOptions(skip_bad_rows=True))


def test_a_table_that_is_no_rows_to_learn_is_a_text_unless_its_fields_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("Team,Location\nBlues,STL\nFlyers,PHI,1\nLeafs,TOR\n")
    corpus = read_corpus([str(tmp_path / "a.csv")])
    assert corpus.examples[0].text == "Team,Location\nBlues,STL\nFlyers,PHI,1\nLeafs,TOR"
    assert "name them to learn rows" in corpus.files[0].reason
    assert corpus.ledger.as_json()["bytes"]["total"] == (tmp_path / "a.csv").stat().st_size
    with pytest.raises(DataError, match=r"a\.csv:3 has 3 columns where the header has 2"):
        read_corpus([str(tmp_path / "a.csv")], ReadOptions({"question": "Team", "answer": "Location"}))


def test_when_nothing_is_left_the_reason_is_given(tmp_path):
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError, match=r"nothing is left to learn \(rows: 1 too short\)"):
        read_corpus([str(tmp_path / "a.txt")])


def test_a_folder_is_read_in_order_without_hidden_files_and_lists_what_it_leaves_out(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.txt").write_text(TEXT * 2)
    (tmp_path / ".hidden.txt").write_text(TEXT * 3)
    (tmp_path / "b" / "two.md").write_text(TEXT + "two")
    (tmp_path / "one.txt").write_text(TEXT + "one")
    (tmp_path / "README.md").write_text(TEXT + "readme")
    (tmp_path / "image.png").write_bytes(b"12345")
    (tmp_path / "empty.txt").write_bytes(b"")
    corpus = read_corpus([str(tmp_path)])
    assert [(example.id, example.group) for example in corpus.examples] == [
        ("README.md", ""),
        ("one.txt", ""),
        ("b/two.md", "b"),
    ]
    assert {(file.path, file.status, file.reason) for file in corpus.files if file.status != "ok"} == {
        ("image.png", "unsupported", "is a kind of file that is not read (.png)"),
        ("empty.txt", "empty", "holds no text"),
    }
    assert corpus.ledger.as_json()["bytes"]["rejected"] == 5
    assert [(found.source, found.rows) for found in corpus.formats] == [("3 text files", 3)]


def test_beside_rows_a_readme_or_a_licence_describes_the_data_and_is_not_learned(tmp_path):
    write_rows(tmp_path / "a.jsonl", [ROW])
    for name in ("README.md", "LICENSE", "notice.txt"):
        (tmp_path / name).write_text(TEXT)
    (tmp_path / "readmission.txt").write_text(TEXT)
    corpus = read_corpus([str(tmp_path)])
    assert {file.path: file.reason for file in corpus.files if file.status == "rejected"} == dict.fromkeys(
        ("README.md", "LICENSE", "notice.txt"), "describes the data"
    )
    assert "readmission.txt" in {example.id for example in corpus.examples}


def test_a_file_named_twice_is_read_once_and_files_of_one_name_keep_their_paths(tmp_path):
    (tmp_path / "b").mkdir()
    one, two = write_rows(tmp_path / "a.jsonl", [qa(1)]), write_rows(tmp_path / "b" / "a.jsonl", [qa(2)])
    corpus = read_corpus([one, two, one])
    assert [example.id for example in corpus.examples] == [f"{one}:1", f"{two}:1"]


def test_what_was_detected_can_be_shown_with_three_rows(tmp_path):
    (found,) = read_corpus(
        [write_rows(tmp_path / "a.jsonl", [qa(n, topic="t") for n in range(5)])], ReadOptions({"document": "topic"})
    ).formats
    assert (found.source, found.format, found.rows) == ("a.jsonl", "question/answer", 5)
    assert found.fields == {"question": "question", "answer": "answer", "document": "topic"}
    assert [example.messages[0].content for example in found.shown] == ["Question 0?", "Question 1?", "Question 2?"]


def test_a_part_that_does_not_exist_cannot_be_named(tmp_path):
    with pytest.raises(DataError, match="'reply' is no part of a row that can be named: name answer"):
        read_corpus([str(tmp_path)], ReadOptions({"reply": "x"}))


def test_the_first_of_exact_duplicates_is_kept_whatever_the_white_space(tmp_path):
    rows = [
        qa(1),
        {"question": " Question  1?", "answer": "Answer\n1."},
        qa(2),
        {"question": "Question 1?", "answer": "Other."},
        {"question": "Another?", "answer": "Other."},
    ]
    corpus = read_corpus([write_rows(tmp_path / "a.jsonl", rows)])
    assert [example.line for example in corpus.examples] == [1, 3, 4, 5]
    assert corpus.ledger.as_json()["rows"]["duplicate"] == 1


def test_short_plain_texts_are_left_out_and_short_answers_are_not(tmp_path):
    write_rows(tmp_path / "a.jsonl", [{"text": "x" * 19}, {"text": "x" * 20}, {"text": ""}])
    corpus = read_corpus([str(tmp_path / "a.jsonl")])
    assert [example.line for example in corpus.examples] == [2]
    assert corpus.ledger.as_json()["rows"]["too_short"] == 2
    assert corpus.ledger.as_json()["bytes"]["too_short"] == 19
    assert len(read_corpus([write_rows(tmp_path / "b.jsonl", [{"question": "2 + 2?", "answer": "4"}])]).examples) == 1


def test_rows_without_a_document_stand_for_themselves_and_same_questions_share_one(tmp_path):
    rows = [
        qa(1),
        qa(2),
        {"question": "Question  1?", "answer": "Another."},
        qa(4, document="D"),
        {**qa(4), "answer": "Third."},
    ]
    corpus = read_corpus([write_rows(tmp_path / "a.jsonl", rows)])
    assert [example.document for example in corpus.examples] == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:1", "D", "D"]


def test_documents_joined_through_a_third_are_one(tmp_path):
    rows = [
        qa(1, document="A"),
        qa(2, document="B"),
        {**qa(1, document="C"), "answer": "x"},
        {**qa(2, document="C"), "answer": "y"},
    ]
    corpus = read_corpus([write_rows(tmp_path / "a.jsonl", rows)])
    assert {example.document for example in corpus.examples} == {"A"}


def test_questions_about_one_passage_share_a_document(tmp_path):
    corpus = read_corpus([write_rows(tmp_path / "a.jsonl", [qa(n, context=f"Passage {n // 2}.") for n in range(4)])])
    assert [example.document for example in corpus.examples] == ["a.jsonl:1", "a.jsonl:1", "a.jsonl:3", "a.jsonl:3"]


def test_a_standing_instruction_does_not_make_one_document_of_everything(tmp_path):
    rows = [{"prompt": "Write a note.", "completion": f"Note {n}."} for n in range(30)]
    assert len({example.document for example in read_corpus([write_rows(tmp_path / "a.jsonl", rows)]).examples}) == 30


def test_rows_are_grouped_by_file_only_where_there_are_several(tmp_path):
    one, two = write_rows(tmp_path / "a.jsonl", [qa(1)]), write_rows(tmp_path / "b.jsonl", [qa(2), qa(3, category="c")])
    assert [example.group for example in read_corpus([one]).examples] == [""]
    assert [example.group for example in read_corpus([one, two]).examples] == ["a.jsonl", "b.jsonl", "c"]


def test_utf_16_and_byte_order_marks_are_read(tmp_path):
    line = json.dumps({"question": "Où ?", "answer": "Là."}, ensure_ascii=False)
    for number, data in enumerate(
        (line.encode("utf-8-sig"), line.encode("utf-16"), b"\xfe\xff" + line.encode("utf-16-be"))
    ):
        (tmp_path / f"{number}.jsonl").write_bytes(data)
        corpus = read_corpus([str(tmp_path / f"{number}.jsonl")])
        assert corpus.examples[0].messages[0].content == "Où ?"
        assert corpus.ledger.as_json()["bytes"]["total"] == len(line.encode()) + 3


ROWS = [
    {"question": f'Où est "{n}" 😀?', "answer": f"Là,\nau n° {n}.  \nFin.", "unused": [n, {"x": "y"}]} for n in range(4)
]


def write_csv(path, delimiter):
    cells = [[row["question"], row["answer"], "unused"] for row in ROWS]
    quoted = [delimiter.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells]
    path.write_text(
        "\r\n".join([delimiter.join(("question", "answer", "rest")), *quoted, "", ""]), encoding="utf-8", newline=""
    )


WRITERS = {
    "a.jsonl": lambda path: path.write_text("\ufeff\n" + "\n\n".join(map(json.dumps, ROWS)), encoding="utf-8"),
    "b.jsonl": lambda path: write_rows(
        path, [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}]
    ),
    "c.jsonl": lambda path: write_rows(
        path, [{"term": "X", "definition": "y"}, {"text": 1, "term": "Z", "definition": "é"}]
    ),
    "a.json": lambda path: path.write_text(
        json.dumps({"v": 1, "rows": ROWS}, indent=1, ensure_ascii=False), encoding="utf-8"
    ),
    "a.csv": lambda path: write_csv(path, ","),
    "a.tsv": lambda path: write_csv(path, "\t"),
    "t.csv": lambda path: path.write_text("term,definition\nX,y\nZ,w\n"),
    "a.txt": lambda path: path.write_bytes("\ufeff\r\n Ünïcode text,  \r\nlong enough to be learned.\r\n\r\n".encode()),
    "a.parquet": lambda path: pyarrow.parquet.write_table(
        pyarrow.Table.from_pylist([{k: str(v) for k, v in row.items()} for row in ROWS]), path
    ),
}


@pytest.mark.parametrize("name", WRITERS)
def test_the_ledger_adds_up_to_the_byte_for_each_format(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    fields = {"term": "term", "definition": "definition"} if name == "c.jsonl" else {}
    corpus = read_corpus([str(path)], ReadOptions(fields))
    held_out, trained = [example.id for example in corpus.examples[:1]], [example.id for example in corpus.examples[1:]]
    corpus.ledger.settle(held_out=held_out, trained=trained, cut={})
    counts = corpus.ledger.as_json()["bytes"]
    values = sum(len(str(value).encode()) for row in ROWS for value in row.values())
    assert counts["total"] == (values if name == "a.parquet" else path.stat().st_size)
    assert counts["trained"] == sum(len(example.learned_text.encode()) for example in corpus.examples[1:])
    assert counts["total"] == sum(count for bucket, count in counts.items() if bucket != "total")
    added = len("What is ?") if "term" in corpus.formats[0].fields else 0
    assert counts["masked"] == sum(len(example.prompt_text.encode()) - added for example in corpus.examples[1:])
    assert counts["cleaned"] > 0


def test_the_room_is_imported_without_torch_transformers_or_pyarrow():
    heavy = "{'torch', 'transformers', 'pyarrow', 'scipy'}"
    code = f"import sys, metier.sources.read, metier.sources.split; print({heavy} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "set()"
