"""Floors: a mixture is never worse than its parts where it was fitted; a compressor profits from what it read."""

import numpy as np
import pytest

from metier.errors import DataError
from metier.evidence.full.floors import compressor_bits, fit_mixture, mixed_nll, ngram_records, token_nll
from metier.evidence.full.ngrams import Foretold, NgramModel
from metier.evidence.score import score_documents
from metier.models.packing import PackReader
from metier.sources.examples import Example
from tiny import VOCABULARY, document, documents, random_ids, tiny_model


def foretold(nll: list[float], matched: list[int]) -> Foretold:
    return Foretold(np.asarray(nll), np.asarray(matched))


def drawn(seed: int) -> tuple[list[np.ndarray], list[Foretold]]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 30, 5)
    base = [rng.exponential(2, n) for n in sizes]
    return base, [Foretold(rng.exponential(3, n), rng.integers(0, 4, n)) for n in sizes]


@pytest.mark.parametrize("seed", range(6))
def test_the_mixture_is_never_worse_than_either_model_where_it_was_fitted(seed: int) -> None:
    base, counted = drawn(seed)
    shares = fit_mixture(base, counted)
    mixed = sum(mixed_nll(b, c, shares).sum() for b, c in zip(base, counted, strict=True))
    assert mixed <= sum(b.sum() for b in base) + 1e-9
    assert mixed <= sum(c.nll.sum() for c in counted) + 1e-9


def test_a_mixture_by_hand() -> None:
    """A quarter of 0.8 and three quarters of 0.4 is 0.5; a share of 0 leaves the base, one of 1 the n-grams."""
    base, ngram = -np.log([0.4] * 4), -np.log([0.8] * 4)
    mixed = np.exp(-mixed_nll(base, foretold(ngram.tolist(), [0, 1, 2, 9]), (0.25, 0.0, 1.0)))
    assert mixed.tolist() == pytest.approx([0.5, 0.4, 0.8, 0.4])  # contexts longer than any that was fitted: the base


def test_each_length_of_context_has_a_share_of_its_own() -> None:
    base = np.full(40, 1.0)
    counted = foretold([5.0] * 20 + [0.1] * 20, [0] * 20 + [2] * 20)
    assert fit_mixture([base], [counted]) == (0.0, 0.0, 1.0)


def test_nats_by_token_add_up_to_those_of_the_documents_whatever_the_packs() -> None:
    reader = PackReader(tiny_model())
    texts = [*documents(9, 30, 14), document(random_ids(20, 5), "p", n_prompt=12), document(random_ids(20, 5), "q", 15)]
    expected = score_documents(reader, texts, 1000, lambda _: None)
    for pack_tokens in (10, 1000):
        found = token_nll(reader, texts, pack_tokens)
        assert [len(nll) for nll in found] == [8, 29, 13, 8, 5]
        assert [nll.sum() for nll in found] == pytest.approx([expected[d.item].nll for d in texts], rel=1e-5)


def test_ngram_records_are_those_of_the_field() -> None:
    windows = [document(random_ids(9, 1), "a"), document(random_ids(7, 2), "a"), document(random_ids(5, 3), "b")]
    examples = [
        Example("a", "s", 1, "doc", "g", text="x"),
        Example("b", "s", 2, "doc", text="y"),
        Example("c", "s", 3, "c"),
    ]
    model = NgramModel(documents(40, 40), VOCABULARY)
    first, second = ngram_records(model, examples, windows)
    assert (first["item"], first["slice"], first["document"], first["group"]) == ("a", "field", "doc", "g")
    assert (first["bytes"], first["tokens"]) == (16, 14)
    assert first["nll"] == pytest.approx(sum(model.foretell(d).nll.sum() for d in windows[:2]))
    assert second["nll"] == pytest.approx(model.foretell(windows[2]).nll.sum())


PROSE = "A hernia is the bulging of tissue through an opening in the muscles that hold it. {} of them are harmless. "


def test_a_compressor_needs_almost_nothing_for_what_it_has_read_and_more_for_what_it_has_not() -> None:
    text = PROSE.format("Most") * 3
    other = "".join(chr(97 + i % 26) for i in random_ids(len(text), 1))
    seen, unseen, nothing_read = (compressor_bits(read, [text]) for read in ([text], [other], []))
    assert seen < 0.4 < unseen
    assert unseen == pytest.approx(nothing_read, rel=0.25)
    assert compressor_bits([text], [other]) > 4  # letters drawn at random: log2(26) = 4.7


def test_text_that_is_not_there_cannot_be_compressed() -> None:
    with pytest.raises(DataError, match="no held-out text"):
        compressor_bits(["a"], [""])
