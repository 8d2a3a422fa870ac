"""Geometry against shapes with known answers, null models, and deliberate mistakes that must be caught."""

import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes

from teachkit import Empirical, Gaussian, GaussianMixture, Trajectory, data, geometry, initial_noise, sample, schedules

F64 = torch.float64


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def embed(points, d=1000, seed=0):
    """Rotate curves (N, B, k) into d dimensions and shift them."""
    frame = torch.linalg.qr(normal(d, points.shape[-1], seed=seed))[0]
    return points @ frame.T + normal(d, seed=seed + 1)


T = torch.linspace(0, 1, 401, dtype=F64)
LINE = torch.stack([3 * T**2, 4 * T**2], -1)[:, None]
HALF_CIRCLE = torch.stack([-(math.pi * T).cos(), (math.pi * T).sin()], -1)[:, None]


def helix(radius=1.0, rise=0.5, length=8.0, n=801, warp=1.0):
    t = length * torch.linspace(0, 1, n, dtype=F64) ** warp  # warp > 1: dense at the start, sparse at the end
    return torch.stack([radius * t.cos(), radius * t.sin(), rise * t], -1)


def test_a_line_has_no_deviation_and_one_dimension():
    x = embed(LINE)
    assert float(geometry.deviation(x).max()) < 1e-12
    torch.testing.assert_close(geometry.arc_length(x)[-1], torch.tensor([5.0], dtype=F64))
    torch.testing.assert_close(geometry.cosines(x)[1:], torch.ones(399, 1, dtype=F64))
    assert geometry.explained_variance(x, 2, remove_chord=True).tolist() == [[1.0, 1.0]]
    assert float(geometry.project(x)[..., 1:].abs().max()) == 0


def test_a_half_circle_deviates_by_its_radius():
    x = embed(HALF_CIRCLE)
    deviation = geometry.deviation(x)[:, 0]
    torch.testing.assert_close(deviation, (math.pi * T).sin(), atol=1e-12, rtol=0)
    torch.testing.assert_close(geometry.deviation(x, relative=True)[:, 0], deviation / 2)
    assert float(geometry.arc_length(x)[-1]) == pytest.approx(math.pi, rel=1e-5)
    torch.testing.assert_close(geometry.distance_to_end(x)[:, 0], 2 * (math.pi * (1 - T) / 2).sin(), atol=1e-12, rtol=0)
    coordinates = geometry.project(x)[:, 0]
    torch.testing.assert_close(coordinates[:, 0], 1 - (math.pi * T).cos(), atol=1e-10, rtol=0)
    torch.testing.assert_close(coordinates[:, 1], (math.pi * T).sin(), atol=1e-10, rtol=0)
    assert float(coordinates[:, 2].abs().max()) < 1e-7


