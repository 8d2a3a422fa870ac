"""The ledger: a claim is one sentence, a number that could refute it, and a criterion.

A `Claim` holds the sentence, its place in the literature, the figure reported there, and ``measure(setting)``, which
returns a `Measurement`: value and interval. The verdict follows from the `criteria` by one rule, with the control's
value beside it, so that a number which chance or a trivial model reaches too is never counted as evidence. The
modules beside this one hold the measurements, by subject; every lesson prints its claims with `state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from teachkit.checks import integer
from teachkit.course import outline
from teachkit.course.claims.criteria import FAILS, HOLDS, LIMIT, Criterion
from teachkit.metrics import Estimate, bootstrap, proportion

NEEDS = ("nothing", "model", "model and its data")
DEFAULT_MODEL = "edm-digits8"


@dataclass(frozen=True)
class Setting:
    """How a claim is measured.

    Attributes
    ----------
    full : bool
        More paths, for minutes instead of seconds.
    seed : int
        Of the starting noise.
    model : str
        Name or file of the trained network, for the claims about one.
    device : str
        Where the network runs.

    Examples
    --------
    >>> Setting(full=True).pick(32, 256)
    256
    """

    full: bool = False
    seed: int = 0
    model: str = DEFAULT_MODEL
    device: str = "cpu"

    def __post_init__(self) -> None:
        integer("seed", self.seed, 0)

    def pick(self, fast: int, full: int) -> int:
        """The first number, or the second for a full measurement."""
        return full if self.full else fast


class Measurement(NamedTuple):
    """A measured value, the ends of its 95 % interval, its unit, what was measured, and the control's value.

    Examples
    --------
    >>> Measurement(0.47, 0.46, 0.48, "%").unit
    '%'
    """

    value: float
    low: float
    high: float
    unit: str = ""
    detail: str = ""
    control: float | None = None


Measure = Callable[[Setting], Measurement]
Number = float | Estimate | Measurement | Tensor


@dataclass(frozen=True)
class Claim:
    """A statement that can be measured.

    Attributes
    ----------
    id : str
        Its name, on the command line and in the lessons.
    sentence : str
        What is claimed, in one plain sentence.
    place : str
        Where it is claimed.
    figure : str or None
        What is reported there.
    criterion : Criterion
        What the value must lie between (`criteria` says which were fixed when).
    measure : callable
        ``measure(setting)`` -> `Measurement`; with ``setting.full`` on more paths.
    digits : int
        Decimals that are shown.
    unit : str
        Of the value.
    needs : str
        One of `NEEDS`: whether it is about a trained network, and about the data this was trained on.
    remark : str
        The limit, or why the claim does not hold here.
    lesson : str
        Number of the lesson that teaches it.

    Examples
    --------
    >>> get("path-length").show(Measurement(0.987, 0.981, 0.993))
    '0.99 [0.98, 0.99]'
    """

    id: str
    sentence: str
    place: str
    figure: str | None
    criterion: Criterion
    measure: Measure = field(repr=False, compare=False)
    digits: int = 2
    unit: str = ""
    needs: str = "nothing"
    remark: str = ""
    lesson: str = ""

    @property
    def source(self) -> str:
        """Where it is claimed, what is reported there, and the criterion."""
        return f"{self.place}: {f'{self.figure}; ' if self.figure else ''}criterion: {self.criterion.words}"

    @property
    def identity(self) -> bool:
        """Whether it claims equality: the value is then shown as below a bound, for it is rounding."""
        return 0 < self.criterion.most <= 1e-6

    def verdict(self, measured: Measurement | Estimate) -> str:
        """One of `VERDICTS`."""
        return self.criterion.verdict(*measured[:3], control=getattr(measured, "control", None))

    def why(self, measured: Measurement | Estimate) -> str:
        """What to say where the claim does not simply hold: the remark, or what the rule found; else nothing."""
        found = self.verdict(measured)
        if found == HOLDS:
            return ""
        if self.remark or found == FAILS:  # that the value misses the criterion is what the verdict says already
            return self.remark
        return "the control passes as well" if found == LIMIT else "the interval reaches beyond the criterion"

    def show(self, measured: Measurement | Estimate) -> str:
        """Value, interval and control as they are printed, at the precision that is the same on every machine."""
        low, high = map(self._text, measured[1:3])
        interval = "" if self.identity or low == high else f" [{low}, {high}]"
        control = getattr(measured, "control", None)
        beside = "" if control is None else f"; control {self._shown(control)}"
        return f"{self._shown(measured.value)}{interval}{beside}"

    def rounded(self, value: float) -> float:
        """As it is shown, for a file: what an identity leaves counts as nothing."""
        return 0.0 if self.identity and self.criterion.passes(value) else round(value, self.digits)

    def _shown(self, value: float) -> str:
        if self.identity:
            return f"below {self.criterion.most:g}" if self.criterion.passes(value) else f"{value:.2g}"
        return f"{self._text(value)} {self.unit}".rstrip()

    def _text(self, value: float) -> str:
        text = f"{value:.{self.digits}f}"
        return text.removeprefix("-") if float(text) == 0 else text


REGISTRY: dict[str, Claim] = {}


def claim(name: str, *, figure: str | None = None, lesson: str = "", **more: Any) -> Callable[[Measure], Measure]:
    """Decorator that enters a measurement into the ledger; its docstring is the sentence that is claimed.

    ``lesson`` is given by name, and ``more`` as attributes of `Claim`: ``place`` and ``criterion`` at least.
    """

    def enter(function: Measure) -> Measure:
        taught = outline.number(lesson) if lesson else ""
        sentence = " ".join((function.__doc__ or "").split())
        entry = Claim(name, sentence, figure=figure, measure=function, lesson=taught, **more)
        if name in REGISTRY:
            raise ValueError(f"name must be new, {name!r} is in the ledger already")
        if entry.needs not in NEEDS:
            raise ValueError(f"needs must be one of {NEEDS}, got {entry.needs!r}")
        REGISTRY[name] = entry
        return function

    return enter


def get(name: str) -> Claim:
    """The claim of this name.

    Raises
    ------
    ValueError
        If there is none.

    Examples
    --------
    >>> get("tweedie").lesson == outline.number("noise_and_denoising")
    True
    """
    if name not in REGISTRY:
        raise ValueError(f"name must be a claim of the ledger, got {name!r}; they are: {', '.join(REGISTRY)}")
    return REGISTRY[name]


def chosen(names: Iterable[str] | None = None) -> list[Claim]:
    """The claims of these names, or all, in the order of the lessons.

    Examples
    --------
    >>> [entry.id for entry in chosen(["path-length", "tweedie"])]
    ['tweedie', 'path-length']
    """
    wanted = set(REGISTRY) if names is None else {get(name).id for name in names}
    return sorted((entry for entry in REGISTRY.values() if entry.id in wanted), key=lambda entry: entry.lesson)


def verdict(
    name: str, value: float, low: float | None = None, high: float | None = None, *, control: float | None = None
) -> str:
    """What the criterion of a claim says of a number measured elsewhere.

    Parameters
    ----------
    name : str
        Of the claim.
    value : float
        What was measured.
    low, high : float, optional
        Ends of its interval; the value itself by default.
    control : float, optional
        What the control gave.

    Returns
    -------
    str
        One of `VERDICTS`.

    Examples
    --------
    >>> verdict("residual-pca", 99.4, control=61.9)
    'holds'
    """
    return get(name).criterion.verdict(float(value), low, high, control)


def mean(values: Tensor, unit: str = "") -> Estimate:
    """Mean over paths, ``(B,)``, with its interval: by resampling, or exact where each path counts as 0 or 100 %."""
    values = values.double().cpu()
    if unit == "%" and values.ndim == 1 and bool(((values == 0) | (values == 100)).all()):
        return Estimate(*(100 * v for v in proportion(int((values == 100).sum()), len(values))))
    return bootstrap(torch.mean, values)


def measured(value: Number, unit: str = "", detail: str = "", control: Number | None = None) -> Measurement:
    """What was found: a number, an estimate, or values of paths ``(B,)``, whose `mean` is taken.

    The interval, which is centred on resampled values, is made to hold the value. ``control`` is given likewise.
    """
    if isinstance(value, Tensor) and value.ndim > 0:
        value = mean(value, unit)
    middle, low, high = map(float, value[:3] if isinstance(value, tuple) else (value,) * 3)
    beside = None if control is None else measured(control, unit).value
    return Measurement(middle, min(low, middle), max(high, middle), unit, detail, beside)


def state(
    name: str,
    value: Number | Mapping[str, Number],
    low: float | None = None,
    high: float | None = None,
    *,
    control: Number | Mapping[str, Number] | None = None,
) -> None:
    """Print a claim with what a lesson measured: sentence, reported figure, value, and verdict by its criterion.

    Where it does not simply hold, the last line says why.

    Parameters
    ----------
    name : str
        Which claim.
    value : float, Estimate, (B,) tensor or a mapping of these
        The value measured, with or without its interval; of a tensor, such as one value for each path, the mean with
        its interval (`mean`). A mapping gives one line for each of its keys, which say what was measured there.
    low, high : float, optional
        The interval, where ``value`` is a single number.
    control : float, (B,) tensor or a mapping, optional
        The same number for the control, where there is one; in a mapping, under the same keys as in ``value``.

    Examples
    --------
    >>> state("mean-shift-step", 2e-16)
    claim: A full Euler step of the exact denoiser, from sigma to 0, is one step of mean shift.
      arXiv 2506.10177, Sec. 4.2: equal; criterion: difference below 1e-12
      here: below 1e-12 -> holds
    """
    entry = get(name)
    rows = dict(value) if isinstance(value, Mapping) else {"": value}
    controls = dict(control) if isinstance(control, Mapping) else dict.fromkeys(rows, control)
    print(f"claim: {entry.sentence}\n  {entry.source}")
    width = max(len(key) for key in rows)
    reasons: dict[str, list[str]] = {}
    for key, number in rows.items():
        own = measured(number, entry.unit, control=controls.get(key))
        own = own._replace(low=own.low if low is None else float(low), high=own.high if high is None else float(high))
        label = f"here, {key:{width}s}" if key else "here"
        reasons.setdefault(entry.why(own), []).append(key)
        print(f"  {label}: {entry.show(own)} -> {entry.verdict(own)}")
    for reason in filter(None, reasons):
        whose = "" if reason == entry.remark or not any(rows) else f", {', '.join(reasons[reason])}"
        print(f"  why{whose}: {reason}")
