"""Claims about networks distilled to one, two and four evaluations, beside what no training buys: solvers, affine maps.

Errors are to where the teacher's paths from the same noise end, on noise that no network was trained on. Each student
is one run of training: the intervals hold the draw of the noise and of the solver's warm-up, not that of the run.
Taught in ``notebooks/16_one_step``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from teachkit import edm, metrics, sample, schedules, scheduling
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import below_one, between
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.noise import initial_noise

SFD = "arXiv 2409.19681"
LESSON = "one_step"
TEACHER = "edm-digits8"
WARM_UP = 64  # noises to which a solver is fitted


def student(nfe: int) -> edm.EDMPrecond:
    """The network that ships for this many evaluations."""
    network = edm.load(f"{TEACHER}-{nfe}step")
    assert isinstance(network, edm.EDMPrecond)
    return network


def noise(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise at level 80 and the classes asked for, in turn."""
    return initial_noise(count, (1, 8, 8), seed=seed, dtype=torch.float32, device="cpu"), torch.arange(count) % 10


def affine_map(x: Tensor, ends: Tensor, labels: Tensor, x_new: Tensor, labels_new: Tensor, ridge: float = 10) -> Tensor:
    """Where the best affine map of each class, by least squares on pairs of noise and end, takes new noise.

    Examples
    --------
    >>> x = torch.randn(40, 1, 2, 2)
    >>> labels = torch.arange(40) % 2
    >>> torch.allclose(affine_map(x, 3 * x - 1, labels, x, labels, ridge=1e-6), 3 * x - 1, atol=1e-3)
    True
    """
    found, scale = torch.empty_like(x_new), x.std()

    def rows(noise: Tensor) -> Tensor:
        return torch.cat([noise.flatten(1) / scale, torch.ones(len(noise), 1, dtype=noise.dtype)], 1).double()

    for k in labels_new.unique():
        A, y = rows(x[labels == k]), ends[labels == k].flatten(1).double()
        weights = torch.linalg.solve(A.T @ A + ridge * torch.eye(A.shape[1], dtype=torch.float64), A.T @ y)
        new = labels_new == k
        found[new] = (rows(x_new[new]) @ weights).to(found).reshape(found[new].shape)
    return found


def spread(images: Tensor, labels: Tensor) -> Tensor:
    """Standard deviation of pixels within a class: the root of its mean square over pixels and images.

    Examples
    --------
    >>> images = torch.tensor([0.0, 2.0, 7.0, 9.0])[:, None]
    >>> float(spread(images, torch.tensor([0, 0, 1, 1])))
    1.0
    """
    own = images.flatten(1).double()
    gaps = [own[labels == k] - own[labels == k].mean(0) for k in labels.unique()]
    return torch.cat(gaps).square().mean().sqrt()


