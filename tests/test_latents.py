"""The pipeline that ships: it speaks the language of Stable Diffusion, and draws what it is asked for."""

import pytest
import torch

from teachkit import data, initial_noise, sample, schedules
from teachkit.adapters import from_pipeline
from teachkit.course import latents

WORDS = ["smileys", "animals", "food", "flags"]


@pytest.fixture(scope="module")
def pipe():
    return latents.pipeline()


@pytest.fixture(scope="module")
def held_out():
    return data.split(data.load("emoji32"))[1]


def test_pictures_come_back_from_their_latents(pipe, held_out):
    pictures = held_out.images[:100]
    D = from_pipeline(pipe)
    codes = D.encode(pictures, batch=40)
    back = D.decode(codes)
    assert 0.9 < float(codes.std()) < 1.1
    assert float((back - pictures).square().mean()) < 0.05 * float((pictures - pictures.mean(0)).square().mean())


def test_the_network_inside_is_found_again_through_the_language_of_noise(pipe):
    D = from_pipeline(pipe, prompt=WORDS)
    classes = torch.tensor([next(i for i, c in enumerate(latents.CLASSES) if w in c.lower()) for w in WORDS])
    for sigma in (D.sigma_min, 0.7, D.sigma_max):
        x = initial_noise(4, D.shape, sigma, seed=1, dtype=torch.float32)
        near = {"rtol": 1e-3, "atol": 1e-3}
        torch.testing.assert_close(D(x, sigma, D.labels(4)), pipe.unet.denoiser(x, sigma, classes), **near)
        torch.testing.assert_close(D.unconditional(x, sigma), pipe.unet.denoiser(x, sigma), **near)


def test_its_own_sampler_and_ours_draw_the_same_pictures(pipe):
    D = from_pipeline(pipe, prompt=WORDS)
    sigmas = schedules.polynomial(7, D.sigma_min, D.sigma_max)
    x = initial_noise(4, D.shape, D.sigma_max, seed=2, dtype=torch.float32)
    ours = D.decode(sample(D, x, sigmas, labels=D.labels(4), guidance=3.0).final)
    theirs = pipe(WORDS, latents=x / D.sigma_max, sigmas=sigmas.tolist(), guidance_scale=3.0, output_type="pt").images
    torch.testing.assert_close(theirs * 2 - 1, ours, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match="prompt must be one text for each of 4 latents, got 1"):
        pipe("food", latents=x, sigmas=[2.0, 1.0])
    with pytest.raises(ValueError, match="sigmas"):
        pipe(WORDS, latents=x, sigmas=[1.0, 2.0])


def test_a_prompt_is_a_word_from_one_class(pipe):
    assert float(pipe.encode_prompt("")[0].abs().sum()) == 0
    for wrong in ("zebra", "s"):  # of no class, and of many
        with pytest.raises(ValueError, match="prompt must be empty or a word from one of Smileys & Emotion"):
            pipe.encode_prompt(wrong)
    with pytest.raises(TypeError, match="prompt must be a string, got 3"):
        pipe.encode_prompt([3])
    with pytest.raises(TypeError, match=r"device must be a torch\.device or the name of one, got torch\.float16"):
        latents.pipeline(torch.float16)


def test_it_draws_in_half_precision_as_in_single(pipe):
    x = None
    ends = []
    for dtype in (torch.float32, torch.bfloat16):
        D = from_pipeline(latents.pipeline(dtype=dtype), prompt=WORDS)
        x = initial_noise(4, D.shape, D.sigma_max, seed=3, dtype=torch.float32) if x is None else x
        ends.append(sample(D, x, schedules.polynomial(12, D.sigma_min, D.sigma_max), "unipc", labels=D.labels(4)).final)
    assert ends[1].dtype == torch.float32
    assert float((ends[1] - ends[0]).square().mean().sqrt()) < 0.05 * float(ends[0].std())
