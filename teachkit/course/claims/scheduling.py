"""Claims about schedules found by dynamic programming, their coefficient, and what beats them.

Levels are chosen on a teacher's paths from some noise and judged on other noise, by the error of each sample to the
exact end of its path; ratios are taken over the same samples. Where the warm-up's draw can change what is found, it is
drawn several times, and the interval reaches from the least end to the largest (`fixtures.over_draws`). Taught in
``notebooks/14_schedules_by_dynamic_programming``; what is fitted or learned, in ``notebooks/15_learned_solvers``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from teachkit import sample, schedules, scheduling, solvers
from teachkit.course.claims import fixtures
from teachkit.course.claims.criteria import at_least, at_most, below_one, exact
from teachkit.course.claims.fixtures import over_draws, ratio
from teachkit.course.claims.registry import Measurement, Setting, claim, measured
from teachkit.sampling import Trajectory

P2 = "arXiv 2405.11326, Sec. 4"
NFE = 6
LESSON, LEARNED = "schedules_by_dynamic_programming", "learned_solvers"


def _warm_ups(run: Setting) -> range:
    """Streams of noise for the draws of the warm-up."""
    return range(10, 10 + run.pick(2, 5))


@fixtures.cached
def _exact_teacher(run: Setting, stream: int) -> Trajectory:
    x = fixtures.noise(run, run.pick(64, 256), (1, 8, 8), stream)
    return scheduling.teacher_paths(fixtures.exact_denoiser(), x)


@fixtures.cached
def _published(run: Setting) -> list[Tensor]:
    """Errors with the levels of the published programme, deviation cost and coefficient 1.15, iPNDM and network.

    The teacher is the paper's, iPNDM on 61 levels; one tensor for each draw of the warm-up.
    """
    routes = []
    for stream in _warm_ups(run):
        x = fixtures.network_noise(run, run.pick(16, 256), stream)
        teacher = fixtures.network_sample(run, x, schedules.polynomial(60), "ipndm")
        path = scheduling.shortest_path(scheduling.cost_matrix(teacher, "deviation"), NFE, 1.15)
        routes.append(tuple(teacher.sigmas[path].tolist()))
    errors = {r: fixtures.network_error(run, torch.tensor(r, dtype=torch.float64), "ipndm") for r in set(routes)}
    return [errors[r] for r in routes]


def _drawn(run: Setting) -> str:
    return f"interval: paths and {len(_warm_ups(run))} draws of the warm-up"


@fixtures.cached
def _usual(run: Setting, solver: str) -> dict[str, Tensor]:
    """Errors of the network with the usual grids."""
    return {name: fixtures.network_error(run, make(NFE), solver) for name, make in schedules.REGISTRY.items()}


@claim("programme-exact", place=f"{P2}, Alg. 1", figure="0", criterion=exact(), lesson=LESSON)  # fmt: skip
def _programme(run: Setting) -> Measurement:
    """The dynamic programme finds the cheapest of all routes."""
    rng = torch.Generator().manual_seed(run.seed)
    excess, greedy = [], []
    for _ in range(run.pick(30, 300)):
        cost = torch.randn(10, 10, generator=rng, dtype=torch.float64)
        coefficient = float(0.8 + 0.4 * torch.rand((), generator=rng))
        steps = int(torch.randint(1, 10, (), generator=rng))
        found = scheduling.path_cost(cost, scheduling.shortest_path(cost, steps, coefficient), coefficient)
        best = min(
            scheduling.path_cost(cost, torch.tensor([0, *middle, 9]), coefficient)
            for middle in itertools.combinations(range(1, 9), steps - 1)
        )
        excess.append(found - best)
        greedy.append(scheduling.path_cost(cost, _cheapest_next(cost, steps), coefficient) - best)
    detail = (
        "largest excess over the best of all routes, 10 levels, random costs; control: always the cheapest next jump"
    )
    return measured(torch.tensor(excess).abs().max(), detail=detail, control=torch.tensor(greedy).max())


def _cheapest_next(cost: Tensor, steps: int) -> Tensor:
    """The route that takes the cheapest next jump each time, as far as enough levels are left."""
    route = [0]
    for left in range(steps - 1, 0, -1):
        route.append(route[-1] + 1 + int(cost[route[-1], route[-1] + 1 : len(cost) - left].argmin()))
    return torch.tensor([*route, len(cost) - 1])


@claim("programme-polynomial", place=f"{P2}, Table 2, in errors of paths here", figure="FID 4.88 / 7.05 = 0.69",
       criterion=below_one(),
       needs="model", lesson=LESSON)  # fmt: skip
def _polynomial(run: Setting) -> Measurement:
    """Levels of the published programme (coefficient 1.15) beat the polynomial grid, with iPNDM and 6 evaluations."""
    usual = _usual(run, "ipndm")["polynomial"]
    return over_draws([ratio(own, usual) for own in _published(run)], f"ratio of errors, network; {_drawn(run)}")


@claim("programme-best-grid", place="carried over from arXiv 2405.11326, Sec. 4", criterion=below_one(), needs="model",
       lesson=LESSON,
       remark="the baseline decides the story: a cosine grid is better for this small network")  # fmt: skip
def _best_grid(run: Setting) -> Measurement:
    """Levels of the published programme (coefficient 1.15) beat every usual grid, with iPNDM and 6 evaluations."""
    name, best = min(_usual(run, "ipndm").items(), key=lambda item: float(item[1].mean()))
    detail = f"ratio of errors to the best usual grid ({name}), network; {_drawn(run)}"
    return over_draws([ratio(own, best) for own in _published(run)], detail)


@claim("coefficient", place="read into the default of the published method", criterion=at_most(1.05),
       remark="the best coefficient depends on solver and budget, and the error jumps where the route does",
       lesson=LESSON)  # fmt: skip
def _coefficient(run: Setting) -> Measurement:
    """The coefficient 1.15 is good everywhere: at most 5 % worse than the best, for every solver."""
    worst, where = zip(*(_worst_at_published(run, stream) for stream in _warm_ups(run)))
    solvers_hit = ", ".join(dict.fromkeys(where))
    return over_draws(
        worst, f"largest ratio of errors to the best coefficient ({solvers_hit}), digits 8x8; {_drawn(run)}"
    )


def _worst_at_published(run: Setting, stream: int) -> tuple[Measurement, str]:
    """The largest ratio over solvers of the errors with 1.15 and with the best coefficient, and where it was found."""
    teacher = _exact_teacher(run, stream)
    cost = scheduling.cost_matrix(teacher, "deviation")
    routes = {c: scheduling.shortest_path(cost, NFE, c) for c in (0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)}
    found = []
    for solver in ("euler", "ipndm", "unipc"):
        errors = {c: fixtures.exact_error(run, teacher.sigmas[route], solver) for c, route in routes.items()}
        best = min(errors, key=lambda c: float(errors[c].mean()))
        found.append((ratio(errors[1.15], errors[best]), f"{solver}, best at {best:g}"))
    return max(found, key=lambda item: item[0].value)


@claim("few-paths", place=f"this library; 256 paths in {P2}", criterion=at_most(1.1), lesson=LESSON,
       remark="other sixteens find other routes, and not every one is as good as that of all paths")  # fmt: skip
def _few(run: Setting) -> Measurement:
    """Sixteen paths are enough to find a route."""
    teacher = scheduling.teacher_paths(fixtures.exact_denoiser(), fixtures.noise(run, 256, (1, 8, 8)))

    def route(paths: Trajectory) -> tuple[int, ...]:
        return tuple(scheduling.shortest_path(scheduling.cost_matrix(paths, "l2"), NFE).tolist())

    whole, few = route(teacher), [route(teacher[k : k + 16]) for k in range(0, 256, 16)]
    errors = {r: fixtures.exact_error(run, teacher.sigmas[list(r)], "euler") for r in {whole, *few}}
    detail = f"error with a route from 16 / from 256 paths, Euler, digits 8x8; sixteen draws, {len(set(few))} routes"
    return over_draws([ratio(errors[r], errors[whole]) for r in few], detail)


@claim("levels-for-solver", place="this library; goes beyond arXiv 2405.11326", criterion=below_one(), lesson=LESSON)
def _levels(run: Setting) -> Measurement:
    """Levels searched for iPNDM, which will use them, beat every usual grid, with 6 evaluations."""
    grids = {name: fixtures.exact_error(run, make(NFE), "ipndm") for name, make in schedules.REGISTRY.items()}
    name = min(grids, key=lambda g: float(grids[g].mean()))
    each = []
    for stream in _warm_ups(run):
        teacher = _exact_teacher(run, stream)
        found = scheduling.find_schedule(fixtures.exact_denoiser(), teacher.x[0], NFE, "ipndm", teacher=teacher)
        each.append(ratio(fixtures.exact_error(run, found.sigmas, found.make_solver()), grids[name]))
    return over_draws(each, f"ratio of errors to the best usual grid ({name}), iPNDM, digits 8x8; {_drawn(run)}")


@fixtures.cached
def _fitted_solver(run: Setting, stream: int) -> scheduling.Schedule:
    """The solver fitted to the network on one draw of the warm-up."""
    x = fixtures.network_noise(run, run.pick(8, 128), stream)
    return scheduling.fit_solver(fixtures.network(run), x, NFE, labels=fixtures.labels(run, len(x)))


@claim("fitted-solver", place="this library; goes beyond arXiv 2405.11326", criterion=below_one(), needs="model",
       lesson=LEARNED)  # fmt: skip
def _fitted(run: Setting) -> Measurement:
    """Multistep weights fitted to a few paths beat UniPC on its best usual grid."""
    usual = _usual(run, "unipc")
    best = min(usual, key=lambda g: float(usual[g].mean()))
    found = [_fitted_solver(run, stream) for stream in _warm_ups(run)]
    errors = [fixtures.network_error(run, schedule.sigmas, schedule.make_solver()) for schedule in found]
    detail = f"ratio of errors, {NFE} evaluations, fitted to {run.pick(8, 128)} paths, grid {best}; {_drawn(run)}"
    return over_draws([ratio(own, usual[best]) for own in errors], detail)


@claim("learned-meets-fitted", place="this library", criterion=at_least(0.9), needs="model", lesson=LEARNED,
       remark="what finds nothing from there is no idle learner: from the cosine grid it gains")  # fmt: skip
def _learned(run: Setting) -> Measurement:
    """Descending on by gradients from a fitted solver, for about as many evaluations again, gains less than a tenth."""
    network, each, spent = fixtures.network(run), [], []

    def descend(stream: int, start: scheduling.Schedule | str, rate: float) -> Tensor:
        x = fixtures.network_noise(run, run.pick(8, 128), stream)
        labels, iterations = fixtures.labels(run, len(x)), run.pick(20, 150)
        how = {"labels": labels, "learning_rate": rate, "iterations": iterations, "rows": 16, "save_memory": False}
        found = scheduling.learn_solver(network, x, NFE, start=start, **how)  # type: ignore[arg-type]
        spent.append(found.provenance["evaluations"])
        return fixtures.network_error(run, found.sigmas, found.make_solver())

    for stream in _warm_ups(run):
        fitted = _fitted_solver(run, stream)
        own = fixtures.network_error(run, fitted.sigmas, fitted.make_solver())
        each.append(ratio(descend(stream, fitted, 1e-3), own))
    detail = (
        f"ratio of errors to the fitted solver's; evaluations: {spent[-1]:,} after {fitted.provenance['evaluations']:,}"
    )
    control = ratio(descend(_warm_ups(run)[0], "cosine", 0.02), _usual(run, "ipndm")["cosine"])
    return over_draws(each, f"{detail}; from iPNDM on the cosine grid to its own: {control.value:.2f}; {_drawn(run)}")


@claim("ring-is-fitted-too", place="this library", criterion=below_one(), lesson=LEARNED,
       remark="so regular paths are not why fitted weights win")  # fmt: skip
def _ring(run: Setting) -> Measurement:
    """Fitted weights beat every usual grid also where paths are not alike: on a ring in the plane."""
    ring = fixtures.ring()
    new = fixtures.noise(run, run.pick(512, 4096), (2,), stream=1)
    end = sample(ring, new, schedules.polynomial(200), "unipc", keep="final").final

    def error(sigmas: Tensor, solver: str | solvers.Solver) -> Tensor:
        final = sample(ring, new, sigmas, solver, keep="final").final
        return (final - end).pow(2).mean(1).sqrt()

    fitted = [scheduling.fit_solver(ring, fixtures.noise(run, 32, (2,), stream), NFE) for stream in _warm_ups(run)]
    usual = {
        f"{name}, {solver}": error(make(NFE), solver)
        for name, make in schedules.REGISTRY.items()
        for solver in ("ipndm", "unipc")
    }
    best = min(usual, key=lambda g: float(usual[g].mean()))
    each = [ratio(error(found.sigmas, found.make_solver()), usual[best]) for found in fitted]
    return over_draws(each, f"ratio of errors to the best of {len(usual)} usual choices ({best}); {_drawn(run)}")
