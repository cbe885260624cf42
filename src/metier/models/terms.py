"""Terms of a field that become tokens of their own: read from a list, given to a tokenizer, found in an adapter."""

import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from transformers import AutoTokenizer

from metier.errors import DataError, ModelError
from metier.models.encoding import Encoder
from metier.models.load import BaseModel
from metier.models.token_rows import Pieces


@dataclass(frozen=True)
class NewTokens:
    """encoder: the base's, with the new tokens. known: terms that were single tokens before."""

    encoder: Encoder
    pieces: Pieces
    known: tuple[str, ...] = ()


def read_terms(given: Iterable[str]) -> tuple[str, ...]:
    """Terms from terms and files with one a line, each once, in their order.

    Raises:
        DataError: a file that cannot be read, or no terms at all.
    """
    terms: dict[str, None] = {}
    for value in given:
        lines = [value]
        if Path(value).is_file():
            try:
                lines = Path(value).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{value} cannot be read as terms ({error}): give UTF-8 text, one a line.") from None
        terms |= dict.fromkeys(term for line in lines if (term := " ".join(line.split())))
    if not terms:
        raise DataError("--new-tokens names no terms: give terms, or files with one a line.")
    return tuple(terms)


def add_terms(base: BaseModel, terms: Iterable[str]) -> NewTokens:
    """Every term, with the space before it, as one token of a copy of the tokenizer; single tokens are left out.

    The space belongs to the token, as it does in what models learned to write; so a term is one token inside of a
    text, and its old pieces where no space is before it.

    Raises:
        ModelError: every term is a single token already.
    """
    known, wanted = [], {}
    for term in terms:
        ids = base.encoder.text_ids(f" {term}")
        if len(ids) == 1:
            known.append(term)
        else:
            wanted[f" {term}"] = tuple(ids)
    if not wanted:
        raise ModelError(
            f"--new-tokens: all {len(known)} terms are single tokens of {base.name} already: leave it out."
        )
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in wanted])
    pieces = {tokenizer.convert_tokens_to_ids(text): ids for text, ids in wanted.items()}
    return NewTokens(_encoder(base, tokenizer), pieces, tuple(known))


def tokens_of_adapter(base: BaseModel, folder: Path) -> NewTokens | None:
    """The tokens that an adapter brings beside those of its base; None where it brings none.

    Raises:
        ModelError: its tokenizer is missing, or is not the base's with some added.
    """
    config = folder / "adapter_config.json"
    try:
        named = json.loads(config.read_text(encoding="utf-8"))
        rows = named.get("trainable_token_indices") or named.get("token_indices") or []
    except (OSError, ValueError, AttributeError):
        return None  # what is wrong with it is said where the adapter is loaded
    indices = {i for each in (rows.values() if isinstance(rows, dict) else [rows]) for i in each}
    if all(i < len(base.tokenizer) for i in indices):
        return None
    if not (folder / "tokenizer.json").exists():
        raise ModelError(f"{folder} trains new tokens and has no tokenizer.json: copy it beside the adapter.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = tokenizer.get_vocab()
    before = base.tokenizer.get_vocab()
    if any(vocabulary.get(text) != i for text, i in before.items()) or not indices <= set(vocabulary.values()):
        raise ModelError(f"{folder} has another vocabulary than {base.name}: name the base it was trained on.")
    texts = {i: text for text, i in vocabulary.items()}
    return NewTokens(_encoder(base, tokenizer), {i: base.encoder.text_ids(texts[i]) for i in sorted(indices)})


def _encoder(base: BaseModel, tokenizer: Any) -> Encoder:
    return Encoder(tokenizer, base.encoder.window, sorted(base.encoder.ends))
