"""The learning rate at a step: warm-up, constant, decay to zero."""

import math

WARMUP_SHARE = 0.05
DECAY_SHARE = 0.2


def lr_at(step: int, n_steps: int, peak: float) -> float:
    """Rate of step 0 … n_steps - 1: 5 % linear warm-up, constant, last 20 % as 1 - sqrt (arXiv 2405.18392)."""
    n_warmup = max(1, round(n_steps * WARMUP_SHARE))
    n_decay = round(n_steps * DECAY_SHARE)
    if step < n_warmup:
        return peak * (step + 1) / n_warmup
    into_decay = step - (n_steps - n_decay)
    if into_decay < 0:
        return peak
    return peak * (1 - math.sqrt((into_decay + 1) / (n_decay + 1)))
