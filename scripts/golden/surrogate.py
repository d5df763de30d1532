"""Surrogate functions: the primitive and its derivative on a grid from -3 to 3.

Run: python scripts/golden/surrogate.py  (writes crates/snn-core/tests/golden/surrogate.safetensors)

ATan and Sigmoid come from SpikingJelly: the value is its non-spiking primitive, the gradient
is that of its spiking function. SpikingJelly has no rectangle and no triangle of this form:
their primitives are written here, and autograd differentiates them.
"""

import torch
from common import save
from spikingjelly.activation_based import surrogate


def gradient(function, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(function(x).sum(), x)[0]


def rectangle(x, width=1.0):
    """The integral of a box of height 1/width on |x| < width/2."""
    return (x / width + 0.5).clamp(0, 1)


def triangle(x, width=1.0):
    """The integral of a tent of height 1/width on |x| < width."""
    z = (x / width).clamp(-1, 1)
    return 0.5 + z - 0.5 * z * z.abs()


def main():
    # linspace(-3, 3, 601), but exact at 0 and at the corners of rectangle and triangle.
    x = torch.arange(-300, 301) / 100
    inside = x.abs() < 0.5
    tensors = {
        "x": x,
        "rectangle1.value": rectangle(x),
        # Autograd's clamp passes the gradient at its bounds; ours is 0 at |x| = width/2.
        "rectangle1.grad": gradient(rectangle, x) * inside,
        "triangle1.value": triangle(x),
        "triangle1.grad": gradient(triangle, x),
    }
    assert torch.equal(tensors["rectangle1.grad"], inside.double())
    assert torch.allclose(tensors["triangle1.grad"], (1 - x.abs()).clamp(min=0), atol=1e-14)
    for name, kind, alpha in [
        ("atan2", surrogate.ATan, 2.0),
        ("atan3.5", surrogate.ATan, 3.5),
        ("sigmoid4", surrogate.Sigmoid, 4.0),
    ]:
        tensors[f"{name}.value"] = kind(alpha, spiking=False)(x.clone())
        tensors[f"{name}.grad"] = gradient(kind(alpha), x)
        tensors[f"{name}.spike"] = kind(alpha)(x)
    save("snn-core", "surrogate", tensors)


if __name__ == "__main__":
    main()