@fixtures.cached
def _teacher(run: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, the classes asked for, and where the teacher's paths end."""
    x, labels = noise(run.pick(256, 2048), 1234 + run.seed)
    return x, labels, _sampled(edm.load(TEACHER), x, labels, schedules.polynomial(30), "unipc")


def _sampled(D: edm.LearnedDenoiser, x: Tensor, labels: Tensor, sigmas: object, solver: object = "euler") -> Tensor:
    how = {"labels": labels, "batch": 512, "keep": "final"}
    return sample(D, x, sigmas, solver, **how).final  # type: ignore[arg-type]


@fixtures.cached
def _distilled(run: Setting, nfe: int) -> Tensor:
    x, labels, _ = _teacher(run)
    network = student(nfe)
    return _sampled(network, x, labels, network.levels)


@fixtures.cached
def _affine(run: Setting) -> Tensor:
    x, labels, _ = _teacher(run)
    pairs, classes = noise(run.pick(2048, 8192), 77)
    found = scheduling.Schedule.shipped(TEACHER, "fitted", 6)
    ends = _sampled(edm.load(TEACHER), pairs, classes, found.sigmas, found.make_solver())
    return affine_map(pairs, ends, classes, x, labels)


@fixtures.cached
def _fitted(run: Setting, nfe: int) -> list[Tensor]:
    """Samples of the teacher by solvers fitted to different warm-up noise."""
    x, labels, _ = _teacher(run)
    teacher, samples = edm.load(TEACHER), []
    for seed in range(55, 55 + run.pick(2, 5)):
        warm_up, classes = noise(WARM_UP, seed)
        found = scheduling.fit_solver(teacher, warm_up, nfe, labels=classes)
        samples.append(_sampled(teacher, x, labels, found.sigmas, found.make_solver()))
    return samples


def against(own: Tensor, rivals: list[Tensor], ends: Tensor) -> Measurement:
    """Ratio of mean errors to the mean of the rivals', its interval from the least end to the largest of all rivals."""
    error = metrics.error_to_reference(own, ends)
    each = [fixtures.ratio(error, metrics.error_to_reference(rival, ends)) for rival in rivals]
    middle = 1 / (sum(1 / m.value for m in each) / len(each))
    return Measurement(middle, min(m.low for m in each), max(m.high for m in each))


def _compared(run: Setting, nfe: int, rival: int) -> Measurement:
    ends, rivals = _teacher(run)[2], _fitted(run, rival)
    control = against(_affine(run), rivals, ends).value
    detail = f"error of {nfe} evaluation{'s' * (nfe > 1)} / of {rival} with a fitted solver; control: affine maps"
    return against(_distilled(run, nfe), rivals, ends)._replace(detail=detail, control=control)


@claim("one-step-distilled", place=f"this library, after {SFD}", criterion=below_one(), lesson=LESSON)
def _one(run: Setting) -> Measurement:
    """One evaluation of a distilled network comes nearer to the teacher's ends than two with a solver fitted to it."""
    return _compared(run, 1, 2)


@claim("two-steps-distilled", place=f"this library, after {SFD}", criterion=below_one(), lesson=LESSON)
def _two(run: Setting) -> Measurement:
    """With two evaluations, a distilled network comes nearer to the teacher's ends than a solver fitted to it."""
    return _compared(run, 2, 2)


@claim("four-steps-distilled", place=f"this library, after {SFD}", criterion=below_one(), lesson=LESSON,
       remark="with four evaluations a fitted solver is about as near, for nothing but its warm-up")  # fmt: skip
def _four(run: Setting) -> Measurement:
    """With four evaluations, a distilled network comes nearer to the teacher's ends than a solver fitted to it."""
    return _compared(run, 4, 4)


@claim("distilled-spread", place="this library", criterion=between(0.95, 1.05), lesson=LESSON)
def _spread(run: Setting) -> Measurement:
    """Samples of one evaluation of a distilled network vary within a class as much as the teacher's do."""
    _, labels, ends = _teacher(run)

    def ratio(a: Tensor, b: Tensor, classes: Tensor) -> Tensor:
        return spread(a, classes) / spread(b, classes)

    both = [metrics.bootstrap(ratio, own, ends, labels, paired=True) for own in (_distilled(run, 1), _affine(run))]
    detail = "standard deviation within a class, distilled / teacher; control: affine maps"
    return measured(both[0], detail=detail, control=both[1])


@claim("distilled-guidance", place="this library", criterion=below_one(), lesson=LESSON,
       remark="with and without a class, the student says where paths end, not means that can be combined")  # fmt: skip
def _guidance(run: Setting) -> Measurement:
    """Guidance, w = 2, brings the network distilled to one evaluation nearer to the teacher's guided ends."""
    x, labels = (part[: run.pick(128, 512)] for part in _teacher(run)[:2])
    how = {"labels": labels, "guidance": 2.0, "keep": "final"}
    ends = sample(edm.load(TEACHER), x, schedules.polynomial(30), "unipc", **how).final  # type: ignore[arg-type]
    network = student(1)
    guided = sample(network, x, network.levels, **how).final  # type: ignore[arg-type]
    plain = _sampled(network, x, labels, network.levels)
    errors = (metrics.error_to_reference(made, ends) for made in (guided, plain))
    return fixtures.ratio(*errors, detail="error with guidance / when it is ignored")
