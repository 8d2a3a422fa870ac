"""Every family of diffusers' pipelines against diffusers itself: tiny random networks, the same levels, the same noise.

On one side the pipeline's own call, with its scheduler set to the levels of a `Schedule`; on the other `sample` with
the denoiser that `from_pipeline` makes of the pipeline. What they end in must agree to rounding, with guidance and
without, in float32 and float64: so times, scales, shifts and signs are those the networks were trained with.
"""

import functools

import pytest
import torch

from teachkit import initial_noise, sample, schedules
from teachkit.adapters import from_pipeline
from teachkit.scheduling import Schedule

pytestmark = [
    pytest.mark.peers("diffusers", "transformers"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

F64 = torch.float64
TOLERANCE = {torch.float32: 2e-4, F64: 1e-5}  # of the largest number in the sample
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
UNET = {
    **{"sample_size": 8, "in_channels": 4, "out_channels": 4, "block_out_channels": (8, 16), "norm_num_groups": 4},
    **{"layers_per_block": 1, "cross_attention_dim": 8, "attention_head_dim": 4},
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


def normal(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64).to(dtype)


def random_network(name, dtype=torch.float32, **config):
    """A network of diffusers with random weights, all of them away from 0, so that whatever it takes matters."""
    import diffusers

    torch.manual_seed(0)
    network = getattr(diffusers, name)(**config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.to(dtype).eval()


def tiny_vae(latent_channels=4, **config):
    return random_network(
        "AutoencoderKL",
        latent_channels=latent_channels,
        norm_num_groups=4,
        block_out_channels=(4, 8),
        sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **config,
    )


class Peer:
    """A tiny pipeline, what is asked of it, and its own way from a state x to the end of a schedule."""

    prompts = 3
    states = "own"  # what the scheduler works on: x itself, x / sqrt(1 + sigma^2) or x / (1 + sigma)

    def __init__(self, dtype):
        self.dtype = dtype
        self.pipe = self.make()
        self.pipe.set_progress_bar_config(disable=True)

    def denoiser(self, **options):
        return from_pipeline(self.pipe, **self.given(), **options)

    def embeds(self, width, rows, seed):
        return normal(rows, 5, width, seed=seed, dtype=self.dtype)


class StableDiffusion(Peer):
    scheduler, kind, added = "EulerDiscreteScheduler", "epsilon", {}

    def make(self):
        import diffusers

        scheduler = getattr(diffusers, self.scheduler)(**BETAS, prediction_type=self.kind, **self.added)
        return diffusers.StableDiffusionPipeline(
            vae=None,
            text_encoder=None,
            tokenizer=None,
            safety_checker=None,
            feature_extractor=None,
            unet=random_network("UNet2DConditionModel", self.dtype, **UNET),
            scheduler=scheduler,
            requires_safety_checker=False,
        )

    def given(self):
        return {"prompt_embeds": self.embeds(8, self.prompts, 1), "negative_embeds": self.embeds(8, 1, 2)}

    def levels(self, schedule):
        return schedule.to_diffusers()

    def run(self, x, schedule, guidance):
        levels = self.levels(schedule)
        self.pipe.scheduler.set_timesteps(**levels)
        given = self.given()
        return self.pipe(
            prompt_embeds=given["prompt_embeds"],
            negative_prompt_embeds=given["negative_embeds"].expand_as(given["prompt_embeds"]),
            guidance_scale=guidance,
            latents=x / self.pipe.scheduler.init_noise_sigma,
            output_type="latent",
            **levels,
        ).images


class StableDiffusionV(StableDiffusion):
    kind = "v_prediction"


PEERS = {"SD, eps": StableDiffusion, "SD, v": StableDiffusionV}


@functools.cache
def peer(name, dtype):
    return PEERS[name](dtype)


def schedule_for(D, steps=6):
    return Schedule(schedules.polynomial(steps, D.sigma_min, D.sigma_max), "euler", steps)


def assert_same(ours, theirs, dtype):
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * float(theirs.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("name", list(PEERS))
def test_the_pipeline_and_sample_end_in_the_same_latents(name, guidance, dtype):
    them = peer(name, dtype)
    D = them.denoiser()
    schedule = schedule_for(D)
    x = initial_noise(them.prompts, D.shape, float(schedule.sigmas[0]), dtype=dtype)
    ours = sample(D, x, schedule.sigmas, labels=D.labels(len(x)), guidance=guidance)
    assert ours.nfe == schedule.nfe * (2 if guidance != 1 else 1)
    assert_same(ours.final, them.run(x, schedule, guidance), dtype)
