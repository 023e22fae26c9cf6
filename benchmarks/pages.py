"""Tables in the pages of docs/, which the benchmarks keep up to date."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from galaxyspark.errors import UserError
from galaxyspark.storage import write_atomically


def markdown(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows, the first of them the header."""
    header, *others = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ("---",) * len(header), *others))


def with_table(text: str, name: str, table: str) -> str:
    """A page with the table between ``<!-- NAME -->`` and ``<!-- end -->`` replaced.

    Raises:
        UserError: The page has no such place.
    """
    place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not place.search(text):
        raise UserError(f"the page has no lines <!-- {name} --> and <!-- end -->, between which the table would go.")
    return place.sub(lambda found: f"{found[1]}{table}\n{found[2]}", text)


def write_table(page: Path, name: str, table: str) -> None:
    """Replace a table of a page, as ``with_table`` does."""
    write_atomically(page, with_table(page.read_text(), name, table))
