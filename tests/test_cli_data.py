import json
from pathlib import Path
from typing import Any

import pytest

from command_line import metier, valves, write_rows
from small_files import pdf


def check(*arguments: str | Path) -> dict[str, Any]:
    shown = metier("check", *arguments, "--json")
    assert (shown.code, shown.err) == (0, "")
    found: dict[str, Any] = json.loads(shown.out)
    return found


def test_a_conversation_is_read_as_turns_under_its_id(tmp_path: Path) -> None:
    shown = metier("read", write_rows(tmp_path / "v.jsonl", valves(2)))
    assert shown.out == (
        "==> v.jsonl:1 <==\nuser: When does valve 0 close?\nassistant: Valve 0 closes line 0 below 3 bar.\n"
        "\n==> v.jsonl:2 <==\nuser: When does valve 1 close?\nassistant: Valve 1 closes line 1 below 4 bar.\n"
    )
    assert (shown.code, shown.err) == (0, "")


def test_one_text_is_read_without_a_heading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffA line  \r\nand another one, clean.\r\n\r\n".encode())
    assert metier("read", tmp_path / "a.txt").out == "A line\nand another one, clean.\n"


def test_what_read_leaves_out_is_said_on_stderr(tmp_path: Path) -> None:
    shown = metier("read", write_rows(tmp_path / "v.jsonl", [*valves(2), *valves(1)]))
    assert shown.err == "metier: left out 1 duplicate.\n"


def test_a_field_can_be_named(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "v.jsonl", [{"q": "Why?", "a": "Because it is so."}])
    assert metier("read", data).code == 2
    shown = metier("read", data, "--question", "q", "--answer", "a")
    assert shown.out == "user: Why?\nassistant: Because it is so.\n"


def test_good_data_is_ready_and_shown_as_it_was_parsed(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "v.jsonl", valves())
    found = check(data)
    assert found["files"][0]["status"] == "ok"
    assert found["rows"]["total"] == found["examples"] == found["documents"]["total"] == 80
    assert found["duplicates"] == {"rows": 0, "share": 0.0}
    assert found["power"] == {"unit": "row", "held_out": 20, "test": 10, "needed": 10, "can_tell": True}
    assert found["formats"][0]["shown"][2].startswith("user: When does valve 2 close? | assistant: Valve 2")
    assert len(found["formats"][0]["shown"]) == 3
    learned = sum(len(str(row["answer"])) for row in valves())
    assert found["tokens"]["learned"] == learned // 4
    assert found["warnings"] == []
    printed = metier("check", data).out
    assert "nothing wrong was found" in printed
    assert printed.endswith("Ready.\n")


def test_too_few_documents_are_foretold_to_be_a_verdict_of_cannot_tell(tmp_path: Path) -> None:
    found = check(write_rows(tmp_path / "v.jsonl", valves(40)))
    assert not found["power"]["can_tell"]
    assert "cannot tell" in found["warnings"][0]["problem"]
    assert "67 documents" in found["warnings"][0]["remedy"]
    enough = check(write_rows(tmp_path / "w.jsonl", valves(67)))
    assert enough["power"]["can_tell"]


def test_one_document_is_told_to_stop_a_run(tmp_path: Path) -> None:
    found = check(write_rows(tmp_path / "v.jsonl", valves(1)))
    assert found["warnings"][0]["severity"] == "stops"
    assert metier("adapt", tmp_path / "v.jsonl", "--out", tmp_path / "run").code == 2


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ([{"answer": "Yes, of course."}] * 20, "20 answers (17%) are the same: 'Yes, of course.'"),
        ([{"answer": f"{i} bar"} for i in range(120)], "half of the answers have"),
        ([{"answer": "When does valve 900 close?", "question": "When does valve 900 close?"}], "repeat their question"),
        ([valves()[0]] * 9, "repeat another one word for word"),
    ],
)
def test_what_would_teach_something_wrong_is_a_warning(
    tmp_path: Path, changed: list[dict[str, object]], problem: str
) -> None:
    more = [{"question": f"And what of pump {i}?"} | row for i, row in enumerate(changed)]
    found = check(write_rows(tmp_path / "v.jsonl", [*valves(100), *more]))
    assert [w["severity"] for w in found["warnings"] if problem in w["problem"]] == ["serious"]
    assert metier("check", tmp_path / "v.jsonl").code == 0


def test_a_bad_row_is_counted_by_check_and_told_to_stop_a_run(tmp_path: Path) -> None:
    found = check(write_rows(tmp_path / "v.jsonl", [*valves(30), {"question": "Why?", "answer": None}]))
    assert found["rows"]["rejected"] == 1
    assert [w["severity"] for w in found["warnings"]] == ["stops", "serious", "minor"]
    assert "1 files were read in part (first: v.jsonl, which 1 of 31" in found["warnings"][2]["problem"]
    assert "v.jsonl:31 has a null answer" in found["warnings"][0]["problem"]


def test_a_folder_is_checked_with_a_status_for_every_file_and_the_remedy_for_those_that_gave_nothing(
    tmp_path: Path,
) -> None:
    write_rows(tmp_path / "v.jsonl", valves(30))
    (tmp_path / "scan.pdf").write_bytes(pdf([[]]))
    (tmp_path / "locked.pdf").write_bytes(pdf([[(72, 700, "A line behind a lock.")]], password="tower"))
    (tmp_path / "cut.docx").write_bytes(b"PK")
    found = check(tmp_path)
    assert {file["path"]: (file["status"], file["documents"]) for file in found["files"]} == {
        "cut.docx": ("rejected", 0),
        "locked.pdf": ("needs_password", 0),
        "scan.pdf": ("no_text", 0),
        "v.jsonl": ("ok", 30),
    }
    said = {warning["remedy"]: warning["problem"] for warning in found["warnings"]}
    assert "locked.pdf" in said["give it with --password"]
    assert "scan.pdf" in said["recognise the text of scans first (OCR), or leave them out"]
    opened = metier("read", tmp_path / "locked.pdf", "--password", "tower")
    assert (opened.code, opened.out) == (0, "A line behind a lock.\n")
    assert metier("read", tmp_path / "locked.pdf").complaint.endswith("give it with --password.")


def test_check_of_nothing_readable_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_bytes(b"\x00\x01\xff")
    shown = metier("check", tmp_path / "v.jsonl", "--json")
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
