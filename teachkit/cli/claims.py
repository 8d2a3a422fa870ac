"""``teachkit claims``: the ledger, measured here."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from teachkit.cli.base import Device, app, check_target, choose_device

if TYPE_CHECKING:
    from teachkit.claims.registry import Claim


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
    """Measure every claim of the course and print the verdicts; exit code 1 if one could not be measured.

    Under torchrun the processes share the work.
    """
    check_target(json_file, "--json", ".json")
    check_target(html_file, "--html", ".html")
    from tqdm import tqdm

    from teachkit.claims import material, report
    from teachkit.claims.registry import DEFAULT_MODEL, Setting, chosen
    from teachkit.evaluation import processes

    try:
        wanted = chosen(only or None)
    except ValueError as error:
        raise typer.BadParameter(f"--only: {error}") from None
    with processes(choose_device(device)) as group:
        setting = Setting(full=full, seed=seed, model=model or DEFAULT_MODEL, device=str(group.device))
        if model is not None:
            material.network(setting)  # a wrong name is one error, before any work
            wanted = _about(model, wanted, say=group.first)
        mine = wanted[group.rank :: group.world]
        parts: dict[str, tuple] = {}
        with tqdm(
            total=len(mine), file=sys.stderr, unit="claim", leave=False, disable=None if group.first else True
        ) as bar:
            for result in report.measure_all(mine, setting):
                bar.set_postfix_str(result.claim.id, refresh=False)
                bar.update()
                parts[result.claim.id] = (result.measured, result.problem)
        measured = {name: part for some in group.gather(parts) for name, part in some.items()}
        if not group.first:
            return
    results = [report.Result(entry, *measured[entry.id]) for entry in wanted]
    if json_file is not None:
        _write(json_file, json.dumps(report.to_json(results, setting), indent=1, ensure_ascii=False) + "\n")
    if html_file is not None:
        _write(html_file, report.to_html(results, setting))
    print(report.to_text(results))
    if any(result.measured is None for result in results):
        raise SystemExit(1)


def _about(model: str, wanted: list[Claim], say: bool) -> list[Claim]:
    """The claims that can be measured with this model."""
    from teachkit.claims import report

    left = report.applicable(wanted, model)
    if not left:
        raise typer.BadParameter(f"none of the chosen claims can be measured with the model {model!r}")
    if say and len(left) < len(wanted):
        print(f"{len(left)} of {len(wanted)} claims can be measured with {model}", file=sys.stderr)
    return left


def _write(path: Path, text: str) -> None:
    """Beside first, then renamed: never half a file."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
