"""Every document once an epoch, in an order fixed by the seed, with replay spread evenly among them."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise

import pytest

from metier.models.encoding import Encoded
from metier.sources.examples import Example
from metier.training.stream import BUFFER, FIELD, REPLAY, Part, Step, field_documents, replayed, steps
from tiny import document

ANSWERS = [document(range(20 + i), f"replay:{i}") for i in range(3)]


def examples(n: int) -> list[Example]:
    return [Example(f"e{i}", "f", i + 1, f"e{i}", text="text") for i in range(n)]


def encode_as(*lengths: int) -> Callable[[Example], list[Encoded]]:
    """One document for each length, as the windows of a text."""
    return lambda example: [document(range(n), f"{example.id}/{w}") for w, n in enumerate(lengths)]


def field(n_examples: int, length: int = 17) -> Iterator[tuple[int, Encoded]]:
    return field_documents(examples(n_examples), encode_as(length), 0)


def with_replay(documents: Iterator[tuple[int, Encoded]], share: float, step_tokens: int) -> Iterator[Step]:
    return steps([Part(FIELD, 1 - share, documents), Part(REPLAY, share, replayed(ANSWERS))], step_tokens)


def drawn(n: int, n_examples: int, seed: int = 0, lengths: tuple[int, ...] = (10,)) -> list[tuple[int, str]]:
    stream = field_documents(examples(n_examples), encode_as(*lengths), seed)
    return [(epoch, d.item) for epoch, d in islice(stream, n)]


@pytest.mark.parametrize(("n_examples", "lengths"), [(7, (10,)), (BUFFER * 3, (10,)), (50, (9, 8, 7))])
def test_every_document_comes_once_an_epoch(n_examples: int, lengths: tuple[int, ...]) -> None:
    n = n_examples * len(lengths)
    found = drawn(3 * n, n_examples, lengths=lengths)
    expected = {f"e{i}/{w}" for i in range(n_examples) for w in range(len(lengths))}
    for epoch in range(3):
        of_epoch = found[epoch * n : (epoch + 1) * n]
        assert {number for number, _ in of_epoch} == {epoch}
        assert {item for _, item in of_epoch} == expected


def test_the_order_is_fixed_by_the_seed_and_differs_from_epoch_to_epoch() -> None:
    assert drawn(90, 30, seed=5) == drawn(90, 30, seed=5)
    assert drawn(30, 30, seed=5) != drawn(30, 30, seed=6)
    items = [item for _, item in drawn(60, 30)]
    assert items[:30] != items[30:]
    assert items[:30] != sorted(items[:30])


def test_the_windows_of_one_text_do_not_come_one_after_another() -> None:
    found = drawn(3 * BUFFER, 40, lengths=(5,) * 100)
    together = sum(a.split("/")[0] == b.split("/")[0] for (_, a), (_, b) in pairwise(found))
    assert together < BUFFER


def test_a_long_text_takes_no_more_of_a_short_run_than_it_is_of_the_corpus() -> None:
    def encode(example: Example) -> list[Encoded]:
        return [document(range(5), f"{example.id}/{w}") for w in range(300 if example.id == "e0" else 10)]

    shares = []
    for seed in range(20):
        found = [d.item for _, d in islice(field_documents(examples(31), encode, seed), 60)]
        shares.append(sum(item.startswith("e0/") for item in found) / 60)
    assert 0.4 < sum(shares) / 20 < 0.6
    assert max(shares) < 0.8


def test_documents_without_a_supervised_token_are_passed_over_and_a_field_of_them_ends() -> None:
    def encode(example: Example) -> list[Encoded]:
        return [document(range(5), example.id, n_prompt=5 if example.id == "e1" else 1)]

    found = [d.item for _, d in islice(field_documents(examples(3), encode, 0), 4)]
    assert set(found[:2]) == {"e0", "e2"}
    assert next(field_documents(examples(2)[1:], encode, 0), None) is None
    assert next(with_replay(field_documents(examples(2)[1:], encode, 0), 0.2, 100), None) is None


@pytest.mark.parametrize("share", [0.05, 0.15, 0.5, 0.9])
def test_the_share_of_replay_is_achieved_within_one_document_after_every_step(share: float) -> None:
    stream = with_replay(field(30), share, 150)
    total = replayed = 0
    for step in islice(stream, 40):
        total += step.n_tokens
        replayed += step.n_replay_tokens
        assert abs(replayed - share * total) <= 22


def test_replay_comes_in_the_order_given_and_again_from_the_first() -> None:
    stream = with_replay(field(30), 0.5, 150)
    items = [d.item for step in islice(stream, 6) for d in step.documents if d.item.startswith("replay")]
    assert items == [f"replay:{i % 3}" for i in range(len(items))]
    assert len(items) > 6


def test_parts_are_mixed_by_their_shares_within_two_documents_after_every_step() -> None:
    shares = {"notes": 0.5, "faq": 0.3, "replay": 0.2}
    lengths = {"notes": 17, "faq": 60, "replay": 9}
    parts = [Part(name, share, field(20, lengths[name])) for name, share in shares.items()]
    drawn_tokens: Counter[str] = Counter()
    for step in islice(steps(parts, 150), 40):
        drawn_tokens.update(step.tokens)
        for name, share in shares.items():
            assert abs(drawn_tokens[name] - share * drawn_tokens.total()) <= 2 * 60
    assert drawn_tokens.total() >= 40 * 150


def test_the_mix_is_the_same_every_time() -> None:
    def items() -> list[str]:
        parts = [Part("notes", 0.7, field(20)), Part("faq", 0.3, field(7, 30))]
        return [d.item + str(d.n_tokens) for step in islice(steps(parts, 150), 30) for d in step.documents]

    assert items() == items()


def test_a_part_without_documents_ends_the_steps() -> None:
    parts = [Part("notes", 0.7, field(20)), Part("faq", 0.3, iter([]))]
    assert next(steps(parts, 150), None) is None


def test_steps_hold_their_tokens_and_together_are_over_by_less_than_one_document() -> None:
    total = 0
    for number, step in enumerate(islice(with_replay(field(30), 0.15, 150), 20)):
        assert step.n_tokens == sum(len(d.ids) for d in step.documents)
        total += step.n_tokens
        assert 150 * (number + 1) <= total < 150 * (number + 1) + 22


def test_a_document_longer_than_a_step_leaves_no_empty_step_behind() -> None:
    first = list(islice(steps([Part(FIELD, 1.0, field(30, 400))], 150), 5))
    assert [len(step.documents) for step in first] == [1] * 5


def test_no_document_of_the_field_is_lost_between_two_steps() -> None:
    stream = with_replay(field(30), 0.15, 150)
    items = Counter(d.item for step in islice(stream, 40) for d in step.documents if d.item.startswith("e"))
    assert len(items) == 30
    assert max(items.values()) - min(items.values()) <= 1


def test_a_step_of_replay_alone_belongs_to_the_epoch_of_the_field() -> None:
    stream = with_replay(field(4), 0.9, 60)
    epochs = [step.epoch for step in islice(stream, 60)]
    assert epochs == sorted(epochs)
    assert epochs[-1] > 1
