"""The loss in chunks is the loss."""

import pytest
import torch
from torch import Tensor, nn

from metier.models import loss

VOCABULARY, HIDDEN, ROWS = 37, 12, 23


def values(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """hidden, weight, bias, labels"""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(ROWS, HIDDEN, generator=g, dtype=dtype)
    weight, bias = torch.randn(VOCABULARY, HIDDEN, generator=g, dtype=dtype), torch.randn(VOCABULARY, generator=g)
    return hidden, weight, bias.to(dtype), torch.randint(0, VOCABULARY, (ROWS,), generator=g)


def full(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, softcap: float) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    return nn.functional.cross_entropy(logits, labels, reduction="none")


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize("rows", [1, 2, 5, 22, 23, 24, 1000])
def test_the_chunked_loss_and_its_gradient_equal_full_cross_entropy(
    rows: int, softcap: float, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_BYTES", rows * 4 * VOCABULARY)
    hidden, weight, bias, labels = values()
    chosen = bias if with_bias else None
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found, expected = (
        loss.summed_nll(ours, weight, chosen, labels, softcap)[0],
        full(theirs, weight, chosen, labels, softcap),
    )
    (found / 7).backward()
    (expected.sum() / 7).backward()
    torch.testing.assert_close(found, expected.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.token_nll(hidden, weight, chosen, labels, softcap), expected.detach())


@pytest.mark.parametrize("softcap", [0.0, 3.0])
def test_the_gradient_is_the_slope_of_the_loss(softcap: float) -> None:
    """By central differences along random directions; the loss is a float32, so the steps are wide."""
    hidden, weight, bias, labels = values()
    hidden.requires_grad_()
    loss.summed_nll(hidden, weight, bias, labels, softcap)[0].backward()
    for seed in range(5):
        direction = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            above, below = (
                loss.summed_nll(hidden + sign * 1e-2 * direction, weight, bias, labels, softcap)[0] for sign in (1, -1)
            )
        slope = (above - below) / 2e-2
        torch.testing.assert_close((hidden.grad * direction).sum(), slope, rtol=2e-3, atol=2e-2)


def test_one_chunk_stays_within_its_bytes_and_holds_at_least_one_row() -> None:
    assert loss.chunk_rows(49_152) * 49_152 * 4 <= loss.CHUNK_BYTES
    assert loss.chunk_rows(10**9) == 1


def test_no_labels_cost_nothing() -> None:
    hidden, weight, _, _ = values()
    nothing = torch.zeros(0, dtype=torch.long)
    assert loss.summed_nll(hidden[:0], weight, None, nothing)[0].item() == 0
    assert loss.token_nll(hidden[:0], weight, None, nothing).shape == (0,)
