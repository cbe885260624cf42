"""What fits is told from the config alone, and what does not is refused before it is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from metier.errors import ModelError
from metier.models import fit
from metier.models.fit import Sizes, require_room, sizes_of, training_memory
from metier.models.load import empty_model
from metier.models.machine import free_bytes, usable_cores
from metier.models.methods import add_method
from metier.settings import METHODS
from tiny import tiny_model

GB = 10**9


def sizes(method: str = "lora", top_layers: int = 0) -> Sizes:
    with torch.device("meta"):
        model = tiny_model()
    return sizes_of(model, method, 4, 8, 0, top_layers)


SIZES = sizes()
COUNTED = [method for method in METHODS if method != "tokens"]  # whose rows are known after the model is loaded


@pytest.mark.parametrize("method", COUNTED)
def test_the_sizes_of_a_method_are_those_of_the_loaded_model(method: str) -> None:
    base = tiny_model()
    n_parameters = sum(p.numel() for p in base.parameters())
    model = add_method(base, method, r=4, alpha=8, seed=0)
    found = sizes(method)
    assert found.n_parameters == n_parameters
    assert found.n_trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert found.n_parameters + found.n_added == sum(p.numel() for p in model.parameters())


def test_new_token_rows_are_taken_to_need_what_lora_does() -> None:
    assert sizes("tokens") == SIZES


def test_layers_without_a_backward_pass_keep_nothing() -> None:
    a_layer = 2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)
    assert SIZES.features == sizes("full").features == 2 * a_layer
    assert sizes(top_layers=1).features == a_layer
    assert sizes(top_layers=1).n_trained == SIZES.n_trained // 2


@pytest.mark.parametrize("method", ["lora", "full"])
def test_memory_is_what_each_part_takes(method: str) -> None:
    found, memory = sizes(method), training_memory(sizes(method), 100)
    assert memory.weights == 4 * (found.n_parameters + found.n_added)
    assert memory.trained == 12 * found.n_trained
    assert memory.activations == round(400 * fit.KEPT_PER_FEATURE[method] * found.features)
    assert memory.total == memory.runtime + memory.weights + memory.trained + memory.activations + memory.logits


def test_layers_that_keep_their_own_forward_keep_more_for_their_gradients() -> None:
    with torch.device("meta"):
        found = {family: sizes_of(tiny_model(family), "lora", 4, 8, 0) for family in ("llama", "gpt2")}
    assert found["llama"].kept_per_feature == fit.KEPT_PER_FEATURE["lora"]
    assert found["gpt2"].kept_per_feature == fit.KEPT_BY_OWN_FORWARD


def free_for(pack_tokens: int) -> int:
    needed = training_memory(SIZES, pack_tokens)
    return needed.total - needed.runtime


def test_what_just_fits_is_let_through_one_byte_less_is_not_and_nothing_known_is() -> None:
    require_room("m", SIZES, 1024, free_for(1024))
    with pytest.raises(ModelError):
        require_room("m", SIZES, 1024, free_for(1024) - 1)
    require_room("m", SIZES, 1024, None)


def test_too_large_a_pack_is_refused_with_the_one_that_fits() -> None:
    with pytest.raises(ModelError, match=r"^m needs about .* GB to train packs of 4,096 tokens, and .* GB are free"):
        require_room("m", SIZES, 4096, free_for(1024))
    with pytest.raises(ModelError, match=r": give --pack-tokens 896\.$"):
        require_room("m", SIZES, 4096, free_for(1024) - 1)
    require_room("m", SIZES, 896, free_for(1024) - 1)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_too_large_a_model_is_refused_with_the_size_that_fits(method: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=32))
    large = sizes_of(model, method, 16, 32, 0)
    with pytest.raises(ModelError, match=r"too few for any pack: choose a --model of at most \d+ million") as caught:
        require_room("m", large, 1024, 8 * GB)
    fitting = int(str(caught.value).split("at most ")[1].split()[0]) * 1e6
    assert 0.05 * large.n_parameters < fitting < 8 * GB / (4 if method == "lora" else 16)


def files(root: Path, **texts: str) -> Path:
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal: 9000 kB\nMemAvailable:    5000 kB\n"


def test_free_memory_is_the_least_of_system_and_control_groups(tmp_path: Path) -> None:
    assert free_bytes(files(tmp_path / "system", proc__meminfo=MEMINFO)) == 5000 * 1024
    second = files(tmp_path / "v2", proc__meminfo=MEMINFO, proc__self__cgroup="0::/job\n")
    group = {"memory_dot_max": "3000000", "memory_dot_current": "2000000", "memory_dot_stat": "inactive_file 500000\n"}
    files(second / "sys/fs/cgroup/job", **group)
    assert free_bytes(second) == 1_500_000
    files(second / "sys/fs/cgroup/job", memory_dot_max="max")
    assert free_bytes(second) == 5000 * 1024
    first = files(tmp_path / "v1", proc__meminfo=MEMINFO, proc__self__cgroup="4:memory:/elsewhere\n")
    old = {
        "memory.limit_in_bytes": "3000000",
        "memory.usage_in_bytes": "2000000",
        "memory.stat": "total_inactive_file 7\n",
    }
    files(first / "sys/fs/cgroup/memory", **old)
    assert free_bytes(first) == 1_000_007


def test_without_proc_the_machines_memory_stands_for_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert free_bytes(tmp_path) == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    monkeypatch.setattr(os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert free_bytes(tmp_path) is None


@pytest.fixture
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("_eight_cores")
def test_usable_cores_are_bounded_by_affinity_quota_and_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert usable_cores(tmp_path) == 8
    second = files(tmp_path / "v2", sys__fs__cgroup__cpu_dot_max="250000 100000\n")
    assert usable_cores(second) == 3
    assert usable_cores(files(tmp_path / "free", sys__fs__cgroup__cpu_dot_max="max 100000\n")) == 8
    first = files(tmp_path / "v1", **{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000"})
    assert usable_cores(files(first, **{"sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"})) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cores(second) == 1


TRAIN = """
import resource, sys, torch
from metier.models.adapters import keep_memory
from metier.models.encoding import Encoded, Loss
from metier.models.load import load_base
from metier.models.methods import add_method
from metier.models.packing import PackReader
from metier.training.loop import Recipe, begin
from metier.training.stream import Step
from metier.training.update import train_step
method, n, top_layers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
keep_memory()
reader = PackReader(add_method(load_base("smollm2-135m-instruct").model, method, 16, 32, 0, top_layers))
reader.model.train()
kinds = (*[Loss.NONE] * 30, *[Loss.TEXT] * 98)
rows = tuple(Encoded(str(i), tuple(range(100, 228)), kinds, 300) for i in range(n // 128))
optimizer = begin(reader, Recipe(2, 1e-4, n)).optimizer
for _ in range(2):
    train_step(reader, optimizer, Step(rows, {"field": n}, 0), n)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize(
    ("method", "pack_tokens", "top_layers"),
    [("lora", 256, 0), ("lora", 1024, 0), ("lora", 1024, 8), *((m, 1024, 0) for m in COUNTED if m != "lora")],
)
def test_the_estimate_is_within_a_quarter_of_what_is_measured(method: str, pack_tokens: int, top_layers: int) -> None:
    found = sizes_of(empty_model("smollm2-135m-instruct"), method, 16, 32, 0, top_layers)
    estimated = training_memory(found, pack_tokens).total
    command = [sys.executable, "-c", TRAIN, method, str(pack_tokens), str(top_layers)]
    measured = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert estimated == pytest.approx(measured, rel=0.25)
