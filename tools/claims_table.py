"""Measure the ledger of claims into docs/claims.json, and write its table into README.md.

``python tools/claims_table.py`` measures twice, on few paths (what the test repeats) and on many (what the README
shows), and takes minutes; with ``--from-file`` it only writes the table anew.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from renumber import between

from teachkit.course.claims import Setting, chosen, measure_all, to_json
from teachkit.course.claims.report import tally

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docs" / "claims.json"
START, END = "<!-- claims -->", "<!-- /claims -->"


def rows(record: dict) -> list[str]:
    """One table row for each claim: sentence, figure reported, value here, verdict."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|").replace("\n", " ")

    return [
        f"| {cell(c['claim'])} | {cell(c['figure'] or '')} | {cell(c['here'])} | {c['verdict']} |"
        for c in record["claims"]
    ]


def render(text: str, record: dict) -> str:
    """README with its table of claims made anew."""
    return between(text, "claims", ["| claim | paper | here | verdict |", "|---|---|---|---|", *rows(record)])


def measured(ids: list[str], full: bool) -> dict:
    """These claims, or the whole ledger; nothing is returned if one claim could not be measured."""
    setting, results = Setting(full=full), []
    for result in measure_all(chosen(ids or None), setting):
        print(f"{result.claim.id:28s} {result.verdict:20s} {result.shown}", file=sys.stderr)
        results.append(result)
    missing = [r.claim.id for r in results if r.measured is None]
    if missing:
        raise SystemExit(f"not measured, nothing written: {', '.join(missing)}")
    print(f"{'full' if full else 'fast'}: {tally(results)}")
    return to_json(results, setting)


def reworded(record: dict) -> dict:
    """The record in the ledger's present words; a changed criterion or another set of claims needs a measurement."""
    for row, entry in zip(record["claims"], chosen(), strict=True):
        if (row["id"], row["criterion"]) != (entry.id, entry.criterion.words):
            raise SystemExit(f"{entry.id}: measured by another criterion; run without --from-file")
        row |= {"claim": entry.sentence, "place": entry.place, "figure": entry.figure}
        row |= {"remark": entry.remark, "lesson": entry.lesson}
    return record


def main() -> None:
    """Measure unless told not to, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--from-file", action="store_true", help="do not measure, write the table from docs/claims.json"
    )
    parser.add_argument("ids", nargs="*", metavar="claim", help="by default all")
    options = parser.parse_args()
    if not options.from_file:
        fast, record = measured(options.ids, full=False), measured(options.ids, full=True)
        for row, quick in zip(record["claims"], fast["claims"], strict=True):
            row["fast"] = {key: quick[key] for key in ("here", "value", "verdict")}
        if options.ids:
            new = {row["id"]: row for row in record["claims"]}
            known = {row["id"]: row for row in json.loads(FILE.read_text(encoding="utf-8"))["claims"]} | new
            record["claims"] = [known[entry.id] for entry in chosen()]
        FILE.write_text(json.dumps(record), encoding="utf-8")
    record = reworded(json.loads(FILE.read_text(encoding="utf-8")))
    FILE.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    readme = ROOT / "README.md"
    readme.write_text(render(readme.read_text(encoding="utf-8"), record), encoding="utf-8")


if __name__ == "__main__":
    main()
