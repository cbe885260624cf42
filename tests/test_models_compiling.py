"""Layers that are compiled, or run again in the backward pass, give what they gave before."""

from typing import Any

import pytest
import torch
from torch import Tensor

from metier.models.compiling import compile_layers, recompute_layers, wants_recomputing
from metier.models.methods import add_method
from metier.models.packing import Branches, PackReader, pack, pack_branches
from tiny import documents, random_ids, tiny_model

PACKS = (
    pack(documents(13, 9, 4)),
    pack(documents(21, 6)),
    pack_branches([Branches("s", random_ids(9, 1), ((3, 4), (5,)))]),
)


def reader_of(dtype: torch.dtype) -> PackReader:
    model = add_method(tiny_model("llama").to(dtype), "lora", r=4, alpha=8, seed=0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p += 0.05
    return PackReader(model)


def losses_and_gradients(reader: PackReader) -> list[Tensor]:
    reader.model.train()
    found = [reader.summed_nll(batch) for batch in PACKS]
    torch.stack(found).sum().backward()
    return [torch.stack(found).detach(), *(p.grad for p in reader.model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_run_again_give_the_same_gradients(dtype: torch.dtype) -> None:
    kept, again = reader_of(dtype), reader_of(dtype)
    runs: list[int] = []
    again.inner.model.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    recompute_layers(again.inner)
    found, expected = losses_and_gradients(again), losses_and_gradients(kept)
    assert len(runs) == 2 * len(PACKS)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))


def test_layers_run_again_only_when_keeping_all_would_not_fit() -> None:
    assert not wants_recomputing(60, 100)
    assert wants_recomputing(101, 100)
    assert wants_recomputing(99, 100)  # allocators need some of it


@pytest.mark.slow  # a compiler reads two layers
@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch looks at it while it reads the code
def test_compiled_layers_give_the_same_losses_and_gradients_and_packs_of_other_lengths_compile_nothing_new() -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    plain, compiled = reader_of(torch.bfloat16), reader_of(torch.bfloat16)
    backend: Any = CompileCounterWithBackend("aot_eager")
    assert compile_layers(compiled, backend=backend) == ""
    expected = losses_and_gradients(plain)
    found = losses_and_gradients(compiled)
    n_graphs = backend.frame_count
    assert n_graphs > 0
    compiled.model.zero_grad()
    losses_and_gradients(compiled)
    assert backend.frame_count == n_graphs
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2 * float(b.abs().max()))


def test_layers_that_cannot_be_compiled_run_as_they_are_and_it_is_said_why() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no compiler here")

    torch.compiler.reset()
    reader, plain = reader_of(torch.bfloat16), reader_of(torch.bfloat16)
    assert "no compiler here" in compile_layers(reader, backend=broken)
    for a, b in zip(losses_and_gradients(reader), losses_and_gradients(plain), strict=True):
        assert torch.equal(a, b)
