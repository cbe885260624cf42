"""The limit is that of the model's own shapes, and larger models are slower by their operations."""

import pytest
import torch

from metier.bench import MODEL_SIZES, _estimate
from metier.models import limit as limits
from metier.models import onednn
from metier.models.flops import Linear, Products
from metier.models.limit import Limit
from metier.settings import Settings

PRODUCTS = Products({Linear(10, 20): 2, Linear(20, 10): 1}, Linear(10, 100))


def test_the_limit_weighs_each_shape_by_its_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of 200 x 3 operations at 1 and 2 GFLOP/s, the head's 500 at 4: times add up."""
    rates = {(10, 20): 1e9, (20, 10): 2e9, (10, 100): 4e9, (100, 10): 4e9}
    monkeypatch.setattr(limits, "_fastest", lambda _x, matrix, _s: rates[tuple(matrix.shape)])
    found = Limit(PRODUCTS, 8, supervised_share=0.5)
    found.measure(0.0)
    seconds = (400 / 2 / 1 + 400 / 2 / 2) + (200 / 2 / 2 + 200 / 2 / 1) + 500 / 4
    assert found.gflops == pytest.approx(1100 / seconds)


def test_a_slow_moment_does_not_lower_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Limit(PRODUCTS, 8, supervised_share=0.5)
    measured = []
    for rate in (1e9, 5e9, 2e9):
        monkeypatch.setattr(limits, "_fastest", lambda *_, rate=rate: rate)
        found.measure(0.0)
        measured.append(round(found.gflops, 6))
    assert measured == [1.0, 5.0, 5.0]


def test_the_real_products_have_a_rate() -> None:
    found = Limit(PRODUCTS, 8, supervised_share=0.5)
    found.measure(0.001)
    assert found.gflops > 0


def test_larger_models_are_slower_and_take_more_memory() -> None:
    rows = [_estimate(name, Settings(data=("x",)), 100.0, 0.5) for name in MODEL_SIZES]
    millions = [round(row["parameters"] / 1e6) for row in rows]
    assert millions == [135, 362, 1236, 3213, 7242]
    assert [r["train_tokens_per_s"] for r in rows] == sorted((r["train_tokens_per_s"] for r in rows), reverse=True)
    assert [r["memory_bytes"] for r in rows] == sorted(r["memory_bytes"] for r in rows)
    assert all(r["estimated"] for r in rows)


def test_the_limit_is_the_faster_library_and_leaves_out_what_the_model_does_not_get_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forward oneDNN takes either way round; of the gradient the one whose rows are in order."""
    tried: list[tuple[int, ...]] = []
    monkeypatch.setattr(onednn, "is_there", lambda: True)
    monkeypatch.setattr(onednn, "FEWEST_MULTIPLICATIONS", 0)
    monkeypatch.setattr(onednn, "linear", lambda rows, _weight: tried.append(tuple(rows.shape)))
    x, weight = torch.randn(12, 20), torch.randn(30, 20)
    assert limits._fastest(x, weight.T, 0.0) > 0
    assert set(tried) == {(12, 20), (30, 20)}
    tried.clear()
    assert limits._fastest(torch.randn(12, 30), weight, 0.0) > 0
    assert set(tried) == {(12, 30)}