@pytest.mark.parametrize("window", [11, 51])
def test_curvature_and_torsion_of_circle_and_helix(window):
    radius, rise = 1.0, 0.5
    kappa, tau = geometry.curvature_torsion(helix(radius, rise), window, edges="nan")
    inside = slice(window // 2, -(window // 2))
    expected = radius / (radius**2 + rise**2), rise / (radius**2 + rise**2)
    tolerance = 1.5e-4 * window**2 / 11**2  # the fit is biased by O(window^2)
    assert float((kappa[inside] - expected[0]).abs().max()) < tolerance
    assert float((tau[inside] - expected[1]).abs().max()) < tolerance
    assert kappa[: window // 2].isnan().all()
    mirrored = geometry.curvature_torsion(helix(radius, -rise), window)[1]
    assert float(mirrored[400]) == pytest.approx(-float(tau[400]))
    circle_tau = geometry.curvature_torsion(helix(2.0, 0.0), window)[1]
    assert float(circle_tau.abs().max()) < 1e-6


@pytest.mark.parametrize("warp", [1.0, 3.0])
@pytest.mark.parametrize(("weights", "factor"), [("uniform", 1.0), ("length", 1.0), ("tricube", 0.6)])
def test_helix_in_a_window_of_arc_length_has_the_bias_of_theory(warp, weights, factor):
    curve = helix(n=1201, warp=warp)
    for length in (0.5, 1.0, 2.0):
        kappa, tau = geometry.curvature_torsion(curve, length=length, weights=weights, edges="nan")
        inside = ~kappa.isnan()
        s = geometry.arc_length(curve[:, None])[:, 0]
        assert torch.equal(inside, (s >= length / 2) & (s <= s[-1] - length / 2))
        expected = 0.8 * (1 - factor * 5 / 336 * (0.8**2 + 0.4**2) * length**2)
        assert float(kappa[inside].median()) == pytest.approx(expected, rel=2e-3 * length**2)
        assert float((kappa[inside] - expected).abs().max()) < 4e-3 * length**2
        assert float((tau[inside] - 0.4).abs().max()) < 1e-3 * length**2


def test_both_kinds_of_window_agree_where_points_are_evenly_spaced():
    curve = torch.stack([helix(), 2 * helix()], 1)
    step = float(geometry.arc_length(curve)[1, 0])
    for edges in ("one_sided", "nan"):
        by_length = geometry.curvature_torsion(curve[:, 0], length=20 * step, edges=edges)
        by_number = geometry.curvature_torsion(curve[:, 0], 21, edges=edges)
        torch.testing.assert_close(by_length, by_number, rtol=1e-9, atol=1e-9, equal_nan=True)
    kappa, tau = geometry.curvature_torsion(curve, length=20 * step)  # a batch: 21 points of one curve, 11 of the other
    torch.testing.assert_close(kappa[:, 0], geometry.curvature_torsion(curve[:, 0], length=20 * step)[0])
    torch.testing.assert_close(tau[:, 1], geometry.curvature_torsion(curve[:, 1], 11, "one_sided")[1])


def test_sparse_points_take_the_five_nearest_and_none_is_dropped():
    curve = helix(n=60, warp=3.0)
    with pytest.warns(UserWarning, match=r"fewer than 5 points at 41 of 60 points: .* span up to 1\.69"):
        kappa, tau = geometry.curvature_torsion(curve, length=0.2)
    by_five, tau_by_five = geometry.curvature_torsion(curve, 5, "one_sided")
    assert torch.isfinite(torch.stack([kappa, tau])).all()
    torch.testing.assert_close(kappa[40:], by_five[40:])
    torch.testing.assert_close(tau[40:], tau_by_five[40:])
    assert float((kappa - 0.8).abs().max()) < 0.13  # the last point, where five points span 1.7


def test_where_points_are_dense_matters_only_to_uniform_weights():
    # A curve whose curvature falls along it: a window that counts points looks where the points are.
    def spiral(t):
        return torch.stack([t.exp() * t.cos(), t.exp() * t.sin(), 0 * t], -1)

    even = spiral(torch.linspace(0, 2, 401, dtype=F64))
    dense = spiral(torch.cat([torch.linspace(0, 1, 601, dtype=F64), torch.linspace(1, 2, 61, dtype=F64)[1:]]))
    gap = {}
    for weights in ("uniform", "length"):
        a, b = (geometry.curvature_torsion(x, length=1.5, weights=weights)[0] for x in (even, dense))
        gap[weights] = abs(float(a[200] - b[600])) * math.e * 2**0.5
    assert gap["length"] < 1e-3
    assert gap["uniform"] > 5 * gap["length"]


def test_curvature_by_arc_length_does_not_depend_on_the_unit():
    x = helix(n=200, warp=2.0)
    kappa, tau = geometry.curvature_torsion(x, length=1.0, weights="tricube")
    for unit in (1e-6, 1e6):
        scaled = geometry.curvature_torsion(unit * x, length=unit, weights="tricube")
        torch.testing.assert_close(scaled[0] * unit, kappa, rtol=1e-6, atol=0)
        torch.testing.assert_close(scaled[1] * unit, tau, rtol=1e-5, atol=1e-8)


def test_curvature_bias_grows_with_the_square_of_the_window():
    errors = [float((geometry.curvature_torsion(helix(), w, edges="nan")[0][400] - 0.8).abs()) for w in (21, 41, 81)]
    slopes = np.diff(np.log(errors)) / np.log(2)
    assert np.allclose(slopes, 2, atol=0.2)


def test_curvature_scales_turns_and_batches():
    x = helix()
    kappa, tau = geometry.curvature_torsion(x, 21)
    turn = torch.linalg.qr(normal(3, 3))[0]
    turn = turn * torch.linalg.det(turn)
    big = geometry.curvature_torsion(1e6 * x @ turn, 21)
    torch.testing.assert_close(big[0] * 1e6, kappa, rtol=1e-7, atol=0)
    torch.testing.assert_close(big[1] * 1e6, tau, rtol=1e-5, atol=1e-7)
    both = geometry.curvature_torsion(torch.stack([x, 2 * x], 1), 21)
    torch.testing.assert_close(both[0][:, 1] * 2, kappa)
    straight = geometry.curvature_torsion(torch.stack([T, 2 * T, T], -1), 21)
    assert float(straight[0].abs().max()) < 1e-9
    assert torch.equal(straight[1], torch.zeros_like(T))


@pytest.mark.parametrize("edges", ["published", "one_sided"])
def test_every_window_is_the_least_squares_fit_it_says(edges):
    points, window, n = helix(n=40, length=5.0), 9, 40
    kappa, tau = geometry.curvature_torsion(points, window, edges=edges)
    x, half = points.numpy(), window // 2
    s = np.append(0, np.cumsum(np.linalg.norm(np.diff(x, axis=0), axis=1)))
    for i in range(n):
        first = min(max(i - half, 0), n - window)
        rows = np.arange(first, first + window)
        if edges == "published" and i >= n - half:  # drops the first point, counts i - half twice
            rows = np.append(rows[1:], i - half)
        u = s[rows] - s[i]
        fit, *_ = np.linalg.lstsq(np.stack([u, u**2 / 2, u**3 / 6], 1), x[rows] - x[i], rcond=None)
        cross = np.cross(fit[0], fit[1])
        assert float(kappa[i]) == pytest.approx(np.linalg.norm(cross) / np.linalg.norm(fit[0]) ** 3, abs=1e-9)
        assert float(tau[i]) == pytest.approx(cross @ fit[2] / (cross @ cross), abs=1e-7)


def test_curvature_and_torsion_equal_the_published_estimator(oracles):
    stored = np.load(oracles / "geometry" / "curv_tors.npz")
    rows = [r for r in json.loads((oracles / "geometry" / "curv_tors.json").read_text()) if "error" not in r]
    assert rows
    for row in rows:
        key = f"{row['key']}/w{row['window']}"
        kappa, tau = geometry.curvature_torsion(torch.tensor(stored[f"{row['key']}/xyz"]), row["window"])
        np.testing.assert_allclose(kappa, stored[f"{key}/curv"], atol=1e-9, rtol=0)
        np.testing.assert_allclose(tau, stored[f"{key}/tors"], atol=1e-6, rtol=0)


def test_deviation_equals_the_reference(oracles):
    stored = np.load(oracles / "scheduling" / "cal_deviation.npz")
    for i in range(len(stored.files) // 2):
        deviation = geometry.deviation(torch.tensor(stored[f"traj{i}"]))
        np.testing.assert_allclose(deviation[1:-1].T, stored[f"dev{i}"], atol=1e-12)


@pytest.fixture(scope="module")
def digit_paths(digits):
    D = Empirical(digits)
    return sample(D, initial_noise(48, (1, 8, 8), seed=0), schedules.polynomial(100))


def test_digits_land_near_the_expected_table(digit_paths):
    # Expected from an independent run (128 paths): raw 99.99 %, residual 95.7 / 99.7 %, deviation .0056 (.0037-.0082)
    # near sigma 5, length 642 beside 640, alignment residual .0116.
    peak, sigma = geometry.deviation_peak(digit_paths)
    assert float(peak.mean()) == pytest.approx(0.0056, abs=0.0004)
    assert 4 < float(sigma.median()) < 6.5
    assert float(geometry.explained_variance(digit_paths, 1).mean()) > 0.9998
    rest = geometry.explained_variance(digit_paths, 3, remove_chord=True).mean(0)
    torch.testing.assert_close(rest, torch.tensor([0.957, 0.997, 0.9997], dtype=F64), atol=0.012, rtol=0)
    assert float(geometry.arc_length(digit_paths)[-1].mean()) == pytest.approx(640, rel=0.02)
    assert (geometry.distance_to_end(digit_paths).diff(dim=0) <= 0).all()
    curves = geometry.project(digit_paths)[..., 1:]
    residual = geometry.procrustes_residual(curves, curves[:, 0])
    assert float(residual[0]) < 1e-12
    assert float(residual.mean()) < 0.03
    x, denoised, eps = geometry.norms(digit_paths)
    assert eps.shape == x.shape == denoised.shape == (100, 48)
    assert float(eps.mean()) == pytest.approx(8, abs=0.4)


def test_the_chord_hides_everything_and_must_be_removed(digit_paths):
    # A path with its bend replaced by noise of the same size looks the same to raw PCA, and not once the chord is gone.
    residual = geometry.project(digit_paths)[..., 1:].norm(dim=-1).mean()
    t = torch.linspace(1, 0, 101, dtype=F64)[:, None, None]
    rough = t * 80 * normal(1, 48, 64) + float(residual) / 8 * normal(101, 48, 64, seed=1)
    assert float(geometry.explained_variance(rough, 1).min()) > 0.999
    assert float(geometry.explained_variance(rough, 2, remove_chord=True).max()) < 0.3


def test_null_models_random_walk_and_brownian_bridge():
    walk = torch.cat([torch.zeros(1, 6, 1500, dtype=F64), normal(500, 6, 1500).cumsum(0)])
    share = geometry.explained_variance(walk, 3).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.608, 0.760, 0.827], dtype=F64), atol=0.03, rtol=0)
    bridge = walk - torch.linspace(0, 1, 501, dtype=F64)[:, None, None] * walk[-1]
    centred = geometry.explained_variance(bridge, 3).mean(0)
    torch.testing.assert_close(centred, torch.tensor([0.304, 0.608, 0.684], dtype=F64), atol=0.03, rtol=0)
    uncentred = geometry.explained_variance(bridge, 3, centre=False).mean(0)
    torch.testing.assert_close(uncentred, torch.tensor([0.608, 0.760, 0.827], dtype=F64), atol=0.03, rtol=0)


