"""One training step, and an evaluation pass, of the networks without spikes, by PyTorch alone.

Run: python scripts/golden/analog.py
Writes crates/vq-svae/tests/golden/{twin_paper,twin_released,vq_vae}.safetensors and
crates/absorbing-diffusion/tests/golden/sdid_twin.safetensors: small networks. The twins are the
spiking networks with ReLU in the place of LIF at one time step; `vq_vae` has no norm, no spike
generator and no tanh.
"""

import math

import torch
import torch.nn.functional as F
from blocks import named_state
from common import generator, save
from torch.nn import Conv2d, ConvTranspose2d

BATCH, ROWS, COLUMNS, CODES, LATENT = 3, 12, 8, 7, 3
BETA, TAU_SYN, VARIANCE, K = 0.25, 2.0, 0.0949, 0.4
SIDE, WIDTHS, DIFFUSION_STEPS, EMBEDDING = 4, [5, 6, 4], 16, 3
TIMES = torch.tensor([16, 9, 4])


class Block(torch.nn.Module):
    """Convolution, norm, ReLU; each of the last two if asked for. Keeps its smallest current."""

    def __init__(self, conv, *widths, norm=True, relu=True, **geometry):
        super().__init__()
        self.conv, self.relu, self.margin = conv(*widths, **geometry), relu, math.inf
        self.bn = torch.nn.BatchNorm2d(widths[1]) if norm else torch.nn.Identity()

    def forward(self, x):
        current = self.bn(self.conv(x))
        if self.relu:
            self.margin = min(self.margin, current.abs().min().item())
        return current.relu() if self.relu else current


class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([K]))


class Autoencoder(torch.nn.Module):
    """`kind` is twin_paper, twin_released or vq_vae."""

    def __init__(self, kind):
        super().__init__()
        self.kind, vq_vae = kind, kind == "vq_vae"
        half = {"kernel_size": 3, "stride": 2, "padding": 1, "norm": not vq_vae}
        self.encoder = torch.nn.ModuleList([
            Block(Conv2d, 1, 4, **half),
            Block(Conv2d, 4, 6, **half),
            Block(Conv2d, 6, LATENT, kernel_size=1, norm=not vq_vae, relu=not vq_vae),
        ])
        if not vq_vae:
            self.features = Features()
            self.generator = Block(Conv2d, LATENT, LATENT, kernel_size=1)
        self.codebook = torch.nn.Embedding(CODES, LATENT)
        self.decoder = torch.nn.ModuleList([
            Block(ConvTranspose2d, LATENT, 6, **half, output_padding=1),
            Block(ConvTranspose2d, 6, 4, **half, output_padding=1),
        ])
        self.head = ConvTranspose2d(4, 1, 3, 1, 1)

    def forward(self, images):
        s_e = images
        for block in self.encoder:
            s_e = block(s_e)
        z_e = s_e
        if self.kind == "twin_paper":
            # One step: the rate is the number itself, the PSP its part 1/tau.
            z_e = self.features.k * s_e + (1 - self.features.k) * s_e / TAU_SYN
        elif self.kind == "twin_released":
            z_e = self.features.k * s_e + (1 - self.features.k) * s_e
        distances = torch.cdist(z_e.detach().permute(0, 2, 3, 1), self.codebook.weight[None])
        codes = distances.argmin(-1)
        two = distances.detach().topk(2, largest=False).values
        self.gap = (two[..., 1] - two[..., 0]).min().item()
        z_q = self.codebook(codes).permute(0, 3, 1, 2)
        straight = z_e + (z_q - z_e).detach()
        if self.kind == "vq_vae":
            s_q = decoded = straight
        elif self.kind == "twin_released":
            s_q = decoded = self.generator(straight)
        else:
            s_q = self.generator(z_q)
            decoded = s_e + (s_q - s_e).detach()
        for block in self.decoder:
            decoded = block(decoded)
        x_hat = self.head(decoded)
        x_hat = x_hat if self.kind == "vq_vae" else x_hat.tanh()
        return {"spikes_e": s_e, "z_e": z_e, "codes": codes, "spikes_q": s_q, "reconstruction": x_hat}, z_q

    def losses(self, images, out, z_q):
        z_e, s_e, s_q = out["z_e"], out["spikes_e"], out["spikes_q"]
        error = F.mse_loss(out["reconstruction"], images)
        balanced = F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach())
        if self.kind == "vq_vae":
            return {"reconstruction": error / VARIANCE, "dense": balanced}
        paper = self.kind == "twin_paper"
        return {
            "reconstruction": error if paper else error / VARIANCE,
            "dense": F.mse_loss(z_e, z_q) if paper else balanced,
            "generator": F.mse_loss(s_q / TAU_SYN, s_e.detach() / TAU_SYN),
            "commitment": BETA * F.mse_loss(s_e / TAU_SYN, s_q.detach() / TAU_SYN),
        }


