"""The head through oneDNN is the head."""

from typing import Any

import pytest
import torch

from metier.models import onednn
from metier.models.onednn import FEWEST_ROWS, weight_times

needs_onednn = pytest.mark.skipif(not onednn.is_there(), reason="this processor or this build of torch has no oneDNN")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each product that oneDNN was given."""
    given: list[int] = []

    class Operators:
        def _linear_pointwise(self, weight: torch.Tensor, rows: torch.Tensor, *_: Any) -> torch.Tensor:
            given.append(len(rows))
            return torch.nn.functional.linear(weight, rows)

    monkeypatch.setattr(torch.ops, "mkldnn", Operators())
    monkeypatch.setattr(onednn, "is_there", lambda: True)
    return given


@needs_onednn
@pytest.mark.parametrize("n_rows", [1, FEWEST_ROWS - 1, FEWEST_ROWS, 33, 128, 200])
@pytest.mark.parametrize("shift", [0, 10])
def test_the_product_is_the_plain_one_for_any_rows_and_where_a_file_puts_the_weight(n_rows: int, shift: int) -> None:
    generator = torch.Generator().manual_seed(n_rows)
    weight = torch.randn(1003 * 72 + shift, generator=generator)[shift:].view(1003, 72)
    rows = torch.randn(n_rows, 72, generator=generator)
    found = weight_times(weight, rows)
    torch.testing.assert_close(found, (weight.double() @ rows.double().t()).float(), rtol=1e-5, atol=1e-4)
    assert torch.equal(found, weight_times(weight, rows))


def test_few_rows_are_left_to_torch(taken: list[int]) -> None:
    weight = torch.randn(50, 6)
    for n_rows in (FEWEST_ROWS - 1, FEWEST_ROWS):
        weight_times(weight, torch.randn(n_rows, 6))
    assert taken == [FEWEST_ROWS]


@pytest.mark.parametrize(
    ("weight", "rows"),
    [
        (torch.randn(6, 50).t(), torch.randn(9, 6)),
        (torch.randn(50, 6), torch.randn(6, 9).t()),
        (torch.randn(50, 6).double(), torch.randn(9, 6).double()),
        (torch.randn(50, 6).bfloat16(), torch.randn(9, 6).bfloat16()),
    ],
)
def test_what_onednn_would_take_by_a_plain_loop_is_left_to_torch(
    weight: torch.Tensor, rows: torch.Tensor, taken: list[int]
) -> None:
    torch.testing.assert_close(weight_times(weight, rows), weight @ rows.t())
    assert taken == []


def test_a_gradient_that_is_wanted_is_formed(taken: list[int]) -> None:
    weight, rows = torch.randn(50, 6), torch.randn(9, 6, requires_grad=True)
    weight_times(weight, rows).sum().backward()
    torch.testing.assert_close(rows.grad, weight.sum(0).expand(9, 6))
    assert taken == []
    with torch.no_grad():
        weight_times(weight, rows)
    assert taken == [9]


@pytest.mark.parametrize("capability", ["DEFAULT", "SVE256"])
def test_other_processors_are_left_to_torch(capability: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not onednn.is_there.__wrapped__()


def test_a_build_without_the_operator_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not onednn.is_there.__wrapped__()
