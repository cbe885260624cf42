"""A million synthetic documents through read, clean, near-duplicates, leaks and split: MB/s and memory.

    python benchmarks/corpus.py [--documents 1000000] [--beside rensa datasketch]

The set is written to a temporary folder: words by Zipf's law, 5 % near-duplicates (one word in sixty changed), 1 %
exact duplicates, a notice in every third text, an e-mail address in 1 %. Each part runs in a process of its own, so
that its peak memory is its own. The libraries (pip install rensa datasketch) make MinHash signatures of as
many permutations and query an index of as many bands, over the same files; `--sample` bounds what is given to them.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metier.sources.duplicates import BANDS, JACCARD, ROWS, WORDS, NearDuplicates
from metier.sources.leaks import find_leaks
from metier.sources.read import read_corpus
from metier.sources.split import split_corpus

FILE_DOCUMENTS = 10_000
WORDS_EACH = 132
NOTICE = "This notice stands at the end of many of these texts and says nothing."


def write_set(folder: Path, n_documents: int, seed: int = 0) -> int:
    """Write the set as .jsonl files of 10,000 texts; returns its bytes."""
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = np.array(
        ["".join(random.choice(letters, size)) for size in random.integers(2, 11, 50_000)], dtype=object
    )
    n_bytes, number = 0, 0
    earlier: list[Any] = []
    for start in range(0, n_documents, FILE_DOCUMENTS):
        rows = []
        n = min(FILE_DOCUMENTS, n_documents - start)
        drawn = np.minimum(random.zipf(1.3, (n, WORDS_EACH)) - 1, len(vocabulary) - 1)
        kinds = random.random(n)
        for words, kind in zip(drawn, kinds, strict=True):
            if kind < 0.06 and earlier:
                words = earlier[random.integers(len(earlier))].copy()
                if kind >= 0.01:
                    words[random.integers(0, WORDS_EACH, WORDS_EACH // 60)] = random.integers(len(vocabulary))
            elif len(earlier) < 50_000:
                earlier.append(words)
            text = ". ".join(" ".join(vocabulary[part]) for part in np.split(words, 11)) + "."
            text += f"\n{NOTICE}" if number % 3 == 0 else ""
            text += f"\nWrite to person{number}@example.org." if number % 100 == 0 else ""
            rows.append(json.dumps({"text": text}))
            number += 1
        data = "\n".join([*rows, ""]).encode()
        (folder / f"{start // FILE_DOCUMENTS:05d}.jsonl").write_bytes(data)
        n_bytes += len(data)
    return n_bytes


def texts_of(folder: Path) -> Iterator[list[str]]:
    for path in sorted(folder.iterdir()):
        yield [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def whole(folder: Path) -> dict[str, Any]:
    """What `metier adapt` does with the data before it loads a model."""
    corpus = read_corpus([str(folder)])
    split = split_corpus(corpus.examples, 0, ledger=corpus.ledger)
    leaks = find_leaks(split.train, (*split.select, *split.test))
    rows = corpus.ledger.as_json()["rows"]
    return {"near": rows["near_duplicate"], "duplicate": rows["duplicate"], "leaked": len(leaks.held_out)}


def ours(folder: Path) -> dict[str, Any]:
    """Near-duplicates alone; one file of texts is in memory while signatures are made, all of them to verify pairs."""
    seeker = NearDuplicates()
    files = sorted(folder.iterdir())
    for texts in texts_of(folder):
        seeker.add(texts)
    n_each = FILE_DOCUMENTS
    lines: dict[int, list[str]] = {}

    def text_of(number: int) -> str:
        file = number // n_each
        if file not in lines:
            lines[file] = files[file].read_text(encoding="utf-8").splitlines()
        text: str = json.loads(lines[file][number % n_each])["text"]
        return text

    return {"near": len(seeker.find(text_of))}


def library(name: str) -> Callable[[Path], dict[str, Any]]:
    def run(folder: Path) -> dict[str, Any]:
        found, number = 0, 0
        make, query = (_rensa if name == "rensa" else _datasketch)()
        for texts in texts_of(folder):
            for text in texts:
                words = text.lower().split()
                found += query(number, make([" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)]))
                number += 1
        return {"near": found, "note": "candidates, not verified"}

    return run


def _rensa() -> Any:
    import rensa

    def make(shingles: list[str]) -> Any:
        signature = rensa.RMinHash(num_perm=BANDS * ROWS, seed=42)
        signature.update(shingles)
        return signature

    return make, _found_and_added(rensa.RMinHashLSH(threshold=JACCARD, num_perm=BANDS * ROWS, num_bands=BANDS))


def _datasketch() -> Any:
    import datasketch

    def make(shingles: list[str]) -> Any:
        signature = datasketch.MinHash(num_perm=BANDS * ROWS)
        signature.update_batch([shingle.encode() for shingle in shingles])
        return signature

    return make, _found_and_added(datasketch.MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS)))


def _found_and_added(index: Any) -> Any:
    def query(number: int, signature: Any) -> bool:
        found = bool(index.query(signature))
        index.insert(number, signature)
        return found

    return query


def measured(name: str, folder: Path, n_bytes: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_measure, args=(name, folder, n_bytes))
    process.start()
    process.join()


def _measure(name: str, folder: Path, n_bytes: int) -> None:
    run = {"whole": whole, "ours": ours}.get(name) or library(name)
    wall, cpu = time.monotonic(), time.process_time()
    found = run(folder)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(
        f"| {name} | {n_bytes / 1e6:,.0f} | {wall:,.0f} | {cpu:,.0f} | {n_bytes / 1e6 / wall:.1f} | "
        f"{n_bytes / 1e6 / cpu:.1f} | {peak:.2f} | {found} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=50_000, help="documents for the libraries")
    parser.add_argument("--beside", nargs="*", default=[], choices=["rensa", "datasketch"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as all_of_it, tempfile.TemporaryDirectory() as sample:
        n_bytes = write_set(Path(all_of_it), given.documents)
        print("| what | MB | wall s | CPU s | MB/s | MB per CPU s | peak GiB | found |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
        measured("whole", Path(all_of_it), n_bytes)
        measured("ours", Path(all_of_it), n_bytes)
        if given.beside:
            n_sample = write_set(Path(sample), min(given.sample, given.documents))
            for name in ["ours", *given.beside]:
                measured(name, Path(sample), n_sample)


if __name__ == "__main__":
    main()
