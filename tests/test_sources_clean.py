"""Cleaning: near-duplicates, boilerplate and identifiers leave the corpus and stand in the ledger, to the byte."""

import json
import random

import pytest

from metier.sources.boilerplate import candidates, recurring, without_lines
from metier.sources.read import ReadOptions, read_corpus
from metier.sources.split import split_corpus

VOCABULARY = [f"word{n}" for n in range(3000)]
NOTICE = "Copyright of the makers, all rights reserved."


def prose(seed, n_words=100):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=n_words))


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def adds_up(ledger):
    account = ledger.as_json()
    for counts in (account["bytes"], account["rows"]):
        assert sum(n for name, n in counts.items() if name != "total") == counts["total"]
    return account


def test_of_near_duplicate_texts_the_first_stays_and_the_others_are_listed(tmp_path):
    rows = [{"text": prose(n)} for n in range(30)] + [{"text": f"{prose(3)} One more."}, {"text": f"So {prose(4)}"}]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)])
    assert [e.line for e in corpus.examples] == list(range(1, 31))
    account = adds_up(corpus.ledger)
    assert account["rows"]["near_duplicate"] == 2
    assert account["bytes"]["near_duplicate"] == sum(len(row["text"]) for row in rows[30:])
    assert [entry["where"] for entry in account["removed"]] == ["a.jsonl:31", "a.jsonl:32"]
    assert account["removed"][0]["why"] == "nearly repeats a.jsonl:4 (98% of their 5-grams)"
    assert set(corpus.findings.near) == {"a.jsonl:31", "a.jsonl:32"}


def test_rows_with_nearly_the_same_long_answer_stay_and_never_stand_on_two_sides(tmp_path):
    rows = [{"question": f"What of {n}?", "answer": prose(n)} for n in range(60)]
    rows += [{"question": f"And what of {n}?", "answer": f"{prose(n)} Again."} for n in range(60)]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)])
    assert len(corpus.examples) == 120
    assert len({e.document for e in corpus.examples}) == 60
    assert len(corpus.findings.tied) == 60
    for seed in range(5):
        split = split_corpus(corpus.examples, seed)
        sides = [{e.line % 60 for e in side} for side in (split.train, split.select, split.test)]
        assert not sides[0] & (sides[1] | sides[2])
        assert not sides[1] & sides[2]


def test_an_answer_that_most_rows_share_ties_nothing(tmp_path):
    rows = [{"question": f"What of {n}?", "answer": f"{prose(0)} {n}."} for n in range(100)]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)])
    assert len({e.document for e in corpus.examples}) == 100


def test_lines_of_a_fifth_of_the_texts_are_left_out_and_shorter_or_rarer_ones_stay(tmp_path):
    rare = "A line that stands in two of these texts."
    for n in range(20):
        lines = [prose(n), NOTICE if n % 3 == 0 else "", "Introduction", rare if n < 2 else "", prose(100 + n, 20)]
        (tmp_path / f"{n:02d}.txt").write_text("\n".join(line for line in lines if line), encoding="utf-8")
    corpus = read_corpus([str(tmp_path)])
    assert corpus.findings.lines == {NOTICE: 7}
    assert not any(NOTICE in e.text for e in corpus.examples)
    assert sum(rare in e.text for e in corpus.examples) == 2
    assert all("Introduction" in e.text for e in corpus.examples)
    account = adds_up(corpus.ledger)
    assert account["bytes"]["boilerplate"] == 7 * (len(NOTICE) + 1)
    assert account["removed"] == [{"where": "7 texts", "bucket": "boilerplate", "why": NOTICE}]


def test_a_text_that_is_nothing_but_boilerplate_is_too_short(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02d}.txt").write_text(f"{NOTICE}\n{prose(n) if n else 'x'}\n", encoding="utf-8")
    corpus = read_corpus([str(tmp_path)])
    assert len(corpus.examples) == 19
    account = adds_up(corpus.ledger)
    assert (account["rows"]["too_short"], account["bytes"]["too_short"]) == (1, 1)


def test_lines_are_counted_once_a_text_and_few_texts_have_no_boilerplate():
    texts = [f"{NOTICE}\n{NOTICE}\n{prose(n)}" for n in range(3)] + [prose(n) for n in range(3, 40)]
    assert recurring(texts, candidates(texts) | {NOTICE}, len(texts)) == {}
    assert candidates([NOTICE] * 9) == set()
    assert without_lines(f"one\n\n{NOTICE}\n\ntwo\n  {NOTICE}", {NOTICE: 9}) == "one\n\ntwo"


