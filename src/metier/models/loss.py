"""Negative log-likelihood at the supervised positions only, in parts: the full logits never exist."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metier.models.linear import product
from metier.models.onednn import weight_times

BLOCK_BYTES = 4 * 2**20
"""Logits of a block of the vocabulary on a CPU: they are summed and multiplied while two cores still have them in their
caches (docs/log.md)."""

FEWEST_COLUMNS = 512  # of a block: with fewer the product itself is slower

CHUNK_BYTES = 24 * 2**20
"""Logits of the whole vocabulary alive at one time on a CPU, where they are needed at once: under the 32 MiB beyond
which glibc takes fresh pages from the system at every allocation. 24 MiB is 128 positions of a 49,152-word
vocabulary."""

GPU_BYTES = 256 * 2**20  # of either: a GPU is kept busy by larger products, and its memory has no such thresholds


def chunk_rows(vocabulary: int, on_cpu: bool = True) -> int:
    """A multiple of 32 where there is room: odd sizes cost the matrix products a tenth of their speed."""
    rows = (CHUNK_BYTES if on_cpu else GPU_BYTES) // (4 * vocabulary)
    return max(1, rows - rows % 32 if rows >= 32 else rows)


def block_columns(n_rows: int, on_cpu: bool = True) -> int:
    """How much of the vocabulary is multiplied with so many positions at one time."""
    columns = (BLOCK_BYTES if on_cpu else GPU_BYTES) // (4 * n_rows)
    return max(FEWEST_COLUMNS, columns - columns % 64)


def logits_of(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float = 0.0) -> Tensor:
    """(V, rows) in float32, without a gradient: transposed, since with the long side first the product with the head is
    faster (docs/log.md). Arguments as of `summed_nll`."""
    return _bounded(weight_times(weight, hidden), None if bias is None else bias[:, None], softcap)


def _bounded(raw: Tensor, bias: Tensor | None, softcap: float) -> Tensor:
    """The logits of a product with the head, in float32; its memory may be taken."""
    logits = raw.float()
    if bias is not None:
        logits += bias
    if softcap:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits


class _Sums:
    """Of N positions, over the blocks of the vocabulary read so far.

    The softmax is summed as it is met, as attention's is over blocks of keys (Milakov and Gimelshein 2018, "Online
    normalizer calculation for softmax"): where a block holds a larger logit, what was summed before shrinks. The label
    is left out of the sums: its own part of the gradient, p - 1, would be lost to rounding where p is close to 1.
    """

    def __init__(self, hidden: Tensor, softcap: float, with_gradient: bool) -> None:
        """hidden (N, H)"""
        self.softcap = softcap
        column = hidden.new_zeros(len(hidden), 1, dtype=torch.float32)
        self.top = torch.full_like(column, float("-inf"))  # the largest logit
        self.label = torch.full_like(column, float("nan"))  # the logit of the label, once it was met
        self.others = column  # the exponentials of all other logits beside `top`
        self.rows = torch.zeros_like(hidden, dtype=torch.float32) if with_gradient else None  # of the head, so weighted

    def add(self, logits: Tensor, part: Tensor, labels: tuple[Tensor, Tensor]) -> None:
        """logits (N, columns), which are overwritten, of `part` (columns, H) of the head; labels: (rows, columns) of
        those among them."""
        self.label[labels[0], 0] = logits[labels]
        slope = _slope(logits, self.softcap) if self.softcap and self.rows is not None else None
        top = torch.maximum(self.top, logits.amax(1, keepdim=True))
        shrunk = (self.top - top).exp_()
        exponential = logits.sub_(top).exp_()
        exponential[labels] = 0
        self.top = top
        self.others.mul_(shrunk).add_(exponential.sum(1, keepdim=True))
        if self.rows is not None:
            weights = exponential if slope is None else exponential.mul_(slope)
            self.rows = _plus_product(self.rows.mul_(shrunk), weights, part)

    def nll(self) -> Tensor:
        """(N,) nats of the labels."""
        label = self.label - self.top
        return (label.exp().add_(self.others).log_() - label)[:, 0]

    def gradient(self, head_of_labels: Tensor) -> Tensor:
        """(N, H), of the sum of `nll`; head_of_labels: the head's rows of the labels, alike. The sums end with it."""
        assert self.rows is not None
        total = (self.label - self.top).exp_().add_(self.others)
        of_label = self.others / total
        if self.softcap:
            of_label *= _slope(self.label, self.softcap)
        return self.rows.div_(total).sub_(head_of_labels * of_label)


