"""``teachkit claims``: the ledger, measured here."""

from __future__ import annotations

import json
import sys
from collections import ChainMap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from teachkit.cli.base import Device, Store, app, check_target, choose_device
from teachkit.files import cache_directory, write_whole

if TYPE_CHECKING:
    from teachkit.cli.ledger import Ledger
    from teachkit.course.claims.registry import Claim, Measurement
    from teachkit.evaluation import Processes


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
    store: Store = None,
    again: Annotated[bool, typer.Option("--again", help="Measure also what was measured before.")] = False,
) -> None:
    """Measure every claim of the course and print the verdicts; exit code 1 if one could not be measured.

    Run again after an interruption, it goes on where it was; after a change of the code, the data or the model it
    measures anew. Under torchrun the processes share the work.
    """
    check_target(json_file, "--json", ".json")
    check_target(html_file, "--html", ".html")
    from tqdm import tqdm

    from teachkit.cli.ledger import Ledger
    from teachkit.course.claims import fixtures, report
    from teachkit.course.claims.registry import DEFAULT_MODEL, Setting, chosen
    from teachkit.evaluation import processes

    try:
        wanted = chosen(only or None)
    except ValueError as error:
        raise typer.BadParameter(f"--only: {error}") from None
    with processes(choose_device(device)) as group:
        setting = Setting(full=full, seed=seed, model=model or DEFAULT_MODEL, device=str(group.device))
        if model is not None:
            fixtures.network(setting)  # a wrong name is one error, before any work
            wanted = _about(model, wanted, say=group.first)
        ledger = Ledger(store or cache_directory("claims"), setting)
        measured = {} if again else _kept(ledger, wanted, group)
        if measured and group.first:
            print(f"{len(measured)} measured before, kept in {ledger.folder}; --again for anew", file=sys.stderr)
        mine = [entry for entry in wanted if entry.id not in measured][group.rank :: group.world]
        parts: dict[str, tuple[Measurement | None, str]] = {}
        options = {"unit": "claim", "leave": False, "disable": None if group.first else True}
        bar = tqdm(report.measure_all(mine, setting), total=len(mine), file=sys.stderr, **options)
        for result in bar:
            bar.set_postfix_str(result.claim.id, refresh=False)
            parts[result.claim.id] = (result.measured, result.problem)
            if result.measured is not None:
                _keep(ledger, result.claim, result.measured)
        measured |= ChainMap(*group.gather(parts))
        if not group.first:
            return
    results = [report.Result(entry, *measured[entry.id]) for entry in wanted]
    if json_file is not None:
        text = json.dumps(report.to_json(results, setting), indent=1, ensure_ascii=False) + "\n"
        write_whole(json_file, lambda beside: beside.write_text(text, encoding="utf-8"))
    if html_file is not None:
        page = report.to_html(results, setting)
        write_whole(html_file, lambda beside: beside.write_text(page, encoding="utf-8"))
    print(report.to_text(results))
    if any(result.measured is None for result in results):
        raise SystemExit(1)


def _about(model: str, wanted: list[Claim], say: bool) -> list[Claim]:
    """The claims that can be measured with this model."""
    from teachkit.course.claims import report

    left = report.applicable(wanted, model)
    if not left:
        raise typer.BadParameter(f"none of the chosen claims can be measured with the model {model!r}")
    if say and len(left) < len(wanted):
        print(f"{len(left)} of {len(wanted)} claims can be measured with {model}", file=sys.stderr)
    return left


def _kept(ledger: Ledger, wanted: list[Claim], group: Processes) -> dict[str, tuple[Measurement | None, str]]:
    """What was measured before, as all processes see it; none begins before all have looked."""
    found = {entry.id: (kept, "") for entry in wanted if (kept := ledger.read(entry)) is not None}
    return dict(ChainMap(*group.gather(found)))


def _keep(ledger: Ledger, entry: Claim, measured: Measurement) -> None:
    """Keep a measurement if there is where; the table is worth printing without."""
    try:
        ledger.write(entry, measured)
    except OSError as error:
        print(f"teachkit: {entry.id} is not kept for later: {error}", file=sys.stderr)
