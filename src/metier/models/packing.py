"""Documents end to end, without padding; and a model that reads such packs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from metier.errors import ModelError
from metier.models.attention import Segment, packed
from metier.models.encoding import Encoded, Loss
from metier.models.loss import label_nll, summed_nll, token_nll


@dataclass(frozen=True)
class Pack:
    """Documents end to end: T tokens, N of them supervised.

    input_ids (1, T) · position_ids (1, T), from 0 in each document · segments: lengths of the documents
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


def pack(documents: Sequence[Encoded], with_end: bool = True) -> Pack:
    """One pack of all the documents; the end tokens carry loss in training (`with_end`), not in scoring."""
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    owners: list[int] = []
    for owner, document in enumerate(documents):
        offset = len(ids)
        ids.extend(document.ids)
        positions.extend(range(len(document.ids)))
        for i, kind in enumerate(document.loss):
            if kind == Loss.TEXT or (kind == Loss.END and with_end):
                predictors.append(offset + i - 1)
                owners.append(owner)
    input_ids = torch.tensor(ids)
    predictor = torch.tensor(predictors, dtype=torch.long)
    return Pack(
        items=tuple(document.item for document in documents),
        segments=tuple((len(document.ids),) for document in documents),
        input_ids=input_ids[None],
        position_ids=torch.tensor(positions)[None],
        predictors=predictor,
        labels=input_ids[predictor + 1],
        owners=torch.tensor(owners, dtype=torch.long),
    )


def packs_of(documents: Iterable[Encoded], n_tokens: int, with_end: bool = True) -> Iterator[Pack]:
    """Fill packs in the order given: each holds at least one document and at most `n_tokens` unless one is longer."""
    current: list[Encoded] = []
    size = 0
    for document in documents:
        if current and size + len(document.ids) > n_tokens:
            yield pack(current, with_end)
            current, size = [], 0
        current.append(document)
        size += len(document.ids)
    if current:
        yield pack(current, with_end)


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
    ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    labels: list[int] = []
    owners: list[int] = []
    owner = 0
    for document in documents:
        stem_last = len(ids) + len(document.stem) - 1
        ids.extend(document.stem)
        positions.extend(range(len(document.stem)))
        for branch in document.branches:
            start = len(ids)
            ids.extend(branch)
            positions.extend(range(len(document.stem), len(document.stem) + len(branch)))
            predictors.extend([stem_last, *range(start, start + len(branch) - 1)])
            labels.extend(branch)
            owners.extend([owner] * len(branch))
            owner += 1
    return Pack(
        items=tuple(f"{d.item}#{i}" for d in documents for i in range(len(d.branches))),
        segments=tuple((len(d.stem), *map(len, d.branches)) for d in documents),
        input_ids=torch.tensor(ids)[None],
        position_ids=torch.tensor(positions)[None],
        predictors=torch.tensor(predictors),
        labels=torch.tensor(labels),
        owners=torch.tensor(owners),
    )


class PackReader:
    """Reads packs with a causal language model: documents isolated, logits at supervised positions only.

    Where an architecture cannot take that path (it is tried on two short documents), each document is run alone through
    the model's own forward, and `why_plain` says why.
    """

    def __init__(self, model: Any) -> None:
        """model: a transformers causal language model, or one that PEFT has adapted."""
        self.model = model
        inner = model.get_base_model() if isinstance(model, PeftModel) else model
        self.inner: Any = inner
        self.head: Any = inner.get_output_embeddings()
        self.softcap = float(getattr(inner.config, "final_logit_softcapping", None) or 0.0)
        self.why_plain = self._why_plain()

    def summed_nll(self, batch: Pack) -> Tensor:
        """Scalar: nats summed over the supervised tokens; its gradient reaches all that is trained."""
        if self.why_plain or self.head.weight.requires_grad:
            return self.label_nll(batch).sum()
        return summed_nll(self._hidden(batch), self.head.weight, self.head.bias, batch.labels, self.softcap)

    def label_nll(self, batch: Pack) -> Tensor:
        """(N,): nats of each supervised token, with a gradient for all that is trained, the head too."""
        if self.why_plain:
            return nn.functional.cross_entropy(self._plain_logits(batch).float(), batch.labels, reduction="none")
        return label_nll(self._hidden(batch), self.head.weight, self.head.bias, batch.labels, self.softcap)

    @torch.no_grad()
    def token_nll(self, batch: Pack) -> Tensor:
        """(N,): nats of each supervised token."""
        if self.why_plain:
            return nn.functional.cross_entropy(self._plain_logits(batch).float(), batch.labels, reduction="none")
        return token_nll(self._hidden(batch), self.head.weight, self.head.bias, batch.labels, self.softcap)

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
                rows = torch.cat([torch.arange(offset, offset + stem), torch.arange(start, start + length)])
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
        vocabulary = self.inner.config.get_text_config().vocab_size
        ids = [tuple((7 + 13 * i + 5 * d) % vocabulary for i in range(9 + d)) for d in range(2)]
        documents = [Encoded(str(d), row, (Loss.NONE, *[Loss.TEXT] * (len(row) - 1)), 0) for d, row in enumerate(ids)]
        stem = Branches("stem", ids[0], (ids[1][:4], ids[1][4:]))
        was_training = self.model.training
        self.model.eval()
        try:
            for batch in (pack(documents), pack_branches([stem])):
                found = token_nll(self._hidden(batch), self.head.weight, self.head.bias, batch.labels, self.softcap)
                expected = nn.functional.cross_entropy(
                    self._plain_logits(batch).float(), batch.labels, reduction="none"
                )
                if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3):
                    return f"{type(self.inner).__name__} does not keep packed documents apart"
        except (ModelError, TypeError, AttributeError) as error:
            return f"{type(self.inner).__name__} cannot read packs ({error})"
        finally:
            self.model.train(was_training)
        return ""