class _SummedNll(torch.autograd.Function):
    """Forms the gradient of the hidden states while the logits of a block are at hand; the head itself is frozen."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float
    ) -> tuple[Tensor, Tensor]:
        grad = torch.empty_like(hidden) if hidden.requires_grad else None
        nll = _nll(hidden, weight, bias, labels, softcap, grad)
        ctx.save_for_backward(*([grad] if grad is not None else []))
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0].to(grad.dtype), None, None, None, None


def _nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float, grad: Tensor | None
) -> Tensor:
    """(N,) nats of each label in float32; the gradient of their sum is written into `grad` (N, H), if there is one."""
    nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    at_once = (BLOCK_BYTES if hidden.device.type == "cpu" else GPU_BYTES) // (4 * FEWEST_COLUMNS)
    for start in range(0, len(labels), at_once):
        rows = slice(start, start + at_once)
        sums = _Sums(hidden[rows], softcap, with_gradient=grad is not None)
        _read_vocabulary(sums, hidden[rows], weight, bias, labels[rows])
        nll[rows] = sums.nll()
        if grad is not None:
            grad[rows] = sums.gradient(weight[labels[rows]])
    return nll


def _read_vocabulary(sums: _Sums, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> None:
    n_columns = block_columns(len(labels), hidden.device.type == "cpu")
    edges = range(0, len(weight) + n_columns, n_columns)
    order = labels.argsort()
    met = torch.searchsorted(labels[order], torch.tensor(edges, device=labels.device)).tolist()
    for start, first, last in zip(edges, met, met[1:], strict=False):
        block = slice(start, start + n_columns)
        logits = _bounded(product(hidden, weight[block]), None if bias is None else bias[block], sums.softcap)
        rows = order[first:last]
        sums.add(logits, weight[block], (rows, labels[rows] - start))


def _plus_product(rows: Tensor, weights: Tensor, part: Tensor) -> Tensor:
    """rows (N, H) plus weights (N, columns) times part (columns, H), in float32; `rows` may be overwritten."""
    if part.dtype == torch.float32:
        return product(weights, part.t(), added=rows)
    return rows.add_(weights.to(part.dtype) @ part)


def _slope(logits: Tensor, softcap: float) -> Tensor:
    """The derivative of logits bounded by tanh at what they would be without a bound."""
    return 1 - (logits / softcap).square_()


def summed_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(sum of the negative log-likelihoods in nats, their values (N,) without gradient) of `labels` (N,) given
    `hidden` (N, H).

    weight (V, H) and bias (V,) are the frozen head; softcap > 0 bounds the logits by tanh, as Gemma 2 does.
    The gradient of the sum flows to `hidden` only.
    """
    total: tuple[Tensor, Tensor] = _SummedNll.apply(hidden, weight, bias, labels, softcap)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def token_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0) -> Tensor:
    """The negative log-likelihood, in nats, of each label: (N,) float32."""
    return _nll(hidden, weight, bias, labels, softcap, grad=None)


def label_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0) -> Tensor:
    """As `token_nll`, (N,), with a gradient for hidden, weight and bias; the logits are made again for it, a chunk at a
    time."""
    rows = chunk_rows(weight.shape[0], weight.device.type == "cpu")
    parts = [
        checkpoint(_chunk_nll, hidden[i : i + rows], weight, bias, labels[i : i + rows], softcap, use_reentrant=False)
        for i in range(0, len(labels), rows)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def _chunk_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    if softcap:
        logits = torch.tanh(logits / softcap) * softcap
    return torch.nn.functional.cross_entropy(logits, labels, reduction="none")
