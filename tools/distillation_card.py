"""Export the distilled networks and write their card: ``python tools/distillation_card.py --runs runs``.

Takes the averaged weights of finished runs of ``teachkit train digits8-1step`` (-2step, -4step), stores them in float16
as data/edm-NAME.safetensors, and measures what data/edm-digits8-distilled.md says, on noise that no network was
trained on: how far samples are from where the teacher's path from the same noise ends, beside the best solvers of the
teacher and the best affine map; what is lost between the levels and under guidance. The figures are also in
data/edm-digits8-distilled.json; the card has no number from elsewhere. ``--measure-only`` takes the networks in data/,
``--redraw`` writes the text again from the .json file. A quarter of an hour on one CPU core, most of it the teacher.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checksums
import torch
from model_card import nearest, rounded
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from teachkit import data, edm, geometry, initial_noise, metrics, sample, schedules, scheduling
from teachkit.edm.distillation import DISTILLATIONS, distil
from teachkit.scheduling.warm_up import elsewhere

DATA = Path(__file__).resolve().parents[1] / "data"
CARD = DATA / "edm-digits8-distilled.json"
TEACHER, EVENT, COUNT, WARM_UP, MAPPED = "edm-digits8", (1, 8, 8), 2048, 128, 8192
SIDE = 20  # as MNIST's digits are, in their frame of 28
REFERENCE = schedules.polynomial(60)
Sampler = Callable[[Tensor, Tensor], Tensor]


def export(name: str, run_dir: Path) -> dict[str, Any]:
    """Store a run's averaged weights, once it is finished."""
    recipe = DISTILLATIONS[name]
    state = torch.load(run_dir / "checkpoint.pt", map_location="cpu", weights_only=True)
    if state["step"] < recipe.steps:
        raise SystemExit(f"{run_dir} is at step {state['step']} of {recipe.steps}: teachkit train {name} goes on")
    trained = distil(recipe, run_dir, progress=False)
    note = {"trained": f"teachkit train {name}", "recipe": recipe.text(), "licence": "MIT"}
    path = edm.save(trained, DATA / f"edm-{name}.safetensors", torch.float16, note)
    checksums.record(path)
    log = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return {"bytes": path.stat().st_size, "levels": list(trained.levels or ()), "log": log}


