"""k-diffusion's form of a denoiser, both ways: the call is turned, the numbers stay."""

import math
from itertools import pairwise

import pytest
import torch

from teachkit import GaussianMixture, initial_noise, sample, schedules
from teachkit.adapters import from_eps, from_k_diffusion, to_k_diffusion

F64 = torch.float64
MIXTURE = GaussianMixture([0.3, 0.7], [[-0.6, 0.2], [0.5, -0.3]], [0.05, 0.02])
X, SIGMAS = initial_noise(6, (2,), 20.0), schedules.polynomial(8, 0.02, 20.0)
LABELS = torch.tensor([0, 1, 1, 0, 1, 0])


def test_there_and_back_is_the_same_denoiser():
    back = from_k_diffusion(to_k_diffusion(MIXTURE))
    for labels in (None, {"labels": LABELS}):
        ours = sample(MIXTURE, X, SIGMAS, "heun", labels=None if labels is None else LABELS)
        theirs = sample(back, X, SIGMAS, "heun", labels=labels)
        torch.testing.assert_close(theirs.x, ours.x)
    assert (back.sigma_min, back.sigma_max, back.levels) == (0.0, math.inf, ())


@pytest.mark.parametrize("guidance", [None, 1.0, 3.0])
def test_guidance_and_labels_are_those_of_sample(guidance):
    model, x = to_k_diffusion(MIXTURE, LABELS, guidance), X
    for now, after in pairwise(SIGMAS):  # Euler as k-diffusion writes it
        x = x + (x - model(x, now * x.new_ones(len(x)))) / now * (after - now)
    torch.testing.assert_close(x, sample(MIXTURE, X, SIGMAS, labels=LABELS, guidance=guidance).final)
    other = 1 - LABELS
    once = to_k_diffusion(MIXTURE, other, guidance)(X, 2.0 * torch.ones(6, dtype=F64))
    torch.testing.assert_close(model(X, 2.0 * torch.ones(6, dtype=F64), labels=other), once)


class Theirs(torch.nn.Module):
    """A wrapper that knows its levels, of a network whose numbers must all be of one type."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.register_buffer("sigmas", torch.tensor([0.1, 1.0, 10.0]))
        self.network = torch.nn.Linear(2, 2, dtype=dtype)

    def forward(self, x, sigma, cond=0.0, scale=1):
        assert x.dtype == sigma.dtype == self.network.weight.dtype
        assert sigma.shape == (len(x),)
        return self.network(x) / (1 + sigma[:, None]) * scale + cond


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_model_runs_in_its_own_dtype_with_its_arguments_in_it(own, dtype):
    model = Theirs(own)
    cond = torch.full((6, 2), 0.5, dtype=F64)
    D = from_k_diffusion(model, cond=cond, scale=2)
    x = X.to(dtype)
    for sigma in (2.0, torch.tensor(2.0), torch.full((6,), 2.0, dtype=F64)):
        out = D(x, sigma)
        assert out.dtype == dtype
        torch.testing.assert_close(out, (model.network(x.to(own)) * 2 / 3 + 0.5).to(dtype), rtol=2e-2, atol=2e-2)
    torch.testing.assert_close(D(x, 2.0, {"cond": torch.zeros(6, 2)}), D(x, 2.0) - 0.5, rtol=2e-2, atol=0.1)
    assert (D.sigma_min, D.sigma_max) == (pytest.approx(0.1), 10.0)
    assert D.levels == pytest.approx((0.1, 1.0, 10.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_k_diffusion(3), TypeError, r"model must be callable as model\(x, sigma\)"),
        (lambda: from_k_diffusion(from_eps(torch.sin, [0.9, 0.1])), TypeError, "that is a denoiser already"),
        (lambda: from_k_diffusion(Theirs())(X, 1.0, LABELS), TypeError, "labels must be a dict of the model's keyword"),
        (lambda: from_k_diffusion(Theirs())(X, 0.0), ValueError, "sigma must be"),
        (lambda: from_k_diffusion(Theirs())(X, torch.ones(3)), ValueError, "sigma must be"),
        (
            lambda: from_k_diffusion(lambda x, sigma: x[:1])(X, 1.0),
            ValueError,
            "must return a tensor of the shape of x",
        ),
        (lambda: to_k_diffusion(3), TypeError, "denoiser must be callable"),
        (lambda: to_k_diffusion(MIXTURE, guidance="4"), TypeError, "guidance must be"),
        (lambda: to_k_diffusion(MIXTURE, guidance=4.0)(X, torch.ones(6)), ValueError, "guidance needs labels"),
        (lambda: to_k_diffusion(MIXTURE, LABELS[:2])(X, torch.ones(6)), ValueError, "one entry per sample"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
