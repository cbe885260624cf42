"""Where every source byte and every row ended up, exactly once.

Bytes are UTF-8 bytes of the text of a file. That of a text file (HTML, LaTeX, mail, XML and transcripts, too) is all of
it, decoded; that of a binary one (PDF, office files) is what was found in it, with the running headers, hyphens and
the like that are then taken out; that of parquet, hub and spreadsheet rows is the text of all values. An archive has no
text of its own, its members have. A file that gave nothing was not decoded: the bytes on the disk stand for its text,
and they are rejected.

The raw bytes of a row = cleaned + prompt + learned + what was taken out of it (boilerplate lines, identifiers). What is
cleaned is the remainder: markup of the format, unused fields, white space. A mask is no byte of the source: it is not
counted, and neither is what the window cuts of it.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from metier.sources.formats.outcome import LEFT_OUT, Status

Bucket = Literal[
    "read",
    "cleaned",
    "boilerplate",
    "duplicate",
    "near_duplicate",
    "private",
    "not_selected",
    "too_short",
    "cut",
    "held_out",
    "masked",
    "trained",
    "rejected",
]
Dropped = Literal["duplicate", "near_duplicate", "private", "not_selected", "too_short"]
BYTE_BUCKETS: tuple[Bucket, ...] = get_args(Bucket)
ROW_BUCKETS: tuple[Bucket, ...] = (
    "read",
    "duplicate",
    "near_duplicate",
    "private",
    "not_selected",
    "too_short",
    "cut",
    "held_out",
    "trained",
    "rejected",
)
# A row cut into sections can end in several; it is counted under the first of these that any of its sections reached.
SECTION_ORDER: tuple[Bucket, ...] = ("trained", "held_out", "cut", "read")


@dataclass(frozen=True)
class FileRead:
    """One file as it was found, or one in an archive.

    status      ok; partial: some of it could not be read; or why nothing was, with the reason
    disk_bytes  its size; unpacked, for a member of an archive
    rows        the bad ones too; a document is one row
    documents   texts or rows that can be learned
    characters  of those, before repeated and short ones are left out
    removed     what was taken out or mended, counted by kind
    """

    path: str
    status: Status
    reason: str
    disk_bytes: int
    text_bytes: int
    rows: int
    documents: int = 0
    characters: int = 0
    removed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Account:
    """The bytes of one example. `row` is the id of the source row, another one than the example's own for sections.

    has_masks  its text holds masks, so it is longer than its own learned bytes
    """

    row: str
    raw_bytes: int
    prompt_bytes: int
    learned_bytes: int
    dropped: Dropped | Literal[""] = ""
    boilerplate_bytes: int = 0
    private_bytes: int = 0
    has_masks: bool = False

    @property
    def cleaned_bytes(self) -> int:
        kept = self.prompt_bytes + self.learned_bytes
        return self.raw_bytes - kept - self.boilerplate_bytes - self.private_bytes


class Ledger:
    """The account of one corpus: filled while reading, settled after training.

    It is correct in between, too: what is not settled counts as read.
    """

    def __init__(self) -> None:
        self.files: list[FileRead] = []
        self.rejected: list[dict[str, str]] = []
        self.removed: list[dict[str, str]] = []
        self._accounts: dict[str, Account] = {}
        self._rejected_bytes = 0
        self._rejected_rows = 0
        self._held_out: frozenset[str] = frozenset()
        self._trained: frozenset[str] = frozenset()
        self._cut: dict[str, int] = {}
        self._unreached: dict[str, int] = {}

    def add_file(self, file: FileRead) -> None:
        """Enter a file; the bytes of one that gave nothing are all rejected."""
        self.files.append(file)
        if file.status in LEFT_OUT:
            self._rejected_bytes += file.text_bytes
            self._rejected_rows += file.rows
            self.rejected.append({"where": file.path, "why": file.reason})

    def add(self, example_id: str, raw_bytes: int, prompt_bytes: int, learned_bytes: int) -> None:
        """Enter one example: the bytes of its raw row, and those of them that became prompt and learned text."""
        if example_id in self._accounts:
            raise RuntimeError(f"the ledger has two rows called {example_id}")
        self._accounts[example_id] = Account(example_id, raw_bytes, prompt_bytes, learned_bytes)

    def reject_row(self, where: str, raw_bytes: int, why: str) -> None:
        self._rejected_bytes += raw_bytes
        self._rejected_rows += 1
        self.rejected.append({"where": where, "why": why})

    def drop(self, example_id: str, bucket: Dropped, why: str) -> None:
        """Take an example out of the corpus; its text is counted under `bucket`."""
        self._accounts[example_id] = replace(self._accounts[example_id], dropped=bucket)
        self.removed.append({"where": example_id, "bucket": bucket, "why": why})

    def take_boilerplate(self, example_id: str, n_bytes: int) -> None:
        """Bytes of a plain text that are not learned, because they stand in many others."""
        account = self._accounts[example_id]
        self._accounts[example_id] = replace(
            account, learned_bytes=account.learned_bytes - n_bytes, boilerplate_bytes=n_bytes
        )

    def take_private(self, example_id: str, prompt_bytes: int, learned_bytes: int, why: str) -> None:
        """Bytes of the prompt and of the learned text for which masks stand now."""
        account = self._accounts[example_id]
        self._accounts[example_id] = replace(
            account,
            prompt_bytes=account.prompt_bytes - prompt_bytes,
            learned_bytes=account.learned_bytes - learned_bytes,
            private_bytes=prompt_bytes + learned_bytes,
            has_masks=True,
        )
        self.removed.append({"where": example_id, "bucket": "private", "why": why})

    def split_example(self, example_id: str, pieces: Mapping[str, int]) -> None:
        """Replace a plain text by its sections: {section id: bytes of its text}.

        What lies between the sections (blank lines) becomes cleaned, on the account of the first, where what was taken
        out of the text stays, too. The bytes of masks are taken off the first sections that hold as many.
        """
        whole = self._accounts.pop(example_id)
        of_masks = max(0, sum(pieces.values()) - whole.learned_bytes)
        between = whole.raw_bytes - min(sum(pieces.values()), whole.learned_bytes)
        left = replace(whole, raw_bytes=between, prompt_bytes=0)
        for section_id, text_bytes in pieces.items():
            masks = min(of_masks, text_bytes)
            of_masks -= masks
            n_bytes = text_bytes - masks
            self._accounts[section_id] = replace(left, raw_bytes=left.raw_bytes + n_bytes, learned_bytes=n_bytes)
            left = replace(left, raw_bytes=0, boilerplate_bytes=0, private_bytes=0)

    def settle(
        self,
        *,
        held_out: Collection[str],
        trained: Collection[str],
        cut: Mapping[str, int],
        unreached: Mapping[str, int] | None = None,
    ) -> None:
        """Say how it ended.

        held_out   ids kept for the evidence
        trained    ids that carried loss
        cut        {id: learned bytes beyond the model's window}; an example that is cut whole counts as cut
        unreached  {id: learned bytes of a trained text whose windows the training budget did not reach}: read only

        Raises:
            RuntimeError: an id is unknown, was dropped, or is on both sides; or more is cut than there was.
        """
        self._held_out, self._trained = frozenset(held_out), frozenset(trained)
        self._cut = {i: self._without_masks(i, n) for i, n in cut.items()}
        self._unreached = {i: self._without_masks(i, n, self._cut.get(i, 0)) for i, n in (unreached or {}).items()}
        if both := self._held_out & self._trained:
            raise RuntimeError(f"{len(both)} examples are held out and trained at once, {min(both)} among them")
        for example_id in (*self._held_out, *self._trained, *self._cut):
            account = self._accounts.get(example_id)
            if account is None or account.dropped:
                raise RuntimeError(f"{example_id} is settled, but the ledger has no such example")
            cut_bytes, unreached_bytes = self._cut.get(example_id, 0), self._unreached.get(example_id, 0)
            if min(cut_bytes, unreached_bytes) < 0 or cut_bytes + unreached_bytes > account.learned_bytes:
                raise RuntimeError(
                    f"{example_id} has {account.learned_bytes} learned bytes, {cut_bytes} of them cut, "
                    f"{unreached_bytes} not reached"
                )
        if strangers := set(self._unreached) - self._trained:
            raise RuntimeError(f"{min(strangers)} was not reached in part, but not trained either")

    @property
    def n_cut(self) -> int:
        """Examples that did not fit the window, in part or at all."""
        return len(self._cut)

    def sizes(self, example_id: str) -> tuple[int, int, int]:
        """(raw bytes, prompt bytes, learned bytes) of one example."""
        account = self._accounts[example_id]
        return account.raw_bytes, account.prompt_bytes, account.learned_bytes

    def bytes_by_bucket(self) -> dict[str, int]:
        counts: Counter[str] = Counter(rejected=self._rejected_bytes)
        for example_id, account in self._accounts.items():
            counts["cleaned"] += account.cleaned_bytes
            counts["boilerplate"] += account.boilerplate_bytes
            counts["private"] += account.private_bytes
            cut = self._cut.get(example_id, 0)
            bucket = self._bucket(example_id, account)
            unreached = self._unreached.get(example_id, 0)
            counts["cut"] += cut
            counts["read"] += unreached
            counts[bucket] += account.learned_bytes - cut - unreached
            counts["masked" if bucket == "trained" else bucket] += account.prompt_bytes
        counts["cleaned"] += self._between_rows()
        return {bucket: counts[bucket] for bucket in BYTE_BUCKETS}

    def rows_by_bucket(self) -> dict[str, int]:
        reached: dict[str, set[Bucket]] = {}
        for example_id, account in self._accounts.items():
            reached.setdefault(account.row, set()).add(self._bucket(example_id, account))
        counts: Counter[str] = Counter(rejected=self._rejected_rows)
        for buckets in reached.values():
            counts[next((b for b in SECTION_ORDER if b in buckets), next(iter(buckets)))] += 1
        return {bucket: counts[bucket] for bucket in ROW_BUCKETS}

    def check(self) -> None:
        """Raises RuntimeError, an error of ours and not of the user, when the sums do not add up."""
        for example_id, account in self._accounts.items():
            if min(account.cleaned_bytes, account.prompt_bytes, account.learned_bytes) < 0:
                raise RuntimeError(f"the ledger has more text than source for {example_id}: {account}")
        if self._between_rows() < 0:
            raise RuntimeError(
                f"the ledger's rows hold {-self._between_rows()} bytes more than the files they are from"
            )
        for name, counts, total in (
            ("bytes", self.bytes_by_bucket(), self._total_bytes()),
            ("rows", self.rows_by_bucket(), self._total_rows()),
        ):
            if sum(counts.values()) != total or min(counts.values()) < 0:
                raise RuntimeError(f"the ledger's {name} do not add up to {total}: {counts}")

    def as_json(self) -> dict[str, Any]:
        """The content of ledger.json, checked."""
        self.check()
        return {
            "bytes": {"total": self._total_bytes(), **self.bytes_by_bucket()},
            "rows": {"total": self._total_rows(), **self.rows_by_bucket()},
            "files": [asdict(file) for file in self.files],
            "rejected": list(self.rejected),
            "removed": list(self.removed),
        }

    def _without_masks(self, example_id: str, n_bytes: int, elsewhere: int = 0) -> int:
        """Bytes of a text that were not reached, but for those of masks: never more than the source has."""
        account = self._accounts.get(example_id)
        if account is None or not account.has_masks:
            return n_bytes
        return min(n_bytes, account.learned_bytes - elsewhere)

    def _bucket(self, example_id: str, account: Account) -> Bucket:
        if account.dropped:
            return account.dropped
        if account.learned_bytes and self._cut.get(example_id, 0) == account.learned_bytes:
            return "cut"
        if example_id in self._trained:
            return "trained"
        return "held_out" if example_id in self._held_out else "read"

    def _between_rows(self) -> int:
        """Bytes of the files that are in no row: blank lines, a header, brackets, a byte order mark."""
        in_rows = sum(account.raw_bytes for account in self._accounts.values())
        return self._total_bytes() - self._rejected_bytes - in_rows

    def _total_bytes(self) -> int:
        return sum(file.text_bytes for file in self.files)

    def _total_rows(self) -> int:
        return sum(file.rows for file in self.files)
