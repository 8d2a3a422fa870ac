"""Pipelines taken apart, without diffusers: classes of the names and forms that are looked for stand in for its own.

That the conventions are diffusers' is proven in tests/test_pipelines.py.
"""

import types

import pytest
import torch

from teachkit import initial_noise, sample
from teachkit.adapters import from_diffusers, from_eps, from_pipeline
from teachkit.fingerprints import fingerprint

ALPHAS = (1 - torch.linspace(1e-4, 0.02, 100, dtype=torch.float64)).cumprod(0)
EMBEDS = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
NEGATIVE = torch.zeros(1, 5, 6)


class Network(torch.nn.Module):
    """What all share: a convolution, some of what it is conditioned on added, and a record for an answer."""

    def __init__(self, dtype=torch.float32, **config):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(2, 2, 1, dtype=dtype)
        self.config = types.SimpleNamespace(**{"in_channels": 2, "out_channels": 2, "sample_size": 4, **config})

    def answer(self, z, t, *conditions):
        assert t.shape == (len(z),)
        assert {z.dtype, *(c.dtype for c in conditions if c.is_floating_point())} == {self.conv.weight.dtype}
        mean = sum(c.to(z).reshape(len(z), -1).mean(1) for c in conditions) if conditions else z.new_zeros(len(z))
        return types.SimpleNamespace(
            sample=self.conv(z) + mean[:, None, None, None] + t[:, None, None, None].to(z) / 100
        )


class UNet2DConditionModel(Network):
    def forward(self, z, t, encoder_hidden_states, added_cond_kwargs=None, timestep_cond=None):
        further = [*(added_cond_kwargs or {}).values(), *([] if timestep_cond is None else [timestep_cond])]
        return self.answer(z, t, encoder_hidden_states, *further)


class UNet2DModel(Network):
    def forward(self, z, t, class_labels=None):
        return self.answer(z, t, *([] if class_labels is None else [class_labels]))


class DiTTransformer2DModel(Network):
    def forward(self, z, timestep, class_labels):
        out = self.answer(z, timestep, class_labels).sample
        return types.SimpleNamespace(sample=torch.cat([out, 100 * out], 1))


def scheduler(kind="epsilon", **config):
    return types.SimpleNamespace(alphas_cumprod=ALPHAS, config=types.SimpleNamespace(prediction_type=kind, **config))


def pipeline(network=UNet2DConditionModel, name="unet", dtype=torch.float32, beside=None, **config):
    config = {"cross_attention_dim": 6} | config if network is UNet2DConditionModel else config
    return types.SimpleNamespace(**{name: network(dtype, **config), "scheduler": scheduler(), **(beside or {})})


class Encoding(types.SimpleNamespace):
    """A pipeline that can encode: a text is its length."""

    text_encoder, calls = "an encoder", 0

    def encode_prompt(self, prompt, device, num_images_per_prompt, do_classifier_free_guidance):
        assert (num_images_per_prompt, do_classifier_free_guidance) == (1, False)
        self.calls += 1
        return torch.tensor([float(len(text)) for text in prompt])[:, None, None].expand(-1, 5, 6), None


def encoding(**config):
    return Encoding(**vars(pipeline(**config)))


X = initial_noise(4, (2, 4, 4), 3.0, dtype=torch.float32)


def test_prompts_are_encoded_once_and_given_in_turn():
    pipe = encoding()
    D = from_pipeline(pipe, ["a", "bb", "ccc"])
    assert pipe.calls == 2  # the prompts, and the empty one
    labels = D.labels(5)
    assert labels["prompt_embeds"][:, 0, 0].tolist() == [1, 2, 3, 1, 2]
    path = sample(D, X, [3.0, 1.0, 0.5], labels=D.labels(4), guidance=2.0)
    assert pipe.calls == 2
    assert torch.equal(D.unconditional(X, 1.0), D(X, 1.0, torch.zeros(4, 5, 6)))
    assert torch.equal(sample(D, X, [3.0, 1.0, 0.5], labels=D.labels(4), guidance=2.0, batch=3).final, path.final)
    negative = from_pipeline(pipe, "a", negative_prompt="bb")
    assert torch.equal(negative.unconditional(X, 1.0), D(X, 1.0, torch.full((4, 5, 6), 2.0)))
    with pytest.raises(ValueError, match=r"labels must be given for 3 prompts: pass labels=D.labels\(n\)"):
        D(X, 1.0)


