"""Inception score, KID, precision / recall / density / coverage and SSIM by the field's own tools.

Run: python scripts/golden/metric_tools.py
Writes crates/spiking-diffusion-metrics/tests/golden/metric_tools.safetensors.

`manifold.*` are small integers, so that distances are exact and many samples lie on a ball: the open balls of `prdc` and
the closed ones of torch-fidelity differ there. Their values are counts: shares times the number of samples.
"""

from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO

import numpy as np
import prdc
import torch
from common import save
from metric_inputs import features, fidelity_subsets, images
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity import metric_isc, metric_kid, metric_prc
from torchmetrics.functional.image import structural_similarity_index_measure

NEIGHBOURS = [1, 3]


def score(rng):
    logits = torch.from_numpy(2 * rng.normal(size=(64, 9)))
    out = {"is.logits": logits}
    for splits in (1, 10):
        found = metric_isc.isc_features_to_metric(logits, splits=splits, shuffle=False)
        out[f"is.{splits}"] = torch.tensor([found[f"inception_score_{moment}"] for moment in ("mean", "std")])
    return out


def kernel(rng):
    a, b = features(rng, 60, 10)
    rows = fidelity_subsets(len(a), 6, 40)
    found = metric_kid.kid_features_to_metric(
        a, b, kid_subsets=6, kid_subset_size=40, rng_seed=2020, verbose=False
    )
    values = torch.tensor([found[f"kernel_inception_distance_{moment}"] for moment in ("mean", "std")])
    return {"kid.x": a, "kid.y": b, "kid.idx_a": rows[0], "kid.idx_b": rows[1], "kid.value": values}


def manifolds(rng):
    # 64 rows, so that their mean is a binary fraction.
    real, fake = [torch.from_numpy(rng.integers(0, high, (64, 3)).astype(float)) for high in (5, 4)]
    out = {"manifold.real": real, "manifold.fake": fake}
    for k in NEIGHBOURS:
        with redirect_stdout(StringIO()):
            found = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=k)
        counts = [found[name] * 64 for name in ("precision", "recall")]
        out[f"manifold.open.{k}"] = torch.tensor([*counts, found["density"] * 64 * k, found["coverage"] * 64])
        found = metric_prc.prc_features_to_metric(
            fake, real, prc_neighborhood=k, verbose=False, save_cpu_ram=False
        )
        out[f"manifold.closed.{k}"] = torch.tensor([found[name] * 64 for name in ("precision", "recall")])
        print(k, out[f"manifold.open.{k}"].tolist(), out[f"manifold.closed.{k}"].tolist())
    return {name: value.round() if "open" in name or "closed" in name else value for name, value in out.items()}


def pixels(rng):
    x, y = [image[:2] for image in images(rng)]
    pairs = [(p.numpy(), q.numpy()) for p, q in zip(x, y)]
    ssim = [structural_similarity(p, q, channel_axis=0, data_range=1.0) for p, q in pairs]
    psnr = [peak_signal_noise_ratio(p, q, data_range=1.0) for p, q in pairs]
    mirrored = structural_similarity_index_measure(x, y, data_range=1.0, reduction="none")
    return {"pixel.x": x, "pixel.y": y, "pixel.ssim": torch.tensor(ssim), "pixel.psnr": torch.tensor(psnr),
            "pixel.ssim_mirrored": mirrored}


def main():
    rng = np.random.default_rng(12)
    tensors = score(rng) | kernel(rng) | manifolds(rng) | pixels(rng)
    tools = ["prdc", "scikit-image", "scikit-learn", "torch-fidelity", "torchmetrics"]
    save("spiking-diffusion-metrics", "metric_tools", tensors, **{tool: version(tool) for tool in tools})


if __name__ == "__main__":
    main()
