"""Firing rate, PSP and decaying read-out of a spike train, with their gradients.

Run: python scripts/golden/trace.py  (writes crates/snn-core/tests/golden/trace.safetensors)

`<name>` is the output, `<name>.w` fixed random weights of its shape, `<name>.gx` the gradient
of (output * w).sum() with respect to the spikes, taken as real numbers.
"""

import torch
from common import generator, save

STEPS = 16


def rate(x):
    """Eq. 4."""
    return sum(x) / len(x)


def psp(x, tau):
    """Eq. 5 by its recursion from 0, all steps."""
    state, out = torch.zeros_like(x[0]), []
    for step in x:
        state = (1 - 1 / tau) * state + step / tau
        out.append(state)
    return torch.stack(out)


def read_out(x, decay):
    """sum_t decay^(T-1-t) x_t."""
    return sum(decay ** (len(x) - 1 - t) * step for t, step in enumerate(x))


def main():
    rng = generator(3)
    spikes = (torch.rand(STEPS, 3, 4, generator=rng) < 0.35).double()
    tensors = {"spikes": spikes}
    for name, function in {
        "rate": rate,
        "psp.tau2": lambda x: psp(x, 2.0),
        "psp.tau5": lambda x: psp(x, 5.0),
        "readout.decay0.8": lambda x: read_out(x, 0.8),
    }.items():
        x = spikes.clone().requires_grad_(True)
        y = function(x)
        w = torch.randn(y.shape, generator=rng)
        (gx,) = torch.autograd.grad((y * w).sum(), x)
        tensors |= {name: y, f"{name}.w": w, f"{name}.gx": gx}
    # The released read-out is five times the PSP of tau = 5.
    assert torch.allclose(tensors["readout.decay0.8"], 5 * tensors["psp.tau5"][-1])
    save("snn-core", "trace", tensors)


if __name__ == "__main__":
    main()
