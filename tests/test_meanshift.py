"""Mean shift: ascent, modes, merging, and Silverman's theorem in one dimension."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from teachkit import Empirical, GaussianMixture, meanshift

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), h=st.floats(0.05, 5))
def test_density_rises_by_at_least_the_squared_step(seed, h):
    D, x = Empirical(normal(25, 3, seed=seed)), 3 * normal(5, 3, seed=seed + 1)
    path = meanshift.mean_shift(D, x, h, max_steps=20)
    log_p = torch.stack([D.log_prob(p, h) for p in path])
    bound = ((path[1:] - path[:-1]) ** 2).sum(-1) / (2 * h**2)
    assert (log_p.diff(dim=0) >= bound - 1e-7).all()


def test_another_bandwidth_gives_no_such_promise():
    # Two points 0 and 10, x = 1: the mean at bandwidth 100 is 4.99, and log p_1 falls by 11.3 nats.
    D, x = Empirical(torch.tensor([[0.0], [10.0]], dtype=F64)), torch.tensor([[1.0]], dtype=F64)
    moved = D(x, 100.0)
    assert float(moved) == pytest.approx(4.99, abs=1e-3)
    assert float(D.log_prob(moved, 1.0) - D.log_prob(x, 1.0)) == pytest.approx(-11.3, abs=0.1)


def test_modes_of_well_separated_clusters_are_found_and_starts_assigned():
    centres = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], dtype=F64)
    D = GaussianMixture([0.2, 0.3, 0.5], centres, 0.05)
    start = centres.repeat_interleave(4, 0) + 0.3 * normal(12, 2)
    modes, index = meanshift.modes(D, start, 0.2)
    assert len(modes) == 3
    torch.testing.assert_close(modes[index[[0, 4, 8]]], centres, atol=1e-3, rtol=0)
    assert index.tolist() == sorted(index.tolist())


def test_annealing_forgets_the_start_where_a_fixed_bandwidth_does_not():
    y = torch.cat([normal(60, 2) * 0.1, normal(20, 2, seed=1) * 0.1 + 3.0])
    D, x = Empirical(y), torch.tensor([[5.0, 5.0], [-3.0, -2.0]], dtype=F64)
    fixed = meanshift.mean_shift(D, x, 0.1)[-1]
    annealed = meanshift.annealed_mean_shift(D, x, torch.logspace(1, -1, 30).tolist())[-1]
    assert float((fixed[0] - fixed[1]).norm()) > 3
    assert float((annealed[0] - annealed[1]).norm()) < 0.1


def test_number_of_modes_never_rises_with_bandwidth_in_one_dimension():
    D = Empirical(normal(30, 1, seed=4))
    x = torch.linspace(-4, 4, 3001, dtype=F64)[:, None]
    counts = []
    for h in torch.logspace(-2, 0.7, 40).tolist():
        rising = D.log_prob(x, h).diff() > 0
        counts.append(int((rising[:-1] & ~rising[1:]).sum()))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 10
    assert counts[-1] == 1


def test_merge():
    points = torch.tensor([[0.0], [0.05], [1.0], [0.02], [1.04]], dtype=F64)
    kept, index = meanshift.merge(points, 0.1)
    assert kept.tolist() == [[0.0], [1.0]]
    assert index.tolist() == [0, 0, 1, 0, 1]


def test_bad_arguments_are_named():
    D, x = Empirical(normal(5, 2)), normal(2, 2)
    with pytest.raises(ValueError, match="bandwidth must be a finite number > 0"):
        meanshift.mean_shift(D, x, 0.0)
    with pytest.raises(ValueError, match="max_steps must be an integer >= 1"):
        meanshift.mean_shift(D, x, 1.0, max_steps=0)
    with pytest.raises(ValueError, match="bandwidths must hold"):
        meanshift.annealed_mean_shift(D, x, [])
    with pytest.raises(ValueError, match="tolerance must be"):
        meanshift.merge(x, -1.0)
