"""The two networks of Spiking-Diffusion, and a spiking classifier, in PyTorch and SpikingJelly: the peer of the comparison.

Written from the paper and docs/deviations.md, with the parameter names of this project's checkpoints, so that both
sides run on the same weights. `released` has the losses, and in the autoencoder the features, of the released code, else those of the paper.
"""

import math

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate


class Block(torch.nn.Module):
    """conv + BN + LIF on [T, N, C, H, W], or linear + BN + LIF on [T, N, C]; the norm may be left out."""

    def __init__(self, conv, c_in, c_out, norm=True, **geometry):
        super().__init__()
        self.conv = conv(c_in, c_out, **geometry, step_mode="m")
        batch_norm = layer.BatchNorm1d if conv is layer.Linear else layer.BatchNorm2d
        self.bn = batch_norm(c_out, step_mode="m") if norm else torch.nn.Identity()
        self.lif = neuron.LIFNode(surrogate_function=surrogate.ATan(2.0), detach_reset=False, step_mode="m")
        self.rate = None

    def forward(self, x):
        spikes = self.lif(self.bn(self.conv(x)))
        self.rate = spikes
        return spikes


def blocks(model):
    return {name: m for name, m in model.named_modules() if isinstance(m, Block)}


def psp_of(steps):
    """Postsynaptic potentials with a time constant of two steps, as a map over time."""
    lag = torch.arange(steps)[:, None] - torch.arange(steps)[None]
    return torch.where(lag >= 0, 0.5 ** lag.clamp(min=0) / 2, torch.zeros(()))


class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([0.5]))


class VqSvae(torch.nn.Module):
    def __init__(self, steps=16, codes=128, latent=16, released=False):
        super().__init__()
        self.steps, self.released = steps, released
        conv, convt = layer.Conv2d, layer.ConvTranspose2d
        half = {"kernel_size": 3, "stride": 2, "padding": 1}
        self.encoder = torch.nn.ModuleList([
            Block(conv, 1, 32, **half), Block(conv, 32, 64, **half), Block(conv, 64, latent, kernel_size=1),
        ])
        self.features = Features()
        self.codebook = torch.nn.Embedding(codes, latent)
        self.generator = Block(conv, latent, latent, kernel_size=1)
        self.decoder = torch.nn.ModuleList([
            Block(convt, latent, 64, **half, output_padding=1), Block(convt, 64, 32, **half, output_padding=1),
        ])
        self.head = layer.ConvTranspose2d(32, 1, 3, 1, 1, step_mode="m")
        decay = 0.8 ** torch.arange(steps - 1, -1, -1.0)
        self.register_buffer("decay", decay, persistent=False)
        self.register_buffer("psp", psp_of(steps), persistent=False)

    def repeat(self, x):
        return x.expand(self.steps, *x.shape)

    def over_time(self, weights, x):
        return torch.tensordot(weights.to(x.dtype), x, dims=1)

    def quantise(self, images):
        spikes = self.repeat(images)
        for block in self.encoder:
            spikes = block(spikes)
        second = self.over_time(self.decay if self.released else self.psp[-1], spikes)
        z_e = self.features.k * spikes.mean(0) + (1 - self.features.k) * second
        rows = z_e.detach().permute(0, 2, 3, 1).flatten(0, 2)
        codes = torch.cdist(rows, self.codebook.weight.detach()).argmin(1)
        return spikes, z_e, codes.view(len(images), *z_e.shape[2:])

    def look_up(self, codes):
        return self.codebook(codes).permute(0, 3, 1, 2)

    def draw(self, spikes):
        for block in self.decoder:
            spikes = block(spikes)
        return self.over_time(self.decay, self.head(spikes)).tanh()

    def decode(self, codes):
        return self.draw(self.generator(self.repeat(self.look_up(codes))))

    def loss(self, images):
        s_e, z_e, codes = self.quantise(images)
        z_q = self.look_up(codes)
        if self.released:
            s_q = decoded = self.generator(self.repeat(z_e + (z_q - z_e).detach()))
            dense = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())
        else:
            s_q = self.generator(self.repeat(z_q))
            decoded = s_e + (s_q - s_e).detach()
            dense = F.mse_loss(z_e, z_q)
        x_hat = self.draw(decoded)
        p_e, p_q = self.over_time(self.psp, s_e), self.over_time(self.psp, s_q)
        reconstruction = F.mse_loss(x_hat, images) / (0.0949 if self.released else 1)
        return reconstruction + dense + F.mse_loss(p_q, p_e.detach()) + 0.25 * F.mse_loss(p_e, p_q.detach())


class Sdid(torch.nn.Module):
    def __init__(self, steps=16, codes=128, widths=(64, 128, 256, 512, 256), diffusion_steps=49, released=False):
        super().__init__()
        self.steps, self.codes, self.diffusion_steps, self.released = steps, codes, diffusion_steps, released
        self.layers = torch.nn.ModuleList(
            Block(layer.Conv2d, a, b, kernel_size=3, padding=1) for a, b in zip((2, *widths), widths)
        )
        self.head = layer.Conv2d(widths[-1] + widths[0], codes, 3, padding=1, step_mode="m")

    def forward(self, h, t):
        x = torch.stack([h, t[:, None, None].expand_as(h)], 1).float()
        x = x.expand(self.steps, *x.shape)
        outs = []
        for block in self.layers:
            x = block(x)
            outs.append(x)
        return self.head(torch.cat([outs[-1], outs[0]], 2)).mean(0)

    def loss(self, h0, t, u):
        masked = u < (t / self.diffusion_steps)[:, None, None]
        logits = self(torch.where(masked, self.codes, h0), t)
        nats = (F.cross_entropy(logits, h0, reduction="none") * masked).sum((1, 2))
        share = t / self.diffusion_steps
        weight = 1 - share if self.released else 1 / share
        return (nats * weight).mean() / (math.log(2) * h0[0].numel())

    @torch.no_grad()
    def sample(self, n, side=7, temperature=1.0):
        device = self.head.weight.device
        h = torch.full((n, side, side), self.codes, device=device)
        for t in range(self.diffusion_steps, 0, -1):
            reveal = (h == self.codes) & (torch.rand(h.shape, device=device) < 1 / t)
            logits = self(h, torch.full((n,), t, device=device)) / temperature
            functional.reset_net(self)
            drawn = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1)).sample()
            h = torch.where(reveal, drawn, h)
        return h


class Classifier(torch.nn.Module):
    """Two convolutions that halve the image, a hidden layer, ten logits; the mean over time comes before the last map."""

    def __init__(self, steps=4):
        super().__init__()
        self.steps = steps
        half = {"kernel_size": 3, "stride": 2, "padding": 1}
        blocks = [Block(layer.Conv2d, 1, 32, **half), Block(layer.Conv2d, 32, 64, **half)]
        self.parts = torch.nn.ModuleList([
            torch.nn.Sequential(*blocks), layer.Flatten(step_mode="m"),
            torch.nn.Sequential(Block(layer.Linear, 64 * 7 * 7, 256)),
        ])
        self.head = torch.nn.Linear(256, 10)

    def forward(self, images):
        spikes = images.expand(self.steps, *images.shape)
        for part in self.parts:
            spikes = part(spikes)
        return self.head(spikes.mean(0))

    def loss(self, images, labels):
        return F.cross_entropy(self(images), labels)

    def load(self, tensors):
        """Loads tensors under the names of this project's checkpoints."""
        here = lambda name: name if name.startswith("head") else f"parts.{name}".replace(".linear.", ".conv.")
        self.load_state_dict({here(name): t for name, t in tensors.items()}, strict=False)
