"""One full VQ-SVAE training step (and an evaluation pass) at fixed weights, by SpikingJelly.

Run: python scripts/golden/vqsvae.py
Writes crates/vq-svae/tests/golden/{paper,paper_sum,released_code}.safetensors.

`paper_sum` has the parameters and the forward pass of `paper`; it only holds the losses and
gradients under sums per image. See README.md beside this script for the losses of the three.
"""

import torch
import torch.nn.functional as F
from blocks import Block, named_state, settle
from common import generator, save
from spikingjelly.activation_based import functional, layer

STEPS, BATCH, SIDE, LATENT, CODES = 16, 2, 28, 16, 128
BETA, TAU_SYN, DECAY, VARIANCE = 0.25, 2.0, 0.8, 0.0949


class Features(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.k = torch.nn.Parameter(torch.tensor([0.4]))


class Model(torch.nn.Module):
    def __init__(self, released):
        super().__init__()
        self.released = released
        conv, convt = layer.Conv2d, layer.ConvTranspose2d
        half = {"kernel_size": 3, "stride": 2, "padding": 1}
        self.encoder = torch.nn.ModuleList([
            Block(conv, 1, 32, **half),
            Block(conv, 32, 64, **half),
            Block(conv, 64, LATENT, kernel_size=1),
        ])
        self.features = Features()
        self.codebook = torch.nn.Embedding(CODES, LATENT)
        self.generator = Block(conv, LATENT, LATENT, kernel_size=1)
        self.decoder = torch.nn.ModuleList([
            Block(convt, LATENT, 64, **half, output_padding=1),
            Block(convt, 64, 32, **half, output_padding=1),
        ])
        self.head = layer.ConvTranspose2d(32, 1, 3, 1, 1, step_mode="m")

    def encode(self, images):
        spikes = repeat(images)
        for block in self.encoder:
            spikes = block(spikes)
        return spikes

    def dense(self, spikes):
        """[T, N, C, H, W] -> z_E [N, C, H, W]."""
        k = self.features.k
        temporal = read_out(spikes) if self.released else psp(spikes)[-1]
        return k * spikes.mean(0) + (1 - k) * temporal

    def distances(self, z_e):
        """Squared distances [N, H, W, K]."""
        rows = z_e.permute(0, 2, 3, 1)[..., None, :]
        return (rows - self.codebook.weight).square().sum(-1)

    def forward(self, images):
        s_e = self.encode(images)
        z_e = self.dense(s_e)
        codes = self.distances(z_e.detach()).argmin(-1)
        z_q = self.codebook(codes).permute(0, 3, 1, 2)
        if self.released:
            s_q = self.generator(repeat(z_e + (z_q - z_e).detach()))
            decoded = s_q
        else:
            s_q = self.generator(repeat(z_q))
            decoded = s_e + (s_q - s_e).detach()
        for block in self.decoder:
            decoded = block(decoded)
        x_hat = read_out(self.head(decoded)).tanh()
        return {"s_e": s_e, "z_e": z_e, "codes": codes, "z_q": z_q, "s_q": s_q, "x_hat": x_hat}

    def blocks(self):
        return {
            **{f"encoder.{i}": block for i, block in enumerate(self.encoder)},
            "generator": self.generator,
            **{f"decoder.{i}": block for i, block in enumerate(self.decoder)},
        }


def repeat(x):
    return x.expand(STEPS, *x.shape)


def psp(x):
    """Eq. 5 by its recursion, every step."""
    state, out = torch.zeros_like(x[0]), []
    for step in x:
        state = (1 - 1 / TAU_SYN) * state + step / TAU_SYN
        out.append(state)
    return torch.stack(out)


def read_out(x):
    """sum_t 0.8^(T-1-t) x_t, by Horner's rule."""
    total = torch.zeros_like(x[0])
    for step in x:
        total = DECAY * total + step
    return total


def paper_losses(images, out):
    return {
        "reconstruction": (images - out["x_hat"]).square().mean(),
        "dense": (out["z_e"] - out["z_q"]).square().mean(),
        "generator": (psp(out["s_e"].detach()) - psp(out["s_q"])).square().mean(),
        "commitment": BETA * (psp(out["s_q"].detach()) - psp(out["s_e"])).square().mean(),
    }


def paper_sum_losses(images, out):
    n = len(images)
    return {
        "reconstruction": (images - out["x_hat"]).flatten(1).norm(dim=1).mean(),
        "dense": (out["z_e"] - out["z_q"]).square().sum() / n,
        "generator": (psp(out["s_e"].detach()) - psp(out["s_q"])).square().sum() / n,
        "commitment": BETA * (psp(out["s_q"].detach()) - psp(out["s_e"])).square().sum() / n,
    }


def released_losses(images, out):
    z_e, z_q = out["z_e"], out["z_q"]
    return paper_losses(images, out) | {
        "reconstruction": F.mse_loss(out["x_hat"], images) / VARIANCE,
        "dense": F.mse_loss(z_q, z_e.detach()) + 0.25 * F.mse_loss(z_e, z_q.detach()),
    }


def blobs(rng):
    """Images of four soft strokes each on a dark ground, in [-0.5, 0.5]."""
    axis = torch.arange(SIDE, dtype=torch.float64)
    images = torch.zeros(BATCH, 1, SIDE, SIDE)
    for image in images:
        for _ in range(4):
            row, col = 6 + 16 * torch.rand(2, generator=rng)
            wide, high = 1.5 + 3 * torch.rand(2, generator=rng)
            lean = 1.2 * torch.rand(1, generator=rng) - 0.6
            y = (axis[:, None] - row) / high
            x = (axis[None, :] - col) / wide
            image[0] += torch.exp(-(x * x + y * y + lean * x * y))
    return images.clamp(max=1) - 0.5


@torch.no_grad()
def settle_codebook(model, train, tested, rng, seeds=64):
    """The codebook, out of several draws, with the widest gap between best and second code."""
    pooled = torch.cat([train, tested])
    top = 1.6 * pooled.mean()
    best = 0.0
    for _ in range(seeds):
        drawn = torch.rand(CODES, LATENT, generator=rng) * top
        kept = model.codebook.weight.clone()
        model.codebook.weight.copy_(drawn)
        gap = code_gap(model, pooled)
        used = model.distances(train).argmin(-1).unique().numel()
        if used >= 10 and gap > best:
            best = gap
        else:
            model.codebook.weight.copy_(kept)
    assert best > 0, "no codebook uses ten codes"


def code_gap(model, z_e):
    two = model.distances(z_e.detach()).topk(2, largest=False).values
    return (two[..., 1] - two[..., 0]).min().item()


@torch.no_grad()
def settled(released, seed):
    """A model and images for which no spike and no code is a near tie, in either mode."""
    torch.manual_seed(seed)
    rng = generator(seed)
    model = Model(released)
    # The read-out adds up to five times the head's output: keep the tanh out of saturation.
    model.head.weight.mul_(0.2)
    model.head.bias.mul_(0.2)
    images = blobs(rng)
    train = tested = repeat(images)
    for block in model.encoder:
        train, tested = settle(block, train, tested, rng, gain=1.3, shift=0.1)
    z = [model.dense(spikes) for spikes in (train, tested)]
    settle_codebook(model, *z, rng)
    train, tested = [
        repeat(model.codebook(model.distances(z_e).argmin(-1)).permute(0, 3, 1, 2)) for z_e in z
    ]
    for block in [model.generator, *model.decoder]:
        train, tested = settle(block, train, tested, rng, gain=1.3, shift=0.1)
    return model, images


def margins(model, z_e):
    return {name: block.margin() for name, block in model.blocks().items()}, code_gap(model, z_e)


def gradients(model, losses):
    model.zero_grad()
    sum(losses.values()).backward(retain_graph=True)
    return {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}


def make(name, released, seed, losses_of):
    model, images = settled(released, seed)
    tensors = {"in.images": images}
    tensors |= {f"param.{key}": value for key, value in named_state(model).items()}
    if released:
        tensors["in.variance"] = torch.tensor(VARIANCE)

    model.train()
    out = model(images)
    losses = {file: losses_for(images, out) for file, losses_for in losses_of.items()}
    tensors |= {
        "out.spikes_e": out["s_e"], "out.z_e": out["z_e"], "out.codes": out["codes"],
        "out.spikes_q": out["s_q"], "out.reconstruction": out["x_hat"],
    }
    rates = {key: block.rate.item() for key, block in model.blocks().items()}
    tensors |= {f"rate.{key}": block.rate for key, block in model.blocks().items()}
    train_margins, train_gap = margins(model, out["z_e"])
    tensors |= {
        f"after.{key}": value for key, value in named_state(model).items() if "running" in key
    }
    grads = {file: gradients(model, terms) for file, terms in losses.items()}

    functional.reset_net(model)
    model.eval()
    with torch.no_grad():
        tested = model(images)
    eval_margins, eval_gap = margins(model, tested["z_e"])
    tensors |= {"eval.codes": tested["codes"], "eval.reconstruction": tested["x_hat"]}

    notes = {
        "seed": seed,
        "margin_train": min(train_margins.values()),
        "margin_eval": min(eval_margins.values()),
        "code_gap_train": train_gap,
        "code_gap_eval": eval_gap,
        "codes_used_train": out["codes"].unique().numel(),
        "codes_used_eval": tested["codes"].unique().numel(),
    }
    print(notes)
    print("rates", {key: f"{rate:.3f}" for key, rate in rates.items()})
    print("eval rates", {key: f"{b.rate.item():.3f}" for key, b in model.blocks().items()})
    for file, terms in losses.items():
        print(file, {key: f"{value.item():.4f}" for key, value in terms.items()})
        held = tensors if file == name else {}
        held = held | grads[file] | {f"loss.{key}": value for key, value in terms.items()}
        save("vq-svae", file, held, **notes)
    for rate in rates.values():
        assert 0.03 < rate < 0.4


def main():
    make("paper", False, 1, {"paper": paper_losses, "paper_sum": paper_sum_losses})
    make("released_code", True, 2, {"released_code": released_losses})


if __name__ == "__main__":
    main()