def test_with_one_prompt_it_is_conditioned_on_it_and_with_none_on_the_empty_one():
    one, none, given = (from_pipeline(encoding(), *prompt) for prompt in ((["bb"],), (), (["a", "bb"],)))
    assert torch.equal(one(X, 1.0), given(X, 1.0, {"prompt_embeds": torch.full((4, 5, 6), 2.0)}))
    assert torch.equal(none(X, 1.0), given.unconditional(X, 1.0))
    assert torch.equal(sample(one, X, [3.0, 1.0]).final, sample(one, X, [3.0, 1.0], labels=one.labels(4)).final)
    assert one.conditioned
    assert not none.conditioned
    with pytest.raises(ValueError, match="guidance needs labels"):
        sample(none, X, [3.0, 1.0], guidance=2.0)  # away from itself
    guided = sample(one, X, [3.0, 1.0], guidance=2.0)
    torch.testing.assert_close(guided.denoised[0], 2 * one(X, 3.0) - none(X, 3.0))
    with pytest.raises(ValueError, match="was given none"):
        none.labels(3)


def test_zeros_stand_for_the_empty_prompt_where_the_pipeline_says_so():
    pipe = encoding()
    pipe.config = types.SimpleNamespace(force_zeros_for_empty_prompt=True)
    D = from_pipeline(pipe, "abc")
    assert torch.equal(D.unconditional(X, 1.0), D(X, 1.0, torch.zeros(4, 5, 6)))
    D = from_pipeline(pipe, "abc", negative_prompt="a")
    assert torch.equal(D.unconditional(X, 1.0), D(X, 1.0, torch.ones(4, 5, 6)))


def test_classes_are_numbers_or_names_and_one_more_stands_for_none():
    known = {"beside": {"labels": {"cat": 7}, "get_label_ids": lambda names: [7 for _ in names]}}
    config = {"network": DiTTransformer2DModel, "name": "transformer", "num_embeds_ada_norm": 10, "out_channels": 4}
    D, named = from_pipeline(pipeline(**config), [7, 3]), from_pipeline(pipeline(**config, **known), "cat")
    assert D.labels(3).tolist() == [7, 3, 7]
    assert torch.equal(D(X, 1.0, torch.full((4,), 7)), named(X, 1.0))
    assert torch.equal(D(X, 1.0, {"class_labels": torch.full((4,), 7)}), named(X, 1.0))
    null = D.adapted(X, 1.0, {"class_labels": torch.full((4,), 10)})
    assert torch.equal(D.unconditional(X, 1.0), null)
    assert torch.equal(from_pipeline(pipeline(**config))(X, 1.0), null)
    for prompt, word in (("cat", "knows no names"), (10, "from 0 to 9"), ([-1], ">= 0"), ([1.5], "integers")):
        with pytest.raises(ValueError, match=word):
            from_pipeline(pipeline(**config), prompt)
    with pytest.raises(ValueError, match="prompt_embeds must be None: this model takes classes"):
        from_pipeline(pipeline(**config), prompt_embeds=EMBEDS)
    with pytest.raises(ValueError, match="from 0 to 9"):
        D(X, 1.0, torch.full((4,), 10))


def test_the_size_of_the_picture_is_told_or_asked_for():
    vae = types.SimpleNamespace(config=types.SimpleNamespace(block_out_channels=(1, 2, 3)))
    given = {"prompt_embeds": EMBEDS}
    assert from_pipeline(pipeline(), **given).shape == (2, 4, 4)
    assert from_pipeline(pipeline(sample_size=(4, 6)), **given).shape == (2, 4, 6)
    assert from_pipeline(pipeline(), height=32, **given).shape == (2, 32, 4)
    pipe = pipeline(sample_size=None, beside={"vae": vae})
    assert from_pipeline(pipe, height=32, width=64, **given).shape == (2, 8, 16)
    with pytest.raises(ValueError, match="width must be given, in pixels"):
        from_pipeline(pipe, height=32, **given)
    with pytest.raises(ValueError, match="height must be a multiple of 4"):
        from_pipeline(pipe, height=30, width=64, **given)
    pipe.default_sample_size = 5
    assert from_pipeline(pipe, **given).shape == (2, 5, 5)


