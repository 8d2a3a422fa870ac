"""Every family of diffusers' pipelines against diffusers itself: tiny random networks, the same levels, the same noise.

On one side the pipeline's own call, with its scheduler set to the levels of a `Schedule`; on the other `sample` with
the denoiser that `from_pipeline` makes of the pipeline. What they end in must agree to rounding, with guidance and
without, in float32 and float64: so times, scales, shifts and signs are those the networks were trained with.
"""

import functools
import types
from typing import ClassVar

import pytest
import torch

from teachkit import initial_noise, sample, schedules, scheduling
from teachkit.adapters import from_diffusers, from_eps, from_k_diffusion, from_pipeline, to_k_diffusion
from teachkit.fingerprints import fingerprint
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


def tiny_vae(**config):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return random_network(
        "AutoencoderKL", latent_channels=4, norm_num_groups=4, block_out_channels=(4, 8), **blocks, **config
    )


class Peer:
    """A tiny pipeline, what it is asked for, and its own way from a state x of `sample` to the end of a schedule."""

    prompts, zero, distilled, size = 3, False, None, {}

    def __init__(self, dtype):
        self.dtype = dtype
        self.pipe = self.make()
        self.pipe.set_progress_bar_config(disable=True)

    def denoiser(self, **options):
        own = {} if self.distilled is None else {"guidance": self.distilled}
        return from_pipeline(self.pipe, **self.given(), **self.size, **own, **options)

    def given(self):
        return {"prompt_embeds": self.embeds(self.prompts, 1), "negative_embeds": self.embeds(1, 2)}

    def levels(self, schedule):
        return schedule.to_diffusers()

    def called(self, **further):
        """What a pipeline with text is called with, beside levels and noise."""
        given, turned = self.given(), {}
        for name, ours in (("", given["prompt_embeds"]), ("negative_", given["negative_embeds"])):
            for key, rows in (ours if isinstance(ours, dict) else {"prompt_embeds": ours}).items():
                key = key.replace("pooled_", f"{name}pooled_") if "pooled" in key else name + key
                turned[key] = rows.expand(self.prompts, *rows.shape[1:])
        return {**turned, **self.size, "output_type": "latent", **further}


class StableDiffusion(Peer):
    kind, options, network = "epsilon", {}, {}

    def make(self):
        import diffusers

        return diffusers.StableDiffusionPipeline(
            **dict.fromkeys(["vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"]),
            unet=random_network("UNet2DConditionModel", self.dtype, **UNET, **self.network),
            scheduler=diffusers.EulerDiscreteScheduler(**BETAS, prediction_type=self.kind, **self.options),
            requires_safety_checker=False,
        )

    def embeds(self, rows, seed):
        return normal(rows, 5, 8, seed=seed, dtype=self.dtype)

    def run(self, x, schedule, guidance):
        levels = self.levels(schedule)
        self.pipe.scheduler.set_timesteps(**levels)
        latents = x / self.pipe.scheduler.init_noise_sigma
        scale = self.distilled or guidance
        return self.pipe(**self.called(guidance_scale=scale, latents=latents, **levels)).images


class StableDiffusionDistilled(StableDiffusion):
    """As consistency models have it: the network takes the guidance scale."""

    distilled, network = 3.5, {"time_cond_proj_dim": 4}


class StableDiffusionV(StableDiffusion):
    kind, options = "v_prediction", {"timestep_spacing": "leading", "steps_offset": 1}


class StableDiffusionZeroSNR(StableDiffusion):
    kind, options = "v_prediction", {"timestep_spacing": "trailing", "rescale_betas_zero_snr": True}


