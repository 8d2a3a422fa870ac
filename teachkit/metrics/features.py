"""Features in which distances between sets of images are measured: two small classifiers, and Inception-v3."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from teachkit import checks, data
from teachkit.checks import finite, installed, integer, real_tensor, squarable

# What ships: the file, and the classifier that it holds.
_SHIPPED: dict[str, tuple[str, dict[str, int]]] = {
    "digit": ("digit-features.safetensors", {}),
    "emoji": ("emoji-features.safetensors", {"channels": 3, "classes": 9, "side": 32, "width": 20}),
}


class Classifier(nn.Module):
    """Five convolutions and two linear layers that tell small pictures apart.

    ``forward`` maps ``(N, channels, side, side)`` in [-1, 1] to logits ``(N, classes)``; ``features`` gives the 64
    numbers before the last non-linearity, in which distances between sets of pictures are measured.

    Parameters
    ----------
    channels : int
        1 for grey pictures, 3 for colour.
    classes : int
        Number of classes.
    side : int
        Pixels of a side.
    width : int
        Channels of the first convolution; the last has four times as many.

    Examples
    --------
    >>> net = Classifier(channels=3, classes=9, side=32).eval()
    >>> images = torch.zeros(2, 3, 32, 32)
    >>> net(images).shape, net.features(images).shape
    (torch.Size([2, 9]), torch.Size([2, 64]))
    """

    def __init__(self, channels: int = 1, classes: int = 10, side: int = 28, width: int = 32) -> None:
        super().__init__()
        channels, classes = integer("channels", channels, 1), integer("classes", classes, 2)
        side, width = integer("side", side, 1), integer("width", width, 1)
        self.shape = (channels, side, side)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, stride=2)  # 28 -> 14
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv4 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, stride=2)  # 14 -> 7
        self.conv5 = nn.Conv2d(2 * width, 4 * width, 3, padding=1, stride=2)  # 7 -> 4
        self.hidden = nn.Linear(4 * width * math.ceil(side / 8) ** 2, 64)
        self.head = nn.Linear(64, classes)
        self.dropout = nn.Dropout(0.3)

    def features(self, images: Tensor) -> Tensor:
        """Features ``(N, 64)`` of images ``(N, channels, side, side)``."""
        x = _shaped(images, self.shape)
        if x.dtype != self.head.weight.dtype or x.device != self.head.weight.device:
            own = self.head.weight
            raise ValueError(f"images are {x.dtype} on {x.device} but the network is {own.dtype} on {own.device}")
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4, self.conv5):
            x = F.relu(conv(x))
        return self.hidden(self.dropout(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(N, classes)`` of images ``(N, channels, side, side)``."""
        return self.head(self.dropout(F.relu(self.features(images))))


def digit_classifier(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Classifier:
    """Load the digit classifier in evaluation mode, in float32.

    Parameters
    ----------
    path : path, optional
        A .safetensors file that ``tools/train_features.py`` wrote; by default the one that ships, whose
        checksum is compared first.
    device : torch.device or str
        Where it is put.

    Returns
    -------
    Classifier
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
    return _load("digit", path, device)


def emoji_classifier(path: str | os.PathLike[str] | None = None, device: torch.device | str = "cpu") -> Classifier:
    """Load the classifier of the nine categories of emoji, as `digit_classifier` does that of digits.

    Parameters
    ----------
    path : path, optional
        A .safetensors file that ``tools/train_features.py`` wrote; by default the one that ships.
    device : torch.device or str
        Where it is put.

    Returns
    -------
    Classifier
        In evaluation mode.

    Raises
    ------
    FileNotFoundError, ValueError
        As there.

    Examples
    --------
    >>> net = emoji_classifier()
    >>> flags = data.load("emoji32")
    >>> flags = flags.images[flags.labels == data.class_names("emoji32").index("Flags")]
    >>> bool((net(flags[:100]).argmax(1) == 8).float().mean() > 0.8)
    True
    """
    return _load("emoji", path, device)


def _load(of: str, path: str | os.PathLike[str] | None, device: torch.device | str) -> Classifier:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    shipped, arguments = _SHIPPED[of]
    file = data.verify(shipped) if path is None else checks.path("path", path)
    device = checks.device("device", device) or torch.device("cpu")
    if not file.is_file():
        raise FileNotFoundError(f"no file {file}")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a readable safetensors file: {error}") from None
    net = Classifier(**arguments).to(torch.float32)  # whatever torch's default is
    wanted, found = ({(name, each.shape) for name, each in held.items()} for held in (net.state_dict(), state))
    if wrong := sorted({name for name, _ in wanted ^ found}):
        raise ValueError(f"{file} does not hold the {of} classifier: missing, unknown or misshapen {', '.join(wrong)}")
    net.load_state_dict({name: squarable(name, finite(name, value)).float() for name, value in state.items()})
    return net.eval().requires_grad_(False).to(device)


@functools.lru_cache(maxsize=4)
def _kept(of: str, device: str) -> Classifier:
    return _load(of, None, device)


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
    return _apply("digit", Classifier.features, images, batch_size)


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
    return _apply("digit", _probabilities, images, batch_size)


def emoji_features(images: Tensor, batch_size: int = 512) -> Tensor:
    """Features of emoji for `frechet_distance` and `mmd`.

    Parameters
    ----------
    images : (N, 3, 32, 32)
        In [-1, 1], on white; values beyond are clamped.
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
    >>> emoji_features(data.load("emoji32").images[:20]).shape
    torch.Size([20, 64])
    """
    return _apply("emoji", Classifier.features, images, batch_size)


def emoji_probabilities(images: Tensor, batch_size: int = 512) -> Tensor:
    """How sure the classifier is of every category of emoji (`teachkit.data.class_names`).

    Parameters
    ----------
    images : (N, 3, 32, 32)
        In [-1, 1], on white; values beyond are clamped.
    batch_size : int
        Images at a time.

    Returns
    -------
    Tensor
        ``(N, 9)`` float32; rows sum to 1.

    Raises
    ------
    ValueError
        For another shape, values that are not finite, or images scaled to [0, 1] or [0, 255].

    Examples
    --------
    >>> emoji_probabilities(data.load("emoji32").images[:20]).shape
    torch.Size([20, 9])
    """
    return _apply("emoji", _probabilities, images, batch_size)


def _probabilities(net: Classifier, images: Tensor) -> Tensor:
    return net(images).softmax(1)


def _shaped(images: Tensor, shape: tuple[int, int, int]) -> Tensor:
    real_tensor("images", images)
    if images.ndim != 4 or images.shape[1:] != shape or len(images) == 0:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"images must have shape (N, {wanted}) with N >= 1, got {tuple(images.shape)}")
    return images


def _apply(of: str, function: Callable[[Classifier, Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    net = _kept(of, str(real_tensor("images", images).device))
    images = _shaped(images, net.shape).detach()
    batch_size = integer("batch_size", batch_size, 1)
    low, high = float(images.min()), float(images.max())
    pale = of == "emoji" and len(images) == 1 and high <= 1  # one alone, on white, may have no dark pixel
    if low >= 0 and high > 0 and not pale:
        raise ValueError("images must be scaled to [-1, 1], black to -1; these have no negative pixel")
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
    purpose = "Inception features (28x28 digits have digit_features, emoji emoji_features)"
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