def test_isotropic_gaussian_data_gives_exactly_straight_paths():
    D = Gaussian(torch.ones(50, dtype=F64), 0.7)
    paths = sample(D, initial_noise(5, (50,)), schedules.polynomial(50), "heun")
    assert float(geometry.deviation(paths, relative=True).max()) < 1e-13
    assert float(geometry.project(paths)[..., 1:].abs().max()) == 0


def test_distance_to_the_end_is_not_monotone_on_a_ring():
    D = GaussianMixture([1 / 8] * 8, data.ring(8, noise=0.0), 0.0025)
    paths = sample(D, initial_noise(200, (2,)), schedules.polynomial(200), "heun")
    falls = (geometry.distance_to_end(paths).diff(dim=0) <= 1e-9).all(0).double().mean()
    assert 0.3 < float(falls) < 0.95


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("kind", ["rotation", "reflection"])
def test_procrustes_undoes_rotations_and_reflections(k, kind):
    curve = normal(30, k).cumsum(0)
    turn = torch.linalg.qr(normal(k, k, seed=2))[0]
    turn = turn * torch.linalg.det(turn) if k == 3 else turn
    if k == 2 and torch.linalg.det(turn) < 0:
        turn[:, 0] *= -1
    if kind == "reflection":
        turn[:, 0] *= -1
    moved = (curve @ turn)[:, None]
    torch.testing.assert_close(geometry.align(moved, curve)[:, 0], curve)
    rotations_only = geometry.procrustes(moved, curve, reflections=False)
    assert float(torch.linalg.det(rotations_only)) == pytest.approx(1)
    assert (float(geometry.procrustes_residual(moved, curve, reflections=False)) < 1e-12) == (kind == "rotation")


def test_the_popular_procrustes_bug_is_caught():
    # NumPy and torch return Vh; multiplying U by its transpose is wrong for 2-D reflections and 3-D rotations.
    def broken(curves, reference):
        u, _, vh = torch.linalg.svd(torch.einsum("nbi,nj->bij", curves, reference))
        return torch.einsum("nbi,bij->nbj", curves, u @ vh.mT)

    curve = normal(30, 3).cumsum(0)
    turn = torch.linalg.qr(normal(3, 3, seed=5))[0]
    moved = (curve @ turn)[:, None] + 0.01 * normal(30, 1, 3, seed=6)
    right = (geometry.align(moved, curve)[:, 0] - curve).norm()
    wrong = (broken(moved, curve)[:, 0] - curve).norm()
    assert float(right) < 0.2
    assert float(wrong) > 10 * float(right)


def test_measures_do_not_change_under_rotation_shift_or_batch_split():
    x = normal(20, 6, 5).cumsum(0)
    turn, shift = torch.linalg.qr(normal(5, 5, seed=1))[0], normal(5, seed=2)
    moved = 3 * (x @ turn + shift)
    torch.testing.assert_close(geometry.deviation(moved), 3 * geometry.deviation(x))
    torch.testing.assert_close(
        geometry.explained_variance(moved, 3, remove_chord=True), geometry.explained_variance(x, 3, remove_chord=True)
    )
    torch.testing.assert_close(geometry.project(moved), 3 * geometry.project(x), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(geometry.project(x)[:, 2:4], geometry.project(x[:, 2:4]))


def test_projection_is_an_isometry_of_paths_in_three_dimensions():
    x = normal(20, 6, 3).cumsum(0)
    torch.testing.assert_close(geometry.arc_length(geometry.project(x)), geometry.arc_length(x))


def test_deviation_and_components_against_singular_values_and_least_squares():
    for n, d in ((12, 40), (40, 3), (9, 9), (8, 2)):  # fewer and more states than coordinates
        x = normal(n, 4, d, seed=n).cumsum(0) + 5
        deviation = geometry.deviation(x)
        for b in range(4):
            path = x[:, b].numpy()
            chord = (path[-1] - path[0])[:, None]
            along, *_ = np.linalg.lstsq(chord, (path - path[0]).T, rcond=None)
            residual = (path - path[0]) - (chord @ along).T
            np.testing.assert_allclose(deviation[:, b], np.linalg.norm(residual, axis=1), atol=1e-9)
            for remove, centre in ((False, True), (True, True), (False, False), (True, False)):
                y = residual if remove else path
                size = np.linalg.svd(y - y.mean(0) if centre else y, compute_uv=False) ** 2
                share = np.cumsum(size)[: min(n, 5)] / size.sum()
                share = np.append(share, np.ones(min(n, 5) - len(share)))
                got = geometry.explained_variance(x, min(n, 5), remove_chord=remove, centre=centre)[b]
                np.testing.assert_allclose(got, share, atol=1e-9)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 10**6), n=st.integers(2, 12), b=st.integers(1, 4), d=st.integers(1, 12),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)  # fmt: skip
def test_every_measure_of_any_path_is_finite_and_within_its_bounds(seed, n, b, d, scale):
    x = scale * normal(n, b, d, seed=seed).cumsum(0)
    deviation, length, end = geometry.deviation(x), geometry.arc_length(x), geometry.distance_to_end(x)
    assert deviation.shape == length.shape == end.shape == (n, b)
    assert float(deviation[[0, -1]].abs().max()) == 0
    assert (length.diff(dim=0) >= 0).all()
    assert (end <= (length[-1] - length) * (1 + 1e-12) + 1e-12 * scale).all()
    assert (deviation <= end * (1 + 1e-12) + 1e-12 * scale).all()  # the end is on the chord
    assert (geometry.cosines(x).abs() <= 1 + 1e-12).all()
    for remove in (False, True):
        share = geometry.explained_variance(x, n, remove_chord=remove)
        assert share.shape == (b, n)
        assert (share.diff(dim=1) >= 0).all()
        torch.testing.assert_close(share[:, -1], torch.ones(b, dtype=F64))
    p = geometry.project(x)
    assert torch.isfinite(p).all()
    assert float(p[[0, -1]][..., 1:].abs().max()) < 1e-9 * scale
    torch.testing.assert_close(p[-1, :, 0], end[0], rtol=1e-9, atol=0)
    assert (p[..., 1:].norm(dim=-1) <= deviation * (1 + 1e-9) + 1e-9 * scale).all()
    biggest = p[..., 1:].gather(0, p[..., 1:].abs().argmax(0, keepdim=True))
    assert (biggest >= 0).all()


