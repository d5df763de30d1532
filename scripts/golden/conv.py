"""Convolution, transposed convolution and batch norm, forward and backward.

Run: python scripts/golden/conv.py  (writes crates/snn-core/tests/golden/conv.safetensors)

`<case>.geometry` is [kernel, stride, padding, output_padding]; the weight of a transposed
convolution is laid out [in, out, k, k].
"""

import torch
import torch.nn.functional as F
from common import generator, save

BATCH, WIDTH_IN, WIDTH_OUT = 2, 3, 4
# (height, width), kernel, stride, padding, output_padding
CONVS = [
    ((7, 7), 1, 1, 0, 0),
    ((5, 8), 3, 1, 1, 0),
    ((7, 9), 3, 2, 1, 0),
    ((11, 8), 5, 3, 2, 0),
]
TRANSPOSED = [
    ((4, 5), 1, 2, 0, 1),
    ((5, 8), 3, 1, 1, 0),
    ((7, 7), 3, 2, 1, 1),
    ((4, 3), 5, 3, 2, 1),
    ((3, 5), 3, 2, 0, 0),
]


def backward(y, named, rng):
    gy = torch.randn(y.shape, generator=rng)
    grads = torch.autograd.grad(y, list(named.values()), gy)
    return {"y": y, "gy": gy} | {f"g{key}": g for key, g in zip(named, grads)}


def draw(rng, *shape):
    return torch.randn(*shape, generator=rng).requires_grad_(True)


def convolution(case, transposed, rng):
    size, kernel, stride, padding, output_padding = case
    widths = (WIDTH_IN, WIDTH_OUT) if transposed else (WIDTH_OUT, WIDTH_IN)
    named = {
        "x": draw(rng, BATCH, WIDTH_IN, *size),
        "w": draw(rng, *widths, kernel, kernel),
        "b": draw(rng, WIDTH_OUT),
    }
    if transposed:
        y = F.conv_transpose2d(
            *named.values(), stride=stride, padding=padding, output_padding=output_padding
        )
    else:
        y = F.conv2d(*named.values(), stride=stride, padding=padding)
    geometry = torch.tensor([kernel, stride, padding, output_padding])
    return named | backward(y, named, rng) | {"geometry": geometry}


def batch_norm(rng):
    channels = 3
    named = {
        "x": draw(rng, 6, channels, 4, 5),
        "weight": draw(rng, channels),
        "bias": draw(rng, channels),
    }
    mean = 0.1 * torch.randn(channels, generator=rng)
    var = 0.5 + torch.rand(channels, generator=rng)
    out = {"running_mean.0": mean.clone(), "running_var.0": var.clone()}
    affine = named["weight"], named["bias"]
    y = F.batch_norm(named["x"], mean, var, *affine, training=True, momentum=0.1, eps=1e-5)
    out |= {"running_mean.1": mean.clone(), "running_var.1": var.clone()}
    out["eval.y"] = F.batch_norm(named["x"], mean, var, *affine, training=False, eps=1e-5)
    return named | out | backward(y, named, rng)


def main():
    rng = generator(5)
    tensors = {}

    def add(name, held):
        tensors.update({f"{name}.{key}": value for key, value in held.items()})

    for i, case in enumerate(CONVS):
        add(f"conv.{i}", convolution(case, False, rng))
    for i, case in enumerate(TRANSPOSED):
        add(f"convt.{i}", convolution(case, True, rng))
    add("bn", batch_norm(rng))
    save("snn-core", "conv", tensors)


if __name__ == "__main__":
    main()
