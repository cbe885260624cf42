"""The loss in parts is the loss."""

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
@pytest.mark.parametrize(("columns", "at_once"), [(1, 1), (1, 23), (5, 4), (36, 22), (37, 23), (64, 1000)])
def test_the_loss_in_blocks_and_its_gradient_equal_full_cross_entropy(
    columns: int, at_once: int, softcap: float, with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "FEWEST_COLUMNS", columns)
    monkeypatch.setattr(loss, "BLOCK_BYTES", at_once * 4 * columns)
    monkeypatch.setattr(loss, "CHUNK_BYTES", at_once * 4 * VOCABULARY)
    hidden, weight, bias, labels = values()
    chosen = bias if with_bias else None
    ours, theirs, by_chunks = (hidden.clone().requires_grad_() for _ in range(3))
    found = loss.summed_nll(ours, weight, chosen, labels, softcap)[0]
    expected = full(theirs, weight, chosen, labels, softcap)
    (found / 7).backward()
    (expected.sum() / 7).backward()
    (loss.label_nll(by_chunks, weight, chosen, labels, softcap).sum() / 7).backward()
    torch.testing.assert_close(found, expected.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(by_chunks.grad, theirs.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.token_nll(hidden, weight, chosen, labels, softcap), expected.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [0.0, 60.0])
def test_the_gradient_of_a_label_that_is_all_but_sure_is_not_rounded_away(dtype: torch.dtype, softcap: float) -> None:
    """p - 1 of the label, formed of p, is off by as much as it is large; what bfloat16 has is its logits' rounding."""
    _, weight, _, labels = values(dtype)
    hidden = (30 * weight[labels] / weight[labels].float().square().sum(1, keepdim=True)).to(dtype)
    ours, exact = hidden.clone().requires_grad_(), hidden.double().requires_grad_()
    loss.summed_nll(ours, weight, None, labels, softcap)[0].backward()
    full(exact, weight.double(), None, labels, softcap).sum().backward()
    assert exact.grad.norm(dim=1).median() < 1e-2
    off = (ours.grad.double() - exact.grad).norm(dim=1) / exact.grad.norm(dim=1)
    assert (off < {torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]).all()


@pytest.mark.parametrize("logit", [1e4, -1e4])
def test_logits_of_any_size_neither_overflow_nor_vanish(logit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the first block holds the largest or the smallest."""
    monkeypatch.setattr(loss, "FEWEST_COLUMNS", 5)
    monkeypatch.setattr(loss, "BLOCK_BYTES", ROWS * 4 * 5)
    hidden, weight, bias, labels = values()
    bias[:5] += logit
    ours, theirs = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    found, expected = loss.summed_nll(ours, weight, bias, labels)[0], full(theirs, weight, bias, labels, 0.0).sum()
    found.backward()
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("label", [-100, 10**6])
def test_a_label_outside_the_vocabulary_has_no_likelihood(label: int) -> None:
    """Never the number that happened to stand in memory."""
    hidden, weight, _, labels = values()
    labels[3] = label
    assert loss.token_nll(hidden, weight, None, labels).isnan().nonzero().tolist() == [[3]]


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


@pytest.mark.parametrize("n_rows", [1, 7, 128, 732, 2048])
def test_one_block_stays_within_its_bytes_and_is_as_wide_as_they_let_it(n_rows: int) -> None:
    columns = loss.block_columns(n_rows)
    assert 4 * n_rows * columns <= loss.BLOCK_BYTES < 4 * n_rows * (columns + 64)


def test_one_chunk_stays_within_its_bytes_and_holds_at_least_one_row() -> None:
    assert loss.chunk_rows(49_152) * 49_152 * 4 <= loss.CHUNK_BYTES
    assert loss.chunk_rows(10**9) == 1


def test_no_labels_cost_nothing() -> None:
    hidden, weight, _, _ = values()
    nothing = torch.zeros(0, dtype=torch.long)
    assert loss.summed_nll(hidden[:0], weight, None, nothing)[0].item() == 0
    assert loss.token_nll(hidden[:0], weight, None, nothing).shape == (0,)
