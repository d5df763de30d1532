"""Surrogate functions: the primitive and its derivative on a grid from -3 to 3.

Run: python scripts/golden/surrogate.py  (writes crates/snn-core/tests/golden/surrogate.safetensors)

ATan, Sigmoid and Erf (whose derivative is a normal density) come from SpikingJelly: the value is
its non-spiking primitive, the gradient is that of its spiking function. It has no triangle and no
window of this form: their primitives, and the rectangle's, are written here, and autograd
differentiates them.
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


def window(x, centre=0.25, width=1.5, height=0.3):
    """The integral of a box of this height on |x - centre| < width/2."""
    return height * (x - centre + width / 2).clamp(0, width)


def main():
    # linspace(-3, 3, 601), but exact at 0 and at the corners of rectangle and triangle.
    x = torch.arange(-300, 301) / 100
    inside, in_window = x.abs() < 0.5, (x - 0.25).abs() < 0.75
    tensors = {
        "x": x,
        "rectangle1.value": rectangle(x),
        # Autograd's clamp passes the gradient at its bounds; ours is 0 at |x| = width/2.
        "rectangle1.grad": gradient(rectangle, x) * inside,
        "window.value": window(x),
        "window.grad": gradient(window, x) * in_window,
        "triangle1.value": triangle(x),
        "triangle1.grad": gradient(triangle, x),
    }
    assert torch.equal(tensors["rectangle1.grad"], inside.double())
    assert torch.equal(tensors["window.grad"], 0.3 * in_window.double())
    assert torch.allclose(tensors["triangle1.grad"], (1 - x.abs()).clamp(min=0), atol=1e-14)
    for name, kind, alpha in [
        ("atan2", surrogate.ATan, 2.0),
        ("atan3.5", surrogate.ATan, 3.5),
        ("sigmoid4", surrogate.Sigmoid, 4.0),
        # alpha = 1 / (sqrt(2) sigma)
        ("gaussian0.4", surrogate.Erf, 0.5**0.5 / 0.4),
    ]:
        tensors[f"{name}.value"] = kind(alpha, spiking=False)(x.clone())
        tensors[f"{name}.grad"] = gradient(kind(alpha), x)
        tensors[f"{name}.spike"] = kind(alpha)(x)
    save("snn-core", "surrogate", tensors)


if __name__ == "__main__":
    main()
