"""The ledger: every byte and every row in exactly one place, before and after training."""

import pytest

from metier.sources.ledger import FileRead, Ledger


@pytest.fixture
def ledger():
    """One file of 400 bytes: four rows of 60 bytes, a bad one of 100, and 60 bytes between them."""
    ledger = Ledger()
    ledger.add_file(FileRead("a.jsonl", "ok", "", 400, 400, 5))
    for number in range(1, 5):
        ledger.add(f"a.jsonl:{number}", 60, 10, 30)
    ledger.reject_row("a.jsonl:5", 100, "has a null answer")
    return ledger


def counted(counts):
    return {bucket: count for bucket, count in counts.items() if count}


def test_before_training_everything_that_was_kept_counts_as_read(ledger):
    account = ledger.as_json()
    assert counted(account["bytes"]) == {"total": 400, "read": 160, "cleaned": 140, "rejected": 100}
    assert counted(account["rows"]) == {"total": 5, "read": 4, "rejected": 1}
    assert account["rejected"] == [{"where": "a.jsonl:5", "why": "has a null answer"}]


def test_after_training_every_row_ends_where_it_went(ledger):
    ledger.drop("a.jsonl:4", "duplicate", "repeats a.jsonl:1")
    ledger.settle(held_out=["a.jsonl:1"], trained=["a.jsonl:2", "a.jsonl:3"], cut={"a.jsonl:2": 5})
    account = ledger.as_json()
    expected = {
        "total": 400,
        "cleaned": 140,
        "duplicate": 40,
        "cut": 5,
        "held_out": 40,
        "masked": 20,
        "trained": 55,
        "rejected": 100,
    }
    assert counted(account["bytes"]) == expected
    assert counted(account["rows"]) == {"total": 5, "duplicate": 1, "held_out": 1, "trained": 2, "rejected": 1}


def test_an_example_that_is_cut_whole_counts_as_cut_with_its_prompt(ledger):
    ledger.settle(held_out=[], trained=["a.jsonl:2"], cut={"a.jsonl:2": 30})
    assert counted(ledger.as_json()["bytes"]) == {"total": 400, "read": 120, "cleaned": 140, "cut": 40, "rejected": 100}
    assert ledger.rows_by_bucket()["cut"] == 1


def test_sections_share_the_bytes_of_their_row_and_count_as_one_row(ledger):
    ledger.split_example("a.jsonl:1", {"a.jsonl:1#1": 12, "a.jsonl:1#2": 13})
    ledger.settle(held_out=["a.jsonl:1#1"], trained=["a.jsonl:1#2"], cut={})
    assert ledger.bytes_by_bucket()["held_out"] == 12
    assert ledger.bytes_by_bucket()["trained"] == 13
    assert counted(ledger.as_json()["rows"]) == {"total": 5, "read": 3, "trained": 1, "rejected": 1}


def test_a_rejected_file_is_counted_with_the_bytes_it_has_on_the_disk(ledger):
    ledger.add_file(FileRead("b.pdf", "rejected", "a kind of file that is not read (.pdf)", 77, 77, 0))
    account = ledger.as_json()
    assert (account["bytes"]["total"], account["bytes"]["rejected"]) == (477, 177)
    assert account["rejected"][-1] == {"where": "b.pdf", "why": "a kind of file that is not read (.pdf)"}


@pytest.mark.parametrize(
    ("settled", "words"),
    [
        ({"held_out": ["a.jsonl:1"], "trained": ["a.jsonl:1"], "cut": {}}, "held out and trained at once"),
        ({"held_out": ["b.jsonl:1"], "trained": [], "cut": {}}, "has no such example"),
        ({"held_out": [], "trained": ["a.jsonl:4"], "cut": {}}, "has no such example"),
        ({"held_out": [], "trained": ["a.jsonl:1"], "cut": {"a.jsonl:1": 31}}, "has 30 learned bytes, 31 of them cut"),
    ],
)
def test_a_settlement_that_cannot_be_true_is_refused(ledger, settled, words):
    ledger.drop("a.jsonl:4", "too_short", "has 3 characters")
    with pytest.raises(RuntimeError, match=words):
        ledger.settle(**settled)


def test_more_text_than_source_is_an_error_of_ours(ledger):
    ledger.add_file(FileRead("b.jsonl", "ok", "", 50, 50, 1))
    ledger.add("b.jsonl:1", 50, 20, 31)
    with pytest.raises(RuntimeError, match=r"more text than source for b\.jsonl:1"):
        ledger.as_json()


def test_a_row_that_disappears_is_an_error_of_ours(ledger):
    ledger.add_file(FileRead("b.jsonl", "ok", "", 50, 50, 1))
    with pytest.raises(RuntimeError, match="rows do not add up to 6"):
        ledger.check()


def test_more_rows_than_the_files_hold_bytes_is_an_error_of_ours(ledger):
    ledger.add_file(FileRead("b.jsonl", "ok", "", 50, 50, 1))
    ledger.add("b.jsonl:1", 500, 0, 0)
    with pytest.raises(RuntimeError, match="rows hold 390 bytes more than the files"):
        ledger.check()


def test_two_rows_of_one_name_are_refused(ledger):
    with pytest.raises(RuntimeError, match=r"two rows called a\.jsonl:1"):
        ledger.add("a.jsonl:1", 1, 0, 1)
