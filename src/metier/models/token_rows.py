"""The rows of new tokens in embedding and head: where they start, and what a model reads and predicts with them.

PEFT's trainable tokens hold the trained rows themselves and put them into a copy of the weights at every pass, in a
tied head too. The base's own rows are never touched, and with the adapter switched off the new tokens are not there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel, TrainableTokensConfig
from peft.tuners.trainable_tokens import TrainableTokensLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from metier.errors import ModelError

TIED = "Model has `tie_word_embeddings=True` and a tied layer"  # a warning of PEFT's; trained tokens do tie the head

Pieces = Mapping[int, Sequence[int]]
"""New token → the tokens that it stands for."""


def make_room(model: PreTrainedModel, pieces: Pieces) -> int:
    """Lengthen embedding and head until every new token has a row; returns how many rows there were.

    Raises:
        ModelError: the head adds a bias to each token, which PEFT's rows leave out.
    """
    if getattr(model.get_output_embeddings(), "bias", None) is not None:
        raise ModelError(f"{type(model).__name__} has a bias in its head: new tokens cannot be trained in it.")
    n_rows = len(model.get_input_embeddings().weight)
    if max(pieces) >= n_rows:
        model.resize_token_embeddings(max(pieces) + 1, mean_resizing=False)
    return n_rows


def tokens_config(model: PreTrainedModel, pieces: Pieces) -> TrainableTokensConfig:
    """PEFT's settings for training these rows and nothing else."""
    names = list(lora_options(model, pieces)["trainable_token_indices"])
    return TrainableTokensConfig(token_indices=sorted(pieces), target_modules=names, task_type="CAUSAL_LM")


def lora_options(model: PreTrainedModel, pieces: Pieces) -> dict[str, Any]:
    """What LoRA's settings are told beside; a tied head follows the embedding by itself."""
    wanted = [model.get_input_embeddings()]
    if model.get_output_embeddings().weight is not wanted[0].weight:
        wanted.append(model.get_output_embeddings())
    names = [name for name, module in model.named_modules() if any(module is w for w in wanted)]
    return {"trainable_token_indices": {name: sorted(pieces) for name in names}}


def start_rows(adapted: PeftModel, pieces: Pieces, n_base_rows: int, trained: bool = False) -> None:
    """Let each row start from the mean of its pieces' rows; `trained` rows keep what they are, and know their start.

    n_base_rows: with the adapter switched off only so many tokens are predicted.
    """
    with torch.no_grad():
        for layer in token_layers(adapted):
            (name,) = layer.trainable_tokens_delta
            weight = layer.base_layer.weight
            rows = [weight[list(pieces[token])].float().mean(0) for token in layer.token_indices[name]]
            layer.trainable_tokens_original[name] = torch.stack(rows)
            if not trained:
                layer.trainable_tokens_delta[name] = nn.Parameter(torch.stack(rows))
    head: Any = adapted.get_base_model().get_output_embeddings()
    head.n_base_rows = n_base_rows
    head.register_forward_hook(_only_base_rows)


def _only_base_rows(head: Any, _: Any, logits: Tensor) -> Tensor:
    return logits[..., : head.n_base_rows] if head.disable_adapters else logits


def token_layers(model: nn.Module) -> Iterator[TrainableTokensLayer]:
    """Those that hold rows; a tied head holds none."""
    for module in model.modules():
        if isinstance(module, TrainableTokensLayer) and not module.tied_adapter:
            yield module


def head_rows(head: Any) -> tuple[Tensor, Tensor | None]:
    """(weight (V, H), bias) of what predicts now: with trained rows in their places, or as the base has it."""
    layer = getattr(head, "token_adapter", head)
    if not isinstance(layer, TrainableTokensLayer):
        return head.weight, head.bias
    if head.disable_adapters:
        return layer.base_layer.weight[: getattr(head, "n_base_rows", None)], None
    return layer.get_merged_weights(layer.active_adapters), None


@torch.no_grad()
def turn_rows(model: nn.Module, dial: float) -> Callable[[], None]:
    """Move every trained row to start + dial (row - start); what is returned puts them back."""
    trained: list[tuple[nn.Parameter, Tensor]] = []
    for layer in token_layers(model):
        for name, row in layer.trainable_tokens_delta.items():
            trained.append((row, row.detach().clone()))
            row.copy_(torch.lerp(layer.trainable_tokens_original[name].to(row), row, dial))

    @torch.no_grad()
    def back() -> None:
        for row, before in trained:
            row.copy_(before)

    return back


@torch.no_grad()
def rows_moved(model: nn.Module) -> tuple[float, float]:
    """(sum of squares of how far the rows are from their starts, sum of squares of the starts)."""
    moved = total = 0.0
    for layer in token_layers(model):
        for name, row in layer.trainable_tokens_delta.items():
            start = layer.trainable_tokens_original[name].to(row)
            moved += float((row - start).square().sum())
            total += float(start.square().sum())
    return moved, total
