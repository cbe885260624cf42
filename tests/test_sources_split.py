"""The split: by document, seeded, stable, within its bounds; few long texts in runs of sections."""

import pytest

from metier.errors import DataError
from metier.sources.examples import Example, Message
from metier.sources.read import read_corpus
from metier.sources.sections import cut_text
from metier.sources.split import split_corpus


def rows(n_documents, n_rows=1):
    chat = (Message("user", "Why?"), Message("assistant", "So it is."))
    return [
        Example(f"a.jsonl:{d * n_rows + r}", "a.jsonl", d * n_rows + r, f"document {d}", messages=chat)
        for d in range(n_documents)
        for r in range(n_rows)
    ]


def documents(part):
    return {example.document for example in part}


def prose(n_paragraphs, word="word"):
    return "\n\n".join(f"Paragraph {n} of {word}. " + f"{word} " * 90 + "end." for n in range(n_paragraphs))


def test_no_document_stands_on_two_sides_and_no_example_is_lost():
    examples = rows(300, n_rows=3)
    split = split_corpus(examples, seed=0)
    train, select, test = documents(split.train), documents(split.select), documents(split.test)
    assert not train & select
    assert not train & test
    assert not select & test
    assert sorted(split.train + split.select + split.test, key=lambda e: e.line) == examples
    assert split.unit == "document"


@pytest.mark.parametrize(
    ("n_documents", "n_held_out"), [(2, 1), (3, 1), (20, 6), (50, 15), (67, 20), (150, 20), (300, 30), (9000, 400)]
)
def test_a_tenth_is_held_out_within_its_bounds_and_test_gets_the_odd_one(n_documents, n_held_out):
    split = split_corpus(rows(n_documents), seed=1)
    assert len(split.select) == n_held_out // 2
    assert len(split.test) == n_held_out - n_held_out // 2


def test_the_same_seed_splits_the_same_way_and_another_does_not():
    examples = rows(300)
    one, again, other = (split_corpus(examples, seed).as_json() for seed in (3, 3, 4))
    assert one == again
    assert all(set(one[part]) != set(other[part]) for part in ("train", "select", "test"))


def test_a_new_document_moves_at_most_one_other_in_or_out_and_between_the_halves():
    before = split_corpus(rows(300), seed=0)
    for extra in range(20):
        new = Example("b.jsonl:1", "b.jsonl", 1, f"new {extra}", messages=rows(1)[0].messages)
        after = split_corpus([new, *rows(300)], seed=0)
        for part in ("train", "select", "test"):
            moved = documents(getattr(before, part)) ^ documents(getattr(after, part))
            assert len(moved - {new.document}) <= 2


def test_one_huge_document_is_not_held_out():
    examples = rows(40)
    huge = Example("h:1", "h", 1, "huge", messages=(Message("user", "?"), Message("assistant", "x" * 10_000)))
    for seed in range(10):
        assert "huge" in documents(split_corpus([*examples, huge], seed).train)


def test_held_out_documents_never_take_more_than_three_tenths_of_the_text():
    sizes = [20_000] * 6 + [100] * 34
    examples = [
        Example(f"a:{n}", "a", n, f"d{n}", messages=(Message("user", "?"), Message("assistant", "x" * size)))
        for n, size in enumerate(sizes)
    ]
    for seed in range(10):
        split = split_corpus(examples, seed)
        assert sum(len(e.learned_text) for e in split.select + split.test) <= 0.3 * sum(sizes)


def test_rows_that_each_stand_for_themselves_are_named_rows():
    examples = [
        Example(f"a.jsonl:{n}", "a.jsonl", n, f"a.jsonl:{max(n - n % 2, 1)}", messages=rows(1)[0].messages)
        for n in range(1, 60)
    ]
    assert split_corpus(examples, seed=0).unit == "row"


def test_text_files_are_documents():
    examples = [Example(f"{n}.txt", f"{n}.txt", 1, f"{n}.txt", text=prose(9, f"w{n}")) for n in range(25)]
    split = split_corpus(examples, seed=0)
    assert (split.unit, len(split.test) + len(split.select)) == ("document", 7)


@pytest.mark.parametrize(
    "examples", [[], rows(1), rows(1, n_rows=50), [Example("a.txt", "a.txt", 1, "a.txt", text="Short.")]]
)
def test_a_single_document_cannot_be_split(examples):
    with pytest.raises(DataError, match="nothing can be held out to prove anything: give at least two documents"):
        split_corpus(examples, seed=0)


@pytest.mark.parametrize("share", [0.0, 0.31, -1.0])
def test_a_share_out_of_bounds_is_refused(share):
    with pytest.raises(DataError, match="choose one above 0"):
        split_corpus(rows(50), seed=0, held_out_share=share)


def test_a_few_long_texts_are_held_out_in_runs_of_sections_and_the_ledger_adds_up(tmp_path):
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(prose(150, name) + "  \n", encoding="utf-8")
    corpus = read_corpus([str(tmp_path)])
    split = split_corpus(corpus.examples, seed=0, ledger=corpus.ledger)
    held_out = split.select + split.test
    assert split.unit == "section"
    runs = {example.document for example in held_out}
    assert len(runs) < len(held_out)
    assert not runs & {example.document for example in split.train}
    assert 15 <= len(held_out) <= 21
    texts = {example.id: example.text for example in split.train + held_out}
    for example in corpus.examples:
        pieces = [texts[f"{example.id}#{n}"] for n in range(1, 1 + sum(key.startswith(example.id) for key in texts))]
        assert "\n\n".join(pieces) == example.text
    neighbours = {(e.source, int(e.id.rpartition("#")[2])) for e in held_out}
    alone = [key for key in neighbours if not {(key[0], key[1] - 1), (key[0], key[1] + 1)} & neighbours]
    assert len(alone) <= 2
    corpus.ledger.settle(held_out=[e.id for e in held_out], trained=[e.id for e in split.train], cut={})
    account = corpus.ledger.as_json()
    assert account["bytes"]["held_out"] == sum(len(e.text.encode()) for e in held_out)
    assert account["bytes"]["trained"] == sum(len(e.text.encode()) for e in split.train)
    assert account["rows"]["trained"] == account["rows"]["total"] == 2


def test_a_few_short_texts_are_split_as_they_are():
    examples = [
        Example(f"a.jsonl:{n}", "a.jsonl", n, f"a.jsonl:{n}", text=f"A short text, number {n}.") for n in range(10)
    ]
    split = split_corpus(examples, seed=0)
    assert (split.unit, len(split.select), len(split.test)) == ("row", 1, 2)


def test_sections_end_at_paragraphs_and_are_of_about_two_thousand_characters():
    pieces = cut_text(prose(40))
    assert all(piece.startswith("Paragraph") and piece.endswith("end.") for piece in pieces)
    assert all(1000 <= len(piece) <= 3000 for piece in pieces)


@pytest.mark.parametrize(
    "text", ["x" * 10_000, "word " * 3000, "One sentence here. " * 800, "line\n" * 3000, "字。" * 4000]
)
def test_a_text_without_paragraphs_is_cut_too_and_loses_only_white_space(text):
    pieces = cut_text(text.strip())
    assert len(pieces) > 3
    assert max(map(len, pieces)) <= 3000
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_the_split_is_saved_by_ids():
    saved = split_corpus(rows(10), seed=5).as_json()
    assert (saved["seed"], saved["unit"], len(saved["train"]), len(saved["select"]), len(saved["test"])) == (
        5,
        "document",
        7,
        1,
        2,
    )
    assert all(name.startswith("a.jsonl:") for name in saved["train"])
