"""Tables that people open in spreadsheets: CSV written so that these do no harm to it, and read as they save it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

__all__ = ["plain", "read", "safe", "text"]

FORMULA = r"'*[=+\-@\t\r\n]"


def text(rows: Sequence[Sequence[str]]) -> str:
    """A table as CSV, a row a line."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\r\n").writerows(rows)  # a field is quoted if it holds a character of the end
    return file.getvalue()


def read(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a file, none if it is not there; columns may be parted by semicolons.

    Raises
    ------
    ValueError
        If it is not in UTF-8, or lacks one of ``columns``.
    """
    if not path.is_file():
        return []
    csv.field_size_limit(10_000_000)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            semicolons = ";" in file.readline()
            file.seek(0)
            table = csv.DictReader(file, delimiter=";" if semicolons else ",")
            rows = list(table)
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not in UTF-8: save it as 'CSV UTF-8' in the spreadsheet") from None
    if rows and (missing := [c for c in columns if c not in (table.fieldnames or ())]):
        raise ValueError(f"{path.name} has no column {missing[0]!r}: keep its first line, and save it as 'CSV UTF-8'")
    return [{key: value or "" for key, value in row.items() if key} for row in rows]


def safe(text: str) -> str:
    """Keep a spreadsheet from taking a student's text for a formula; `plain` takes the apostrophe off again.

    One more goes before those that stand before such a text already, so that no two texts become the same.
    """
    text = text.replace("\x00", "")
    return "'" + text if re.match(FORMULA, text) else text


def plain(text: str) -> str:
    """What `safe` was given."""
    return text[1:] if re.match("'" + FORMULA, text) else text