def test_a_helix_in_a_thousand_dimensions_keeps_its_curvature_and_torsion():
    curve = helix(1.0, 0.5)
    x = torch.stack([embed(curve[:, None], seed=s)[:, 0] for s in (0, 1)], 1)
    torch.testing.assert_close(geometry.arc_length(x), geometry.arc_length(curve[:, None]).expand(801, 2))
    kappa, tau = geometry.curvature_torsion(geometry.project(x), 11, edges="nan")
    flat_kappa, flat_tau = geometry.curvature_torsion(curve, 11, edges="nan")
    inside = slice(5, -5)
    torch.testing.assert_close(kappa[inside], flat_kappa[inside, None].expand(791, 2), atol=1e-8, rtol=0)
    torch.testing.assert_close(tau[inside].abs(), flat_tau[inside, None].expand(791, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(kappa[inside], torch.full((791, 2), 0.8, dtype=F64), atol=1.5e-4, rtol=0)
    torch.testing.assert_close(tau[inside].abs(), torch.full((791, 2), 0.4, dtype=F64), atol=1.5e-4, rtol=0)
    straight, bent = geometry.explained_variance(x, 3), geometry.explained_variance(curve[:, None], 3)
    torch.testing.assert_close(straight, bent.expand(2, 3))
    torch.testing.assert_close(straight[:, 2], torch.ones(2, dtype=F64))


def test_a_full_circle_has_no_chord_and_two_equal_components():
    t = torch.linspace(0, 2 * math.pi, 361, dtype=F64)
    x = embed(torch.stack([t.cos(), t.sin()], -1)[:, None])
    x[-1] = x[0]  # closed exactly
    deviation = geometry.deviation(x)[:, 0]
    torch.testing.assert_close(deviation, 2 * (t / 2).sin().abs(), atol=1e-10, rtol=0)  # distance to the start
    share = geometry.explained_variance(x, 2)[0]
    torch.testing.assert_close(share, torch.tensor([0.5, 1.0], dtype=F64), atol=2e-3, rtol=0)
    assert torch.isfinite(geometry.project(x)).all()
    with pytest.raises(ValueError, match="has no chord"):
        geometry.deviation(x, relative=True)


def test_cosines_of_a_half_circle_turn_from_perpendicular_to_parallel_and_back():
    cosines = geometry.cosines(embed(HALF_CIRCLE))[:, 0]
    middle = (T[1:] + T[:-1]) / 2
    torch.testing.assert_close(cosines, (math.pi * middle).sin(), atol=1e-9, rtol=0)


@pytest.mark.parametrize("block", [1, 60, 200])
def test_blocks_of_any_size_give_the_same_numbers(block, monkeypatch):
    x, curve = normal(10, 7, 5).cumsum(0), helix(n=60)[:, None] * torch.linspace(1, 2, 7, dtype=F64)[:, None]
    calls = (
        lambda: geometry.deviation(x),
        lambda: geometry.explained_variance(x, 3, remove_chord=True),
        lambda: geometry.project(x),
        lambda: geometry.cosines(x),
        lambda: torch.stack(geometry.curvature_torsion(curve, 11)),
        lambda: torch.stack(geometry.curvature_torsion(curve, length=1.5, weights="tricube")),
    )
    whole = [call() for call in calls]
    monkeypatch.setattr(geometry.blocks, "_BLOCK", block)
    for call, expected in zip(calls, whole):
        torch.testing.assert_close(call(), expected, rtol=1e-9, atol=1e-10)


def test_one_bad_value_anywhere_in_a_path_is_refused():
    for poison in (math.nan, math.inf):
        for state in range(5):
            x = normal(5, 3, 4)
            x[state, 1, 2] = poison
            for measure in (
                geometry.deviation, geometry.distance_to_end, geometry.arc_length, geometry.cosines, geometry.project,
                lambda x: geometry.explained_variance(x, 2),
            ):  # fmt: skip
                with pytest.raises(ValueError, match="traj must be finite"):
                    measure(x)


def test_a_trajectory_and_its_states_measure_alike_and_norms_are_norms():
    path = sample(Gaussian([1.0, 0.0, 0.0], [0.1, 1.0, 2.0]), initial_noise(4, (3,)), schedules.polynomial(12))
    for measure in (geometry.deviation, geometry.project, geometry.cosines, geometry.arc_length):
        assert torch.equal(measure(path), measure(path.x))
    x, denoised, eps = geometry.norms(path)
    torch.testing.assert_close(x, path.x[:-1].norm(dim=-1))
    torch.testing.assert_close(denoised, path.denoised.norm(dim=-1))
    direction = path.x.diff(dim=0) / path.sigmas.diff()[:, None, None]  # an Euler step goes along eps
    torch.testing.assert_close(eps, direction.norm(dim=-1), rtol=1e-9, atol=1e-9)
    peak, sigma = geometry.deviation_peak(path)
    relative = geometry.deviation(path, relative=True)
    torch.testing.assert_close(peak, relative.amax(0))
    assert torch.equal(sigma, path.sigmas[relative.argmax(0)])


LAM = torch.tensor([0.0, 0.1, 1.0, 25.0], dtype=F64)


def gaussian_curvature(x, sigma):  # with coordinates proportional to f = sqrt(lam + sigma^2), (B, 4)
    f = (LAM + sigma**2).sqrt()
    offset = x / (LAM + 6400).sqrt()
    first, second = offset * sigma / f, offset * LAM / f**3
    speed = first.norm(dim=1)
    area = (speed**2 * second.norm(dim=1) ** 2 - (first * second).sum(1) ** 2).clamp(min=0).sqrt()
    return area / speed**3


@pytest.mark.parametrize(("solver", "steps", "off"), [("heun", 100, 0.01), ("heun", 200, 0.0025), ("euler", 200, 0.1)])
def test_curvature_without_a_window_is_that_of_a_gaussian(solver, steps, off):
    x = initial_noise(16, (4,))
    curvature, sigma = geometry.path_curvature(sample(Gaussian([0.0] * 4, LAM), x, schedules.polynomial(steps), solver))
    exact = torch.stack([gaussian_curvature(x, s) for s in sigma])
    assert curvature.shape == exact.shape == (steps - 1, 16)
    late = sigma > 0.05  # nearer to the end the path turns within a step
    assert float((curvature / exact - 1)[late].abs().max()) < off


def test_curvature_without_a_window_has_a_unit_and_no_origin_and_is_a_turn_over_a_length():
    x, moved = initial_noise(6, (4,)), torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=F64)
    sigmas = schedules.polynomial(60)
    path = sample(Gaussian([0.0] * 4, LAM), x, sigmas)
    curvature, _ = geometry.path_curvature(path)
    large = sample(Gaussian(moved, 100 * LAM), 10 * x + moved, 10 * sigmas)
    torch.testing.assert_close(geometry.path_curvature(large)[0], curvature / 10, rtol=1e-6, atol=1e-12)
    steps = path.x.diff(dim=0)
    length = steps.norm(dim=-1)
    turn = torch.acos((steps[1:] * steps[:-1]).sum(-1) / (length[1:] * length[:-1]))
    polygon = turn / ((length[1:] + length[:-1]) / 2)
    middle = (sigmas[1:-1] < 10) & (sigmas[1:-1] > 0.5)
    ratio = (curvature / polygon)[middle]
    assert float((ratio / ratio.median() - 1).abs().max()) < 0.25  # the same but for where in a step it is meant
    plain = sample(Gaussian([0.0] * 4, 2.0), x, sigmas)  # one variance: straight
    turned = geometry.path_curvature(plain)[0] * plain.x.diff(dim=0).norm(dim=-1)[1:]
    assert float(turned.max()) < 1e-9


def test_the_deviation_of_an_anisotropic_gaussian_is_its_exact_formula():
    # Each principal coordinate of the exact path is sqrt(lam + sigma^2): curves with a known bend.
    D, sigmas = Gaussian(torch.zeros(3, dtype=F64), [0.01, 1.0, 25.0]), schedules.polynomial(40)
    x = initial_noise(5, (3,))
    path = torch.stack([D.flow(x, 80.0, float(s)) for s in sigmas])
    lam = torch.tensor([0.01, 1.0, 25.0], dtype=F64)
    exact = x * ((lam + sigmas[:, None, None] ** 2) / (lam + 6400)).sqrt()
    chord = exact[0] - exact[-1]
    unit = chord / chord.norm(dim=-1, keepdim=True)
    offset = exact - exact[-1]
    expected = (offset - (offset * unit).sum(-1, keepdim=True) * unit).norm(dim=-1)
    torch.testing.assert_close(geometry.deviation(path), expected, rtol=1e-9, atol=1e-10)
    assert float(expected.max()) > 0.1  # not a straight line


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), k=st.integers(1, 4))
def test_procrustes_is_the_best_rotation_there_is(seed, k):
    curve, reference = normal(15, 1, k, seed=seed), normal(15, k, seed=seed + 1)
    best = geometry.procrustes(curve, reference)[0]
    expected, _ = orthogonal_procrustes(curve[:, 0].numpy(), reference.numpy())
    torch.testing.assert_close(best, torch.as_tensor(expected), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(best @ best.mT, torch.eye(k, dtype=F64))
    proper = geometry.procrustes(curve, reference, reflections=False)[0]
    assert float(torch.linalg.det(proper)) == pytest.approx(1)

    def gap(turn):
        return float((curve[:, 0] @ turn - reference).norm())

    for other in range(20):
        turn = torch.linalg.qr(normal(k, k, seed=seed + 2 + other))[0]
        assert gap(best) <= gap(turn) + 1e-9
        turn[:, 0] *= torch.linalg.det(turn).sign()
        assert gap(proper) <= gap(turn) + 1e-9


def aligned_error(kind):
    curve = normal(30, 2).cumsum(0) if kind == "reflection" else normal(30, 3).cumsum(0)
    turn = torch.linalg.qr(normal(curve.shape[1], curve.shape[1], seed=5))[0]
    turn[:, 0] *= torch.linalg.det(turn) * (-1 if kind == "reflection" else 1)
    moved = (curve @ turn)[:, None] + 0.01 * normal(30, 1, curve.shape[1], seed=6)
    return float((geometry.align(moved, curve)[:, 0] - curve).norm() / curve.norm())


@pytest.mark.parametrize("kind", ["reflection", "rotation"])
def test_the_popular_procrustes_bug_inside_the_library_would_fail_here(kind, monkeypatch):
    assert aligned_error(kind) < 0.01
    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda a: (lambda u, s, vh: (u, s, vh.mT))(*svd(a)))
    assert aligned_error(kind) > 0.3


