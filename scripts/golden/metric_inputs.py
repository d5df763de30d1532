"""Seeded inputs of metrics.

Not run by itself; `metric_tools.py` and `scripts/parity/metrics.py` import it.
"""

import numpy as np
import torch
import torch.nn.functional as F


def features(rng, count, dims):
    """Non-negative and skewed, as Inception's are; two sets that differ a little."""
    mix = rng.normal(size=(dims, dims)) / np.sqrt(dims)
    a = np.abs(rng.normal(size=(count, dims)) @ mix)
    b = np.abs(rng.normal(size=(count, dims)) @ (mix + 0.02 * rng.normal(size=mix.shape)) + 0.05)
    return torch.from_numpy(a), torch.from_numpy(b)


def images(rng):
    """Bytes as floats: smooth pictures and noisy copies."""
    coarse = torch.from_numpy(rng.random((8, 3, 8, 8)))
    a = F.interpolate(coarse, size=(32, 28), mode="bicubic").clamp(0, 1)
    b = (a + 0.08 * torch.from_numpy(rng.normal(size=a.shape))).clamp(0, 1)
    return [(255 * x).round() / 255 for x in (a, b)]


def fidelity_subsets(count, subsets, size, seed=2020):
    """The rows that torch-fidelity draws, in its order."""
    rng = np.random.RandomState(seed)
    draws = [rng.choice(count, size, replace=False) for _ in range(2 * subsets)]
    return [torch.from_numpy(np.stack(draws[side::2])) for side in (0, 1)]
