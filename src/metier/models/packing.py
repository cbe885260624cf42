"""Documents end to end, without padding; and a model that reads such packs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from metier.errors import ModelError
from metier.models.attention import packed
from metier.models.blocks import Segment
from metier.models.encoding import Encoded, Loss
from metier.models.loss import label_nll, logits_of, summed_nll, token_nll
from metier.models.replace import own_forwards, replace_forwards
from metier.models.token_rows import head_rows


@dataclass(frozen=True)
class Pack:
    """Documents end to end: T tokens, N of them supervised.

    input_ids (1, T) · position_ids (1, T), from 0 in each document, a branch going on from its stem
    segments: lengths of the documents, or of a stem and the documents behind it
    predictors (N,): positions whose next token is supervised · labels (N,): those tokens
    owners (N,): index into `items` of the document (or branch) that each label belongs to
    """

    items: tuple[str, ...]
    segments: tuple[Segment, ...]
    input_ids: Tensor
    position_ids: Tensor
    predictors: Tensor
    labels: Tensor
    owners: Tensor

    @property
    def n_tokens(self) -> int:
        return self.input_ids.shape[1]

    def to(self, device: torch.device) -> "Pack":
        """The same pack with its tensors there."""
        names = ("input_ids", "position_ids", "predictors", "labels", "owners")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


class _Layout:
    """The lists of a pack under construction."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.segments: list[Segment] = []
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.predictors: list[int] = []
        self.labels: list[int] = []
        self.owners: list[int] = []

    def add(self, stem: Sequence[int], branches: Sequence[tuple[str, Sequence[int], Sequence[int]]]) -> None:
        """A stem and what follows it: (item, its ids, which of them carry loss); a stem alone carries none.

        The first id of a branch is predicted at the last of the stem, so a branch with loss there needs one.
        """
        last = len(self.ids) + len(stem) - 1
        self.ids.extend(stem)
        self.positions.extend(range(len(stem)))
        self.segments.append((len(stem), *(len(ids) for _, ids, _ in branches)) if stem else (len(branches[0][1]),))
        for item, ids, supervised in branches:
            start = len(self.ids)
            self.ids.extend(ids)
            self.positions.extend(range(len(stem), len(stem) + len(ids)))
            self.predictors.extend(start + i - 1 if i else last for i in supervised)
            self.labels.extend(ids[i] for i in supervised)
            self.owners.extend([len(self.items)] * len(supervised))
            self.items.append(item)

    def pack(self) -> Pack:
        return Pack(
            items=tuple(self.items),
            segments=tuple(self.segments),
            input_ids=torch.tensor(self.ids)[None],
            position_ids=torch.tensor(self.positions)[None],
            predictors=torch.tensor(self.predictors, dtype=torch.long),
            labels=torch.tensor(self.labels, dtype=torch.long),
            owners=torch.tensor(self.owners, dtype=torch.long),
        )


KEY_TOKENS = 8  # documents that begin with the same ids, as many as this, are put behind one stem
"""Shorter common starts cost more in calls than they save in tokens."""


def pack(documents: Sequence[Encoded], with_end: bool = True) -> Pack:
    """One pack of all the documents; the end tokens carry loss in training (`with_end`), not in scoring.

    What several documents have in common at their start without loss, as a rule the system prompt and the opening of
    the template, stands in the pack once, as a stem that each of them sees.
    """
    layout = _Layout()
    for group in _by_start(documents):
        n_common = _n_common(group) if len(group) > 1 else 0
        if not n_common:
            for document in group:
                layout.add((), [_branch(document, 0, with_end)])
            continue
        layout.add(group[0].ids[:n_common], [_branch(document, n_common, with_end) for document in group])
    return layout.pack()


def _branch(document: Encoded, n_common: int, with_end: bool) -> tuple[str, Sequence[int], list[int]]:
    kinds = document.loss[n_common:]
    supervised = [i for i, kind in enumerate(kinds) if kind == Loss.TEXT or (kind == Loss.END and with_end)]
    return document.item, document.ids[n_common:], supervised


def _by_start(documents: Sequence[Encoded]) -> list[list[Encoded]]:
    """Groups of documents that may share a stem, in the order of their first members."""
    groups: dict[tuple[int, ...], list[Encoded]] = {}
    for document in documents:
        groups.setdefault(_key(document), []).append(document)
    return list(groups.values())


def _key(document: Encoded) -> tuple[int, ...]:
    """The start by which documents are grouped; of one that can share none, a key of its own kind."""
    return document.ids[:KEY_TOKENS] if not any(document.loss[:KEY_TOKENS]) else ()