ROWS = [
    {
        "question": f"Who is {n}?",
        "answer": f"Write to a{n}@example.org, a{n}@example.org or b@example.org. {prose(n, 9)}",
    }
    for n in range(5)
]


@pytest.mark.parametrize(("privacy", "n_examples"), [("report", 30), ("mask", 30), ("drop", 25)])
def test_identifiers_are_reported_masked_or_dropped_and_their_bytes_counted(tmp_path, privacy, n_examples):
    rows = [*ROWS, *({"question": f"What is {n}?", "answer": prose(50 + n, 12)} for n in range(25))]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)], ReadOptions(privacy=privacy))
    account = adds_up(corpus.ledger)
    assert len(corpus.examples) == n_examples
    assert len(corpus.findings.private) == 5
    assert corpus.findings.private["a.jsonl:1"] == {"email": 3}
    private = {
        "report": 0,
        "mask": sum(2 * len(f"a{n}@example.org") + len("b@example.org") for n in range(5)),
        "drop": sum(len(row["question"]) + len(row["answer"]) for row in ROWS),
    }
    assert account["bytes"]["private"] == private[privacy]
    assert account["rows"]["private"] == (5 if privacy == "drop" else 0)
    if privacy == "mask":
        assert corpus.examples[0].learned_text.startswith("Write to <EMAIL_1>, <EMAIL_1> or <EMAIL_2>. ")
        assert "@" not in "".join(e.learned_text for e in corpus.examples)
        assert account["removed"][0] == {"where": "a.jsonl:1", "bucket": "private", "why": "3 email masked"}
        assert "example.org" not in json.dumps(account)


def test_one_person_has_one_mask_in_all_rows_of_a_document(tmp_path):
    rows = [{"text": f"{prose(n, 20)} ann@example.org", "doc": "letters"} for n in range(2)]
    rows += [{"text": f"{prose(2, 20)} bob@example.org, ann@example.org", "doc": "letters"}]
    rows += [{"text": f"{prose(3, 20)} bob@example.org", "doc": "notes"}]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)], ReadOptions(privacy="mask"))
    ends = [" ".join(e.text.split()[20:]) for e in corpus.examples]
    assert ends == ["<EMAIL_1>", "<EMAIL_1>", "<EMAIL_2>, <EMAIL_1>", "<EMAIL_1>"]


def test_with_masks_longer_than_what_they_hide_the_sections_of_a_text_still_add_up(tmp_path):
    addresses = "\n\n".join(f"{prose(n, 60)} a{n}@b.de" for n in range(60))
    (tmp_path / "one.txt").write_text(addresses, encoding="utf-8")
    corpus = read_corpus([str(tmp_path / "one.txt")], ReadOptions(privacy="mask"))
    split = split_corpus(corpus.examples, 0, ledger=corpus.ledger)
    assert split.unit == "section"
    adds_up(corpus.ledger)
    held_out = [e.id for e in (*split.select, *split.test)]
    first = next(e for e in (*split.train, *split.select, *split.test) if e.id == "one.txt#1")
    everything = len(first.text.encode())
    assert everything > corpus.ledger.sizes(first.id)[2]
    corpus.ledger.settle(held_out=held_out, trained=[e.id for e in split.train], cut={first.id: everything})
    assert corpus.ledger.bytes_by_bucket()["cut"] == corpus.ledger.sizes(first.id)[2]
    adds_up(corpus.ledger)


def test_with_select_the_rows_least_like_the_field_are_left_out_and_listed(tmp_path):
    draw = random.Random(0)
    rows = [{"text": " ".join(draw.choices(VOCABULARY[:60], k=80))} for _ in range(18)]
    rows += [{"text": "She walked home through the rain, and the evening was long and quiet by the river."}]
    rows += [{"text": "He was glad to see the old house again, and they talked until it was late."}]
    corpus = read_corpus([written(tmp_path / "a.jsonl", rows)], ReadOptions(select=0.9))
    assert [e.line for e in corpus.examples] == list(range(1, 19))
    account = adds_up(corpus.ledger)
    assert account["bytes"]["not_selected"] == sum(len(row["text"]) for row in rows[18:])
    assert {entry["bucket"] for entry in account["removed"]} == {"not_selected"}
