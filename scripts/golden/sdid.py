"""One SDID training step (and an evaluation pass) at fixed weights and masks, by SpikingJelly.

Run: python scripts/golden/sdid.py
Writes crates/absorbing-diffusion/tests/golden/{sdid_raw,sdid_embedding}.safetensors: the same
narrow network on raw numbers (token id, time) and on learned embeddings. The mask is token K;
the three weightings of the loss share one forward pass.
"""

import math

import torch
import torch.nn.functional as F
from blocks import Block, named_state, settle
from common import generator, save
from spikingjelly.activation_based import functional, layer

STEPS, BATCH, SIDE, CODES, DIFFUSION_STEPS, EMBEDDING = 16, 3, 7, 20, 49, 6
WIDTHS = [8, 16, 24, 32, 16]
TIMES = torch.tensor([49, 20, 3])
TOKENS = SIDE * SIDE


class Model(torch.nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding
        first = EMBEDDING if embedding else 2
        if embedding:
            self.token = torch.nn.Embedding(CODES + 1, EMBEDDING)
            self.position = torch.nn.Embedding(TOKENS, EMBEDDING)
            self.time = torch.nn.Embedding(DIFFUSION_STEPS + 1, EMBEDDING)
        self.layers = torch.nn.ModuleList(
            Block(layer.Conv2d, width_in, width_out, kernel_size=3, padding=1)
            for width_in, width_out in zip([first, *WIDTHS], WIDTHS)
        )
        self.head = layer.Conv2d(WIDTHS[-1] + WIDTHS[0], CODES, 3, padding=1, step_mode="m")

    def embed(self, h, t):
        """[N, 7, 7] tokens and [N] times -> the input of the first convolution, [T, N, C, 7, 7]."""
        if self.embedding:
            rows = self.token(h.flatten(1)) + self.position.weight + self.time(t)[:, None]
            x = rows.transpose(1, 2).unflatten(2, (SIDE, SIDE))
        else:
            times = t[:, None, None].expand_as(h)
            x = torch.stack([h, times], 1).double()
        return x.expand(STEPS, *x.shape)

    def forward(self, h, t):
        x = self.embed(h, t)
        outs = []
        for block in self.layers:
            x = block(x)
            outs.append(x)
        return self.head(torch.cat([outs[-1], outs[0]], 2)).mean(0)


def inputs(rng):
    """h_0, u and h_t, with no u near its threshold and something masked in every sample."""
    level = (TIMES / DIFFUSION_STEPS)[:, None, None]
    while True:
        h0 = torch.randint(CODES, (BATCH, SIDE, SIDE), generator=rng)
        u = torch.rand(BATCH, SIDE, SIDE, generator=rng)
        masked = u < level
        if (u - level).abs().min() > 1e-4 and masked.flatten(1).sum(1).min() >= 2:
            return h0, u, masked


@torch.no_grad()
def settled(model, h, rng):
    train = tested = model.embed(h, TIMES)
    for block in model.layers:
        train, tested = settle(block, train, tested, rng, gain=1.3, shift=0.2)


def make(name, embedding, seed):
    torch.manual_seed(seed)
    rng = generator(seed)
    model = Model(embedding)
    h0, u, masked = inputs(rng)
    h = torch.where(masked, CODES, h0)
    settled(model, h, rng)
    tensors = {"in.h0": h0, "in.t": TIMES, "in.u": u, "out.h_t": h}
    tensors |= {f"param.{key}": value for key, value in named_state(model).items()}

    model.train()
    logits = model(h, TIMES)
    tensors["out.logits"] = logits
    blocks = {f"layers.{i}": block for i, block in enumerate(model.layers)}
    tensors |= {f"rate.{key}": block.rate for key, block in blocks.items()}
    margin_train = min(block.margin() for block in blocks.values())
    tensors |= {
        f"after.{key}": value for key, value in named_state(model).items() if "running" in key
    }

    cross_entropy = F.cross_entropy(logits, h0, reduction="none")
    bits = (cross_entropy * masked).sum((1, 2)) / (TOKENS * math.log(2))
    weights = {
        "elbo": DIFFUSION_STEPS / TIMES,
        "released": 1 - TIMES / DIFFUSION_STEPS,
        "uniform": torch.ones(BATCH),
    }
    for key, weight in weights.items():
        loss = (weight * bits).mean()
        model.zero_grad()
        loss.backward(retain_graph=True)
        tensors[f"loss.{key}"] = loss
        tensors |= {f"grad.{key}.{n}": p.grad.clone() for n, p in model.named_parameters()}

    functional.reset_net(model)
    model.eval()
    with torch.no_grad():
        tensors["eval.logits"] = model(h, TIMES)
    margin_eval = min(block.margin() for block in blocks.values())
    rates = {key: tensors[f"rate.{key}"].item() for key in blocks}
    notes = {"seed": seed, "margin_train": margin_train, "margin_eval": margin_eval}
    print(notes, "masked", masked.flatten(1).sum(1).tolist())
    print("rates", {key: f"{rate:.3f}" for key, rate in rates.items()})
    print({key: f"{tensors[f'loss.{key}'].item():.4f}" for key in weights})
    for rate in rates.values():
        assert 0.03 < rate < 0.4
    save("absorbing-diffusion", name, tensors, **notes)


def main():
    make("sdid_raw", False, 1)
    make("sdid_embedding", True, 2)


if __name__ == "__main__":
    main()
