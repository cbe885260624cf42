"""Floors without any training: what counting and compressing the training text do for the held-out text.

They say what the weights of a model are worth: one that does not beat them has learned nothing that a table of counts
does not know.
"""

import bz2
import lzma
import math
from collections.abc import Callable, Sequence

import numpy as np

from metier.errors import DataError
from metier.evidence.full.ngrams import Floats, Foretold, NgramModel
from metier.evidence.gain import FIELD_SLICE
from metier.evidence.score import Record, Scored, bytes_by_item, score_record
from metier.models.encoding import Encoded
from metier.models.packing import PackReader, divide, pack
from metier.sources.examples import Example

SHARES = np.linspace(0, 1, 101)  # of the n-gram model in a mixture, that are tried
BETWEEN = "\n\n"  # texts, where they are compressed
MOST_BYTES = 8_000_000  # of the training text are compressed, which takes some 100 MB of memory
SMALLEST_DICTIONARY = 4096  # bytes, of LZMA2
LZMA_DEPTH = 64  # matches tried: without a limit, text of a few endlessly repeated words takes minutes
BZIP2_BLOCK = 890_000  # bytes: it forgets everything between two blocks of 900,000


def token_nll(reader: PackReader, documents: Sequence[Encoded], pack_tokens: int) -> list[Floats]:
    """Nats of every scored token of each document, in the order of the documents."""
    places = {id(document): i for i, document in enumerate(documents)}
    found: list[Floats] = [np.zeros(0)] * len(documents)
    for group in divide(sorted(documents, key=lambda d: len(d.ids), reverse=True), pack_tokens):
        batch = pack(group, with_end=False)
        nll = reader.token_nll(batch).double().cpu().numpy()
        owners = batch.owners.numpy()
        for i, document in enumerate(group):
            found[places[id(document)]] = nll[owners == i]
    return found


def fit_mixture(base: Sequence[Floats], counted: Sequence[Foretold]) -> tuple[float, ...]:
    """The share of the n-gram model that gives the fewest nats, one for each number of matched tokens.

    base, counted: of the same tokens, by document, of the select half. A number that no token matched gets 0, so what
    is mixed is never worse than either model on these tokens.
    """
    nats = np.concatenate(base)
    ngram, matched = np.concatenate([c.nll for c in counted]), np.concatenate([c.matched for c in counted])
    shares = []
    for n in range(int(matched.max(initial=0)) + 1):
        here = matched == n
        if not here.any():
            shares.append(0.0)
            continue
        sums = [mixed_nll(nats[here], Foretold(ngram[here], matched[here] * 0), (share,)).sum() for share in SHARES]
        shares.append(float(SHARES[int(np.argmin(sums))]))
    return tuple(shares)


def mixed_nll(base: Floats, counted: Foretold, shares: Sequence[float]) -> Floats:
    """Nats of each token under share * n-gram + (1 - share) * base; shares: by the number of matched tokens."""
    known = np.asarray([*shares, 0.0])
    share = known[np.minimum(counted.matched, len(shares))]
    with np.errstate(divide="ignore"):  # the log of a share of 0
        nats: Floats = -np.logaddexp(np.log(share) - counted.nll, np.log1p(-share) - base)
    return nats


def ngram_records(model: NgramModel, examples: Sequence[Example], documents: Sequence[Encoded]) -> list[Record]:
    """Score records of slice 'field', as the models have them. documents: the windows of the examples."""
    scored: dict[str, Scored] = {}
    for document in documents:
        nll = model.foretell(document).nll
        before = scored.get(document.item, Scored())
        scored[document.item] = Scored((*before.by_token, *nll.tolist()))
    n_bytes = bytes_by_item(documents)
    return [
        score_record(e.id, FIELD_SLICE, e.document, e.group, n_bytes[e.id], scored[e.id])
        for e in examples
        if e.id in scored and scored[e.id].tokens
    ]


def compressor_bits(train: Sequence[str], held_out: Sequence[str]) -> float:
    """Bits per byte that a compressor needs for the held-out texts once it has read the training texts, LZMA or bzip2,
    whichever needs fewer: C(train + x) - C(train) over the bytes of x, all held-out texts in a row, so that later ones
    also profit from earlier ones.

    Raises:
        DataError: the held-out texts are empty.
    """
    read = BETWEEN.join(train).encode()
    wanted = BETWEEN.join(held_out).encode()
    n_bytes = sum(len(text.encode()) for text in held_out)
    if not n_bytes:
        raise DataError("There is no held-out text to compress: hold out at least one document.")
    in_a_block = max(0, BZIP2_BLOCK - len(wanted))
    sizes = (
        _added_bytes(_lzma_size, read[-MOST_BYTES:], wanted),
        _added_bytes(_bzip2_size, read[len(read) - min(len(read), in_a_block) :], wanted),
    )
    return 8 * min(sizes) / n_bytes


def _added_bytes(size: Callable[[bytes], int], read: bytes, wanted: bytes) -> int:
    return size(read + BETWEEN.encode() + wanted) - size(read)


def _lzma_size(content: bytes) -> int:
    """Without a container, whose padding would be as large as a short text."""
    dictionary = max(SMALLEST_DICTIONARY, 2 ** math.ceil(math.log2(len(content) + 1)))
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": dictionary, "depth": LZMA_DEPTH}]
    return len(lzma.compress(content, format=lzma.FORMAT_RAW, filters=filters))


def _bzip2_size(content: bytes) -> int:
    return len(bz2.compress(content))
