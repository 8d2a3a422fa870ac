"""The ledger of claims: each statement of the paper as one measured number with a criterion that could fail it.

    claim  ->  measure(setting)  ->  value [low, high]  ->  verdict

`measure_all` measures them, ``teachkit claims`` prints the table, the README shows it as last measured, and the
lessons print their claims with `state`. The claims that fail, or that a control meets as well, are in it with the
others. The source is arXiv 2506.10177 and the papers it builds on; each claim names its place.
"""

from teachkit.course.claims import closed_forms, distilled, geometry, learned, scheduling, shapes, solvers
from teachkit.course.claims.criteria import VERDICTS, Criterion
from teachkit.course.claims.registry import (
    DEFAULT_MODEL,
    REGISTRY,
    Claim,
    Measurement,
    Setting,
    chosen,
    get,
    state,
    verdict,
)
from teachkit.course.claims.report import Result, measure_all, to_html, to_json, to_text

__all__ = ["DEFAULT_MODEL", "REGISTRY", "VERDICTS", "Claim", "Criterion", "Measurement", "Result", "Setting"]
__all__ += ["chosen", "closed_forms", "distilled", "geometry", "get", "learned", "measure_all", "scheduling"]
__all__ += ["shapes", "solvers", "state", "to_html", "to_json", "to_text", "verdict"]
