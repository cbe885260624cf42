"""The device is the one that was asked for, or it is said that it is not there; 16 bits stay near 32."""

from pathlib import Path
from typing import Any

import pytest
import torch

from metier.errors import ModelError
from metier.models import device
from metier.models.device import Placement, chosen, placement
from metier.models.load import load_base
from metier.models.loss import summed_nll
from metier.models.methods import add_method
from metier.models.packing import PackReader, pack
from metier.ranks import Rank
from tiny import documents, save_tiny

IN_16_BITS = Placement(dtype=torch.bfloat16)


def gpus(patch: pytest.MonkeyPatch, n: int) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: n > 0)
    patch.setattr(torch.cuda, "device_count", lambda: n)


@pytest.mark.parametrize(
    ("name", "n_gpus", "rank", "expected"),
    [
        ("auto", 0, Rank(), "cpu"),
        ("auto", 2, Rank(), "cuda:0"),
        ("auto", 2, Rank(3, 4, 1, 2), "cuda:1"),
        ("cpu", 2, Rank(), "cpu"),
        ("cuda", 1, Rank(), "cuda:0"),
        ("cuda:1", 2, Rank(), "cuda:1"),
    ],
)
def test_the_device_is_chosen(name: str, n_gpus: int, rank: Rank, expected: str, monkeypatch: Any) -> None:
    gpus(monkeypatch, n_gpus)
    monkeypatch.setattr(device, "this_rank", lambda: rank)
    assert chosen(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("name", "n_gpus", "rank", "sentence"),
    [
        ("cuda", 0, Rank(), "torch finds no CUDA GPU here; use --device cpu"),
        ("cuda:2", 2, Rank(), "--device cuda:2: there are 2 CUDA GPUs here"),
        ("cuda", 2, Rank(2, 3, 2, 3), "--device cuda:2: there are 2 CUDA GPUs here"),
        ("cuda:1", 2, Rank(0, 2, 0, 2), "every rank takes a GPU of its own"),
        ("mps", 0, Rank(), "torch finds no Apple GPU here"),
    ],
)
def test_a_device_that_is_not_here_is_refused(
    name: str, n_gpus: int, rank: Rank, sentence: str, monkeypatch: Any
) -> None:
    gpus(monkeypatch, n_gpus)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device, "this_rank", lambda: rank)
    with pytest.raises(ModelError, match=sentence):
        chosen(name)


def test_a_gpu_holds_the_base_in_16_bits_unless_all_of_it_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1)
    assert placement("auto", "lora", False).dtype == torch.bfloat16
    assert placement("auto", "full", False).dtype == torch.float32
    assert placement("cpu", "lora", False) == Placement()


def test_4_bits_without_their_package_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes: pip install 'metier\[4bit\]'"):
        placement("cpu", "lora", True)


def trained_losses(folder: Path, where: Placement, n_steps: int = 4) -> list[float]:
    model = add_method(load_base(str(folder), where).model, "lora", r=4, alpha=8, seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    reader, optimizer, losses = PackReader(model), torch.optim.AdamW(trained, lr=1e-2), []
    assert not reader.why_plain
    for _ in range(n_steps):
        loss, by_item = reader.row_nll(pack(documents(17, 23, 9)))
        assert loss.dtype == torch.float32
        (loss / 46).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item() / 46)
        assert by_item.sum().item() == pytest.approx(loss.item(), rel=1e-5)
    assert {t.dtype for state in optimizer.state.values() for t in state.values()} == {torch.float32}
    return losses


def test_a_base_in_16_bits_trains_near_to_one_in_32(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    base = load_base(str(folder), IN_16_BITS)
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert base.answers_as != base.sha256 == load_base(str(folder)).answers_as
    found, expected = trained_losses(folder, IN_16_BITS), trained_losses(folder, Placement())
    assert found == pytest.approx(expected, rel=2e-2)
    assert found[-1] < 0.97 * found[0]


def test_a_base_in_4_bits_trains(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    folder = save_tiny(tmp_path)
    in_4_bits = Placement(in_4bit=True)
    base = load_base(str(folder), in_4_bits)
    assert base.n_parameters == load_base(str(folder)).n_parameters
    assert {str(p.dtype) for name, p in base.model.named_parameters() if "proj" in name} == {"torch.uint8"}
    found = trained_losses(folder, in_4_bits)
    assert found[-1] < 0.97 * found[0]


@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_the_gradient_of_a_16_bit_head_is_that_of_32_where_the_label_is_nearly_certain(softcap: float) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = 3 * torch.nn.functional.normalize(torch.randn(50, 64, generator=generator), dim=1).bfloat16()
    labels = torch.arange(20)
    hidden = 1.5 * weight[labels]

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        x = hidden.to(dtype).clone().requires_grad_()
        summed_nll(x, weight.to(dtype), None, labels, softcap)[0].backward()
        assert x.grad is not None
        return x.grad.float()

    expected = gradient(torch.float32)
    assert (gradient(torch.bfloat16) - expected).norm() < 0.02 * expected.norm()
