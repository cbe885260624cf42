"""Time TRL's SFTTrainer on question/answer rows, run in an environment of its own by against_trl.py.

LoRA r 16, alpha 32 on every linear layer, loss on the answer only, float32 on the CPU, one epoch, learning rate 2e-4
(TRL's advice for LoRA) falling linearly (its default), gradient checkpointing off (on, its default, would only slow it
down). Prints one JSON line; the first step warms up and is left out of the rates.
"""

import argparse
import json
import resource
import tempfile
import time
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--rows", required=True)
parser.add_argument("--n", type=int, default=48)
parser.add_argument("--mode", choices=["default", "grouped"], default="default")
parser.add_argument("--batch", type=int, default=8)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--seed", type=int, default=42)
parser.add_argument("--save", help="folder for the adapter")
args = parser.parse_args()

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

torch.set_num_threads(args.threads)


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.perf_counter())


with open(args.rows, encoding="utf-8") as file:
    rows = [json.loads(line) for line in file][: args.n]
data = Dataset.from_list(
    [
        {
            "prompt": [{"role": "user", "content": row["question"]}],
            "completion": [{"role": "assistant", "content": row["answer"]}],
        }
        for row in rows
    ]
)
options: dict[str, Any] = {"train_sampling_strategy": "group_by_length"} if args.mode == "grouped" else {}
config = SFTConfig(
    output_dir=tempfile.mkdtemp(),
    per_device_train_batch_size=args.batch,
    max_length=1024,
    num_train_epochs=1,
    learning_rate=2e-4,
    gradient_checkpointing=False,
    use_cpu=True,
    bf16=False,
    save_strategy="no",
    seed=args.seed,
    report_to=[],
    disable_tqdm=True,
    **options,
)
clock = Clock()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32),
    args=config,
    train_dataset=data,
    processing_class=AutoTokenizer.from_pretrained(args.model),
    callbacks=[clock],
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
)
trainer.train()
if args.save:
    trainer.save_model(args.save)
n_steps = len(clock.marks) - 1
counted = (n_steps - 1) / n_steps
print(
    json.dumps(
        {
            "steps": n_steps,
            "train_s": clock.marks[-1] - clock.marks[0],
            "examples_per_s": len(rows) * counted / (clock.marks[-1] - clock.marks[1]),
            "peak_rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        }
    )
)
