"""The FSVAE of the paper's Table 1 in PyTorch and SpikingJelly, with the parameter names of this project's checkpoints.

As its authors' code does, prior and posterior are run again from the start for each time step that is drawn, over all steps so far
(from resting neurons, which that code forgets). With `stepwise`, they keep their membranes instead and run each step once, which gives
the same numbers: how much of the ratio is that choice, and how much the rest, can be read off the two.
"""

import math

import torch
import torch.nn.functional as F
from models import Block, psp_of
from spikingjelly.activation_based import functional, layer


def pick(candidates, picks):
    return candidates.gather(-1, picks.unsqueeze(-1)).squeeze(-1)


class Fsvae(torch.nn.Module):
    def __init__(self, steps=16, latent=56, candidates=20):
        super().__init__()
        self.steps, self.stepwise = steps, False
        conv, convt = layer.Conv2d, layer.ConvTranspose2d
        half = {"kernel_size": 3, "stride": 2, "padding": 1}
        self.map = (16, 7, 7)

        def linear(c_in, c_out):
            return Block(layer.Linear, c_in, c_out, norm=False)

        def chain(c_in):
            widths = (c_in, 2 * latent, 4 * latent, candidates * latent)
            layers = (linear(a, b) for a, b in zip(widths, widths[1:]))
            return torch.nn.Sequential(*layers, torch.nn.Unflatten(2, (latent, candidates)))

        self.encoder = torch.nn.Sequential(
            Block(conv, 1, 32, **half), Block(conv, 32, 64, **half), Block(conv, 64, 16, kernel_size=1),
        )
        self.to_latent, self.from_latent = linear(math.prod(self.map), latent), linear(latent, math.prod(self.map))
        self.posterior, self.prior = chain(2 * latent), chain(latent)
        self.decoder = torch.nn.Sequential(
            Block(convt, 16, 64, **half, output_padding=1), Block(convt, 64, 32, **half, output_padding=1),
        )
        self.head = layer.ConvTranspose2d(32, 1, 3, 1, 1, step_mode="m")
        self.register_buffer("decay", 0.8 ** torch.arange(steps - 1, -1, -1.0), persistent=False)
        self.register_buffer("psp", psp_of(steps), persistent=False)

    def run(self, chain, told):
        """All candidates of prior or posterior, from rest: [T, N, inputs] -> [T, N, latent, candidates]."""
        functional.reset_net(chain)
        return chain(told)

    @torch.no_grad()
    def told(self, chain, picks, xs=None):
        """Draws so many time steps: zeros, and what was drawn at each: [1 + steps, N, latent]."""
        told = self.decay.new_zeros(1, *picks.shape[1:])
        functional.reset_net(chain)
        for t, picked in enumerate(picks):
            first = t if self.stepwise else 0
            now = told[first:] if xs is None else torch.cat([xs[first : t + 1], told[first:]], 2)
            last = (chain(now) if self.stepwise else self.run(chain, now))[-1]
            told = torch.cat([told, pick(last, picked)[None]])
        return told

    def encode(self, images):
        spikes = self.encoder(images.expand(self.steps, *images.shape))
        return self.to_latent(spikes.flatten(2))

    def decode(self, z):
        spikes = self.decoder(self.from_latent(z).unflatten(2, self.map))
        return torch.tensordot(self.decay, self.head(spikes), dims=1).tanh()

    def losses(self, images, picks):
        xs = self.encode(images)
        q_z = self.run(self.posterior, torch.cat([xs, self.told(self.posterior, picks[:-1], xs)], 2))
        z = pick(q_z, picks)
        p_z = self.run(self.prior, torch.cat([torch.zeros_like(z[:1]), z[:-1].detach()]))
        gap = torch.tensordot(self.psp, q_z.mean(-1) - p_z.mean(-1), dims=1)
        return F.mse_loss(self.decode(z), images), gap.square().mean()

    def loss(self, images, picks):
        return sum(self.losses(images, picks))

    def reconstruct(self, images, picks):
        return self.decode(self.told(self.posterior, picks, self.encode(images))[1:])

    def sample(self, picks):
        return self.decode(self.told(self.prior, picks)[1:])

    def load(self, tensors):
        """Loads tensors under the names of this project's checkpoints."""
        self.load_state_dict({name.replace(".linear.", ".conv."): t for name, t in tensors.items()}, strict=False)
