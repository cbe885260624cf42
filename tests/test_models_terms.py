"""Terms of a list become tokens, single tokens are left out, and an adapter's own tokens are found again."""

from pathlib import Path

import pytest

from metier.errors import DataError, ModelError
from metier.models.load import load_base
from metier.models.methods import add_method
from metier.models.terms import add_terms, read_terms, tokens_of_adapter
from tiny import save_tiny


def test_terms_are_read_from_files_and_the_line_itself_each_once(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("phenotype\n\n  inguinal   hernia \nphenotype\n", encoding="utf-8")
    assert read_terms([str(path), "ataxia", "phenotype"]) == ("phenotype", "inguinal hernia", "ataxia")


def test_no_terms_and_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="names no terms"):
        read_terms([str(tmp_path / "empty")])
    with pytest.raises(DataError, match="binary cannot be read as terms"):
        read_terms([str(tmp_path / "binary")])


def test_a_term_is_one_token_and_the_text_comes_back_as_it_was(tmp_path: Path) -> None:
    base = load_base(str(save_tiny(tmp_path)))
    new = add_terms(base, ("phenotype", "the", "inguinal hernia"))
    assert new.known == ("the",)
    first, second = new.pieces
    text = "phenotype: the phenotype of an inguinal hernia, phenotypes"
    ids = new.encoder.text_ids(text)
    assert (ids.count(first), ids.count(second)) == (2, 1)
    assert new.encoder.tokenizer.decode(ids) == text
    assert [base.encoder.text_ids(" phenotype"), base.encoder.text_ids(" inguinal hernia")] == [
        list(pieces) for pieces in new.pieces.values()
    ]
    assert first not in base.encoder.text_ids(text)


def test_nothing_is_left_of_terms_that_are_tokens_already(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="all 1 terms are single tokens"):
        add_terms(load_base(str(save_tiny(tmp_path))), ["the"])


def test_the_tokens_of_an_adapter_are_those_that_were_added(tmp_path: Path) -> None:
    folder, adapter = save_tiny(tmp_path / "base"), tmp_path / "adapter"
    base = load_base(str(folder))
    # a vocabulary of 291 in a model of 300 rows: the first new tokens fit without a longer embedding
    new = add_terms(base, [f"phenotype {i}" for i in range(12)])
    add_method(base.model, "lora", 4, 8, 0, 0, new.pieces).save_pretrained(adapter, save_embedding_layers=False)
    again = load_base(str(folder))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        tokens_of_adapter(again, adapter)
    new.encoder.tokenizer.save_pretrained(adapter)
    found = tokens_of_adapter(again, adapter)
    assert found is not None
    assert {token: tuple(pieces) for token, pieces in found.pieces.items()} == new.pieces
    add_method(again.model, "lora", 4, 8, 0).save_pretrained(tmp_path / "without")
    assert tokens_of_adapter(again, tmp_path / "without") is None
