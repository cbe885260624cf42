"""One page that opens anywhere: what a run did, what it gained and what it lost."""

from metier.report.page import write_report

__all__ = ["write_report"]
