import json
from pathlib import Path
from typing import Any

import pytest

from command_line import metier, valves, write_rows
from metier.sources import general
from small_files import pdf
from tiny import save_tiny


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
    assert not any(found["duplicates"].values())
    assert found["power"].pop("detectable") > 0
    assert found["power"] == {"unit": "row", "held_out": 20, "test": 10, "needed": 10, "can_tell": True}
    assert found["formats"][0]["shown"][2].startswith("user: When does valve 2 close? | assistant: Valve 2")
    assert len(found["formats"][0]["shown"]) == 3
    learned = sum(len(str(row["answer"])) for row in valves())
    assert found["tokens"]["learned"] == learned // 4
    assert found["warnings"] == []
    printed = metier("check", data).out
    assert "nothing wrong was found" in printed
    assert printed.startswith("Ready.\n")


def test_check_says_all_that_was_found_in_one_object(tmp_path: Path) -> None:
    found = check(write_rows(tmp_path / "v.jsonl", valves()))
    parts = {"files", "rows", "duplicates", "leaks", "privacy", "language", "quality", "jargon", "power", "warnings"}
    assert parts <= found.keys()
    assert found["language"] == {"main": "", "looked_at": 0, "texts": {}, "others": 0, "listed": []}
    assert found["leaks"]["general"]["leaked"] == 0 < found["leaks"]["general"]["measured"]


def test_leaks_and_identifiers_are_serious_and_come_before_what_is_minor(tmp_path: Path) -> None:
    question = next(r.request for r in general.measured_requests())
    odd = [
        {"question": question, "answer": "I would rather not say what it is."},
        {"question": "Who opens valve 7?", "answer": "Ask ann@example.org, she has the key to the valves."},
    ]
    data = write_rows(tmp_path / "v.jsonl", [*valves(100), *odd])
    found = check(data)
    assert [w["severity"] for w in found["warnings"]] == ["serious", "serious"]
    assert "2 general items in training text" in found["warnings"][0]["problem"]
    assert "1 row with identifiers (email; first: v.jsonl:102)" in found["warnings"][1]["problem"]
    assert found["privacy"]["identifiers"] == {"email": 1}
    assert check(data, "--privacy", "drop")["rows"]["private"] == 1
    lines = metier("check", data).out.splitlines()
    assert lines[0].startswith("It can be trained, but mind the first of these")
    assert any("v.jsonl:102" in line for line in lines[1:8])


def test_training_text_that_repeats_a_benchmark_is_told(tmp_path: Path) -> None:
    exam = write_rows(tmp_path / "exam.jsonl", [{"stem": valves()[3]["question"], "options": ["one", "two"]}])
    found = check(write_rows(tmp_path / "v.jsonl", valves()), "--benchmark", exam)
    assert found["leaks"]["benchmarks"]["leaked"] == 1
    assert "1 benchmark row in training text" in found["warnings"][0]["problem"]


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


def test_with_a_model_three_rows_are_shown_as_it_sees_them_and_damaged_ones_surprise_it(tmp_path: Path) -> None:
    model = save_tiny(tmp_path / "model")
    rows = [{"text": f"The valve {n} closes at {n} bar, and the pump starts again after it. " * 4} for n in range(30)]
    rows.append({"text": "".join(chr(0x3B1 + 7 * n % 24) for n in range(400))})
    found = check(write_rows(tmp_path / "t.jsonl", rows), "--model", str(model))
    assert len(found["read"]["shown"]) == 3
    assert all(row.count("«") == row.count("»") == 1 for row in found["read"]["shown"])
    assert found["read"]["never_end"] == 0
    tails = found["read"]["surprise"]
    assert "t.jsonl:31" in {row["id"] for row in tails["low"] + tails["high"]}
    assert found["read"]["difficulty"] == {"looked_at": 0, "median": None, "no_easier": []}
