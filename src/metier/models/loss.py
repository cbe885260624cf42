"""Negative log-likelihood at the supervised positions only, in chunks: the full logits never exist."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 64 * 2**20  # logits alive at one time; 64 MiB is 341 positions of a 49,152-word vocabulary


def _chunk_rows(vocabulary: int) -> int:
    return max(1, CHUNK_BYTES // (4 * vocabulary))


class _SummedNll(torch.autograd.Function):
    """Forms the gradient of the hidden states while the logits of a chunk are at hand; the head itself is frozen."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float
    ) -> Tensor:
        needs_grad = hidden.requires_grad
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad = torch.empty_like(hidden) if needs_grad else None
        rows = _chunk_rows(weight.shape[0])
        for start in range(0, len(labels), rows):
            h, y = hidden[start : start + rows], labels[start : start + rows]
            logits = _logits(h, weight, bias, softcap)
            slope = 1 - (logits / softcap) ** 2 if softcap and needs_grad else None
            log_probability = torch.log_softmax(logits, dim=-1)
            total -= log_probability.gather(-1, y[:, None]).sum()
            if grad is not None:
                probability = log_probability.exp_()
                probability[torch.arange(len(y), device=y.device), y] -= 1
                if slope is not None:
                    probability *= slope
                grad[start : start + rows] = probability.to(weight.dtype) @ weight
        ctx.save_for_backward(*([grad] if grad is not None else []))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * grad_outputs[0].to(grad.dtype), None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float) -> Tensor:
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    return torch.tanh(logits / softcap) * softcap if softcap else logits


def summed_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0) -> Tensor:
    """Sum of the negative log-likelihoods, in nats, of `labels` (N,) given `hidden` (N, H); a scalar.

    weight (V, H) and bias (V,) are the frozen head; softcap > 0 bounds the logits by tanh, as Gemma 2 does.
    The gradient flows to `hidden` only.
    """
    total: Tensor = _SummedNll.apply(hidden, weight, bias, labels, softcap)  # type: ignore[no-untyped-call]
    return total


@torch.no_grad()
def token_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0) -> Tensor:
    """The negative log-likelihood, in nats, of each label: (N,) float32."""
    rows = _chunk_rows(weight.shape[0])
    parts = []
    for start in range(0, len(labels), rows):
        logits = _logits(hidden[start : start + rows], weight, bias, softcap)
        parts.append(torch.nn.functional.cross_entropy(logits, labels[start : start + rows], reduction="none"))
    return torch.cat(parts) if parts else torch.zeros(0)


def label_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float = 0.0) -> Tensor:
    """As `token_nll`, (N,), with a gradient for hidden, weight and bias; the logits are made again for it, a chunk at a
    time."""
    rows = _chunk_rows(weight.shape[0])
    parts = [
        checkpoint(_chunk_nll, hidden[i : i + rows], weight, bias, labels[i : i + rows], softcap, use_reentrant=False)
        for i in range(0, len(labels), rows)
    ]
    return torch.cat(parts) if parts else hidden.new_zeros(0)


def _chunk_nll(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float) -> Tensor:
    return torch.nn.functional.cross_entropy(_logits(hidden, weight, bias, softcap), labels, reduction="none")
