"""Products through oneDNN are the products."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from metier.models import onednn
from metier.models.adapters import keep_memory
from metier.models.fused import lora_linear
from metier.models.linear import FEW_ROWS, Layer, product
from metier.models.onednn import FEWEST_ROWS, weight_times

needs_onednn = pytest.mark.skipif(not onednn.is_there(), reason="this processor or this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "FEWEST_MULTIPLICATIONS", 0)


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


def test_small_products_are_left_to_torch(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "FEWEST_MULTIPLICATIONS", 50 * 6 * 10)
    for n_rows in (9, 10):
        weight_times(torch.randn(50, 6), torch.randn(n_rows, 6))
    assert taken == [10]


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


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
@pytest.mark.parametrize("is_intel", [False, True])
def test_layers_take_it_with_avx512_of_other_makers_alone(
    capability: str, is_intel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn, "is_there", lambda: True)
    monkeypatch.setattr(onednn, "is_intel", lambda: is_intel)
    assert onednn.is_for_layers.__wrapped__() == (capability == "AVX512" and not is_intel)


@pytest.mark.parametrize(
    ("listed", "named", "expected"),
    [
        ("vendor_id\t: GenuineIntel\n", "", True),
        ("vendor_id\t: AuthenticAMD\n", "GenuineIntel", False),
        (None, "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel", True),
        (None, "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", False),
    ],
)
def test_the_maker_of_the_processor_is_read_where_a_system_says_it(
    listed: str | None, named: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    if listed is not None:
        file.write_text(listed)
    monkeypatch.setattr(onednn, "Path", lambda _: file)
    monkeypatch.setattr("platform.processor", lambda: named)
    assert onednn.is_intel.__wrapped__() == expected


@pytest.mark.parametrize("is_intel", [False, True])
@pytest.mark.parametrize("n_rows", [3, FEW_ROWS, FEW_ROWS + 1])
def test_few_rows_are_multiplied_in_the_other_order_but_by_intel(
    is_intel: bool, n_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders: list[str] = []
    plain, other = torch.nn.functional.linear, torch.mm
    monkeypatch.setattr("torch.nn.functional.linear", lambda *a: orders.append("plain") or plain(*a))
    monkeypatch.setattr(torch, "mm", lambda *a: orders.append("other") or other(*a))
    monkeypatch.setattr(onednn, "is_for_layers", lambda: False)
    monkeypatch.setattr(onednn, "is_intel", lambda: is_intel)
    rows, weight, bias = torch.randn(n_rows, 6), torch.randn(9, 6), torch.randn(9)
    found = product(rows, weight, bias)
    torch.testing.assert_close(found, rows @ weight.t() + bias)
    assert found.is_contiguous()
    assert orders == ["plain" if is_intel or n_rows > FEW_ROWS else "other"]


@pytest.mark.parametrize("is_for_layers", [False, pytest.param(True, marks=needs_onednn)])
@pytest.mark.parametrize("n_rows", [3, FEWEST_ROWS, FEW_ROWS + 5])
@pytest.mark.parametrize("rank", [None, 2, 12])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_layer_and_its_gradients_are_the_same_by_either_library(
    is_for_layers: bool, n_rows: int, rank: int | None, has_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    plain = onednn.linear

    def counted(rows: torch.Tensor, *others: Any) -> torch.Tensor:
        taken.append(len(rows))
        return plain(rows, *others)

    monkeypatch.setattr(onednn, "is_for_layers", lambda: is_for_layers)
    monkeypatch.setattr(onednn, "linear", counted)
    generator = torch.Generator().manual_seed(n_rows)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    x, grad = draw(n_rows, 40).requires_grad_(), draw(n_rows, 24)
    weight = draw(24 * 40 + 10)[10:].view(24, 40)  # not at 64 bytes, as in a file
    bias = draw(24) if has_bias else None
    adapter = () if rank is None else (draw(rank, 40).requires_grad_(), draw(24, rank).requires_grad_())
    layer = Layer(weight, bias, *(adapter or (None, None)), 0.5)
    found = lora_linear(x, layer)
    grads = torch.autograd.grad(found, (x, *adapter), grad)

    wide = [tensor.detach().double().requires_grad_() for tensor in (x, *adapter)]
    expected = torch.nn.functional.linear(wide[0], weight.double(), None if bias is None else bias.double())
    if adapter:
        expected = expected + 0.5 * wide[0] @ wide[1].t() @ wide[2].t()
    torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-5)
    for of_ours, of_plain in zip(grads, torch.autograd.grad(expected, wide, grad.double()), strict=True):
        torch.testing.assert_close(of_ours, of_plain.float(), rtol=1e-5, atol=1e-4)
    assert bool(taken) == (is_for_layers and (n_rows >= FEWEST_ROWS or rank == 12))


@needs_onednn
def test_what_is_added_is_added_and_left_as_it_was() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, weight, added = (torch.randn(*shape, generator=generator) for shape in ((9, 20), (30, 20), (9, 30)))
    before = added.clone()
    torch.testing.assert_close(onednn.linear(rows, weight, None, added), before + rows @ weight.t())
    assert torch.equal(added, before)


def test_few_compiled_products_are_kept_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "9")
    keep_memory()
    assert os.environ[name] == "9"
    monkeypatch.delenv(name)
    keep_memory()
    assert os.environ[name] == "64"