class SDXL(StableDiffusion):
    """Pictures that are not square: height and width cannot be taken for each other."""

    size: ClassVar = {"height": 64, "width": 96}

    def make(self):
        import diffusers

        size = {"addition_embed_type": "text_time", "addition_time_embed_dim": 4}
        unet = random_network(
            "UNet2DConditionModel", self.dtype, **UNET, **size, projection_class_embeddings_input_dim=6 * 4 + 6
        )
        return diffusers.StableDiffusionXLPipeline(
            **dict.fromkeys(["vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]),
            unet=unet,
            scheduler=diffusers.EulerDiscreteScheduler(**BETAS),
            add_watermarker=False,
        )

    def embeds(self, rows, seed):
        pooled = normal(rows, 6, seed=seed + 10, dtype=self.dtype)
        return {"prompt_embeds": normal(rows, 5, 8, seed=seed, dtype=self.dtype), "pooled_prompt_embeds": pooled}


class SD3(SDXL):
    zero, size, options, mu = True, {}, {"shift": 3.0}, None

    def make(self):
        import diffusers

        transformer = random_network(
            "SD3Transformer2DModel", self.dtype, sample_size=8, patch_size=2, in_channels=4, out_channels=4,
            num_layers=2, attention_head_dim=4, num_attention_heads=2, joint_attention_dim=8, caption_projection_dim=8,
            pooled_projection_dim=6, pos_embed_max_size=8,
        )  # fmt: skip
        encoders = [f"{what}{i}" for what in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")]
        return diffusers.StableDiffusion3Pipeline(
            **dict.fromkeys(["vae", *encoders]),
            transformer=transformer,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**self.options),
        )

    def levels(self, schedule):
        return schedule.to_diffusers(scheduler=self.pipe.scheduler, mu=self.mu)

    def run(self, x, schedule, guidance):
        latents = x / (1 + schedule.sigmas[0].to(x))
        return self.pipe(**self.called(guidance_scale=guidance, latents=latents, **self.levels(schedule))).images


class SD3Dynamic(SD3):
    options, mu = {"use_dynamic_shifting": True}, 0.8


class Flux(SDXL):
    zero = True

    def make(self):
        import diffusers

        transformer = random_network(
            "FluxTransformer2DModel", self.dtype, patch_size=1, in_channels=16, num_layers=1, num_single_layers=1,
            attention_head_dim=16, num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=6,
            guidance_embeds=self.distilled is not None, axes_dims_rope=(4, 4, 8),
        )  # fmt: skip
        return diffusers.FluxPipeline(
            **dict.fromkeys(["vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"]),
            transformer=transformer,
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        )

    def run(self, x, schedule, guidance):
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        B, C, h, w = x.shape
        shift = calculate_shift(h * w // 4)  # of the number of tokens, which the pipeline passes on as mu
        sigmas = schedule.to_diffusers(scheduler=self.pipe.scheduler, mu=shift)["sigmas"]
        z = self.pipe._pack_latents(x / (1 + schedule.sigmas[0].to(x)), B, C, h, w)
        given = self.called(latents=z, sigmas=sigmas, guidance_scale=self.distilled or 1.0)
        return self.pipe._unpack_latents(self.pipe(**given, true_cfg_scale=guidance).images, 64, 96, 8)


class FluxDistilled(Flux):
    distilled = 3.5


class DiT(Peer):
    """A pipeline that takes no levels: its scheduler is driven by hand, as the pipeline does it."""

    def make(self):
        import diffusers

        transformer = random_network(
            "DiTTransformer2DModel", self.dtype, sample_size=8, patch_size=2, in_channels=4, out_channels=8,
            num_layers=2, attention_head_dim=4, num_attention_heads=2, num_embeds_ada_norm=1000, norm_num_groups=4,
        )  # fmt: skip
        return diffusers.DiTPipeline(
            transformer, tiny_vae(scaling_factor=0.5).to(self.dtype), diffusers.EulerDiscreteScheduler(**BETAS)
        )

    def given(self):
        return {"prompt": [3, 999, 17]}

    def run(self, x, schedule, guidance):
        scheduler, network = self.pipe.scheduler, self.pipe.transformer
        scheduler.set_timesteps(**self.levels(schedule))
        classes = torch.tensor([*self.given()["prompt"], 1000, 1000, 1000])
        for t in scheduler.timesteps:
            z = scheduler.scale_model_input(x, t)
            with torch.no_grad():
                out = network(torch.cat([z, z]), timestep=t.expand(6), class_labels=classes).sample[:, :4]
            own, free = out.chunk(2)
            x = scheduler.step(free + guidance * (own - free), t, x).prev_sample
        return x


class Tokenizer:
    """Stands in for a vocabulary: a letter is a token; 1 begins, 2 ends and fills up."""

    model_max_length, added_tokens_encoder = 8, ()

    def tokenize(self, text):
        return list(text)

    def __call__(self, text, max_length=8, **options):
        text, max_length = [text] if isinstance(text, str) else text, min(max_length, 8)
        rows = [[1, *(3 + ord(letter) % 60 for letter in words)][: max_length - 1] for words in text]
        ids = torch.tensor([row + [2] * (max_length - len(row)) for row in rows])
        return types.SimpleNamespace(input_ids=ids, attention_mask=torch.ones_like(ids))

    def batch_decode(self, ids):
        return [str(row) for row in ids]


def text_encoder(name, dtype, width, pooled=None):
    import transformers

    config = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 1}
    torch.manual_seed(1)
    if name == "T5EncoderModel":
        form = transformers.T5Config(d_model=width, d_ff=8, d_kv=4, num_layers=2, num_heads=2, vocab_size=64)
    else:
        form = transformers.CLIPTextConfig(
            **config,
            vocab_size=64,
            max_position_embeddings=8,
            projection_dim=pooled or width,
            bos_token_id=1,
            eos_token_id=2,
        )
    return getattr(transformers, name)(form).to(dtype).eval()


class Encoding:
    """Encoders in place of embeddings, each with the width that the network asks for."""

    encoders: ClassVar = [("CLIPTextModel", 8, None)]

    def make(self):
        pipe = super().make()
        for i, form in enumerate(self.encoders):
            number = f"_{i + 1}" if i else ""
            pipe.register_modules(
                **{
                    f"text_encoder{number}": text_encoder(form[0], self.dtype, *form[1:]),
                    f"tokenizer{number}": Tokenizer(),
                }
            )
        pipe.tokenizer_max_length = 8
        return pipe

    def given(self):
        return {"prompt": ["a cat", "a dog", "birds"]}

    def called(self, **further):
        return {**self.given(), **self.size, "output_type": "latent", **further}


class StableDiffusionText(Encoding, StableDiffusion):
    pass


class SDXLText(Encoding, SDXL):
    encoders: ClassVar = [("CLIPTextModel", 4, None), ("CLIPTextModelWithProjection", 4, 6)]


class SD3Text(Encoding, SD3):
    encoders: ClassVar = [("CLIPTextModelWithProjection", 4, 3), ("CLIPTextModelWithProjection", 4, 3)]


class FluxText(Encoding, Flux):
    encoders: ClassVar = [("CLIPTextModel", 6, None), ("T5EncoderModel", 8, None)]

    def called(self, **further):
        return super().called(negative_prompt="", **further)


PEERS = {
    **{"SD, text": StableDiffusionText, "SDXL, text": SDXLText, "SD3, text": SD3Text, "FLUX, text": FluxText},
    **{"SD, eps": StableDiffusion, "SD, v": StableDiffusionV, "SD, v to pure noise": StableDiffusionZeroSNR},
    "SD, distilled": StableDiffusionDistilled,
    **{"SDXL": SDXL, "SD3, shifted": SD3, "SD3, shifted by size": SD3Dynamic, "DiT": DiT},
    **{"FLUX": Flux, "FLUX, distilled": FluxDistilled},
}


@functools.cache
def peer(name, dtype):
    return PEERS[name](dtype)


def schedule_for(them, D, steps=6):
    levels = schedules.polynomial(steps - them.zero, D.sigma_min, D.sigma_max, zero=them.zero)
    return Schedule(levels, "euler", steps)


def assert_same(ours, theirs, dtype):
    assert ours.dtype == theirs.dtype == dtype
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE[dtype] * float(theirs.abs().max()))


CASES = [(name, w) for name in PEERS for w in (1.0, 4.0) if w == 1 or not PEERS[name].distilled]
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)


