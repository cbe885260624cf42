"""What the base scores on the general pack, kept from run to run: the same texts, read in the same packs by the same
weights, give the same numbers."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch

from metier.evidence.score import Items, Record
from metier.ranks import this_rank
from metier.sources.wheels import write_atomically
from metier.training import parallel

General = tuple[list[Record], list[Record]]  # as score.score_general gives


class ScoreCache:
    """One file per base model, items and all else that a last digit depends on: packs, threads, device, version."""

    def __init__(self, folder: Path, sha256: str, device: torch.device, pack_tokens: int) -> None:
        self.folder = folder / "scores"
        n_ranks, n_threads = parallel.n_ranks(), torch.get_num_threads()
        self._made_by = [sha256, str(device), pack_tokens, n_ranks, n_threads, torch.__version__]

    def general(self, items: Items, read: Callable[[], General]) -> General:
        """What is kept for these items; what `read` gives, from now on kept, where there is nothing."""
        path = self._path(items)
        if (kept := parallel.by_first(lambda: _read(path))) is not None:
            return kept
        found = read()
        if this_rank().is_first:
            write_atomically(path, json.dumps(found).encode())
        return found

    def _path(self, items: Items) -> Path:
        texts = [(t.id, t.group) for t in items.texts], [(d.item, d.ids, d.loss) for d in items.text_documents]
        requests = [(r.id, r.kind, r.answer) for r in items.requests], items.own_answers, items.request_branches
        choices = [(c.id, c.kind, c.choices, c.label) for c in items.choices], items.choice_branches
        form = hashlib.sha256(repr([self._made_by, texts, requests, choices]).encode()).hexdigest()
        return self.folder / f"{str(self._made_by[0])[:16]}-{form[:24]}.json"


def _read(path: Path) -> General | None:
    """Nothing where there is no file, or one that was damaged: it can be made again."""
    try:
        records, choices = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return records, choices
