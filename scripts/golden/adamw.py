"""Twenty steps of torch.optim.AdamW on two parameters, plain and with clipped gradients.

Run: python scripts/golden/adamw.py  (writes crates/snn-core/tests/golden/adamw.safetensors)
"""

import torch
from common import generator, save

STEPS, MAX_NORM = 20, 0.5
SHAPES = {"a": (3, 4), "b": (5,)}


def run(start, grads, clip):
    params = {key: value.clone().requires_grad_(True) for key, value in start.items()}
    optimizer = torch.optim.AdamW(
        params.values(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-3
    )
    after, norms = {key: [] for key in params}, []
    for step in range(STEPS):
        for key, param in params.items():
            param.grad = grads[key][step].clone()
        if clip:
            norms.append(torch.nn.utils.clip_grad_norm_(params.values(), max_norm=MAX_NORM))
        optimizer.step()
        for key, param in params.items():
            after[key].append(param.detach().clone())
    return {key: torch.stack(values) for key, values in after.items()}, norms


def main():
    rng = generator(4)
    start = {key: torch.randn(shape, generator=rng) for key, shape in SHAPES.items()}
    # Norms on either side of MAX_NORM, so that some steps are clipped and some are not.
    scale = torch.rand(STEPS, generator=rng) * 0.4
    grads = {
        key: torch.stack([s * torch.randn(shape, generator=rng) for s in scale])
        for key, shape in SHAPES.items()
    }
    plain, _ = run(start, grads, clip=False)
    clipped, norms = run(start, grads, clip=True)
    tensors = {"clip.norm": torch.stack(norms)}
    assert 3 < (tensors["clip.norm"] > MAX_NORM).sum() < STEPS - 3
    for key in SHAPES:
        tensors[f"{key}.0"] = start[key]
        tensors[f"{key}.grad"] = grads[key]
        tensors[f"{key}.after"] = plain[key]
        tensors[f"clip.{key}.after"] = clipped[key]
    save("snn-core", "adamw", tensors)


if __name__ == "__main__":
    main()