@both_dtypes
@pytest.mark.parametrize(("name", "guidance"), CASES)
def test_the_pipeline_and_sample_end_in_the_same_latents(name, guidance, dtype):
    them = peer(name, dtype)
    D = them.denoiser()
    schedule = schedule_for(them, D)
    x = initial_noise(them.prompts, D.shape, float(schedule.sigmas[0]), dtype=dtype)
    how = {"labels": D.labels(len(x)), "guidance": None if them.distilled else guidance}
    ours = sample(D, x, schedule.sigmas, **how)
    assert ours.nfe == schedule.nfe * (2 if guidance != 1 else 1)
    assert_same(ours.final, them.run(x, schedule, guidance), dtype)
    assert_same(sample(D, x, schedule.sigmas, batch=2, **how).final, ours.final, dtype)


@pytest.mark.parametrize("name", list(PEERS))
def test_the_comparison_would_see_a_time_that_is_one_step_off(name):
    them = peer(name, F64)
    D, off = them.denoiser(), them.denoiser()
    off.adapted.time = lambda sigma: D.time(sigma) * 0.999
    schedule = schedule_for(them, D)
    x = initial_noise(them.prompts, D.shape, float(schedule.sigmas[0]))
    ours, theirs = (sample(one, x, schedule.sigmas, labels=D.labels(len(x))).final for one in (D, off))
    assert float((ours - theirs).abs().max()) > 10 * TOLERANCE[F64] * float(ours.abs().max())


