"""Every default, once. Command-line flags, config.toml and the docs are made from these records."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from metier.errors import MetierError

DEFAULT_MODEL = "smollm2-135m-instruct"
BY_DATA = -1.0  # of --replay: as the kind of the data asks for
PRIVACY = ("report", "mask", "drop")
METHODS = ("lora", "rslora", "dora", "pissa", "tokens", "full")
DEVICES = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _setting(default: Any, help_text: str) -> Any:
    return field(default=default, metadata={"help": help_text})


def _setting_of(factory: Any, help_text: str) -> Any:
    return field(default_factory=factory, metadata={"help": help_text})


@dataclass(frozen=True)
class Settings:
    """What one run does. Resolved and complete, it is the run's config.toml."""

    data: tuple[str, ...] = ()
    model: str = _setting(DEFAULT_MODEL, "base model: an embedded one, a folder, or a hub id")
    minutes: float = _setting(10.0, "time for training and evidence together; the plan follows from it")
    tokens: int = _setting(0, "training tokens; fixes the run whatever the machine's speed (0: plan from --minutes)")
    mix: tuple[str, ...] = _setting((), "DATA=WEIGHT, once for each DATA: their shares of the field's tokens")
    general: tuple[str, ...] = _setting(
        (), "general text or conversations of your own: half is measured as retention, the rest is replayed"
    )
    budget_forgetting: float = _setting(0.01, "margin of retention on text: share of the base's bits per byte")
    method: str = _setting(
        "lora",
        "what is trained: lora, rslora, dora or pissa adapters, the rows of --new-tokens alone (tokens), "
        "or every weight (full)",
    )
    new_tokens: tuple[str, ...] = _setting(
        (), "terms that become tokens of their own, or files with one a line; their rows are trained"
    )
    top_layers: int = _setting(0, "adapters on that many of the top layers only, the others frozen (0: on all)")
    r: int = _setting(16, "LoRA rank")
    alpha: int = _setting(32, "LoRA numerator: updates are scaled by alpha / r")
    lr: float = _setting(0.0, "peak learning rate (0: by the size of the model)")
    replay: float = _setting(
        BY_DATA, "share of the training tokens that is general: yours, or the base's own (0: none; -1: by the data)"
    )
    mined: float = _setting(0.0, "share of the training tokens that is tasks mined from plain texts (0: none)")
    step_tokens: int = _setting(2048, "tokens in one optimizer step")
    pack_tokens: int = _setting(1024, "tokens in one forward pass; memory grows with it")
    max_epochs: int = _setting(4, "passes over the training rows, at most")
    benchmark: tuple[str, ...] = _setting((), "texts or questions of a benchmark, to see whether the data repeats them")
    privacy: str = _setting("report", "identifiers in the texts (e-mail, phone, cards, keys, …): report, mask or drop")
    select: float = _setting(1.0, "share of the rows to learn from, those closest to the field first (1: all)")
    held_out: float = _setting(0.1, "share of the documents held out, half to choose on and half to test on")
    evidence: str = _setting("quick", "none, quick, or full (more items, cheaper ways, controls, seeds, from scratch)")
    seed: int = _setting(0, "seed of the split, the order and the adapter")
    checkpoint_s: float = _setting(60.0, "seconds of training between two checkpoints, at most")
    device: str = _setting("auto", "auto (a CUDA GPU where there is one, else the CPU), cpu, cuda, cuda:N or mps")
    load_in_4bit: bool = _setting(False, "quantise the base's linear layers to 4 bits (needs metier[4bit])")
    compile: bool = _setting(True, "on a CUDA GPU, compile the decoder layers")
    threads: int = _setting(
        0, "processor threads of each process (0: the fastest number now; with --tokens or torchrun all its cores)"
    )
    sharding: str = _setting(
        "none", "under torchrun: none (every rank holds the model) or fsdp (each a part, to train)"
    )
    rank_timeout: float = _setting(600.0, "under torchrun: seconds that ranks wait for one another")
    fields: Mapping[str, str] = _setting_of(dict, "part of a row → the field that holds it, where names are unusual")
    skip_bad_rows: bool = _setting(False, "count rows that cannot be read, and go on")

    def __post_init__(self) -> None:
        """Raises MetierError for a value that cannot be meant."""
        checks = (
            (bool(self.data), "no data: name a file, a folder or a pack."),
            (0 < self.minutes < math.inf, f"--minutes {self.minutes:g}: give a positive number of minutes."),
            (self.tokens >= 0, f"--tokens {self.tokens}: give a positive number of tokens."),
            (
                0 <= self.replay < 1 or self.replay == BY_DATA,
                f"--replay {self.replay:g}: give a share from 0 up to, not including, 1.",
            ),
            (
                0 <= self.mined <= 0.5 and self.mined + self.replay < 1,
                f"--mined {self.mined:g}: give a share from 0 to 0.5 that leaves something to the field.",
            ),
            (0 < self.held_out <= 0.3, f"--held-out {self.held_out:g}: give a share above 0 and at most 0.3."),
            (self.lr >= 0, f"--lr {self.lr:g}: give a positive learning rate."),
            (self.budget_forgetting > 0, f"--budget-forgetting {self.budget_forgetting:g}: give a positive share."),
            (self.max_epochs > 0, f"--max-epochs {self.max_epochs}: give 1 or more."),
            (self.checkpoint_s >= 0, f"--checkpoint-s {self.checkpoint_s:g}: give a number of seconds."),
            (self.threads >= 0, f"--threads {self.threads}: give a number of threads, or 0 to fit it."),
            (self.sharding in {"none", "fsdp"}, f"--sharding {self.sharding}: choose none or fsdp."),
            (0 < self.rank_timeout < math.inf, f"--rank-timeout {self.rank_timeout:g}: give a positive number."),
            (self.method in METHODS, f"--method {self.method}: choose {', '.join(METHODS[:-1])} or {METHODS[-1]}."),
            (self.top_layers >= 0, f"--top-layers {self.top_layers}: give a number of layers, or 0 for all."),
            (not self.top_layers or self.method != "full", "--top-layers is for adapters: leave out --method full."),
            (
                self.sharding == "none" or (self.method == "lora" and not self.top_layers),
                "--sharding fsdp is for --method lora on all layers: leave one of them out.",
            ),
            (
                self.sharding == "none" or not (self.load_in_4bit or self.new_tokens),
                "--sharding fsdp takes neither --load-in-4bit nor --new-tokens: leave one of them out.",
            ),
            (bool(DEVICES.fullmatch(self.device)), f"--device {self.device}: choose auto, cpu, cuda, cuda:N or mps."),
            (
                not self.load_in_4bit or self.method not in {"full", "pissa"},
                f"--method {self.method} needs the weights themselves: leave out --load-in-4bit.",
            ),
            (
                not self.new_tokens or (self.method != "full" and not self.top_layers),
                "--new-tokens is for adapters on all layers: leave out --method full and --top-layers.",
            ),
            (self.method != "tokens" or bool(self.new_tokens), "--method tokens needs terms: give --new-tokens."),
            (self.evidence in {"none", "quick", "full"}, f"--evidence {self.evidence}: choose none, quick or full."),
            (0 < self.select <= 1, f"--select {self.select:g}: give a share above 0, up to 1."),
            (self.privacy in PRIVACY, f"--privacy {self.privacy}: choose report, mask or drop."),
            (self.step_tokens >= self.pack_tokens > 0, "--step-tokens must not be smaller than --pack-tokens."),
            (self.r > 0 and self.alpha > 0, "--r and --alpha must be positive."),
        )
        for holds, sentence in checks:
            if not holds:
                raise MetierError(sentence)
        self.weights()

    def weights(self) -> dict[str, float]:
        """{DATA: its share of the field's tokens}, adding up to 1; empty without --mix.

        Raises:
            MetierError: a weight that is none, of no DATA, or of not all of them.
        """
        found: dict[str, float] = {}
        for given in self.mix:
            name, _, weight = given.rpartition("=")
            if name not in self.data or name in found:
                raise MetierError(f"--mix {given}: write DATA=WEIGHT once for each of {', '.join(self.data)}.")
            try:
                found[name] = float(weight)
            except ValueError:
                found[name] = math.nan
            if not 0 < found[name] < math.inf:
                raise MetierError(f"--mix {given}: give a positive number as the weight.")
        if found and (missing := [name for name in self.data if name not in found]):
            raise MetierError(f"--mix leaves out {missing[0]}: give every DATA a weight.")
        return {name: weight / sum(found.values()) for name, weight in found.items()}