def test_levels_are_those_of_the_training():
    D = from_pipeline(pipeline(), prompt_embeds=EMBEDS[:1])
    torch.testing.assert_close(torch.tensor(D.levels, dtype=torch.float64), (1 / ALPHAS - 1).sqrt())
    assert (D.sigma_min, D.sigma_max) == (D.levels[0], D.levels[-1])
    pipe = pipeline()
    flow = {"num_train_timesteps": 10, "shift": 3.0, "use_dynamic_shifting": False}
    for named, config in (
        ("FlowMatchEulerDiscreteScheduler", flow),
        ("DPM", flow | {"prediction_type": "flow_prediction"}),
    ):
        pipe.scheduler = type(named, (types.SimpleNamespace,), {})(config=types.SimpleNamespace(**config))
        D = from_pipeline(pipe, prompt_embeds=EMBEDS[:1])
        assert D.levels == pytest.approx([3 * k / (10 - k) for k in range(1, 10)])
        assert D.prediction_type == "flow_prediction"
        assert float(D.time(torch.tensor(1.0))) == 5.0  # half-way, whatever the shift
    pipe.scheduler.config.use_dynamic_shifting = True
    assert from_pipeline(pipe, prompt_embeds=EMBEDS[:1]).sigma_max == pytest.approx(9.0)
    zero = types.SimpleNamespace(alphas_cumprod=torch.cat([ALPHAS, torch.zeros(1)]), config=types.SimpleNamespace())
    assert len(from_pipeline(pipe, prompt_embeds=EMBEDS[:1], scheduler=zero).levels) == 100


