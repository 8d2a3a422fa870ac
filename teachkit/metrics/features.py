"""Features in which distances between sets of images are measured: a digit classifier, and Inception-v3."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teachkit import checks, data
from teachkit.checks import finite, installed, integer, real_tensor, squarable


class DigitClassifier(nn.Module):
    """Five convolutions and two linear layers that tell 28x28 digits apart: 0.2 million parameters.

    ``forward`` maps ``(N, 1, 28, 28)`` in [-1, 1] to logits ``(N, 10)``; ``features`` gives the 64 numbers before
    the last non-linearity, in which distances between sets of digits are measured.

    Examples
    --------
    >>> net = DigitClassifier().eval()
    >>> images = torch.zeros(2, 1, 28, 28)
    >>> net(images).shape, net.features(images).shape
    (torch.Size([2, 10]), torch.Size([2, 64]))
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, stride=2)  # 28 -> 14
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, stride=2)  # 14 -> 7
        self.conv5 = nn.Conv2d(64, 128, 3, padding=1, stride=2)  # 7 -> 4
        self.hidden = nn.Linear(128 * 4 * 4, 64)
        self.head = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.3)

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, 64)`` of images ``(N, 1, 28, 28)``."""
        x = _digits(images)
        if x.dtype != self.head.weight.dtype or x.device != self.head.weight.device:
            own = self.head.weight
            raise ValueError(f"images are {x.dtype} on {x.device} but the network is {own.dtype} on {own.device}")
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = F.relu(conv(x))
        return self.hidden(self.dropout(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, 10)`` of images ``(N, 1, 28, 28)``."""
        return self.head(self.dropout(F.relu(self.features(images))))


def digit_classifier(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> DigitClassifier:
    """Load the digit classifier in evaluation mode, in float32.

    Parameters
    ----------
    path : path, optional
        A .safetensors file that ``tools/train_digit_features.py`` wrote; by default the one that ships, whose
        checksum is compared first.
    device : torch.device or str
        Where it is put.

    Returns
    -------
    DigitClassifier
        In evaluation mode.

    Raises
    ------
    FileNotFoundError, ValueError
        When the file is missing or corrupt, or its tensors are not those of the classifier.

    Examples
    --------
    >>> net = digit_classifier()
    >>> digits = data.load("mnist5k")
    >>> right = net(digits.images[:200].float()).argmax(1) == digits.labels[:200]
    >>> bool(right.float().mean() > 0.97)
    True
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = data.verify("digit-features.safetensors") if path is None else checks.path("path", path)
    device = checks.device("device", device) or torch.device("cpu")
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from None
    net = DigitClassifier().to(torch.float32)  # whatever torch's default is
    wanted, found = ({(name, each.shape) for name, each in of.items()} for of in (net.state_dict(), state))
    if wrong := sorted({name for name, _ in wanted ^ found}):
        raise ValueError(f"{file} does not hold the digit classifier: missing, unknown or misshapen {', '.join(wrong)}")
    net.load_state_dict({name: squarable(name, finite(name, value)).float() for name, value in state.items()})
    return net.eval().requires_grad_(False).to(device)


@functools.lru_cache(maxsize=4)
def _shipped_classifier(device: str) -> DigitClassifier:
    return digit_classifier(device=device)


def digit_features(images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of digits for `frechet_distance` and `mmd`.

    Parameters
    ----------
    images : (N, 1, 28, 28)
        In [-1, 1]; values beyond are clamped, as they would be on the way to an 8-bit picture.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor
        ``(N, 64)`` float32.

    Raises
    ------
    ValueError
        For another shape, values that are not finite, or images scaled to [0, 1] or [0, 255].

    Examples
    --------
    >>> digit_features(data.load("mnist5k").images[:20]).shape
    torch.Size([20, 64])
    """
    return _apply(lambda net, x: net.features(x), images, batch_size)


def digit_probabilities(images: Tensor, batch_size: int = 512) -> Tensor:
    """How sure the classifier is of every digit.

    ``digit_probabilities(x).max(1)`` gives confidence and class.

    Parameters
    ----------
    images : (N, 1, 28, 28)
        In [-1, 1]; values beyond are clamped, as they would be on the way to an 8-bit picture.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor
        ``(N, 10)`` float32; rows sum to 1.

    Raises
    ------
    ValueError
        For another shape, values that are not finite, or images scaled to [0, 1] or [0, 255].

    Examples
    --------
    >>> p = digit_probabilities(data.load("mnist5k").images[:20])
    >>> p.shape, bool((p.max(1).values > 0.99).float().mean() > 0.5)
    (torch.Size([20, 10]), True)
    """
    return _apply(lambda net, x: net(x).softmax(1), images, batch_size)


def _digits(images: Tensor) -> Tensor:
    real_tensor("images", images)
    if images.ndim != 4 or images.shape[1:] != (1, 28, 28) or len(images) == 0:
        raise ValueError(f"images must have shape (N, 1, 28, 28) with N >= 1, got {tuple(images.shape)}")
    return images


def _apply(function: Callable[[DigitClassifier, Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    images = _digits(images).detach()
    batch_size = integer("batch_size", batch_size, 1)
    if float(images.min()) >= 0 and float(images.max()) > 0:
        raise ValueError("images must be scaled to [-1, 1] with a background of -1; these have no negative pixel")
    net = _shipped_classifier(str(images.device))
    with torch.no_grad():
        return torch.cat([function(net, x.float().clamp(-1, 1)) for x in images.split(batch_size)])


def inception_features(images: Tensor, batch_size: int = 64) -> Tensor:
    """Inception-v3 features for the FID, from torchmetrics.

    Optional: it needs ``pip install 'teachkit[fid]'`` and, the first time, the internet for the
    network's weights. Images are rounded to 8 bits first and resized as TensorFlow 1 does it, as for published FIDs;
    one channel is repeated to three.

    Parameters
    ----------
    images : (N, 1 or 3, H, W)
        In [-1, 1].
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor
        ``(N, 2048)``.

    Raises
    ------
    ImportError, ConnectionError
        When a package is missing, or the weights cannot be downloaded.

    Examples
    --------
    >>> inception_features(data.load("photos32").images).shape    # doctest: +SKIP
    torch.Size([5000, 2048])
    """
    images, batch_size = real_tensor("images", images), integer("batch_size", batch_size, 1)
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(f"images must have shape (N, 1 or 3, H, W) with N >= 1, got {tuple(images.shape)}")
    purpose = "Inception features (28x28 digits have digit_features)"
    installed("torch_fidelity", purpose, "fid")
    fid = installed("torchmetrics.image.fid", purpose, "fid")
    try:
        network: Any = fid.FrechetInceptionDistance(feature=2048).inception.to(images.device).eval()
        network.use_antialias = False  # torchmetrics' own way to resize is not the one of published FIDs
    except OSError as error:
        raise ConnectionError(f"the Inception weights could not be downloaded: {error}") from error
    pixels = (images.detach().float().clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)
    with torch.no_grad():
        return torch.cat([network(part) for part in pixels.split(batch_size)])
