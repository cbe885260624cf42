"""Negative log-likelihood at the supervised positions only, in chunks: the full logits never exist."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metier.models.onednn import weight_times

CHUNK_BYTES = 24 * 2**20
"""Logits alive at one time on a CPU: under the 32 MiB beyond which glibc takes fresh pages from the system at every
allocation, and faulting them in costs more than the softmax. 24 MiB is 128 positions of a 49,152-word vocabulary."""

GPU_CHUNK_BYTES = 256 * 2**20  # a GPU is kept busy by larger products, and its memory has no such threshold


def chunk_rows(vocabulary: int, on_cpu: bool = True) -> int:
    """A multiple of 32 where there is room: odd sizes cost the matrix products a tenth of their speed."""
    rows = (CHUNK_BYTES if on_cpu else GPU_CHUNK_BYTES) // (4 * vocabulary)
    return max(1, rows - rows % 32 if rows >= 32 else rows)


def logits_of(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float = 0.0) -> Tensor:
    """(V, rows) in float32, without a gradient: transposed, since with the long side first the product with the head is
    faster (docs/log.md). Arguments as of `summed_nll`."""
    logits = weight_times(weight, hidden).float()
    if bias is not None:
        logits += bias[:, None]
    if softcap:
        logits.div_(softcap).tanh_().mul_(softcap)
    return logits


class _SummedNll(torch.autograd.Function):
    """Forms the gradient of the hidden states while the logits of a chunk are at hand; the head itself is frozen."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float
    ) -> tuple[Tensor, Tensor]:
        grad = torch.empty_like(hidden) if hidden.requires_grad else None
        nll = _chunked_nll(hidden, weight, bias, labels, softcap, grad)
        ctx.save_for_backward(*([grad] if grad is not None else []))
        ctx.mark_non_differentiable(nll)
        return nll.sum(), nll

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0].to(grad.dtype), None, None, None, None


def _chunked_nll(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float, grad: Tensor | None
) -> Tensor:
    """(N,) nats of each label in float32; the gradient of their sum is written into `grad` (N, H) where one is given.

    The softmax is never divided out: its sum divides the gradient, which is made transposed, as the logits are: that
    takes three quarters of the time (docs/log.md).
    """
    nll = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
    rows = chunk_rows(weight.shape[0], weight.device.type == "cpu")
    for start in range(0, len(labels), rows):
        h, y = hidden[start : start + rows], labels[start : start + rows]
        logits = logits_of(h, weight, bias, softcap)
        right = logits.gather(0, y[None])[0]
        # tanh' at the capped logits, which exp_ overwrites
        slope = 1 - (logits / softcap) ** 2 if softcap and grad is not None else None
        top = logits.amax(0)
        exponential = logits.sub_(top).exp_()
        total = exponential.sum(0)
        nll[start : start + rows] = total.log() + top - right
        if grad is None:
            continue
        if slope is None and weight.dtype == torch.float32:
            into = weight.t() @ exponential
            grad[start : start + rows] = into.div_(total).sub_(weight[y].t()).t()
        else:
            probability = exponential.div_(total)
            probability[y, torch.arange(len(y), device=y.device)] -= 1  # before it is rounded to 16 bits
            if slope is not None:
                probability.mul_(slope)
            grad[start : start + rows] = (weight.t() @ probability.to(weight.dtype)).t()
    return nll


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
    return _chunked_nll(hidden, weight, bias, labels, softcap, grad=None)


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