@pytest.mark.parametrize("own", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_network_runs_in_its_own_dtype(own, dtype):
    reference = from_pipeline(pipeline(dtype=torch.float64), prompt_embeds=EMBEDS, negative_embeds=NEGATIVE)
    D = from_pipeline(pipeline(dtype=own), prompt_embeds=EMBEDS.to(dtype), negative_embeds=NEGATIVE)
    for part in ("conv.weight", "conv.bias"):  # the same numbers, rounded
        reference.get_parameter(f"adapted.model.network.{part}").data.copy_(
            D.get_parameter(f"adapted.model.network.{part}").data
        )
    x, sigmas = X.to(dtype), [3.0, 1.0, 0.3]
    ours = sample(D, x, sigmas, labels=D.labels(4), guidance=2.0).final
    exact = sample(reference, x.double(), sigmas, labels=reference.labels(4), guidance=2.0).final
    assert ours.dtype == dtype
    tolerance = {torch.float16: 0.02, torch.bfloat16: 0.1}.get(own, 1e-5)
    torch.testing.assert_close(ours.double(), exact, rtol=0, atol=tolerance)


def test_conditions_move_and_tell_one_pipeline_from_another():
    make = lambda rows: from_pipeline(pipeline(), prompt_embeds=EMBEDS[rows], negative_embeds=NEGATIVE)  # noqa: E731
    one, other = make(slice(0, 1)), make(slice(1, 2))
    assert fingerprint(one) == fingerprint(make(slice(0, 1))) != fingerprint(other)
    assert one.double().labels(1)["prompt_embeds"].dtype == torch.float64
    assert one.to("meta").labels(1)["prompt_embeds"].is_meta


def test_a_compiled_network_is_recognised_and_memory_may_be_in_another_order():
    pipe = pipeline()
    D = from_pipeline(pipe, prompt_embeds=EMBEDS[:1], negative_embeds=NEGATIVE)
    path = sample(D, X, [3.0, 1.0, 0.5], guidance=2.0)
    torch.testing.assert_close(
        sample(D, X.to(memory_format=torch.channels_last), [3.0, 1.0, 0.5], guidance=2.0).final, path.final
    )
    pipe.unet = torch.compile(pipe.unet, backend="eager")
    compiled = from_pipeline(pipe, prompt_embeds=EMBEDS[:1], negative_embeds=NEGATIVE)
    torch.testing.assert_close(sample(compiled, X, [3.0, 1.0, 0.5], guidance=2.0).final, path.final)


def test_distilled_guidance_of_a_consistency_model_is_embedded():
    pipe = pipeline(time_cond_proj_dim=3)
    pipe.get_guidance_scale_embedding = lambda w, embedding_dim: w[:, None].expand(-1, embedding_dim)
    D, more = (from_pipeline(pipe, prompt_embeds=EMBEDS[:1], guidance=w) for w in (2.0, 3.0))
    assert (D.evaluations, sample(D, X, [3.0, 1.0]).nfe) == (1, 1)
    scale = (1 + 1.0**2) ** 0.5  # eps moves by 1, the scale counts from 0: D by sigma
    torch.testing.assert_close(D(X, 1.0) - more(X, 1.0), torch.ones_like(X), rtol=0, atol=1e-5 * scale)


SD = {"prompt_embeds": EMBEDS}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: from_pipeline("runwayml/sd"), TypeError, "pipe must be a pipeline of diffusers"),
        (lambda: from_pipeline(UNet2DConditionModel()), TypeError, r"of a network alone use from_diffusers"),
        (lambda: from_pipeline(types.SimpleNamespace(unet=UNet2DModel())), TypeError, "a network and a scheduler"),
        (lambda: from_pipeline(pipeline(Network)), ValueError, "one of UNet2DConditionModel, UNet2DModel, DiT"),
        (lambda: from_pipeline(pipeline(in_channels=9), **SD), ValueError, "takes also: 9 channels to predict 2"),
        (lambda: from_pipeline(pipeline(beside={"controlnet": 1}), **SD), ValueError, "takes also: controlnet"),
        (lambda: from_pipeline(pipeline(addition_embed_type="image"), **SD), ValueError, "also takes image"),
        (lambda: from_pipeline(pipeline(cross_attention_dim=(3, 4)), **SD), ValueError, "one width"),
        (lambda: from_pipeline(pipeline(), "a cat"), ValueError, "prompt needs text encoders"),
        (lambda: from_pipeline(pipeline(), negative_prompt="a", **SD), ValueError, "negative_prompt needs text enc"),
        (lambda: from_pipeline(encoding(), 3), TypeError, "prompt must be a text or a list of texts"),
        (lambda: from_pipeline(encoding(), []), TypeError, "prompt must be a text or a list of texts"),
        (lambda: from_pipeline(encoding(), "a", **SD), ValueError, "not both; got prompt, prompt_embeds"),
        (lambda: from_pipeline(encoding(), "a", negative_prompt=["a", "b"]), ValueError, "must be one text"),
        (
            lambda: from_pipeline(pipeline(), prompt_embeds=EMBEDS[..., :5]),
            ValueError,
            r"prompt_embeds must .* \(rows, n, 6\)",
        ),
        (lambda: from_pipeline(pipeline(), prompt_embeds=EMBEDS[0]), ValueError, "prompt_embeds must be"),
        (lambda: from_pipeline(pipeline(), prompt_embeds=EMBEDS.long()), TypeError, "prompt_embeds must be"),
        (lambda: from_pipeline(pipeline(), prompt_embeds={"text": EMBEDS}), ValueError, "dict of prompt_embeds"),
        (
            lambda: from_pipeline(pipeline(), negative_embeds=EMBEDS, **SD),
            ValueError,
            r"negative_embeds must .* \(1, n, 6\)",
        ),
        (lambda: from_pipeline(pipeline(), guidance=2.0, **SD), ValueError, "guidance needs negative_embeds"),
        (lambda: from_pipeline(pipeline(), guidance="2", **SD), TypeError, "guidance must be a finite number"),
        (lambda: from_pipeline(pipeline())(X, 1.0), ValueError, "neither a prompt nor negative_embeds"),
        (
            lambda: sample(from_pipeline(pipeline(), **SD), X, [3, 1], labels=EMBEDS[[0] * 4], guidance=2.0),
            ValueError,
            "guidance needs negative_embeds",
        ),
        (lambda: from_pipeline(pipeline(), **SD)(X, 1.0, EMBEDS), ValueError, r"labels must .* \(4, n, 6\)"),
        (lambda: from_pipeline(pipeline(), **SD)(X, 1.0, {"a": EMBEDS}), ValueError, "labels must be"),
        (lambda: from_pipeline(pipeline(), **SD)(X[0], 1.0), ValueError, "x must be floating-point images"),
        (lambda: from_pipeline(pipeline(), **SD).decode(X), ValueError, "decode needs an autoencoder"),
        (
            lambda: from_pipeline(pipeline(UNet2DModel), 3),
            ValueError,
            "prompt must be None: this model is unconditional",
        ),
        (lambda: from_pipeline(pipeline(UNet2DModel), guidance=2.0), ValueError, "guidance must be None"),
        (
            lambda: from_pipeline(pipeline(UNet2DModel))(X, 1.0, torch.zeros(4).long()),
            ValueError,
            "labels must be None",
        ),
        (lambda: from_pipeline(pipeline(time_cond_proj_dim=3), **SD), ValueError, "guidance must be given"),
        (
            lambda: from_pipeline(pipeline(), scheduler=scheduler(timestep_type="continuous"), **SD),
            ValueError,
            "discrete",
        ),
        (lambda: from_pipeline(pipeline(), scheduler=scheduler("score"), **SD), ValueError, "prediction_type must be"),
        (
            lambda: from_pipeline(pipeline(), scheduler=types.SimpleNamespace(config=types.SimpleNamespace()), **SD),
            ValueError,
            "have alphas_cumprod",
        ),
        (lambda: from_eps(from_pipeline(pipeline(), **SD), ALPHAS), TypeError, "that is a denoiser already"),
        (lambda: from_diffusers(from_pipeline(pipeline(), **SD), ALPHAS), TypeError, "that is a denoiser already"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


class Vae(torch.nn.Module):
    """An autoencoder of pictures that are their own latents, moved and stretched."""

    def __init__(self, sampled, **config):
        super().__init__()
        self.unused, self.sampled = torch.nn.Parameter(torch.zeros(1)), sampled
        self.config = types.SimpleNamespace(scaling_factor=4.0, **config)

    def encode(self, pictures):
        latents = 2 * pictures[:, :2] + 3
        if self.sampled:
            return types.SimpleNamespace(latent_dist=types.SimpleNamespace(mean=latents))
        return types.SimpleNamespace(latents=latents)

    def decode(self, latents):
        return types.SimpleNamespace(sample=(latents - 3) / 2)


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("config", [{}, {"shift_factor": 1.5}, {"latents_mean": [1.0, 2.0], "latents_std": [0.5, 3.0]}])
def test_pictures_come_back_from_their_latents(sampled, config):
    D = from_pipeline(pipeline(beside={"vae": Vae(sampled, **config)}))
    pictures = X.clamp(-1, 1)
    torch.testing.assert_close(D.decode(D.encode(pictures, batch=3)), pictures)
    mean = torch.tensor(config.get("latents_mean", [config.get("shift_factor", 0.0)] * 2))[:, None, None]
    deviation = torch.tensor(config.get("latents_std", [1.0, 1.0]))[:, None, None]
    torch.testing.assert_close(D.encode(pictures), 4 * (2 * pictures + 3 - mean) / deviation)
    with pytest.raises(ValueError, match=r"latents must be floating-point images \(B, 2, H, W\)"):
        D.decode(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"pictures must lie in \[-1, 1\], got values up to 255"):
        D.encode(255 * torch.ones(1, 3, 4, 4))


def test_a_negative_prompt_among_the_prompts_is_noticed():
    both = torch.cat([torch.zeros(1, 5, 6), torch.ones(1, 5, 6)])  # as diffusers' loops put them together
    with pytest.warns(UserWarning, match="prompt_embeds hold a row that is the negative prompt"):
        from_pipeline(pipeline(), prompt_embeds=both, negative_embeds=torch.zeros(1, 5, 6))


def test_a_scheduler_of_noise_predictions_has_no_flow():
    with pytest.raises(
        ValueError, match="prediction_type must be one of epsilon, sample, v_prediction for a scheduler"
    ):
        from_pipeline(pipeline(), prediction_type="flow_prediction")