def test_align_about_the_chord_needs_no_slicing(digit_paths):
    curves = geometry.project(digit_paths)
    aligned = geometry.align(curves, about_chord=True)
    assert torch.equal(aligned[..., 0], curves[..., 0])
    torch.testing.assert_close(aligned[..., 1:], geometry.align(curves[..., 1:], curves[:, 0, 1:]))
    torch.testing.assert_close(aligned[:, 0], curves[:, 0])
    residual = geometry.procrustes_residual(curves, about_chord=True)
    torch.testing.assert_close(residual, geometry.procrustes_residual(curves[..., 1:], curves[:, 0, 1:]))
    turn = geometry.procrustes(curves, curves[:, 3], reflections=False, about_chord=True)
    torch.testing.assert_close(turn[:, 0], torch.eye(3, dtype=F64)[0].expand(48, 3))
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(48, dtype=F64))
    # with the chord included, three-dimensional alignment compares straight lines and always succeeds
    assert float(geometry.procrustes_residual(curves).max()) < 1e-4 < 1e-3 < float(residual[1:].mean())


@pytest.mark.parametrize("reflections", [True, False])
def test_align_about_the_chord_undoes_any_turn_of_the_other_coordinates(reflections):
    curve = normal(30, 4).cumsum(0)
    turn = torch.linalg.qr(normal(3, 3, seed=5))[0]
    turn[:, 0] *= torch.linalg.det(turn).sign() * (-1 if reflections else 1)
    moved = torch.cat([curve[:, :1], curve[:, 1:] @ turn], 1)[:, None]
    aligned = geometry.align(moved, curve, reflections, about_chord=True)[:, 0]
    torch.testing.assert_close(aligned, curve)
    assert float(geometry.procrustes_residual(moved, curve, reflections, about_chord=True)) < 1e-12
    if reflections:
        assert float(geometry.procrustes_residual(moved, curve, reflections=False, about_chord=True)) > 1e-3


def test_residual_after_alignment_is_between_same_and_unrelated():
    curve = normal(40, 2).cumsum(0)
    others = torch.stack([3 * curve, -curve, curve.flip(1), normal(40, 2, seed=9)], 1)
    residual = geometry.procrustes_residual(others, curve)
    assert float(residual[:3].max()) < 1e-12
    assert 0.05 < float(residual[3]) <= 2


@pytest.mark.parametrize("unit", [1e-9, 1e-150, 1e150])
def test_cosines_do_not_depend_on_the_unit(unit):
    curve = embed(HALF_CIRCLE, 30)
    torch.testing.assert_close(geometry.cosines((curve - curve[0]) * unit), geometry.cosines(curve), rtol=0, atol=1e-9)


def test_single_precision_paths_are_summed_in_double():
    x = (torch.linspace(80, 0, 101)[:, None, None] * torch.ones(1, 2, 3000)).float()
    assert geometry.deviation(x).dtype == F64
    assert float(geometry.deviation(x, relative=True).max()) < 1e-6


