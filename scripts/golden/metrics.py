"""Image and feature metrics: MSE, SSIM, FID and KID, each by an implementation of its own.

Run: python scripts/golden/metrics.py
Writes crates/spiking-diffusion-metrics/tests/golden/metrics.safetensors.

`ssim.<set>.zero_padded` follows Po-Hsun-Su's pytorch_ssim (the paper's setting, images in
[-0.5, 0.5]); `ssim.<set>.valid` is scikit-image's, one value an image, which drops a border
of 5 pixels.
"""

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from common import generator, save
from pytorch_msssim import ssim as msssim_ssim
from skimage.metrics import structural_similarity

WINDOW, SIGMA = 11, 1.5


def gaussian_window(channels):
    axis = torch.arange(WINDOW) - WINDOW // 2
    line = torch.exp(-(axis**2) / (2 * SIGMA**2))
    line = line / line.sum()
    return torch.outer(line, line).expand(channels, 1, WINDOW, WINDOW)


def ssim_zero_padded(x, y):
    """Mean SSIM of each image; zeros around the image, C1 = 0.01^2, C2 = 0.03^2."""
    channels = x.shape[1]
    window = gaussian_window(channels)

    def blur(image):
        return F.conv2d(image, window, padding=WINDOW // 2, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x = blur(x * x) - mean_x**2
    var_y = blur(y * y) - mean_y**2
    cov = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return (top / bottom).mean((1, 2, 3))


def ssim_valid(x, y):
    return torch.tensor([
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=1.0,
            gaussian_weights=True, sigma=SIGMA, use_sample_covariance=False,
        )
        for a, b in zip(x, y)
    ])


def image_pair(rng, channels, side):
    """Smooth images in [-0.5, 0.5], and a blurred, noisy copy of them."""
    coarse = torch.rand(4, channels, side // 4, side // 4, generator=rng)
    x = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)
    noise = 0.08 * torch.randn(x.shape, generator=rng)
    y = F.avg_pool2d(x, 3, 1, 1) + noise
    return [image.clamp(0, 1) - 0.5 for image in (x, y)]


def fid(x, y):
    """FID by tr sqrt(C_x C_y) = the nuclear norm of A B^T, where C_x = A^T A and C_y = B^T B.

    Nothing here needs a matrix square root, so it stays exact where C_x C_y is singular.
    """
    a, b = [(f - f.mean(0)) / np.sqrt(len(f) - 1) for f in (x, y)]
    trace = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    gap = x.mean(0) - y.mean(0)
    return gap @ gap + (a * a).sum() + (b * b).sum() - 2 * trace


def fid_sqrtm(x, y):
    """FID the usual way, by scipy's matrix square root (loses digits where it is singular)."""
    c_x, c_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(c_x @ c_y)
    gap = x.mean(0) - y.mean(0)
    return gap @ gap + np.trace(c_x) + np.trace(c_y) - 2 * np.trace(root).real


def mmd(x, y):
    """Unbiased MMD^2 under (x.y/d + 1)^3."""
    m, d = x.shape

    def kernel(a, b):
        return (a @ b.T / d + 1) ** 3

    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within = (xx.sum() - np.trace(xx) + yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean()


def features(rng, n, d):
    """Correlated features of two distributions that overlap."""
    x = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    y = 0.3 + rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d)
    return x, y


def main():
    torch_rng, rng = generator(6), np.random.default_rng(6)
    tensors = {}

    for name, channels, side in [("gray", 1, 28), ("color", 3, 32)]:
        x, y = image_pair(torch_rng, channels, side)
        valid = ssim_valid(x, y)
        other = msssim_ssim(x, y, data_range=1.0, size_average=False)
        # Its window is built in f32.
        assert torch.allclose(valid, other.double(), atol=1e-5), (valid, other)
        each = ssim_zero_padded(x, y)
        print(name, "zero padded", each.tolist(), "valid", valid.tolist())
        tensors |= {
            f"images.{name}.x": x, f"images.{name}.y": y,
            f"mse.{name}": (x - y).square().mean(),
            f"ssim.{name}.zero_padded": each.mean(),
            f"ssim.{name}.zero_padded.each": each,
            f"ssim.{name}.valid": valid,
        }

    for name, n, d in [("a", 200, 16), ("b", 20, 32)]:
        x, y = features(rng, n, d)
        value, usual = fid(x, y), fid_sqrtm(x, y)
        print(f"fid.{name}", value, "by sqrtm", usual)
        tensors |= {
            f"fid.{name}.x": torch.tensor(x), f"fid.{name}.y": torch.tensor(y),
            f"fid.{name}.value": torch.tensor(value), f"fid.{name}.sqrtm": torch.tensor(usual),
        }

    x, y = features(rng, 120, 16)
    rows = [
        np.stack([rng.choice(len(x), 50, replace=False) for _ in range(10)]) for _ in range(2)
    ]
    values = np.array([mmd(x[i], y[j]) for i, j in zip(*rows)])
    tensors |= {
        "kid.x": torch.tensor(x), "kid.y": torch.tensor(y),
        "kid.idx_a": torch.tensor(rows[0]), "kid.idx_b": torch.tensor(rows[1]),
        "kid.values": torch.tensor(values),
        "kid.mean": torch.tensor(values.mean()), "kid.std": torch.tensor(values.std()),
    }
    print("kid", values.mean(), values.std())
    save("spiking-diffusion-metrics", "metrics", tensors)


if __name__ == "__main__":
    main()