def noise(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise and the classes asked for, in turn."""
    return initial_noise(count, EVENT, seed=seed, dtype=torch.float32), torch.arange(count) % 10


def reference(x: Tensor, labels: Tensor, guidance: float | None = None) -> Tensor:
    """Where the teacher's converged paths end."""
    teacher, how = edm.load(TEACHER), {"guidance": guidance, "batch": 512, "keep": "final"}
    return sample(teacher, x, REFERENCE, "unipc", labels=labels, **how).final


def enlarged(images: Tensor) -> Tensor:
    """8x8 digits as the shipped classifier takes them: enlarged, and framed in the background to 28x28."""
    large = F.interpolate(images.float().clamp(-1, 1), size=SIDE, mode="bicubic", align_corners=False).clamp(-1, 1)
    return F.pad(large, ((28 - SIDE) // 2,) * 4, value=-1.0)


def coverage(real: Tensor, made: Tensor, k: int = 5) -> float:
    """Share of real samples with a made one among their k nearest neighbours' distance (arXiv 2002.09797)."""
    real, made = real.flatten(1).double(), made.flatten(1).double()
    radius = torch.cdist(real, real).topk(k + 1, largest=False).values[:, -1]
    return float((torch.cdist(real, made).min(1).values <= radius).double().mean())


def spread(images: Tensor, labels: Tensor) -> float:
    """Mean distance between two samples of one class, per pixel (root mean square)."""
    each = [torch.pdist(images[labels == k].flatten(1).double()).mean() / 8 for k in range(10)]
    return float(torch.stack(each).mean())


def judge(images: Tensor, labels: Tensor, ends: Tensor, other: Tensor) -> dict[str, Any]:
    """Against the ends of the same noise, and as a set against the teacher's ends of other noise."""
    train = data.split(data.load("digits8"))[0]
    error = metrics.error_to_reference(images, ends)
    away = elsewhere((images - ends).flatten(1), ends, float(REFERENCE[-1]))
    return {
        "mean": float(error.mean()),
        "standard_error": float(error.std() / len(error) ** 0.5),
        "median": float(error.median()),
        "elsewhere": float(away.double().mean()),
        "frechet_pixels": metrics.frechet_distance(images.flatten(1), other.flatten(1)),
        "frechet_features": metrics.frechet_distance(
            metrics.digit_features(enlarged(images)), metrics.digit_features(enlarged(other))
        ),
        "spread": spread(images, labels),
        "coverage": coverage(other, images),
        "class": float((train.labels[nearest(images, train.images)[1]] == labels).double().mean()),
    }


def affine_map() -> Sampler:
    """The best one-step map without a network: for each class an affine one, by least squares on pairs of the teacher.

    Ridge, its size chosen among powers of ten on a tenth of the pairs that is kept apart.
    """
    x, labels = noise(MAPPED, seed=77)
    cheap = scheduling.Schedule.shipped(TEACHER, "fitted", 8)
    how: dict[str, Any] = {"labels": labels, "batch": 512, "keep": "final"}
    ends = sample(edm.load(TEACHER), x, cheap.sigmas, cheap.make_solver(), **how).final.flatten(1).double()
    inputs = torch.cat([x.flatten(1).double() / 80, torch.ones(MAPPED, 1, dtype=torch.float64)], 1)
    apart = torch.arange(MAPPED) // 10 % 10 == 0

    def solve(rows: Tensor, ridge: float) -> Tensor:
        return torch.stack([
            torch.linalg.solve(a.T @ a + ridge * torch.eye(65, dtype=torch.float64), a.T @ ends[rows & (labels == k)])
            for k in range(10) for a in [inputs[rows & (labels == k)]]
        ])  # fmt: skip

    def apply(maps: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
        return torch.einsum("bi,bij->bj", rows, maps[classes])

    def error(ridge: float) -> float:
        gap = apply(solve(~apart, ridge), inputs[apart], labels[apart]) - ends[apart]
        return float(gap.square().mean(1).sqrt().mean())

    best = min((10.0**p for p in range(-2, 5)), key=error)
    maps = solve(torch.ones(MAPPED, dtype=torch.bool), best)

    def sampler(x: Tensor, labels: Tensor) -> Tensor:
        rows = torch.cat([x.flatten(1).double() / 80, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        return apply(maps, rows, labels).float().reshape(x.shape)

    return sampler


def samplers() -> dict[str, Sampler]:
    """What is compared, by evaluations: the students, the teacher's solvers, and the best affine map."""
    teacher = edm.load(TEACHER)
    x, labels = noise(WARM_UP, seed=55)
    found = {n: scheduling.fit_solver(teacher, x, n, labels=labels) for n in (2, 4)}

    def by(denoiser: edm.LearnedDenoiser, sigmas: Any, solver: Any) -> Sampler:
        how = {"batch": 512, "keep": "final"}
        return lambda x, labels: sample(denoiser, x, sigmas, solver, labels=labels, **how).final

    rows: dict[str, Sampler] = {"1, distilled": by(edm.load("edm-digits8-1step"), [80.0, 0.002], "euler")}
    for n in (2, 4):
        student: Any = edm.load(f"edm-digits8-{n}step")
        rows[f"{n}, distilled"] = by(student, student.levels, "euler")
    rows["1, teacher, Euler"] = by(teacher, [80.0, 0.002], "euler")
    for n in (2, 4):
        rows[f"{n}, teacher, Euler at the student's levels"] = by(
            teacher, edm.load(f"edm-digits8-{n}step").levels, "euler"
        )
        rows[f"{n}, teacher, fitted solver"] = by(teacher, found[n].sigmas, found[n].make_solver())
    rows["0, best affine map of a class"] = affine_map()
    return rows


def between(ends: Tensor, x: Tensor, labels: Tensor) -> dict[str, Any]:
    """What the students say elsewhere than they were asked in training."""
    teacher = edm.load(TEACHER)
    levels = schedules.polynomial(12)
    path = sample(teacher, x, schedules.polynomial(24), "unipc", labels=labels, batch=512)
    found: dict[str, Any] = {"sigmas": levels[:-1].tolist(), "gap": {}, "twenty_steps": {}}
    for n in (1, 2, 4):
        student = edm.load(f"edm-digits8-{n}step")
        gaps = []
        for i, sigma in enumerate(levels[:-1].tolist()):
            with torch.no_grad():
                gap = student(path.x[2 * i], sigma, labels) - path.denoised[2 * i]
            gaps.append(float(gap.flatten(1).square().mean(1).sqrt().mean()))
        found["gap"][str(n)] = gaps
        fine = sample(Undeclared(student), x, schedules.polynomial(20), "ipndm", labels=labels, keep="final").final
        found["twenty_steps"][str(n)] = float(metrics.error_to_reference(fine, ends).mean())
    found["path_deviation"] = float(geometry.deviation(path).amax(0).mean()) / 8
    found["path_chord"] = float((path.x[0] - path.x[-1]).flatten(1).norm(dim=1).mean()) / 8
    return found


class Undeclared:
    """A student asked on purpose where it was not trained, without the warning."""

    def __init__(self, student: edm.LearnedDenoiser) -> None:
        self.student = student

    def __call__(self, x: Tensor, sigma: float | Tensor, labels: Tensor | None = None) -> Tensor:
        return self.student(x, sigma, labels)


def guided(x: Tensor, labels: Tensor, scale: float) -> dict[str, Any]:
    """Guidance through the students, against the teacher's own guided ends."""
    ends, plain = reference(x, labels, scale), reference(x, labels)
    found = {"teacher_moves": float(metrics.error_to_reference(plain, ends).mean())}
    for n in (1, 2, 4):
        student: Any = edm.load(f"edm-digits8-{n}step")
        images = sample(student, x, student.levels, labels=labels, guidance=scale, keep="final").final
        unguided = sample(student, x, student.levels, labels=labels, keep="final").final
        found[f"{n}"] = float(metrics.error_to_reference(images, ends).mean())
        found[f"{n}_plain"] = float(metrics.error_to_reference(unguided, ends).mean())
    return found


def measure() -> dict[str, Any]:
    """All figures of the card."""
    x, labels = noise(COUNT, seed=1234)
    ends, other = reference(x, labels), reference(*noise(COUNT, seed=4321))
    train, held_out = data.split(data.load("digits8"))
    guessed = metrics.digit_probabilities(enlarged(held_out.images)).argmax(1)
    found: dict[str, Any] = {"count": COUNT, "classifier": float((guessed == held_out.labels).double().mean())}
    found["real_frechet_pixels"] = metrics.frechet_distance(train.images.flatten(1), other.flatten(1))
    found["rows"] = {"60, teacher, converged": judge(ends, labels, ends, other)}
    print("reference", found["rows"], flush=True)
    for name, sampler in samplers().items():
        found["rows"][name] = judge(sampler(x, labels), labels, ends, other)
        print(name, found["rows"][name], flush=True)
    few = slice(0, 500)
    found["between"] = between(ends[few], x[few], labels[few])
    print(found["between"], flush=True)
    found["guidance"] = {str(w): guided(x[few], labels[few], w) for w in (2.0, 4.0)}
    print(found["guidance"], flush=True)
    return found


def picture() -> None:
    """Ten columns, one per class, all from the same noise: the teacher, then the students at 4, 2 and 1 evaluations."""
    x, labels = noise(10, seed=0)
    rows = [reference(x, labels)]
    for n in (4, 2, 1):
        student: Any = edm.load(f"edm-digits8-{n}step")
        rows.append(sample(student, x, student.levels, labels=labels, keep="final").final)
    rows.append(sample(edm.load(TEACHER), x, [80.0, 0.002], labels=labels, keep="final").final)
    framed = [torch.cat([F.pad(image[0].clamp(-1, 1), (1, 1, 1, 1), value=-1) for image in row], 1) for row in rows]
    pixels = torch.cat(framed).repeat_interleave(6, 0).repeat_interleave(6, 1)
    shown = ((pixels + 1) * 127.5).round().to(torch.uint8).numpy()
    Image.fromarray(shown).save(DATA / "edm-digits8-distilled-samples.png", optimize=True)


def table(rows: dict[str, Any]) -> str:
    """A row for each sampler."""
    lines = []
    for name, row in rows.items():
        nfe, what = name.split(", ", 1)
        lines.append(
            f"| {nfe} | {what} | {row['mean']:.4f} ± {row['standard_error']:.4f} | {row['median']:.4f} | "
            f"{row['elsewhere']:.2%} | {row['frechet_pixels']:.3f} | {row['frechet_features']:.2f} | "
            f"{row['spread']:.3f} | {row['coverage']:.1%} | {row['class']:.1%} |"
        )
    return "\n".join(lines)


def card(found: dict[str, Any]) -> str:
    """The text of the card, every number from ``found``."""
    rows, mid, guidance = found["rows"], found["between"], found["guidance"]
    files = "\n".join(
        f"| `edm-{name}` | {', '.join(f'{s:.4g}' for s in each['levels'])} | {each['bytes']:,} | "
        f"{DISTILLATIONS[name].images:,} of {DISTILLATIONS[name].paths:,} |"
        for name, each in found["files"].items()
    )
    gaps = "\n".join(
        f"| {s:.4g} | " + " | ".join(f"{mid['gap'][n][i]:.3f}" for n in ("1", "2", "4")) + " |"
        for i, s in enumerate(mid["sigmas"])
    )
    scales = "\n".join(
        f"| {float(w):g} | {g['teacher_moves']:.3f} | " + " | ".join(f"{g[n]:.3f}" for n in ("1", "2", "4")) + " |"
        for w, g in guidance.items()
    )
    twenty = ", ".join(f"{mid['twenty_steps'][n]:.3f}" for n in ("1", "2", "4"))
    return f"""# edm-digits8-1step, -2step, -4step: a sampler of digits distilled to few evaluations

![Five rows of ten digits from the same noise: teacher, students at 4, 2 and 1 evaluations, and the teacher at 1.]\
(edm-digits8-distilled-samples.png)

*Each column starts from one noise. From the top: the teacher's converged path; the students at 4, 2 and 1 evaluations;
the teacher itself at 1, which answers with nearly the mean of the class.*

Written by `tools/distillation_card.py`, which measured every number here; they are also in
`edm-digits8-distilled.json`.

- **What**: three networks of the architecture of `edm-digits8`, distilled from it as in SFD (arXiv 2409.19681); in
  float16.
- **Use**: `D = teachkit.edm.load("edm-digits8-2step")`, then `teachkit.sample(D, x, D.levels, labels=labels)` from
  noise at level 80. `D.levels` is all that it is for: `sample` warns of other levels and solvers.
- **To repeat it**: `teachkit train digits8-2step` (`teachkit.edm.distillation.DISTILLATIONS`) takes minutes on a CPU
  core; then `python tools/distillation_card.py`. It takes no data, only the teacher, whose paths are followed by the
  shipped fitted solver of 8 evaluations.

| name | levels | bytes | paths seen, of how many different ones |
|---|---|---:|---:|
{files}

## How near, and how alike

From {found["count"]:,} noises that no network was trained on, ten classes in turn. *error*: root mean square per pixel,
to where the teacher's converged path from the same noise ends (pixels from -1 to 1); *elsewhere*: nearer to another
noise's end than to its own. As sets, against the teacher's ends of as many other noises: *Fréchet* distance of pixels,
and of the shipped features of the digits enlarged to 20 pixels (whose classifier is right for
{found["classifier"]:.1%} of held-out real ones); *spread*: mean distance within a class; *coverage*: share of the other
ends with a sample nearer than their fifth neighbour. *class*: the nearest training digit is of the class asked for. The
first row is the floor.

| evaluations | sampler | error | median | elsewhere | Fréchet, pixels | Fréchet, features | spread | coverage | class |
|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|
{table(rows)}

Fitted solvers saw {WARM_UP} warm-up noises; the affine maps, one a class, {MAPPED:,} pairs of noise and the teacher's
end.
Real training digits are at a Fréchet distance (pixels) of {found["real_frechet_pixels"]:.3f} from the teacher's.

## What is lost

**The path.** Between its levels a student is no denoiser. Root mean square per pixel between its answer and the
teacher's at the teacher's own states:

| sigma | 1 step | 2 steps | 4 steps |
|---:|---:|---:|---:|
{gaps}

More steps make it worse: with 20 steps of iPNDM the students of 1, 2 and 4 evaluations end {twenty} from the teacher.

**Guidance.** A student's answers with and without a class can be combined as the teacher's, and mean something else.
Error to the teacher's ends at the same scale, and how far guidance moves the teacher's own ends:

| scale | teacher moves by | 1 step | 2 steps | 4 steps |
|---:|---:|---:|---:|---:|
{scales}

## Why one step is hard

The teacher's path departs from its chord by {mid["path_deviation"]:.3f} per pixel at its peak (mean over paths), which
is {mid["path_deviation"] / mid["path_chord"]:.2%} of the chord's {mid["path_chord"]:.1f}; the digits themselves have a
standard deviation of 0.75. What is almost straight beside the noise is not so beside the picture.

## Licence

The weights are under the MIT licence, like the code. The digits that the teacher was trained on keep theirs (Optical
Recognition of Handwritten Digits, CC BY 4.0).
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="holds a folder for each of the distillations")
    parser.add_argument("--measure-only", action="store_true", help="take the networks that are in data/")
    parser.add_argument("--redraw", action="store_true", help="write the text again from the .json file")
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    found = json.loads(CARD.read_text()) if CARD.exists() else {}
    if not options.redraw:
        if not options.measure_only:
            with torch.enable_grad():
                found["files"] = {name: export(name, options.runs / name) for name in DISTILLATIONS}
        found |= measure()
        picture()
        CARD.write_text(json.dumps(rounded(found), indent=1) + "\n")
    CARD.with_suffix(".md").write_text(card(found))


if __name__ == "__main__":
    main()
