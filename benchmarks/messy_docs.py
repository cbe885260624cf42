"""What becomes of a folder of messy documents whose manifest says what should: python benchmarks/messy_docs.py FOLDER

A line of FOLDER/manifest.jsonl is {"file", "expect", "must_contain"?, "password"?}. Locked files are read once without
their password and once with it.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from metier.errors import DataError
from metier.sources.read import ReadOptions, read_corpus

MEANT = {
    "ok": {"ok"},
    "no_text": {"no_text"},
    "needs_password": {"needs_password"},
    "reject": {"rejected"},
    "empty": {"empty"},
    "partial": {"partial"},
    "reject_or_partial": {"rejected", "partial"},
    "reject_or_text": {"rejected", "ok"},
}


@dataclass(frozen=True)
class Judged:
    file: str
    expected: str
    status: str
    reason: str
    missing: tuple[str, ...]

    @property
    def is_right(self) -> bool:
        return self.status in MEANT[self.expected] and not self.missing


def judge(folder: Path) -> list[Judged]:
    """Read the folder as a user would, and hold every file against its line of the manifest."""
    corpus = read_corpus([str(folder / "files")], ReadOptions(min_characters=1))
    account = corpus.ledger.as_json()  # raises where it does not add up
    files = {file["path"]: file for file in account["files"]}
    texts: dict[str, str] = {}
    for example in corpus.examples:
        shown = example.text or "\n".join(message.content for message in example.messages)
        texts[example.source] = texts.get(example.source, "") + "\n" + shown
    judged = []
    for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines():
        wanted = json.loads(line)
        file = files[wanted["file"].removeprefix("files/")]
        text = texts.get(file["path"], "")
        status, reason = file["status"], file["reason"]
        if password := wanted.get("password"):
            try:
                opened = read_corpus([str(folder / wanted["file"])], ReadOptions(min_characters=1, password=password))
                text = opened.examples[0].text
            except DataError as error:
                status, reason = "does not open", str(error)
        missing = tuple(words for words in wanted.get("must_contain", ()) if _joined(words) not in _joined(text))
        judged.append(Judged(wanted["file"], wanted["expect"], status, reason, missing))
    return judged


def _joined(text: str) -> str:
    """White space and line-end hyphens joined, as the manifest means it."""
    return " ".join(re.sub(r"-\s*\n\s*", "", text).split())


def main() -> None:
    started = time.monotonic()
    judged = judge(Path(sys.argv[1]))
    seconds = time.monotonic() - started
    for one in judged:
        mark = "" if one.is_right else "WRONG "
        missing = f" lacks {one.missing}" if one.missing else ""
        print(f"{mark}{one.file:36} {one.expected:18} {one.status:15} {one.reason}{missing}")
    print(f"{sum(one.is_right for one in judged)} of {len(judged)} as the manifest says, {seconds:.1f} s")


if __name__ == "__main__":
    main()