def _n_common(group: Sequence[Encoded]) -> int:
    """Tokens that all of a group begin with, none of them with loss, and at least one left to every document."""
    first = group[0].ids
    if not _key(group[0]):
        return 0
    longest = min(min(document.n_before_loss, len(document.ids) - 1) for document in group)
    same = (i for i in range(KEY_TOKENS, longest) if any(document.ids[i] != first[i] for document in group))
    n_common = next(same, longest)
    return n_common if n_common >= KEY_TOKENS else 0


def packs_of(documents: Iterable[Encoded], n_tokens: int, with_end: bool = True) -> Iterator[Pack]:
    """Fill packs in the order given: each holds at least one document, and at most `n_tokens` tokens (shared ones
    counted once) unless one document is longer."""
    for group in divide(documents, n_tokens):
        yield pack(group, with_end)


def divide(documents: Iterable[Encoded], n_tokens: int) -> Iterator[list[Encoded]]:
    """The documents of each pack of `packs_of`, in the order of its items."""
    current: list[Encoded] = []
    starts: dict[tuple[int, ...], tuple[int, int, int]] = {}  # key → documents, their tokens, tokens in common
    for document in documents:
        key = _key(document)
        grown = _grown(starts.get(key), document, current)
        others = sum(_size(start) for k, start in starts.items() if k != key)
        if current and others + _size(grown) > n_tokens:
            yield _ordered(current)
            current, starts = [], {}
            grown = _grown(None, document, [])
        current.append(document)
        starts[key] = grown
    if current:
        yield _ordered(current)


def _ordered(documents: Sequence[Encoded]) -> list[Encoded]:
    return [document for group in _by_start(documents) for document in group]


def _grown(start: tuple[int, int, int] | None, document: Encoded, current: Sequence[Encoded]) -> tuple[int, int, int]:
    if start is None:
        return 1, len(document.ids), 0
    n, size, n_common = start
    key = _key(document)
    if not key:
        return n + 1, size + len(document.ids), 0
    fellow = next(d for d in current if _key(d) == key)
    pair = _n_common((fellow, document))
    return n + 1, size + len(document.ids), pair if n == 1 else min(n_common, pair)


def _size(start: tuple[int, int, int]) -> int:
    n, size, n_common = start
    return size - (n - 1) * n_common


@dataclass(frozen=True)
class Branches:
    """A stem and its alternative continuations, each scored as if it alone followed the stem."""

    item: str
    stem: tuple[int, ...]
    branches: tuple[tuple[int, ...], ...]

    @property
    def n_tokens(self) -> int:
        return len(self.stem) + sum(map(len, self.branches))


def pack_branches(documents: Sequence[Branches]) -> Pack:
    """Every stem once, its branches after it; owners number the branches over the whole pack."""
    layout = _Layout()
    for document in documents:
        named = [(f"{document.item}#{i}", ids, range(len(ids))) for i, ids in enumerate(document.branches)]
        layout.add(document.stem, named)
    return layout.pack()


def tried_packs(model: Any) -> tuple[Pack, Pack]:
    """Two short documents, and a stem with two branches, in tokens of a transformers model."""
    vocabulary = model.config.get_text_config().vocab_size
    ids = [tuple((7 + 13 * i + 5 * d) % vocabulary for i in range(9 + d)) for d in range(2)]
    documents = [Encoded(str(d), row, (Loss.NONE, *[Loss.TEXT] * (len(row) - 1)), 0) for d, row in enumerate(ids)]
    return pack(documents), pack_branches([Branches("stem", ids[0], (ids[1][:4], ids[1][4:]))])


CLOSE, CLOSE_IN_16_BITS = 1e-3, 5e-2  # nats, relative and absolute: between a document alone and in a pack


