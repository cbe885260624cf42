"""From an example to the token ids that the model sees, with the positions that carry loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from jinja2 import TemplateError

from metier.errors import DataError, ModelError
from metier.sources.examples import Example, Message

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what the first bytes of a character are decoded to
DECODED_TOGETHER = 32  # tokens, whose ends in the text are found by decoding ever more of them
PLAIN_TEMPLATE = (
    "{% for message in messages %}### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""For a base model that brings no chat template: the roles as headings. Saved with the adapter's tokenizer."""

TEXT_WINDOW = 1024  # tokens of a text read at once; conversations may be as long as the model's window
CONTEXT = 128  # tokens of a long text read again, without loss, before each later window


class Loss(IntEnum):
    """What a token carries."""

    NONE = 0  # read only: the prompt, the template, the context of a later window
    TEXT = 1  # trained and scored
    END = 2  # the end token: trained, not scored, since it stands for no byte


@dataclass(frozen=True)
class Encoded:
    """One document as tokens. `ids` and `loss` have the same length; the first token never carries loss.

    n_bytes is the UTF-8 length of the text under Loss.TEXT; n_cut_bytes of the text that did not fit; `window`
    numbers the windows of one long text. `rejected`, for preference data, are the tokens of the worse answer, in the
    place of those that carry loss.
    """

    item: str
    ids: tuple[int, ...]
    loss: tuple[Loss, ...]
    n_bytes: int
    n_cut_bytes: int = 0
    window: int = 0
    rejected: tuple[int, ...] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens that training reads."""
        return len(self.ids) + len(self.rejected)

    @property
    def n_supervised(self) -> int:
        return sum(1 for kind in self.loss if kind) + len(self.rejected)

    @property
    def n_before_loss(self) -> int:
        """Tokens before the first that carries loss."""
        return next((i for i, kind in enumerate(self.loss) if kind), len(self.ids))

    def without_end(self) -> "Encoded":
        """For an answer that was cut by a token limit: teaching an end there would teach it to stop mid-sentence."""
        return replace(self, loss=tuple(Loss.NONE if kind == Loss.END else kind for kind in self.loss))


class Encoder:
    """Encodes examples with one tokenizer; `window` is the longest document in tokens."""

    def __init__(self, tokenizer: Any, window: int, turn_ends: Sequence[int] = ()) -> None:
        """turn_ends: tokens that end an answer beside the tokenizer's own end token."""
        self.tokenizer = tokenizer
        self.window = window
        self.has_own_template = tokenizer.chat_template is not None
        if not self.has_own_template:
            tokenizer.chat_template = PLAIN_TEMPLATE
        if tokenizer.eos_token_id is None:
            raise ModelError(f"{tokenizer.name_or_path}: the tokenizer has no end token; set eos_token in its config.")
        self.end: int = tokenizer.eos_token_id
        self.ends = frozenset((self.end, *turn_ends))
        self.start = _start_token(tokenizer)

    def encode(self, example: Example) -> list[Encoded]:
        """Windows of a text, in order, or the one conversation; empty if a prompt alone fills the window, or if one of
        the two answers of a preference does not fit.

        Raises:
            DataError: the chat template refuses the conversation (two turns of one role, a system turn).
        """
        if not example.is_chat:
            return list(self._text(example))
        try:
            return self._pair(example) if example.rejected else self._chat(example)
        except TemplateError as error:
            raise DataError(
                f"{example.id}: the model's chat template refuses this conversation ({error}): mend the row, or choose "
                "another --model."
            ) from error

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation so far and the words that open the assistant's turn; without a conversation, those words."""
        if messages:
            return self._template(messages, add_generation_prompt=True)
        asked = [Message("user", "?")]
        words = self._template(asked, add_generation_prompt=True)
        return words[len(self._template(asked, add_generation_prompt=False)) :] or [self.start]

    def text_ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def opening_ids(self, text: str) -> list[int]:
        """The start of a plain text, to be gone on with."""
        return [self.start, *self.text_ids(text)]

    def scored_text(self, documents: Sequence[Encoded]) -> tuple[str, tuple[int, ...]]:
        """The text that the windows of one item score, and where each of its tokens ends in it, in characters.

        A token that ends within a character of several bytes ends where the text up to it does.
        """
        ids = [i for d in documents for i, kind in zip(d.ids, d.loss, strict=True) if kind == Loss.TEXT]
        text = ""
        ends: list[int] = []
        first = 0
        while first < len(ids):
            # Behind the token before: some tokenizers drop the space that a decoded text begins with.
            before = ids[max(0, first - 1) : first]
            skipped = len(self._decoded(before))
            group = ""
            for last in range(first + 1, len(ids) + 1):
                group = self._decoded([*before, *ids[first:last]])[skipped:]
                ends.append(len(text) + len(group))
                if last - first >= DECODED_TOGETHER and not group.endswith(UNFINISHED):
                    break
            text += group
            first = last
        return text, tuple(min(end, len(text)) for end in ends)

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    def _template(self, messages: Sequence[Message], add_generation_prompt: bool) -> list[int]:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        encoded = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=add_generation_prompt, tokenize=True, return_dict=True
        )
        ids: list[int] = encoded["input_ids"]
        return ids

    def _text(self, example: Example) -> Iterator[Encoded]:
        encoded = self.tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = encoded["input_ids"]
        starts = [start for start, _ in encoded["offset_mapping"]]
        window = min(self.window, TEXT_WINDOW)
        n_context = min(CONTEXT, window // 2)
        first = number = 0
        while first < len(ids):
            context = ids[max(0, first - n_context) : first]
            last = min(len(ids), first + window - 2 - len(context))
            fresh = ids[first:last]
            tail = [self.end] if last == len(ids) else []
            loss = [Loss.NONE] * (1 + len(context)) + [Loss.TEXT] * len(fresh) + [Loss.END] * len(tail)
            # A window's bytes reach from its first token to the first of the next: the windows' bytes add up to the
            # text's.
            text = example.text[starts[first] if first else 0 : starts[last] if last < len(ids) else None]
            tokens = (self.start, *context, *fresh, *tail)
            yield Encoded(example.id, tokens, tuple(loss), len(text.encode()), window=number)
            first, number = last, number + 1

    def _pair(self, example: Example) -> list[Encoded]:
        """The chosen conversation, with the other answer's tokens from where it parts from the prompt."""
        other = replace(example, messages=(*example.messages[:-1], Message("assistant", example.rejected)))
        both = [*self._chat(example), *self._chat(other)]
        if len(both) < 2 or any(document.n_cut_bytes for document in both):
            return []
        chosen, rejected = both
        first = next(i for i, kind in enumerate(chosen.loss) if kind)
        return [replace(chosen, rejected=rejected.ids[first:])] if rejected.ids[:first] == chosen.ids[:first] else []

    def _chat(self, example: Example) -> list[Encoded]:
        """With loss on every assistant turn, or on the last one where it was chosen over another."""
        messages = example.messages
        full = self._template(messages, add_generation_prompt=False)
        loss = [Loss.NONE] * len(full)
        for i, message in enumerate(messages):
            if message.role != "assistant" or (example.rejected and i < len(messages) - 1):
                continue
            first = self._opening(full, messages, i)
            last = _common(full, self._template(messages[: i + 1], add_generation_prompt=False))
            for position in range(max(1, first), last):
                loss[position] = Loss.TEXT
                if full[position] in self.ends:
                    loss[position] = Loss.END
                    break
        return self._fit(example, full, loss)

    def _opening(self, full: list[int], messages: Sequence[Message], i: int) -> int:
        """Where the text of turn i begins: behind all that the template puts before it, such as empty thoughts.

        It is where the conversation parts from the same one with another first letter in this turn.
        """
        other = "§" if not messages[i].content.startswith("§") else "¤"
        changed = (*messages[:i], Message("assistant", other), *messages[i + 1 :])
        return _common(full, self._template(changed, add_generation_prompt=False))

    def _fit(self, example: Example, full: list[int], loss: list[Loss]) -> list[Encoded]:
        last = max((i for i, kind in enumerate(loss) if kind), default=-1)
        n_bytes = len(example.learned_text.encode())
        kept = full[: last + 1]  # what the template adds after the last end token is never read by anyone
        if last < self.window:
            return [Encoded(example.id, tuple(kept), tuple(loss[: last + 1]), n_bytes)]
        kept, kept_loss = kept[: self.window], loss[: self.window]
        scored = [token for token, kind in zip(kept, kept_loss, strict=True) if kind == Loss.TEXT]
        if not scored:
            return []
        n_kept = len(self.tokenizer.decode(scored).encode())
        return [Encoded(example.id, tuple(kept), tuple(kept_loss), n_kept, max(0, n_bytes - n_kept))]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common start of two token lists."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _start_token(tokenizer: Any) -> int:
    """What stands before a text: the token that the tokenizer itself puts there, else the separator of pretraining."""
    with_special: list[int] = tokenizer("a")["input_ids"]
    if len(with_special) > 1 and with_special[0] == tokenizer.bos_token_id:
        return with_special[0]
    separator = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    known = separator is not None and tokenizer.convert_ids_to_tokens(separator) == "<|endoftext|>"
    start: int = separator if known else tokenizer.eos_token_id
    return start
