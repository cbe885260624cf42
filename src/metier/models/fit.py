"""Whether training fits the memory that is free, estimated from the config and said before the model is loaded."""

from dataclasses import dataclass, fields

from transformers import PreTrainedModel

from metier.errors import ModelError
from metier.models.flops import Products, products
from metier.models.loss import CHUNK_BYTES
from metier.models.methods import add_method
from metier.models.replace import ATTENTIONS

RUNTIME_BYTES = 420_000_000  # Python, torch, transformers and peft, before any model
TRAINED_BYTES = 12  # beside each trained weight: its gradient and Adam's two moments
# Floats kept for the backward pass, for each input and output of a linear layer and each token: norms, attention and
# the gate keep theirs too. Measured on the embedded model at 256 and 1,024 tokens a pack (docs/log.md).
KEPT_PER_FEATURE = {"lora": 0.9, "rslora": 0.9, "pissa": 0.9, "tokens": 0.9, "dora": 2.8, "full": 1.1}
KEPT_BY_OWN_FORWARD = 1.6  # where attention is not the fused one
LOGITS_ALIVE = 2  # chunks of logits at one time: themselves and their probabilities
SMALLEST_PACK = 128


@dataclass(frozen=True)
class Memory:
    """Bytes of one training process, by what they are for."""

    runtime: int
    weights: int  # with the adapters
    trained: int  # gradients and what the optimizer remembers
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True)
class Sizes:
    """What memory follows from, counted without loading the model."""

    n_parameters: int  # of the base
    n_added: int  # of the adapters
    n_trained: int
    kept_per_feature: float
    products: Products

    @property
    def features(self) -> int:
        """Inputs and outputs of the linear layers that have a backward pass, the head left out."""
        return sum(n * (layer.n_in + layer.n_out) for layer, n in self.products.layers.items() if layer.has_backward)


def sizes_of(model: PreTrainedModel, method: str, r: int, alpha: int, seed: int, top_layers: int = 0) -> Sizes:
    """model: on the meta device; it is changed. The others are those of `add_method`.

    Raises:
        ModelError: the architecture cannot take the method, or has fewer layers.
    """
    n_parameters = sum(p.numel() for p in model.parameters())
    # The start of PiSSA is a decomposition and that of DoRA a norm of numbers, which are not there: their sizes are.
    # New tokens are not known yet: LoRA, which takes more, stands for their rows.
    plain, n_ranks = {"pissa": ("lora", 2), "dora": ("lora", 1), "tokens": ("lora", 1)}.get(method, (method, 1))
    adapted = add_method(model, plain, n_ranks * r, n_ranks * alpha, seed, top_layers)
    counted = products(adapted)
    n_trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    if method == "dora":
        n_trained += sum(n * layer.n_out for layer, n in counted.layers.items() if layer.rank)
    n_added = 0 if method == "full" else n_trained
    is_fused = any(type(module).__name__ in ATTENTIONS for module in model.modules())
    kept = max(KEPT_PER_FEATURE[method], 0.0 if is_fused else KEPT_BY_OWN_FORWARD)
    return Sizes(n_parameters, n_added, n_trained, kept, counted)


def training_memory(sizes: Sizes, pack_tokens: int, weight_bytes: float = 4) -> Memory:
    """What training one pack of `pack_tokens` at a time takes; weight_bytes: of one weight of the base. What is trained
    is float32, and weights of fewer than 16 bits compute in as many."""
    return Memory(
        runtime=RUNTIME_BYTES,
        weights=round(weight_bytes * sizes.n_parameters) + 4 * sizes.n_added,
        trained=TRAINED_BYTES * sizes.n_trained,
        activations=round(max(2, weight_bytes) * sizes.kept_per_feature * sizes.features * pack_tokens),
        logits=LOGITS_ALIVE * CHUNK_BYTES,
    )


def require_room(name: str, sizes: Sizes, pack_tokens: int, free: int | None) -> None:
    """free: bytes that this process, which has the runtime already, may still take; None when nobody knows.

    Raises:
        ModelError: training will not fit; the sentence names packs or a size of model that would.
    """
    needed = training_memory(sizes, pack_tokens)
    if free is None or needed.total - needed.runtime <= free:
        return
    problem = (
        f"{name} needs about {_gigabytes(needed.total - needed.runtime)} to train packs of {pack_tokens:,} tokens, "
        f"and {_gigabytes(free)} are free"
    )
    fixed = training_memory(sizes, 0)
    per_token = (needed.activations - fixed.activations) / pack_tokens
    fitting = int((free - (fixed.total - fixed.runtime)) / per_token) // SMALLEST_PACK * SMALLEST_PACK
    if fitting >= SMALLEST_PACK:
        raise ModelError(f"{problem}: give --pack-tokens {fitting}.")
    smallest = training_memory(sizes, SMALLEST_PACK)
    share = max(0.0, free - smallest.logits) / (smallest.total - smallest.runtime - smallest.logits)
    raise ModelError(
        f"{problem}, too few for any pack: choose a --model of at most {share * sizes.n_parameters / 1e6:.0f} million "
        "parameters."
    )


def _gigabytes(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