class PackReader:
    """Reads packs with a causal language model: documents isolated, logits at supervised positions only.

    Where an architecture cannot take that path (it is tried on two short documents), each document is run alone through
    the model's own forward, and `why_plain` says why. `own_forwards`: classes of the parts of its layers that no fused
    function stands for.
    """

    figures: tuple[str, ...] = ()
    """Names of what `per_token` gives beside nats."""

    def __init__(self, model: Any) -> None:
        """model: a transformers causal language model, or one that PEFT has adapted."""
        self.model = model
        inner = model.get_base_model() if isinstance(model, PeftModel) else model
        self.inner: Any = inner
        self.head: Any = inner.get_output_embeddings()
        self.device: torch.device = inner.device
        self.softcap = float(getattr(inner.config, "final_logit_softcapping", None) or 0.0)
        self.own_forwards = own_forwards(model, replace_forwards(model))
        self.why_plain = self._why_plain()

    def slower_paths(self) -> list[str]:
        """What a person is told: a sentence for each way in which this model is read slower than others are."""
        lines = [f"{self.why_plain}: each document runs alone, which is slower and the same"] if self.why_plain else []
        if self.own_forwards:
            names = ", ".join(self.own_forwards)
            lines.append(f"parts of its layers compute through their own forward, slower and the same: {names}")
        return lines

    def summed_nll(self, batch: Pack) -> Tensor:
        """Scalar: nats summed over the supervised tokens; its gradient reaches all that is trained."""
        return self._nll(batch)[0]

    def row_nll(self, batch: Pack) -> tuple[Tensor, Tensor]:
        """(scalar as `summed_nll`, (items,) float64 on the CPU without gradient: nats of each item of the pack)."""
        total, tokens = self._nll(batch)
        by_item = torch.zeros(len(batch.items), dtype=torch.float64)
        return total, by_item.index_add_(0, batch.owners, tokens.detach().cpu().double())

    def _nll(self, batch: Pack) -> tuple[Tensor, Tensor]:
        """(their sum, (N,) nats of each supervised token)"""
        batch = batch.to(self.device)
        weight, bias = head_rows(self.head)
        if self.why_plain or weight.requires_grad:
            tokens = self._label_nll(batch, weight, bias)
            return tokens.sum(), tokens
        return summed_nll(self._hidden(batch), weight, bias, batch.labels, self.softcap)

    def label_nll(self, batch: Pack) -> Tensor:
        """(N,): nats of each supervised token, with a gradient for all that is trained, the head too."""
        return self._label_nll(batch.to(self.device), *head_rows(self.head))

    def _label_nll(self, batch: Pack, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.why_plain:
            return nn.functional.cross_entropy(self._plain_logits(batch).float(), batch.labels, reduction="none")
        return label_nll(self._hidden(batch), weight, bias, batch.labels, self.softcap)

    def token_nll(self, batch: Pack) -> Tensor:
        """(N,): nats of each supervised token."""
        return self.nll_of(self.states(batch), batch)

    def per_token(self, batch: Pack) -> Tensor:
        """(1, N): `token_nll`, where other readers have `figures` below it."""
        return self.token_nll(batch)[None]

    @torch.no_grad()
    def states(self, batch: Pack) -> Tensor:
        """(N, …) at the position before each supervised token: what `nll_of` and `log_probabilities` are made of."""
        batch = batch.to(self.device)
        return self._plain_logits(batch) if self.why_plain else self._hidden(batch)

    @torch.no_grad()
    def nll_of(self, states: Tensor, batch: Pack) -> Tensor:
        """(N,): nats of each supervised token of the pack whose `states` these are."""
        labels = batch.labels.to(self.device)
        if self.why_plain:
            return nn.functional.cross_entropy(states.float(), labels, reduction="none")
        return token_nll(states, *head_rows(self.head), labels, self.softcap)

    @torch.no_grad()
    def log_probabilities(self, states: Tensor) -> Tensor:
        """(rows, V) in float32: the natural logarithm of the probability of every next token, of rows of `states`."""
        if self.why_plain:
            return nn.functional.log_softmax(states.float(), dim=-1)
        logits = logits_of(states, *head_rows(self.head), self.softcap)
        return nn.functional.log_softmax(logits, dim=0).t()

    def _hidden(self, batch: Pack) -> Tensor:
        """(N, H): the last hidden state at each predicting position."""
        with packed(batch.segments):
            trunk = self.inner.base_model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False)
        hidden: Tensor = trunk.last_hidden_state[0, batch.predictors]
        return hidden

    def _plain_logits(self, batch: Pack) -> Tensor:
        """(N, V), each document (or each stem with one branch) run alone."""
        parts: list[Tensor] = []
        owner = offset = 0
        for stem, *branches in batch.segments:
            start = offset + stem
            for length in branches or [0]:
                rows = torch.tensor([*range(offset, offset + stem), *range(start, start + length)], device=self.device)
                logits = self.inner(input_ids=batch.input_ids[:, rows], use_cache=False).logits[0]
                parts.append(logits[torch.searchsorted(rows, batch.predictors[batch.owners == owner])])
                start += length
                owner += 1
            offset = start
        return torch.cat(parts)

    @torch.no_grad()
    def _why_plain(self) -> str:
        """'' when two short documents in one pack, and a stem with two branches, score as each alone does through the
        model's own forward."""
        close = CLOSE if self.inner.dtype == torch.float32 else CLOSE_IN_16_BITS
        was_training = self.model.training
        self.model.eval()
        try:
            for tried in tried_packs(self.inner):
                batch = tried.to(self.device)
                found = token_nll(self._hidden(batch), *head_rows(self.head), batch.labels, self.softcap)
                expected = nn.functional.cross_entropy(
                    self._plain_logits(batch).float(), batch.labels, reduction="none"
                )
                if not torch.allclose(found, expected, rtol=close, atol=close):
                    return f"{type(self.inner).__name__} does not keep packed documents apart"
        except (ModelError, TypeError, AttributeError) as error:
            return f"{type(self.inner).__name__} cannot read packs ({error})"
        finally:
            self.model.train(was_training)
        return ""
