"""Models and a tokenizer small enough for a test: two layers, random weights, a byte-level vocabulary."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from metier.models.attention import NAME
from metier.models.encoding import Encoded, Loss

VOCABULARY = 300
SLIDING_WINDOW = 6  # shorter than the documents of the tests
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # far from uniform predictions, so that a wrong attention shows
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}


def _config(family: str) -> PreTrainedConfig:
    if family == "llama":
        return LlamaConfig(**_SIZES)
    if family == "qwen3":
        return Qwen3Config(**_SIZES, head_dim=8)
    if family == "mistral":
        return MistralConfig(**_SIZES, sliding_window=SLIDING_WINDOW)
    if family == "gemma3":
        return Gemma3TextConfig(
            **_SIZES,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=SLIDING_WINDOW,
            layer_types=["sliding_attention", "full_attention"],
            final_logit_softcapping=8.0,
        )
    if family == "gpt2":
        options = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "initializer_range": 0.3}
        no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        return GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1, **options, **no_dropout)
    if family == "phi3":
        return Phi3Config(**_SIZES)
    if family == "gpt_neox":
        return GPTNeoXConfig(**{**_SIZES, "num_key_value_heads": 4})
    raise KeyError(family)


FAMILIES = ("llama", "qwen3", "mistral", "gemma3", "phi3", "gpt2", "gpt_neox")


def tiny_model(family: str = "llama", attention: str = NAME, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model in eval mode; the same family, seed and changes give the same weights whatever the attention."""
    config = _config(family)
    for name, value in changes.items():
        setattr(config, name, value)
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    return model.float().eval()


def random_ids(n_tokens: int, seed: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(2, VOCABULARY, (n_tokens,), generator=generator).tolist())


def document(ids: Sequence[int], item: str = "d", n_prompt: int = 1, ends: bool = False) -> Encoded:
    """Everything after the prompt carries loss; with `ends` the last token is an end token."""
    kinds = [Loss.NONE] * n_prompt + [Loss.TEXT] * (len(ids) - n_prompt)
    if ends:
        kinds[-1] = Loss.END
    return Encoded(item, tuple(ids), tuple(kinds), n_bytes=len(ids))


def documents(*lengths: int, seed: int = 0) -> list[Encoded]:
    return [document(random_ids(n, seed + i), f"d{i}") for i, n in enumerate(lengths)]


@cache
def _trained_bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|im_start|>", "<|im_end|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the question and the answer in the other than an error on one or the"], trainer)
    return tokenizer.to_str()


def tiny_tokenizer(template: str | None = CHATML, end: str | None = "<|im_end|>") -> PreTrainedTokenizerFast:
    """Byte-level BPE of 300 tokens at most."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_bpe()), eos_token=end, pad_token=end, chat_template=template
    )


def save_tiny(folder: Path, template: str | None = CHATML, **changes: Any) -> Path:
    """A folder that `load_base` reads."""
    tiny_model("llama", **changes).save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return folder
