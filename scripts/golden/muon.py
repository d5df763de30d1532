"""Eight steps of torch.optim.Muon on a wide, a tall and a square matrix, in f64.

PyTorch orthogonalises in bfloat16; here that name means f64, so that its own code computes in f64.

Run: python scripts/golden/muon.py  (writes crates/snn-core/tests/golden/muon.safetensors)
"""

import torch
from common import generator, save

STEPS = 8
SHAPES = {"wide": (4, 9), "tall": (7, 3), "square": (5, 5)}


def main():
    torch.bfloat16 = torch.float64
    rng = generator(41)
    randn = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    start = {key: randn(shape) for key, shape in SHAPES.items()}
    # Singular values far apart, and of any size.
    grads = {
        key: torch.stack([10.0 ** (i % 3 - 1) * randn(shape) * randn(shape[1]) for i in range(STEPS)])
        for key, shape in SHAPES.items()
    }
    params = {key: value.clone().requires_grad_(True) for key, value in start.items()}
    optimizer = torch.optim.Muon(
        params.values(), lr=0.02, weight_decay=0.1, momentum=0.95, nesterov=True, adjust_lr_fn="original"
    )
    after = {key: [] for key in params}
    for step in range(STEPS):
        for key, param in params.items():
            param.grad = grads[key][step].clone()
        optimizer.step()
        for key, param in params.items():
            after[key].append(param.detach().clone())
    tensors = {}
    for key in SHAPES:
        tensors[f"{key}.0"] = start[key]
        tensors[f"{key}.grad"] = grads[key]
        tensors[f"{key}.after"] = torch.stack(after[key])
    save("snn-core", "muon", tensors)


if __name__ == "__main__":
    main()
