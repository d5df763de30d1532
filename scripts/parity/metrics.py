"""Compares the metrics with the field's own tools, on the same inputs. Run by `scripts/parity-metrics`."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import numpy as np
import prdc
import torch
import torch.nn.functional as F
from cleanfid import fid as clean_fid
from cleanfid.resize import make_resizer
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.torch import load_file, save_file
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.image import PeakSignalNoiseRatio
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import KernelInceptionDistance

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from metric_inputs import features, fidelity_subsets, images  # noqa: E402

TOLERANCE = {"fid": 1e-4, "is": 1e-4, "kid": 1e-4, "prdc": 0.0, "image": 1e-5, "resize": 1e-5}
SUBSETS = {"kid_subsets": 20, "kid_subset_size": 100}
SPLITS = 10


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, help="the example `metrics`")
    parser.add_argument("--samples", type=int, default=600)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="also writes the rows and the versions to this file")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--rounds", type=int, default=3, help="with --speed, how often each is timed")
    return parser.parse_args()


def torchmetrics_subsets(count, subsets, size, seed):
    torch.manual_seed(seed)
    draws = [torch.randperm(count)[:size] for _ in range(2 * subsets)]
    return [torch.stack(draws[side::2]) for side in (0, 1)]


def clean_subsets(count, subsets, size, seed):
    """clean-fid draws for its second set first."""
    np.random.seed(seed)
    draws = [np.random.choice(count, size, replace=False) for _ in range(2 * subsets)]
    return [torch.from_numpy(np.stack(draws[side::2])) for side in (1, 0)]


def ours(args, inputs, folder):
    """Metrics and resized images."""
    source, resized = folder / "inputs.safetensors", folder / "resized.safetensors"
    save_file({name: value.contiguous() for name, value in inputs.items()}, source)
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    run = subprocess.run([args.ours, source, resized], env=environment, check=True, capture_output=True, text=True)
    return json.loads(run.stdout), load_file(resized) if resized.exists() else {}


class Table:
    """Rows (metric, tool, theirs, ours, difference, ok)."""

    def __init__(self):
        self.rows = []

    def add(self, kind, metric, tool, theirs, ours, relative=False):
        difference = abs(theirs - ours) / (abs(theirs) if relative else 1)
        ok = bool(difference <= TOLERANCE[kind])
        self.rows.append({"metric": metric, "tool": tool, "theirs": float(theirs), "ours": float(ours),
                          "difference": float(difference), "relative": relative, "ok": ok})

    def largest(self, kind, metric, tool, theirs, ours):
        """Two arrays by their largest difference."""
        difference = float(np.abs(np.asarray(theirs) - np.asarray(ours)).max())
        self.rows.append({"metric": metric, "tool": tool, "theirs": None, "ours": None, "difference": difference,
                          "relative": False, "ok": difference <= TOLERANCE[kind]})

    def show(self):
        print("| metric | tool | theirs | ours | difference | ok |\n| --- | --- | --- | --- | --- | --- |")
        for row in self.rows:
            number = lambda name: "-" if row[name] is None else f"{row[name]:.9g}"  # noqa: E731
            kind = " rel." if row["relative"] else ""
            verdict = "yes" if row["ok"] else "**no**"
            print(f"| {row['metric']} | {row['tool']} | {number('theirs')} | {number('ours')} "
                  f"| {row['difference']:.1e}{kind} | {verdict} |")


def statistics(x):
    return np.mean(x, axis=0), np.cov(x, rowvar=False)


def frechet(table, a, b, found):
    x, y = a.numpy(), b.numpy()
    stats = [*statistics(x), *statistics(y)]
    fidelity = [metric_fid.fid_features_to_statistics(side) for side in (a, b)]
    identity = torch.nn.Identity()
    identity.num_features = a.shape[1]
    module = FrechetInceptionDistance(feature=identity)
    module.update(a, real=True), module.update(b, real=False)
    theirs = {
        "pytorch-fid": calculate_frechet_distance(*stats),
        "torch-fidelity": metric_fid.fid_statistics_to_metric(*fidelity, False)["frechet_inception_distance"],
        "clean-fid": clean_fid.frechet_distance(*stats),
        "torchmetrics": module.compute().item(),
    }
    for tool, value in theirs.items():
        table.add("fid", "FID", tool, value, found["fid"], relative=True)
    table.add("fid", "FID, by the smaller problem", "pytorch-fid", theirs["pytorch-fid"], found["fid_of_features"],
              relative=True)


def kernel(table, args, a, b, folder):
    subsets, size = SUBSETS["kid_subsets"], SUBSETS["kid_subset_size"]

    def with_rows(rows):
        return ours(args, {"features.a": a, "features.b": b, "kid.a": rows[0], "kid.b": rows[1]}, folder)[0]

    found = with_rows(fidelity_subsets(len(a), subsets, size))
    theirs = metric_kid.kid_features_to_metric(a, b, verbose=False, rng_seed=2020, **SUBSETS)
    for moment in ("mean", "std"):
        value = theirs[f"kernel_inception_distance_{moment}"]
        table.add("kid", f"KID {moment}", "torch-fidelity", value, found[f"kid_{moment}"], relative=True)

    found = with_rows(torchmetrics_subsets(len(a), subsets, size, args.seed))
    module = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=subsets, subset_size=size)
    module.update(a, real=True), module.update(b, real=False)
    torch.manual_seed(args.seed)
    for moment, value in zip(("mean", "std"), module.compute()):
        table.add("kid", f"KID {moment}", "torchmetrics", value.item(), found[f"kid_{moment}"], relative=True)

    found = with_rows(clean_subsets(len(a), subsets, size, args.seed))
    np.random.seed(args.seed)
    value = clean_fid.kernel_distance(a.numpy(), b.numpy(), num_subsets=subsets, max_subset_size=size)
    table.add("kid", "KID mean", "clean-fid", value, found["kid_mean"], relative=True)


def score(table, logits, found, args):
    theirs = metric_isc.isc_features_to_metric(logits, splits=SPLITS, shuffle=False)
    for moment in ("mean", "std"):
        value = theirs[f"inception_score_{moment}"]
        table.add("is", f"IS {moment}", "torch-fidelity", value, found[f"is_{moment}"], relative=True)
    # torchmetrics shuffles, and its splits are those of `chunk`: the same where they divide the number of rows.
    module = InceptionScore(feature=torch.nn.Identity(), splits=SPLITS)
    torch.manual_seed(args.seed)
    shuffled = torch.empty_like(logits)
    shuffled[torch.randperm(len(logits))] = logits
    module.update(shuffled)
    torch.manual_seed(args.seed)
    mean, _ = module.compute()
    table.add("is", "IS mean", "torchmetrics", mean.item(), found["is_mean"], relative=True)


def manifolds(table, a, b, found):
    with redirect_stdout(StringIO()):
        theirs = prdc.compute_prdc(a.numpy(), b.numpy(), nearest_k=3)
    for name, value in theirs.items():
        table.add("prdc", f"{name}, k = 3", "prdc", value, found["open"][name])
    theirs = metric_prc.prc_features_to_metric(b, a, prc_neighborhood=3, verbose=False, save_cpu_ram=False)
    for name in ("precision", "recall"):
        # It averages in f32.
        value, count = theirs[name], len(a)
        table.add("prdc", f"{name}, k = 3, closed", "torch-fidelity", round(value * count) / count,
                  found["closed"][name])


def pixels(table, x, y, found):
    def each(function, **options):
        return np.mean([function(p.numpy(), q.numpy(), data_range=1.0, **options) for p, q in zip(x, y)])

    table.add("image", "PSNR", "scikit-image", each(peak_signal_noise_ratio), found["psnr"])
    value = PeakSignalNoiseRatio(data_range=1.0, dim=(1, 2, 3))(x, y).item()
    table.add("image", "PSNR", "torchmetrics", value, found["psnr"])
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    value = each(structural_similarity, channel_axis=0, **gaussian)
    table.add("image", "SSIM, Gaussian 11 x 11", "scikit-image", value, found["ssim_gaussian"])
    value = structural_similarity_index_measure(x, y, data_range=1.0).item()
    table.add("image", "SSIM, Gaussian 11 x 11, mirrored", "torchmetrics", value, found["ssim_mirrored"])
    value = each(structural_similarity, channel_axis=0)
    table.add("image", "SSIM, uniform 7 x 7", "scikit-image", value, found["ssim_uniform"])


def resizing(table, x, resized):
    x = x.float()
    value = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    table.largest("resize", "resize, bilinear", "torch (pytorch-fid)", value, resized["bilinear"])
    value = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    table.largest("resize", "resize, TensorFlow 1", "torch-fidelity", value, resized["corner"])
    resizer = make_resizer("PIL", False, "bicubic", (299, 299))
    bytes_ = (255 * x).round().byte().permute(0, 2, 3, 1).numpy()
    value = np.stack([resizer(image) for image in bytes_]).transpose(0, 3, 1, 2) / 255
    # It cuts what overshoots, as `InceptionConfig::clean_fid` does behind the resizing.
    table.largest("resize", "resize, bicubic", "clean-fid", value, resized["bicubic"].clamp(0, 1))


def compare(args, folder):
    rng = np.random.default_rng(args.seed)
    a, b = features(rng, args.samples, args.dims)
    logits = torch.from_numpy(2 * rng.normal(size=(args.samples // SPLITS * SPLITS, 50)))
    x, y = images(rng)
    inputs = {"features.a": a, "features.b": b, "logits": logits, "images.a": x, "images.b": y}
    found, resized = ours(args, inputs, folder)
    table = Table()
    frechet(table, a, b, found)
    kernel(table, args, a, b, folder)
    score(table, logits, found, args)
    manifolds(table, a, b, found)
    pixels(table, x, y, found)
    resizing(table, x, resized)
    table.show()
    return table.rows


def speed(args, folder):
    """Alternately: FID of 2,048 features and KID, 100 subsets of 1,000 of 4,000 rows."""
    rng = np.random.default_rng(args.seed)
    a, b = (side.float() for side in features(rng, 4000, 2048))
    rows = fidelity_subsets(len(a), 100, 1000)
    inputs = {"features.a": a, "features.b": b, "kid.a": rows[0], "kid.b": rows[1]}
    stats = [metric_fid.fid_features_to_statistics(side.double()) for side in (a, b)]
    # In f32, as torch-fidelity keeps its features, and in f64, as ours computes.
    theirs = {
        "fid": lambda: metric_fid.fid_statistics_to_metric(*stats, False),
        "kid": lambda: metric_kid.kid_features_to_metric(
            a, b, verbose=False, kid_subsets=100, kid_subset_size=1000, rng_seed=2020),
        "kid, f64": lambda: metric_kid.kid_features_to_metric(
            a.double(), b.double(), verbose=False, kid_subsets=100, kid_subset_size=1000, rng_seed=2020),
    }
    seconds = {name: [] for name in theirs}
    our_seconds = {"fid": [], "kid": []}
    for _ in range(args.rounds):
        for name, run in theirs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
        found, _ = ours(args, inputs, folder)
        for name, times in our_seconds.items():
            times.append(found[f"seconds.{name}"])
    for name, times in seconds.items():
        mine, their = min(our_seconds[name[:3]]), min(times)
        print(f"{name}: torch-fidelity {their:.2f} s, ours {mine:.2f} s, {their / mine:.2f}x "
              f"(all: {[round(t, 2) for t in times]}, {[round(t, 2) for t in our_seconds[name[:3]]]})")
    return []


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")  # of the tools, about their own dependencies
    with tempfile.TemporaryDirectory() as folder:
        rows = (speed if args.speed else compare)(args, Path(folder))
    names = ["pytorch-fid", "torch-fidelity", "torchmetrics", "prdc", "scikit-image", "clean-fid", "scipy", "torch"]
    versions = {name: version(name) for name in names}
    print("\n" + ", ".join(f"{name} {number}" for name, number in versions.items()), file=sys.stderr)
    if args.json:
        Path(args.json).write_text(json.dumps({"rows": rows, "versions": versions}, indent=1))
    sys.exit(0 if all(row["ok"] for row in rows) else "outside the tolerance")


if __name__ == "__main__":
    main()