@pytest.mark.parametrize("name", [name for name, them in PEERS.items() if not them.distilled])
def test_guidance_of_its_own_is_that_of_sample(name):
    them = peer(name, torch.float32)
    D, guided = them.denoiser(), them.denoiser(guidance=3.0)
    x, sigmas = initial_noise(them.prompts, D.shape, 5.0, dtype=torch.float32), [5.0, 2.0, 0.5]
    theirs = sample(D, x, sigmas, "heun", labels=D.labels(3), guidance=3.0)
    ours = sample(guided, x, sigmas, "heun", labels=D.labels(3))
    assert torch.equal(ours.x, theirs.x)
    assert (guided.guidance, guided.evaluations, ours.nfe) == (3.0, 2, theirs.nfe)
    with pytest.raises(ValueError, match="guidance must be None: this denoiser has its own"):
        sample(guided, x, sigmas, labels=D.labels(3), guidance=3.0)
    once = them.denoiser(guidance=1.0)
    assert once.evaluations == 1
    assert torch.equal(once(x, 2.0, D.labels(3)), D(x, 2.0, D.labels(3)))


def test_distilled_guidance_is_an_input_and_costs_one_evaluation():
    them = peer("FLUX, distilled", torch.float32)
    D, more = them.denoiser(), from_pipeline(them.pipe, **them.given(), **them.size, guidance=7.0)
    x = initial_noise(3, D.shape, 2.0, dtype=torch.float32)
    assert (D.evaluations, more.evaluations, D.guidance, more.guidance) == (1, 1, 3.5, 7.0)
    assert not torch.allclose(D(x, 2.0, D.labels(3)), more(x, 2.0, D.labels(3)))
    with pytest.raises(ValueError, match="guidance must be given: this model takes the scale"):
        from_pipeline(them.pipe, **them.given())


@both_dtypes
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_dit_with_its_own_levels_ends_in_the_same_pictures(guidance, dtype):
    import diffusers

    them = DiT(dtype)
    scheduler = them.pipe.scheduler = diffusers.DDIMScheduler(**BETAS, clip_sample=False)
    D = from_pipeline(them.pipe, [7, 3])
    pictures = them.pipe([7, 3], guidance, torch.Generator().manual_seed(5), 6, output_type="pt").images
    sigmas = [*(D.levels[int(t)] for t in scheduler.timesteps), 0.0]  # the last step is to clean data
    z = torch.randn(2, *D.shape, generator=torch.Generator().manual_seed(5), dtype=dtype)
    latents = sample(D, z * (1 + sigmas[0] ** 2) ** 0.5, sigmas, labels=D.labels(2), guidance=guidance).final
    assert_same((D.decode(latents) + 1) / 2, pictures, dtype)
    assert_same(D.decode(latents, batch=1), D.decode(latents), dtype)
    assert (D.decode(10 * latents).abs().max(), D.label_dim) == (1, 1000)


@pytest.mark.parametrize("config", [{"scaling_factor": 0.2}, {"scaling_factor": 1.5, "shift_factor": 0.06}])
def test_pictures_are_those_of_the_pipeline(config):
    them = SD3(F64)
    them.pipe.register_modules(vae=tiny_vae(**config).to(F64))
    latents = normal(2, 4, 8, 8, dtype=F64)
    D = them.denoiser()
    expected = them.pipe.vae.decode(latents / config["scaling_factor"] + config.get("shift_factor", 0)).sample
    torch.testing.assert_close(D.decode(latents), expected.detach().clamp(-1, 1))
    D.vae.half()  # its configuration says that half precision overflows: it decodes in float32, and is half again
    torch.testing.assert_close(D.decode(latents.float()), expected.detach().clamp(-1, 1).float(), rtol=0, atol=1e-2)
    assert next(D.vae.parameters()).dtype == torch.float16


