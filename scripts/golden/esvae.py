"""One whole ESVAE training step (and an evaluation pass, and samples) at fixed weights and draws, by PyTorch.

Run: python scripts/golden/esvae.py
Writes crates/fsvae/tests/golden/esvae.safetensors: encoder and decoder of the original FSVAE (`fsvae.py`), narrow, latent spikes drawn by
their rates, and the distance of rates computed from the matrix of kernels.
"""

import math

import fsvae
import torch
import torch.nn.functional as F
from common import generator, save
from fsvae import BATCH, LATENT, SIDE, STEPS, Model, best_of, liven, see, state


class RateSpike(torch.autograd.Function):
    """Theta(rate - u); derivative 1 where |rate - u| < 0.5."""

    @staticmethod
    def forward(ctx, rate, uniform):
        ctx.save_for_backward(rate, uniform)
        return (rate > uniform).to(rate.dtype)

    @staticmethod
    def backward(ctx, grad):
        rate, uniform = ctx.saved_tensors
        return grad * ((rate - uniform).abs() < 0.5).to(grad.dtype), None


class Esvae(Model):
    """Encoder and decoder of the original FSVAE, latent spikes by their rates."""

    def __init__(self):
        super().__init__(True)
        del self.posterior
        self.prior = torch.nn.Linear(LATENT, LATENT)

    def spikes(self, rates, uniform):
        rates = rates.expand(STEPS, *rates.shape)
        see(rates, uniform)
        see((rates - uniform).abs(), 0.5)
        return RateSpike.apply(rates, uniform)

    def forward(self, images, uniform, noise):
        r_q = self.to_latent(self.encoder(images.expand(STEPS, *images.shape)).flatten(2)).mean(0)
        z = self.spikes(r_q, uniform)
        return {"r_q": r_q, "r_p": self.prior(noise).sigmoid(), "z": z, "reconstruction": self.decode(z)}

    def sample(self, uniform, noise):
        return self.decode(self.spikes(self.prior(noise).sigmoid(), uniform))


def rbf_mmd(a, b, count=5):
    x = torch.cat([a, b])
    squares = (x[:, None] - x[None]).square().sum(-1)
    n = len(x)
    width = squares.detach().sum() / (n * n - n)
    kernel = sum(torch.exp(-squares / (width * 2.0 ** (i - count // 2))) for i in range(count))
    n = len(a)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - kernel[:n, n:].mean() - kernel[n:, :n].mean()


def make_esvae(seed):
    torch.manual_seed(seed)
    rng = generator(seed)
    fsvae.NEAR["now"] = math.inf
    model = Esvae()
    liven(model, rng)
    images = torch.rand(BATCH, 1, SIDE, SIDE, generator=rng) - 0.5
    uniform = torch.rand(STEPS, BATCH, LATENT, generator=rng)
    noise = torch.randn(BATCH, LATENT, generator=rng)
    tensors = {"in.images": images, "in.uniform": uniform, "in.noise": noise}
    tensors |= {f"param.{key}": value for key, value in state(model).items()}
    model.train()
    out = model(images, uniform, noise)
    tensors |= {f"out.{key}": value for key, value in out.items()}
    tensors |= {f"after.{key}": value for key, value in state(model).items() if "running" in key}
    terms = {
        "reconstruction": F.mse_loss(out["reconstruction"], images),
        "divergence": 1e-3 * rbf_mmd(out["r_q"], out["r_p"]),
    }
    tensors |= {f"loss.{key}": value for key, value in terms.items()}
    sum(terms.values()).backward()
    tensors |= {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.eval()
    with torch.no_grad():
        tested = model(images, uniform, noise)
        tensors |= {f"eval.{key}": value for key, value in tested.items()}
        tensors["sample.images"] = model.sample(uniform, noise)
    rates = {"r_q": out["r_q"].mean().item(), "eval r_q": tested["r_q"].mean().item()}
    lively = all(0.1 < rate < 0.8 for rate in rates.values()) and out["r_q"].std() > 0.1
    return {"seed": seed, "margin": fsvae.NEAR["now"], **rates}, tensors, bool(lively)


def main():
    notes, tensors, _ = best_of(make_esvae)
    print(notes)
    save("fsvae", "esvae", tensors, **notes)


if __name__ == "__main__":
    main()