RATE_SHARES = {"lora": 1.0, "dora": 1.0, "tokens": 1.0, "rslora": 0.25, "pissa": 0.1, "full": 0.1}
"""Of LoRA's rate. rsLoRA's update is sqrt(r) times LoRA's, 4 times at rank 16; PiSSA starts from the largest singular
values, where a step goes as far as one of full fine-tuning, whose best rate is a tenth of LoRA's."""

PREFERENCE_SHARE = 0.1  # of the method's rate: DPO pushes probabilities apart for as long as it is let


def learning_rate(n_parameters: int, method: str = "lora", preferences: bool = False) -> float:
    """Peak rate at a few thousand tokens a step, by the size of the model (LoRA Without Regret; our sweep)."""
    lora = 1e-3 if n_parameters < 300e6 else 5e-4 if n_parameters < 3e9 else 2e-4
    return lora * RATE_SHARES[method] * (PREFERENCE_SHARE if preferences else 1.0)


def help_of(name: str) -> str:
    text: str = next(f.metadata["help"] for f in fields(Settings) if f.name == name)
    return text


def to_toml(settings: Settings) -> str:
    """The settings as TOML: strings, numbers and lists only."""
    lines = [f"{name} = {_toml(value)}" for name, value in asdict(settings).items()]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value)


def from_toml(text: str) -> Settings:
    """Read what `to_toml` wrote.

    Raises:
        MetierError: an unknown key, or TOML that cannot be read.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise MetierError(f"config.toml cannot be read ({error}): mend it.") from None
    return from_mapping(values)


def from_mapping(values: Mapping[str, Any]) -> Settings:
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(values) - known):
        raise MetierError(f"unknown setting {unknown[0]}: the settings are {', '.join(sorted(known))}.")
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Settings(**given)