class Denoiser(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.token = torch.nn.Embedding(CODES + 1, EMBEDDING)
        self.position = torch.nn.Embedding(SIDE * SIDE, EMBEDDING)
        self.time = torch.nn.Embedding(DIFFUSION_STEPS + 1, EMBEDDING)
        self.layers = torch.nn.ModuleList(
            Block(Conv2d, c_in, c_out, kernel_size=3, padding=1)
            for c_in, c_out in zip([EMBEDDING, *WIDTHS], WIDTHS)
        )
        self.head = Conv2d(WIDTHS[-1] + WIDTHS[0], CODES, 3, padding=1)

    def forward(self, h, t):
        rows = self.token(h.flatten(1)) + self.position.weight + self.time(t)[:, None]
        x, outs = rows.transpose(1, 2).unflatten(2, (SIDE, SIDE)), []
        for block in self.layers:
            x = block(x)
            outs.append(x)
        return self.head(torch.cat([outs[-1], outs[0]], 1))


@torch.no_grad()
def lively(model, rng):
    """Norms that are not the identity, and running statistics that are not those of no data."""
    for name, value in model.state_dict().items():
        if name.endswith("bn.weight") or name.endswith("running_var"):
            value.copy_(0.7 + 0.6 * torch.rand(value.shape, generator=rng))
        elif name.endswith("bn.bias") or name.endswith("running_mean"):
            value.copy_(0.3 * torch.randn(value.shape, generator=rng))


def step(model, run, losses_of):
    """The tensors of a training pass with all gradients, then of an evaluation pass."""
    tensors = {f"param.{key}": value for key, value in named_state(model).items()}
    model.train()
    out = run()
    losses = losses_of(out)
    sum(losses.values()).backward()
    tensors |= {f"loss.{key}": value for key, value in losses.items()}
    tensors |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
    tensors |= {f"after.{k}": v for k, v in named_state(model).items() if "running" in k}
    model.eval()
    with torch.no_grad():
        tested = run()
    return tensors, out, tested


def margin(model):
    return min(block.margin for block in model.modules() if isinstance(block, Block))


def autoencoder(kind, seed):
    torch.manual_seed(seed)
    rng, model = generator(seed), Autoencoder(kind)
    lively(model, rng)
    images = torch.rand(BATCH, 1, ROWS, COLUMNS, generator=rng) - 0.5
    with torch.no_grad():
        # Codes among the features, so that several are used.
        codes = torch.rand(CODES, LATENT, generator=rng)
        if kind == "vq_vae":
            z_e = model(images)[0]["z_e"]
            codes = z_e.mean((0, 2, 3)) + 4 * z_e.std((0, 2, 3)) * (codes - 0.5)
        model.codebook.weight.copy_(codes)
    gaps = []

    def run():
        result = model(images)
        gaps.append(model.gap)
        return result

    tensors, (out, _), (tested, _) = step(model, run, lambda found: model.losses(images, *found))
    tensors |= {"in.images": images} | {f"out.{key}": value for key, value in out.items()}
    tensors |= {f"eval.{key}": tested[key] for key in ("codes", "reconstruction")}
    notes = {"seed": seed, "margin": margin(model), "code_gap": min(gaps), "used": len(out["codes"].unique())}
    print(kind, notes)
    assert notes["margin"] > 1e-5 and notes["code_gap"] > 1e-5 and notes["used"] > 2
    save("vq-svae", kind, tensors, **notes)


def denoiser(seed):
    torch.manual_seed(seed)
    rng, model = generator(seed), Denoiser()
    lively(model, rng)
    h0 = torch.randint(CODES, (BATCH, SIDE, SIDE), generator=rng)
    u = torch.rand(BATCH, SIDE, SIDE, generator=rng)
    masked = u < (TIMES / DIFFUSION_STEPS)[:, None, None]
    h = torch.where(masked, CODES, h0)

    def losses(logits):
        bits = (F.cross_entropy(logits, h0, reduction="none") * masked).sum((1, 2)) / (SIDE * SIDE * math.log(2))
        return {"elbo": (DIFFUSION_STEPS / TIMES * bits).mean()}

    tensors, logits, tested = step(model, lambda: model(h, TIMES), losses)
    tensors |= {"in.h0": h0, "in.t": TIMES, "in.u": u, "out.h_t": h, "out.logits": logits, "eval.logits": tested}
    notes = {"seed": seed, "margin": margin(model)}
    print("sdid_twin", notes)
    assert notes["margin"] > 1e-5
    save("absorbing-diffusion", "sdid_twin", tensors, **notes)


def main():
    for seed, kind in enumerate(["twin_paper", "twin_released", "vq_vae"], 1):
        autoencoder(kind, seed)
    denoiser(4)


if __name__ == "__main__":
    main()
