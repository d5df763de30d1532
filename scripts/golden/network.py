"""SEW residual blocks by SpikingJelly, and pooling by PyTorch, forward and backward.

Run: python scripts/golden/network.py  (writes crates/snn-core/tests/golden/network.safetensors)

`sew.<cnf>.*` is a BasicBlock as it stands, `sew.<cnf>.down.*` one that halves the map, with a 1x1 convolution on the way
round: input `x`, output `y` of a training pass, upstream gradient `gy`, gradient `gx`, `param.*`, `grad.*`; `after.*` running
statistics, with which `eval` is the output of an evaluation pass. `pool.*`: `x`, `y`, `gy`, `gx` over spikes (with ties) and
real numbers.
"""

import torch
from common import generator, save
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from spikingjelly.activation_based.model.sew_resnet import BasicBlock
from torch.nn.functional import avg_pool2d, max_pool2d

STEPS, BATCH, CHANNELS, SIDE = 4, 2, 4, 6
MIN_MARGIN = 2e-4


class Margin(torch.nn.Module):
    """A LIF neuron that remembers how near it came to its threshold."""

    nearest = 1.0

    def __init__(self):
        super().__init__()
        self.lif = neuron.LIFNode(
            tau=2.0, v_reset=0.0, surrogate_function=surrogate.ATan(2.0), step_mode="m", store_v_seq=True
        )

    def forward(self, x):
        spikes = self.lif(x)
        v = self.lif.v_seq.detach()
        before = torch.cat([torch.zeros_like(v[:1]), v[:-1]])
        h = before + (x.detach() - before) / 2.0
        Margin.nearest = min(Margin.nearest, (h - 1.0).abs().min().item())
        if not 0.05 < spikes.mean() < 0.8:
            Margin.nearest = 0.0
        return spikes


def block(cnf, down, rng):
    out = 2 * CHANNELS if down else CHANNELS
    shortcut = None
    if down:
        shortcut = torch.nn.Sequential(
            layer.Conv2d(CHANNELS, out, kernel_size=1, stride=2, bias=False), layer.BatchNorm2d(out)
        )
    made = BasicBlock(
        CHANNELS, out, 2 if down else 1, shortcut, norm_layer=layer.BatchNorm2d, cnf=cnf, spiking_neuron=Margin
    )
    functional.set_step_mode(made, "m")
    with torch.no_grad():
        for name, value in made.named_parameters():
            norm = value.dim() == 1
            shift = 1.2 if norm else 0.0
            value.copy_(shift + 0.3 * torch.randn(value.shape, generator=rng))
    return made


def sew(cnf, down):
    """The first seed whose neurons all stay clear of the threshold."""
    for seed in range(1000):
        rng = generator(seed)
        made = block(cnf, down, rng)
        Margin.nearest = 1.0
        x = (torch.rand(STEPS, BATCH, CHANNELS, SIDE, SIDE, generator=rng) < 0.3).double().requires_grad_()
        y = made(x)
        gy = torch.randn(y.shape, generator=rng)
        parameters = dict(made.named_parameters())
        gx, *grads = torch.autograd.grad(y, [x, *parameters.values()], gy)
        functional.reset_net(made)
        statistics = {k: v.clone() for k, v in made.named_buffers() if "running" in k}
        made.eval()
        with torch.no_grad():
            after = made(x)
        if Margin.nearest > MIN_MARGIN:
            out = {"x": x, "y": y, "gy": gy, "gx": gx, "eval": after}
            out |= {f"param.{k}": v for k, v in parameters.items()}
            out |= {f"grad.{k}": g for k, g in zip(parameters, grads)}
            return out | {f"after.{k}": v for k, v in statistics.items()}
    raise RuntimeError("no seed is clear of the threshold")


def pool(f, kernel, x, rng):
    x = x.clone().requires_grad_()
    y = f(x.flatten(0, 1), kernel).unflatten(0, x.shape[:2])
    gy = torch.randn(y.shape, generator=rng)
    (gx,) = torch.autograd.grad(y, x, gy)
    return {"x": x, "y": y, "gy": gy, "gx": gx}


def main():
    tensors = {}

    def add(name, out):
        tensors.update({f"{name}.{key}": value for key, value in out.items()})

    for cnf in ("ADD", "AND", "IAND"):
        add(f"sew.{cnf.lower()}", sew(cnf, False))
        add(f"sew.{cnf.lower()}.down", sew(cnf, True))
    for kernel in (1, 2, 3):
        rng = generator(kernel)
        real = torch.randn(2, 3, 2, 7, 8, generator=rng)
        for name, x in (("spikes", (real > 0.3).double()), ("real", real)):
            add(f"pool.average.{kernel}.{name}", pool(avg_pool2d, kernel, x, rng))
            add(f"pool.max.{kernel}.{name}", pool(max_pool2d, kernel, x, rng))
    save("snn-core", "network", tensors)


main()