@both_dtypes
def test_a_pipeline_of_pictures(dtype):
    import diffusers

    unet = random_network(
        "UNet2DModel", dtype, sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, norm_num_groups=4,
        block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler(clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    D = from_pipeline(pipe)
    pictures = pipe(2, torch.Generator().manual_seed(5), num_inference_steps=6, output_type="np").images
    sigmas = [*(D.levels[int(t)] for t in pipe.scheduler.timesteps), 0.0]
    z = torch.randn(2, *D.shape, generator=torch.Generator().manual_seed(5), dtype=dtype)
    ours = sample(D, z * (1 + sigmas[0] ** 2) ** 0.5, sigmas).final
    assert_same((ours / 2 + 0.5).clamp(0, 1), torch.from_numpy(pictures).permute(0, 3, 1, 2), dtype)
    with pytest.raises(ValueError, match="decode needs an autoencoder"):
        D.decode(ours)
    with pytest.raises(ValueError, match="unconditional"):
        sample(D, z, sigmas, guidance=2.0)


@pytest.mark.parametrize("how", ["torch.bfloat16", "torch.float16", "autocast"])
@pytest.mark.parametrize("name", list(PEERS))
def test_networks_in_half_precision_under_a_float32_state(name, how):
    them = PEERS[name](torch.float32)
    D = them.denoiser()
    x, labels = initial_noise(3, D.shape, 3.0, dtype=torch.float32), D.labels(3)
    with torch.no_grad():
        exact = D(x, 2.0, labels)
        if how != "autocast":
            D.adapted.to(getattr(torch, how.removeprefix("torch.")))
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            ours = D(x, 2.0, labels)
            wide = D(x.double(), torch.full((3,), 2.0, dtype=F64), labels)
    assert (ours.dtype, wide.dtype) == (torch.float32, F64)
    tolerance = 0.01 if how == "torch.float16" else 0.06
    torch.testing.assert_close(ours, exact, rtol=0, atol=tolerance * float(exact.abs().max()))
    torch.testing.assert_close(wide.float(), exact, rtol=0, atol=tolerance * float(exact.abs().max()))
    assert not torch.equal(ours, exact)


def test_a_network_alone_goes_through_the_plain_adapters():
    import diffusers

    unet = random_network(
        "UNet2DModel", torch.bfloat16, sample_size=8, in_channels=3, out_channels=6, layers_per_block=1,
        norm_num_groups=4, block_out_channels=(8, 8), down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    plain, ours = from_eps(unet, scheduler.alphas_cumprod), from_diffusers(unet, scheduler)
    x, sigma = initial_noise(2, (3, 8, 8), 2.0, dtype=torch.float32), torch.tensor([2.0, 0.1])
    with torch.no_grad():
        assert torch.equal(plain(x, sigma), ours(x, sigma))
        eps = unet((x / (1 + sigma[:, None, None, None] ** 2).sqrt()).bfloat16(), ours.time(sigma)).sample[:, :3]
    torch.testing.assert_close(ours(x, sigma), x - sigma[:, None, None, None] * eps)


@pytest.mark.parametrize("name", ["SD, eps", "FLUX, distilled"])
def test_a_fingerprint_is_of_the_network_and_the_prompts(name):
    them = PEERS[name](torch.float32)
    one, again = them.denoiser(), them.denoiser()
    assert fingerprint(one) == fingerprint(again)
    again.prompts.prompt_embeds[0, 0, 0] += 1
    assert fingerprint(one) != fingerprint(again)


# --- A schedule taken elsewhere -----------------------------------------------------------------------------------


def found(them):
    """A denoiser of one prompt, a start, and a schedule of five steps found for it at guidance 4."""
    them.prompts = 1
    D = them.denoiser()
    x = initial_noise(8, D.shape, D.sigma_max, dtype=torch.float32)
    return D, x[:1], scheduling.find_schedule(D, x, 5, "euler", guidance=4.0, grid=15)


@pytest.mark.parametrize("name", ["SD, eps", "SD, v", "SDXL"])
def test_the_schedule_found_for_a_pipeline_gives_the_samples_there(name):
    them = PEERS[name](torch.float32)
    D, x, schedule = found(them)
    ours = sample(D, x, schedule.sigmas, schedule.make_solver(), guidance=4.0).final
    assert_same(ours, them.run(x, schedule, 4.0), torch.float32)


@pytest.mark.parametrize("name", ["SD3, shifted", "SD3, shifted by size"])
def test_a_flow_schedule_that_ends_above_zero_is_driven(name):
    them = PEERS[name](torch.float32)
    D, x, schedule = found(them)
    ours = sample(D, x, schedule.sigmas, schedule.make_solver(), guidance=4.0).final
    scheduler = them.pipe.scheduler
    scheduling.drive(scheduler, schedule)
    scheduler.set_timesteps = lambda *args, **kwargs: None  # with which the pipeline would replace the levels
    z = them.pipe(**them.called(guidance_scale=4.0, latents=x / (1 + schedule.sigmas[0].float()), mu=them.mu)).images
    assert_same(ours, z * (1 + schedule.sigmas[-1].float()), torch.float32)


def test_a_schedule_as_timesteps_gives_the_samples_of_its_levels():
    import diffusers

    them = StableDiffusion(torch.float32)
    D = them.denoiser()
    times = [999, 741, 480, 222, 60]
    schedule = Schedule([*(D.levels[t] for t in times), 0.0], "dpmpp_3m", 5, {"order": 2})
    them.pipe.scheduler = diffusers.DPMSolverMultistepScheduler(**BETAS)
    given = schedule.to_diffusers(them.pipe.scheduler.alphas_cumprod)
    assert given == {"timesteps": times}
    x = initial_noise(3, D.shape, D.levels[999], dtype=torch.float32)
    z = x / (1 + D.levels[999] ** 2) ** 0.5
    theirs = them.pipe(**them.called(guidance_scale=4.0, latents=z, **given)).images
    ours = sample(D, x, schedule.sigmas, schedule.make_solver(), labels=D.labels(3), guidance=4.0).final
    assert_same(ours, theirs, torch.float32)


@pytest.fixture(scope="module")
def k_diffusion():
    from benchmarks.peers import _part

    return types.SimpleNamespace(
        **{name: _part("k_diffusion", name, "make peers") for name in ("sampling", "external")}
    )


@pytest.mark.peers("k_diffusion")
@pytest.mark.parametrize("name", ["SD, v", "SD3, shifted", "DiT"])
def test_samplers_that_take_a_list_of_levels_give_the_same_samples(k_diffusion, name):
    them = peer(name, torch.float32)
    D = them.denoiser()
    schedule = schedule_for(them, D)
    x = initial_noise(3, D.shape, float(schedule.sigmas[0]), dtype=torch.float32)
    how = {"labels": D.labels(3), "guidance": 4.0}
    ours = sample(D, x, schedule.sigmas, **how).final
    comfyui = torch.tensor([float(word) for word in schedule.to_comfyui().split(",")])
    with torch.no_grad():
        for levels in (schedule.sigmas, schedule.sigmas.float(), comfyui):
            theirs = k_diffusion.sampling.sample_euler(to_k_diffusion(D, **how), x, levels.to(x), disable=True)
            assert_same(ours, theirs, torch.float32)
        asked = {"extra_args": {"labels": D.labels(3)}, "disable": True}
        theirs = k_diffusion.sampling.sample_euler(to_k_diffusion(D, guidance=4.0), x, schedule.sigmas.to(x), **asked)
        assert_same(ours, theirs, torch.float32)


@both_dtypes
@pytest.mark.peers("k_diffusion")
@pytest.mark.parametrize("name", ["SD, eps", "SD, v"])
def test_the_wrapper_of_k_diffusion_is_the_same_denoiser(k_diffusion, name, dtype):
    class Network(torch.nn.Module):
        def __init__(self, unet):
            super().__init__()
            self.unet = unet

        def forward(self, z, t, cond):
            return self.unet(z, t, encoder_hidden_states=cond).sample

    them = peer(name, dtype)
    D, kind = them.denoiser(), {"SD, eps": "DiscreteEpsDDPMDenoiser", "SD, v": "DiscreteVDDPMDenoiser"}[name]
    wrapper = getattr(k_diffusion.external, kind)
    inner = wrapper(Network(them.pipe.unet), them.pipe.scheduler.alphas_cumprod, quantize=False)
    theirs = from_k_diffusion(inner)
    assert (theirs.sigma_min, theirs.sigma_max) == pytest.approx((D.sigma_min, D.sigma_max), rel=1e-5)
    assert len(theirs.levels) == 1000
    x, sigmas = initial_noise(3, D.shape, 10.0, dtype=dtype), schedules.polynomial(5, 0.1, 10.0)
    cond = them.given()["prompt_embeds"]
    ours = sample(D, x, sigmas, labels=D.labels(3)).final
    for denoiser, labels in ((theirs, {"cond": cond}), (from_k_diffusion(inner, cond=cond), None)):
        torch.testing.assert_close(sample(denoiser, x, sigmas, labels=labels).final, ours, rtol=0, atol=2e-4)