@pytest.mark.parametrize("shape", [(101, 40, 3072), (1001, 40, 2)], ids=["images", "plane"])
def test_memory_is_that_of_a_block_not_of_the_paths(shape, monkeypatch):
    # Long paths in the plane are the other extreme: inner products of 1,001 states would be 500 times the path itself.
    path = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(geometry.blocks, "_BLOCK", 2**22)
    with torch.profiler.profile(profile_memory=True) as profile:
        geometry.deviation(path)
        geometry.explained_variance(path, 2, remove_chord=True)
        geometry.project(path)
    biggest = max((e.cpu_memory_usage for e in profile.events() if e.name.startswith("aten::")), default=0)
    assert biggest <= 2**22 * 8 * 1.1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts pages as Linux does")
def test_blocks_are_computed_in_memory_that_the_process_has_already():
    script = """
import resource, torch
from teachkit import geometry
torch.set_num_threads(1)
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
path = torch.rand(51, 1000, 256, generator=torch.Generator().manual_seed(0))
components = lambda x: geometry.explained_variance(x, 2, remove_chord=True)
for measure in (geometry.deviation, geometry.arc_length, components):
    begun = faults()
    measure(path)
    print((faults() - begun) * resource.getpagesize() / (8 * path.numel()))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    shares = [float(share) for share in done.stdout.split()]  # of the paths in double precision
    assert max(shares) < 0.5, shares


def test_gradients_pass_through_blocks(monkeypatch):
    x = normal(6, 5, 4).cumsum(0).requires_grad_()
    (whole,) = torch.autograd.grad(geometry.deviation(x).square().sum(), x)
    monkeypatch.setattr(geometry.blocks, "_BLOCK", 60)  # two paths
    (parts,) = torch.autograd.grad(geometry.deviation(x).square().sum(), x)
    torch.testing.assert_close(parts, whole)


@pytest.mark.slow
def test_a_thousand_paths_of_small_colour_pictures_fit_into_four_gigabytes():
    script = """
