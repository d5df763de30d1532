"""Features of an FSVAE-like encoder in training mode, and Pillow's bilinear resizing of bytes.

Run: python scripts/golden/fad.py
Writes crates/spiking-diffusion-metrics/tests/golden/fad.safetensors.

The network has the published parameters' names, and few channels; its values are random. Images are bytes of 28 x 28, resized
by Pillow, in two batches of unequal size.
"""

from importlib.metadata import version

import numpy as np
import torch
from common import generator, save
from PIL import Image
from torch import nn

CHANNELS = [1, 4, 6, 8, 10]
FEATURES = 5
BATCHES = [7, 4]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(
            *[
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.LeakyReLU())
                for a, b in zip(CHANNELS, CHANNELS[1:])
            ]
        )
        self.latent_layer = nn.Linear(4 * CHANNELS[-1], FEATURES)

    def forward(self, x):
        return self.latent_layer(torch.flatten(self.encoder(x), start_dim=1))


def resized(images, size):
    rows = [np.asarray(Image.fromarray(image).resize(size[::-1], Image.BILINEAR)) for image in images]
    return np.stack(rows)


rng = generator(5)
network = Encoder().double().train()
with torch.no_grad():
    for name, value in network.named_parameters():
        value.copy_(torch.randn(value.shape, generator=rng) * 0.3 + (0.5 if name.endswith("1.weight") else 0.0))

numbers = np.random.default_rng(5)
images = numbers.integers(0, 256, (sum(BATCHES), 28, 28), dtype=np.uint8)
images[0] = np.where(np.add.outer(range(28), range(28)) % 3 == 0, 255, 0)
large = resized(images, (32, 32))
pixels = torch.from_numpy(2 * large.astype(np.float64) / 255 - 1).unsqueeze(1)
with torch.no_grad():
    features = torch.cat([network(batch) for batch in torch.split(pixels, BATCHES[0])])

tensors = {f"network.{name}": value.detach().float() for name, value in network.named_parameters()}
tensors |= {
    "images": torch.from_numpy(images),
    "resized": torch.from_numpy(large),
    "shrunk": torch.from_numpy(resized(images[:2], (13, 20))),
    "features": features,
}
save("spiking-diffusion-metrics", "fad", tensors, pillow=version("pillow"))
