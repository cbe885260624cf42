"""Words and sequences of words, counted right."""

from metier.sources.candidates import MIN_DOCUMENTS, Counted, nested

TEXT = "The motor neuron disease of Bern. A motor neuron fires; motor neurons fire, a neuron too."


def counted(*texts: str) -> Counted:
    return Counted([(f"d{i}", text) for i, text in enumerate(texts)])


def test_sequences_are_counted_with_their_documents_and_what_longer_ones_hold_of_them() -> None:
    candidates = counted(*[TEXT] * MIN_DOCUMENTS).candidates({"the", "of", "a", "too"}, {"of"})
    found = {c.forms: c for c in nested(candidates)}
    pair = found["motor", "neuron"]
    assert (pair.count, pair.documents) == (9, 3)
    longer = {forms for forms in found if len(forms) > 2 and forms[:2] == ("motor", "neuron")}
    assert longer == {("motor", "neuron", "disease"), ("motor", "neuron", "fire")}
    # "motor neuron fires" and "motor neurons fire" have one form
    assert (pair.inside, pair.n_longer, pair.largest) == (9, 2, 6)
    assert pair.on_its_own == 9 - 9 / 2
    assert found["disease", "of", "bern"].count == 3
    assert ("fire", "motor") not in found  # over a sign
    assert ("of", "bern") not in found  # begins with a bound
    assert ("bern", "a") not in found


def test_what_stands_in_two_documents_is_left_out_however_often() -> None:
    texts = ["rare words " * 50, "rare words", *["other things"] * MIN_DOCUMENTS]
    assert {c.forms for c in counted(*texts).candidates(set(), set())} == {("other",), ("thing",), ("other", "thing")}


def test_no_sequence_goes_from_one_text_into_the_next() -> None:
    both = Counted([(f"d{i}", text) for i in range(4) for text in ("stem", "cell")])
    assert {c.forms for c in both.candidates(set(), set())} == {("stem",), ("cell",)}


def test_a_term_is_shown_as_it_is_mostly_written() -> None:
    some = counted("Stem cell", "stem cells", "stem cells and WAL", "Stem Cells", "wal", "WAL")
    assert some.spelling({("stem", "cell"), ("wal",)}) == {("stem", "cell"): "stem cells", ("wal",): "WAL"}


def test_words_after_cues_and_documents_by_length_are_counted() -> None:
    some = counted("may occur", "to occur", "an occur", "one, occur")
    assert some.share_after({"may", "to"})["occur"] == 0.5
    lengths, n_documents = some.lengths
    assert (lengths.tolist(), n_documents.tolist(), some.total) == ([2], [4], 8)


def test_nothing_has_no_candidates() -> None:
    assert Counted([]).candidates(set(), set()) == []
    assert counted("", "1 2 3 .").candidates(set(), set()) == []