import resource, sys, torch
from teachkit import geometry
torch.set_num_threads(1)
path = torch.rand(101, 1000, 3072, generator=torch.Generator().manual_seed(0))
geometry.deviation(path), geometry.arc_length(path), geometry.explained_variance(path, 2, remove_chord=True)
geometry.align(geometry.project(path), about_chord=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024) / 2**20)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True)
    assert float(done.stdout) < 4  # GiB, of which the paths are 1.16


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: geometry.deviation([1.0]), TypeError, "traj must be a floating-point tensor or a Trajectory"),
        (lambda: geometry.deviation(normal(5, 3)), ValueError, r"traj must have shape \(N\+1, B, \*event\)"),
        (lambda: geometry.deviation(normal(5, 2, 3) * math.nan), ValueError, "traj must be finite"),
        (lambda: geometry.deviation(torch.zeros(3, 1, 2, dtype=F64), relative=True), ValueError, "has no chord"),
        (lambda: geometry.explained_variance(normal(5, 2, 3), 6), ValueError, "k must be an integer from 1 to"),
        (lambda: geometry.procrustes(normal(5, 2, 3), normal(5, 2)), ValueError, "curves must be"),
        (lambda: geometry.curvature_torsion(helix(), 10), ValueError, "window must be an odd integer from 5"),
        (lambda: geometry.curvature_torsion(helix()[:, :2], 11), ValueError, r"points must have shape \(N, 3\)"),
        (lambda: geometry.curvature_torsion(torch.zeros(9, 3), 5), ValueError, "two successive points coincide"),
        (lambda: geometry.curvature_torsion(helix(), 11, edges="wrap"), ValueError, "edges must be one of"),
        (lambda: geometry.curvature_torsion(helix()), ValueError, "either window .* or length"),
        (lambda: geometry.curvature_torsion(helix(), 11, length=1.0), ValueError, "either window .* or length"),
        (lambda: geometry.curvature_torsion(helix(), length=100.0), ValueError, "length must be a number > 0"),
        (
            lambda: geometry.curvature_torsion(helix(), length=math.nan),
            ValueError,
            "length must be a finite number > 0",
        ),
        (
            lambda: geometry.curvature_torsion(helix(), length=1.0, edges="published"),
            ValueError,
            "edges must be one of",
        ),
        (lambda: geometry.curvature_torsion(helix(), 11, weights="even"), ValueError, "weights must be"),
        (lambda: geometry.curvature_torsion(helix(n=4), length=1.0), ValueError, "at least 5 points"),
        (lambda: geometry.align(normal(5, 2, 1), about_chord=True), ValueError, "a coordinate beside the chord"),
        (lambda: geometry.align(normal(5, 0, 3)), ValueError, r"curves must be \(N\+1, B, k\)"),
        (lambda: geometry.deviation_peak(normal(5, 2, 3)), TypeError, "traj must be a Trajectory"),
        (lambda: geometry.path_curvature(normal(5, 2, 3)), TypeError, "traj must be a Trajectory"),
        (
            lambda: geometry.path_curvature(sample(Gaussian([0.0], 1.0), initial_noise(2, (1,)), [80.0, 1.0])),
            ValueError,
            "traj must hold two steps or more",
        ),
        (
            lambda: geometry.path_curvature(
                sample(lambda x, sigma, labels=None: x, initial_noise(2, (3,)), [9.0, 3, 1])
            ),
            ValueError,
            "a path that does not move",
        ),
        (lambda: geometry.deviation(torch.ones(5, 2, 3, dtype=torch.long)), TypeError, "floating-point tensor"),
        (lambda: geometry.deviation(normal(5, 0, 3)), ValueError, "traj must have shape"),
        (lambda: geometry.arc_length(normal(1, 2, 3)), ValueError, "at least two states"),
        (lambda: geometry.project(normal(1, 2, 3)), ValueError, "at least two states"),
        (lambda: geometry.explained_variance(normal(5, 2, 3), 0), ValueError, "k must be an integer from 1 to"),
        (lambda: geometry.explained_variance(normal(5, 2, 3), 1.0), TypeError, "k must be an integer from 1 to"),
        (lambda: geometry.procrustes([1.0], normal(5, 2)), TypeError, "curves must be a floating-point tensor"),
        (lambda: geometry.procrustes(normal(5, 2, 2) * math.nan, normal(5, 2)), ValueError, "must be finite"),
        (lambda: geometry.align(normal(5, 2, 2), normal(5, 2) * math.inf), ValueError, "must be finite"),
        (lambda: geometry.procrustes_residual(0 * normal(5, 2, 2), normal(5, 2)), ValueError, "must not be all zeros"),
        (lambda: geometry.procrustes_residual(normal(5, 2, 2), 0 * normal(5, 2)), ValueError, "must not be all zeros"),
        (lambda: geometry.curvature_torsion([[1.0, 2.0, 3.0]], 5), TypeError, "points must be a floating-point tensor"),
        (lambda: geometry.curvature_torsion(helix() * math.nan, 11), ValueError, "points must be finite"),
        (lambda: geometry.curvature_torsion(helix(n=9), 11), ValueError, "window must be an odd integer from 5"),
        (lambda: geometry.curvature_torsion(helix(), 3), ValueError, "window must be an odd integer from 5"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_norms_of_a_single_step_are_those_where_it_starts():
    x = normal(2, 3)
    path = sample(Gaussian([0.0, 0.0, 0.0], 1.0), x, [2.0, 1.0])
    size, denoised, eps = geometry.norms(path)
    torch.testing.assert_close(size, x.norm(dim=1)[None])
    torch.testing.assert_close(denoised, size / 5)
    torch.testing.assert_close(eps, size * 2 / 5)


def test_a_path_that_was_not_kept_is_refused():
    end = sample(Gaussian([0.0, 0.0], 1.0), initial_noise(2, (2,)), schedules.polynomial(4), keep="final")
    with pytest.raises(ValueError, match="keep='all'"):
        geometry.deviation(end)
    with pytest.raises(ValueError, match="keep='all'"):
        geometry.norms(end)
    assert isinstance(end, Trajectory)


# --- limits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [2, 9])
def test_a_path_that_stands_still_has_no_length_and_no_shape(d):
    x = normal(1, 3, d).expand(5, 3, d)
    for measure in (geometry.deviation, geometry.arc_length, geometry.distance_to_end):
        assert torch.equal(measure(x), torch.zeros(5, 3, dtype=F64))
    assert torch.equal(geometry.project(x), torch.zeros(5, 3, 3, dtype=F64))
    assert torch.equal(geometry.cosines(x), torch.zeros(4, 3, dtype=F64))
    for remove in (False, True):
        share = geometry.explained_variance(x, 2, remove_chord=remove)
        torch.testing.assert_close(share, torch.ones(3, 2, dtype=F64))


@pytest.mark.parametrize("d", [3, 40])
def test_a_bend_far_below_the_chord_is_measured_and_rounding_is_not(d):
    # Bends of 1e-9 of the chord are shape; what is left of 1e-15 is rounding and is called straight.
    t = torch.linspace(0, 1, 21, dtype=F64)[:, None, None]
    frame = torch.linalg.qr(normal(d, 3))[0].T
    for size in (1e-9, 1e-7, 1.0):
        x = 100 * (t * frame[0] + size * (t * (1 - t) * frame[1] + 0.1 * t * (1 - t) * (1 - 2 * t) * frame[2]))
        share = geometry.explained_variance(x, 2, remove_chord=True)[0]
        bow, ess = (t * (1 - t))[:, 0, 0], (0.1 * t * (1 - t) * (1 - 2 * t))[:, 0, 0]
        expected = bow.var() / (bow.var() + ess.var())
        assert float(share[0]) == pytest.approx(float(expected), abs=1e-4)
        p = geometry.project(x)[:, 0]
        torch.testing.assert_close(p[:, 1] / (100 * size), bow, rtol=0, atol=1e-5)
        torch.testing.assert_close(p[:, 2].abs() / (100 * size), ess.abs(), rtol=0, atol=1e-5)
    straight = 100 * t * frame[0]
    assert torch.equal(geometry.explained_variance(straight, 2, remove_chord=True), torch.ones(1, 2, dtype=F64))
    assert float(geometry.project(straight)[..., 1:].abs().max()) == 0


@pytest.mark.parametrize("about_chord", [False, True])
def test_the_residual_depends_on_no_scale(about_chord):
    curves, reference = normal(12, 4, 3), normal(12, 3, seed=1)
    residual = geometry.procrustes_residual(curves, reference, about_chord=about_chord)
    for a, b in ((1e-3, 1.0), (1e3, 1e-4), (1e-6, 1e5)):
        scaled = geometry.procrustes_residual(a * curves, b * reference, about_chord=about_chord)
        torch.testing.assert_close(scaled, residual)
    # Schönemann: the residual of unit curves is 2 minus twice the sum of the singular values.
    used, target = (curves[..., 1:], reference[:, 1:]) if about_chord else (curves, reference)
    cross = torch.einsum("nbi,nj->bij", used, target)
    size = used.pow(2).sum((0, 2)).sqrt() * target.norm()
    torch.testing.assert_close(residual, 2 - 2 * torch.linalg.svdvals(cross).sum(1) / size)


def test_a_straight_bend_beside_others_is_refused():
    curves = normal(12, 4, 3)
    curves[:, 2, 1:] = 0
    assert geometry.procrustes_residual(curves).shape == (4,)
    with pytest.raises(ValueError, match="must not be all zeros"):
        geometry.procrustes_residual(curves, about_chord=True)
    assert geometry.align(normal(5, 2, 2), about_chord=True).shape == (5, 2, 2)


def test_the_fewest_points_the_smallest_window_and_the_longest_length():
    five = helix(n=5, length=1.0)
    for kwargs in ({"window": 5}, {"window": 5, "edges": "one_sided"}):
        kappa, tau = geometry.curvature_torsion(five, **kwargs)
        assert float(kappa[2]) == pytest.approx(0.8, rel=0.02)
        assert float(tau[2]) == pytest.approx(0.4, rel=0.02)
    whole = float(geometry.arc_length(five[:, None])[-1])
    by_length = geometry.curvature_torsion(five, length=whole)
    torch.testing.assert_close(by_length, geometry.curvature_torsion(five, 5, "one_sided"))
    for bad in (1.001 * whole, 0.0, -1.0, "1"):
        with pytest.raises((ValueError, TypeError), match=r"length must be a (finite )?number > 0"):
            geometry.curvature_torsion(five, length=bad)
    for bad in (5.0, -5, 7, 6):
        with pytest.raises(ValueError, match="window must be an odd integer from 5 to the number of points 5"):
            geometry.curvature_torsion(five, bad)
    for bad in (helix()[None, None], helix()[:, None, :].expand(801, 0, 3), helix()[:, None, :2], helix()[:, 0]):
        with pytest.raises(ValueError, match="points must have shape"):
            geometry.curvature_torsion(bad, 11)


def test_defaults_at_the_edges():
    curve, length = helix(n=60), 1.5
    published = geometry.curvature_torsion(curve, 11, "published")
    torch.testing.assert_close(geometry.curvature_torsion(curve, 11), published, rtol=0, atol=0)
    assert not torch.allclose(geometry.curvature_torsion(curve, 11, "one_sided")[0], published[0])
    one_sided = geometry.curvature_torsion(curve, length=length, edges="one_sided")
    torch.testing.assert_close(geometry.curvature_torsion(curve, length=length), one_sided, rtol=0, atol=0)
    uniform = geometry.curvature_torsion(curve, length=length, weights="uniform")
    torch.testing.assert_close(one_sided, uniform, rtol=0, atol=0)


@pytest.mark.parametrize("radius", [1e-6, 1e-3, 1.0])
def test_a_slight_bend_is_no_straight_line(radius):
    kappa, tau = geometry.curvature_torsion(helix(radius, 1.0), 51, edges="nan")
    inside = slice(100, -100)
    expected = radius / (radius**2 + 1)
    torch.testing.assert_close(kappa[inside], torch.full((601,), expected, dtype=F64), rtol=5e-3, atol=0)
    torch.testing.assert_close(tau[inside], torch.full((601,), 1 / (radius**2 + 1), dtype=F64), rtol=5e-2, atol=0)


@pytest.mark.parametrize("weights", ["uniform", "length", "tricube"])
@pytest.mark.parametrize("by", ["window", "length"])
def test_every_weighted_window_is_the_weighted_least_squares_fit_it_says(by, weights):
    points, n, half = helix(n=40, length=5.0, warp=1.6), 40, 0.9
    choice = {"window": 9, "edges": "one_sided"} if by == "window" else {"length": 2 * half}
    kappa, tau = geometry.curvature_torsion(points, weights=weights, **choice)
    x = points.numpy()
    s = np.append(0, np.cumsum(np.linalg.norm(np.diff(x, axis=0), axis=1)))
    stands_for = np.append(np.diff(s), 0) / 2 + np.append(0, np.diff(s)) / 2
    for i in range(n):
        if by == "window":
            rows = np.arange(9) + min(max(i - 4, 0), n - 9)
        else:
            centre = min(max(s[i], half), s[-1] - half)
            rows = np.flatnonzero(np.abs(s - centre) <= half * (1 + 1e-9))
            if len(rows) < 5:
                rows = np.arange(5) + min(max(i - 2, 0), n - 5)
        u = s[rows] - s[i]
        weight = np.ones(len(rows)) if weights == "uniform" else stands_for[rows]
        if weights == "tricube":  # u_max lies a little outside, so that no point has weight 0
            weight = weight * (1 - (np.abs(u) / np.abs(u).max() * (1 - 1 / len(rows))) ** 3) ** 3
        root = np.sqrt(weight)[:, None]
        design = np.stack([u, u**2 / 2, u**3 / 6], 1)
        fit, *_ = np.linalg.lstsq(root * design, root * (x[rows] - x[i]), rcond=None)
        cross = np.cross(fit[0], fit[1])
        assert float(kappa[i]) == pytest.approx(np.linalg.norm(cross) / np.linalg.norm(fit[0]) ** 3, rel=1e-6)
        assert float(tau[i]) == pytest.approx(cross @ fit[2] / (cross @ cross), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("length", [1.0, 2.0])
def test_points_near_the_ends_are_those_within_half_a_window(length):
    curves = torch.stack([helix(n=81, length=4.0), 1.5 * helix(n=81, length=4.0, warp=1.3)], 1)
    kappa, tau = geometry.curvature_torsion(curves, length=length, edges="nan")
    s = geometry.arc_length(curves)
    near = (s < length / 2) | (s > s[-1] - length / 2)
    assert torch.equal(kappa.isnan(), near)
    assert torch.equal(tau.isnan(), near)
    by_number = geometry.curvature_torsion(curves[:, 0], 7, edges="nan")[0].isnan()
    assert by_number.nonzero()[:, 0].tolist() == [0, 1, 2, 78, 79, 80]


@pytest.mark.parametrize("part", ["x", "denoised"])
def test_norms_refuse_a_bad_value_in_either_half_of_a_trajectory(part):
    path = sample(Gaussian([1.0, 0.0], 1.0), initial_noise(4, (2,)), schedules.polynomial(5))
    parts = {"x": path.x.clone(), "denoised": path.denoised.clone()}
    parts[part][2, 1, 0] = math.nan
    with pytest.raises(ValueError, match=f"{part} must be finite"):
        geometry.norms(Trajectory(path.sigmas, parts["x"], parts["denoised"], path.nfe))


# --- degenerate curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"window": w} for w in (5, 9, 11, 13, 21)] + [{"length": 0.3}, {"length": 1.0}])
@pytest.mark.parametrize("apart", [1e-12, 1e-9, 1e-6])
@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize("copies", [2, 4, 12])
def test_points_that_nearly_coincide_give_the_truth_or_nan(options, apart, along, copies):
    points = helix(n=101).repeat_interleave(copies, 0)
    shift = torch.arange(copies).repeat(101)[:, None] * torch.tensor([1.0, 0.0, 0.0])
    points = points + apart * (shift if along else normal(*points.shape))
    for edges in ("one_sided", "nan", *(["published"] if "window" in options else [])):
        for weights in ("uniform", "length"):
            kappa, tau = geometry.curvature_torsion(points, edges=edges, weights=weights, sparse="widen", **options)
            assert torch.equal(kappa.isnan(), tau.isnan())
            assert float((kappa - 0.8).abs().nan_to_num(0).max()) < 0.1
            assert float((tau - 0.4).abs().nan_to_num(0).max()) < 0.1
    if options.get("length") == 1.0 or options.get("window", 0) > 5 * copies:
        assert not kappa.isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("far", [0.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("n", [401, 4001])
def test_what_the_rounding_of_the_points_hides_is_nan_and_all_else_is_right(dtype, far, n):
    known = 0
    points = (helix(n=n) + far).to(dtype)
    for window in (5, 21, 61):
        if not bool((points.diff(dim=0).double().norm(dim=1) > 0).all()):
            with pytest.raises(ValueError, match="points must not repeat"):
                geometry.curvature_torsion(points, window, "one_sided")
            continue
        kappa, tau = geometry.curvature_torsion(points, window, "one_sided")
        bias = (0.1 if window == 61 else 0.02) if n == 401 else 0.005  # of the window, and a tenth for rounding
        assert float((kappa / 0.8 - 1).abs().nan_to_num(0).max()) < 0.1 + bias
        assert float((tau / 0.4 - 1).abs().nan_to_num(0).max()) < 0.1 + 3 * bias
        known += int((~tau.isnan()).sum())
    assert known >= (0 if dtype == torch.float32 and far > 1 else 0.9 * n)


def test_a_straight_line_and_a_plane_curve_are_known_far_away_too():
    for far in (0.0, 1e6):
        kappa, tau = geometry.curvature_torsion(torch.stack([T, 2 * T, T], -1) + far, 21)
        assert float(kappa.abs().max()) < 1e-6
        assert float(tau.abs().max()) == 0
        kappa, tau = geometry.curvature_torsion(helix(2.0, 0.0) + far, 21)
        assert float((kappa - 0.5).abs().max()) < 0.01
        assert float(tau.abs().max()) < 1e-3


def test_a_widened_window_is_said_asked_for_or_nan():
    curve = helix(n=60)
    with pytest.warns(UserWarning, match="say sparse='widen' or sparse='nan'"):
        said = geometry.curvature_torsion(curve, length=0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = geometry.curvature_torsion(curve, length=0.5, sparse="widen")
        missing = geometry.curvature_torsion(curve, length=0.5, sparse="nan")
        geometry.curvature_torsion(curve, length=2.0)
    for a, b, c in zip(said, asked, missing):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert c.isnan().all()
    with pytest.raises(ValueError, match="sparse must be one of"):
        geometry.curvature_torsion(curve, length=0.5, sparse="warn")
