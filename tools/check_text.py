"""What an editor should have seen: ``python tools/check_text.py FILES`` names faults of text files, and is 1 if any.

Lines that end in blanks or carriage returns, files that do not end in one newline, markers of a merge.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FAULTS = {
    "blanks at the end of a line": re.compile(rb"[ \t]+\n"),
    "a carriage return": re.compile(rb"\r"),
    "no newline at the end": re.compile(rb"[^\n]\Z"),
    "empty lines at the end": re.compile(rb"\n\n\Z"),
    "markers of a merge": re.compile(rb"^(<{7} |>{7} )", re.M),
}


def faults(content: bytes) -> list[str]:
    """What is wrong with a text."""
    return [name for name, pattern in FAULTS.items() if pattern.search(content)]


if __name__ == "__main__":
    found = [f"{name}: {fault}" for name in sys.argv[1:] for fault in faults(Path(name).read_bytes())]
    print("\n".join(found))
    raise SystemExit(bool(found))
