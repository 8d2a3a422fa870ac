"""``teachkit claims``: the ledger, measured here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from teachkit.cli.base import Device, app, check_target, choose_device


@app.command()
def claims(
    model: Annotated[
        str | None, typer.Option(help="Only the claims about a network, for this one: a name or a file.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="More paths: minutes instead of seconds.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this claim; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the starting noise.")] = 0,
    device: Device = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the results to this .json file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Also write a page to this .html file.")] = None,
) -> None:
    """Measure every claim of the course and print the verdicts; exit code 1 if one could not be measured."""
    check_target(json_file, "--json", ".json")
    check_target(html_file, "--html", ".html")
    from tqdm import tqdm

    from teachkit.claims import material, report
    from teachkit.claims.registry import DEFAULT_MODEL, Setting, chosen

    try:
        wanted = chosen(only or None)
    except ValueError as error:
        raise typer.BadParameter(f"--only: {error}") from None
    setting = Setting(full=full, seed=seed, model=model or DEFAULT_MODEL, device=choose_device(device))
    if model is not None:
        material.network(setting)  # a wrong name is one error, before any work
        left = report.applicable(wanted, model)
        if not left:
            raise typer.BadParameter(f"none of the chosen claims can be measured with the model {model!r}")
        if len(left) < len(wanted):
            print(f"{len(left)} of {len(wanted)} claims can be measured with {model}", file=sys.stderr)
        wanted = left
    results = []
    with tqdm(total=len(wanted), file=sys.stderr, unit="claim", leave=False, disable=None) as bar:
        for result in report.measure_all(wanted, setting):
            bar.set_postfix_str(result.claim.id, refresh=False)
            bar.update()
            results.append(result)
    if json_file is not None:
        _write(json_file, json.dumps(report.to_json(results, setting), indent=1, ensure_ascii=False) + "\n")
    if html_file is not None:
        _write(html_file, report.to_html(results, setting))
    print(report.to_text(results))
    if any(result.measured is None for result in results):
        raise SystemExit(1)


def _write(path: Path, text: str) -> None:
    """Beside first, then renamed: never half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
