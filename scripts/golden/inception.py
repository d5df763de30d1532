"""Inception v3 features by pytorch-fid and torchvision, and resized images by PyTorch, torch-fidelity and Pillow.

Run: python scripts/golden/inception.py
Writes crates/spiking-diffusion-metrics/tests/golden/inception.safetensors.

The weights are those of `inception_nets.hashed_weight`, which the Rust test repeats; the images too. Features are
computed in float64.
"""

from importlib.metadata import version

import numpy as np
import torch
import torch.nn.functional as F
from common import REPO, save
from inception_nets import NETWORKS, features, fill, hashed, hashed_weight
from PIL import Image
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

SIZES = {"up": (17, 23), "down": (5, 4), "wide": (6, 31)}


def images(name, *shape):
    """Hashed pixels in [0, 1), rounded to f32."""
    u = (hashed(name, int(np.prod(shape))) + 1) / 2
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def pillow(x, size):
    def plane(p):
        return np.asarray(Image.fromarray(p.numpy(), mode="F").resize(size[::-1], resample=Image.BICUBIC))

    return torch.tensor(np.stack([[plane(p) for p in image] for image in x]))


RESIZERS = {
    "bilinear": lambda x, size: F.interpolate(x, size=size, mode="bilinear", align_corners=False),
    "bilinear_corner": lambda x, size: interpolate_bilinear_2d_like_tensorflow1x(
        x, size=size, align_corners=False
    ),
    "bicubic": pillow,
}

out = {}
small = images("resize", 2, 3, 9, 12)
for method, resize in RESIZERS.items():
    for size_name, size in SIZES.items():
        out[f"resize.{method}.{size_name}"] = resize(small, size)

batch = images("images", 2, 3, 40, 36)
x = 2 * RESIZERS["bilinear"](batch, (299, 299)).double() - 1
for variant, build in NETWORKS.items():
    for layer, values in features(fill(build().double()), x).items():
        out[f"{variant}.{layer}"] = values

gray = 2 * RESIZERS["bilinear"](images("gray", 1, 1, 28, 28), (299, 299)).double() - 1
net = fill(NETWORKS["fid"]().double())
out["gray.fid.768"] = features(net, gray.expand(-1, 3, -1, -1), "768")["768"]

packages = ["torchvision", "pytorch-fid", "torch-fidelity", "pillow"]
save("spiking-diffusion-metrics", "inception", out, **{name: version(name) for name in packages})

# A `.pth` file as PyTorch wrote it before 1.6, with the first tensor only.
name = "Conv2d_1a_3x3.conv.weight"
legacy = REPO / "crates/spiking-diffusion-metrics/tests/golden/legacy.pth"
state = {name: hashed_weight(name, (32, 3, 3, 3))}
torch.save(state, legacy, _use_new_zipfile_serialization=False)
