"""Path player: the images of a trajectory beside its place on the boomerang."""

from __future__ import annotations

import numpy as np

from teachkit import geometry
from teachkit.checks import integer
from teachkit.course import plots
from teachkit.course.plots.shared import pixels, show_pixels
from teachkit.course.widgets.explorer import Explorer, player, slider, trace
from teachkit.trajectory import Trajectory, whole_path

_BEHIND = 40


@plots.style()
def path_player(trajectory: Trajectory, *, sample: int = 0) -> Explorer:
    """Play a path of images: the state, what the denoiser sees in it, and where that is on the boomerang.

    Parameters
    ----------
    trajectory : Trajectory
        Paths of images, ``x`` of shape (N+1, B, C, H, W), kept whole.
    sample : int
        The path shown first.

    Raises
    ------
    ValueError, TypeError
        For anything but paths of images, or a sample that is not there.

    Examples
    --------
    >>> from teachkit import Empirical, initial_noise, sample, schedules
    >>> images = torch.stack([torch.ones(1, 4, 4), -torch.ones(1, 4, 4)]).double()
    >>> path = sample(Empirical(images), initial_noise(1, (1, 4, 4)), schedules.polynomial(5))
    >>> path_player(path).picture.alt[:25]
    'Path 0, step 2 of 5, sigm'
    """
    whole_path("trajectory", trajectory, outputs=True)
    if trajectory.x.ndim != 5:
        raise ValueError(f"trajectory must hold paths of images (N+1, B, C, H, W), got {tuple(trajectory.x.shape)}")
    steps, batch = len(trajectory.denoised), trajectory.x.shape[1]
    trajectory = trajectory.detach().to("cpu")
    states, outputs = trajectory.x.numpy(), trajectory.denoised.numpy()
    sample = integer("sample", sample, 0, batch - 1)
    sigmas = trajectory.sigmas.tolist()
    curves = geometry.project(trajectory)
    curves = (100 * curves / (curves[-1] - curves[0]).norm(dim=-1, keepdim=True)).numpy()  # percent of the chord
    away = (100 * geometry.deviation(trajectory, relative=True)).numpy()

    picture, (left, middle, right) = plots.panels(1, 3, size=(8.2, 3.1), width_ratios=(1, 1, 1.5))
    state, output = (show_pixels(ax, states[-1, sample]) for ax in (left, middle))
    middle.set_title("D(x; σ)")
    trace(right.plot([], [], color="0.8", lw=0.8)[0], curves[:, :_BEHIND, :2])
    (whole,) = right.plot([], [], color=plots.BLUE)
    (here,) = right.plot([], [], "o", color=plots.VERMILLION, mec="black", ms=9, zorder=5)
    right.plot([0, 100], [0, 0], "--", color=plots.GREY, lw=1)
    right.set(xlabel="along the chord, %", ylabel="component 1, %", title="on the boomerang")
    reach = 1.15 * np.abs(curves[..., 1]).max()
    right.set(xlim=(-4, 104), ylim=(min(0, curves[..., 1].min()) - 0.1 * reach, reach))
    play, step = player("step", steps // 2, steps - 1)
    which = slider("path", sample, 0, batch - 1)

    def redraw() -> tuple[str, str]:
        k, b = step.value, which.value
        state.set_data(pixels(states[k, b] / (1 + sigmas[k] ** 2) ** 0.5))
        output.set_data(pixels(outputs[k, b]))
        whole.set_data(*curves[:, b, :2].T)
        here.set_data(*curves[k, b, :2, None])
        left.set_title(f"state x at σ = {sigmas[k]:.2g}")
        far = float((trajectory.denoised[k, b] - trajectory.final[b]).norm())
        alt = (
            f"Path {b}, step {k} of {steps}, sigma {sigmas[k]:.2g}: {curves[k, b, 0]:.1f} % of the chord done, "
            f"{away[k, b]:.2f} % of it away from it; D is {far:.1f} from the sample at the end."
        )
        return alt, f"{alt} Grey: other paths. The height of the boomerang is magnified."

    return Explorer(picture, redraw, (play, step, which))
