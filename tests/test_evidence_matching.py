"""Controls are near in everything that is compared, and none is used up."""

import numpy as np

from metier.evidence.jargon.matching import NEIGHBOURS, SURPRISE, Words, match


def words(*rows: tuple[str, float, float, float, float], repeated: bool = False) -> Words:
    """rows: (document, bytes, start, base, adapted)"""
    documents, *columns = zip(*rows, strict=True)
    n_bytes, starts, base, adapted = (np.array(column, dtype=float) for column in columns)
    return Words(documents, n_bytes, starts, base, adapted, np.full(len(rows), repeated))


TERMS = words(("a", 8, 100, 1.0, 0.8), ("b", 8, 100, 3.0, 2.8))


def test_a_control_is_near_in_length_position_surprise_and_document() -> None:
    spread = float(TERMS.level.std())
    near, far = 0.9 * SURPRISE * spread, 1.1 * SURPRISE * spread
    ordinary = words(
        ("a", 8, 100, 1.0 + near, 0.8 + near),
        ("a", 8, 100, 1.0 + far, 0.8 + far),
        ("a", 17, 100, 1.0, 0.8),
        ("a", 8, 250, 1.0, 0.8),
        ("b", 8, 100, 1.0, 0.8),
        ("a", 15, 200, 1.0, 0.8),
    )
    assert sorted(match(TERMS, ordinary)[0]) == [0, 5]


def test_a_term_that_stands_alone_in_its_document_is_compared_with_words_of_others() -> None:
    ordinary = words(
        ("a", 8, 100, 1.2, 1.0), ("z", 8, 100, 1.0, 0.8), ("z", 8, 100, 3.0, 2.8), ("z", 30, 100, 3.0, 2.8)
    )
    assert match(TERMS, ordinary) == [[0], [2]]


def test_surprise_is_that_of_both_models_unless_the_base_alone_is_asked_for() -> None:
    ordinary = words(("a", 8, 100, 1.3, 0.5), ("a", 8, 100, 1.0, 0.0))
    assert match(TERMS, ordinary) == [[0], []]
    assert match(TERMS, ordinary, by_base=True) == [[1], []]


def test_what_was_met_before_is_compared_with_what_was_met_before() -> None:
    ordinary = words(("a", 8, 100, 1.0, 0.8), repeated=True)
    assert match(TERMS, ordinary) == [[], []]


def test_the_nearest_are_taken_and_no_word_serves_twice() -> None:
    many = words(("a", 8, 100, 1.0, 0.8), ("a", 8, 110, 1.0, 0.8), ("z", 8, 100, 9.0, 9.0))
    assert match(many, words(("a", 8, 108, 1.0, 0.8))) == [[], [0], []]
    ordinary = words(*[("a", 8, 100 + i, 1.0, 0.8) for i in range(9)])
    assert match(TERMS, ordinary)[0] == list(range(NEIGHBOURS))


def test_nothing_is_matched_with_nothing() -> None:
    empty = Words([], *[np.zeros(0)] * 4, np.zeros(0, dtype=bool))
    assert match(empty, TERMS) == []
    assert match(TERMS, empty) == [[], []]
