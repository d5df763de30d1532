"""FID and KID at 768 features of real images, by pytorch-fid and torch-fidelity and by ours. Run by `scripts/parity-real`.

Each set is a `.safetensors` file with `images [N, 1 or 3, H, W]` in [0, 1]. Theirs: pytorch-fid's module with the weights
given, its preprocessing and its distance; torch-fidelity's KID, with one subset of all images. Ours: the examples
`inception_features` and `fid`. The networks take turns, set by set, with the same number of threads.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytorch_fid.inception
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from safetensors.torch import load_file, save_file
from torch_fidelity.metric_kid import kid_features_to_metric

# Relative; the features are in f32 on both sides.
TOLERANCE = 1e-3


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", required=True, help="the example `inception_features`")
    parser.add_argument("--fid", required=True, help="the example `fid`")
    parser.add_argument("--weights", required=True, help=".safetensors with the published weights, as far as 768")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("pairs", nargs="+", metavar="A,B", help="two files of images")
    return parser.parse_args()


def network(weights):
    """pytorch-fid's own, which would load its weights from the network."""
    fid_net = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    for letter, inputs, pooled in [("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)]:
        setattr(fid_net, f"Mixed_{letter}", pytorch_fid.inception.FIDInceptionA(inputs, pool_features=pooled))
    for letter, narrow in [("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)]:
        setattr(fid_net, f"Mixed_{letter}", pytorch_fid.inception.FIDInceptionC(768, channels_7x7=narrow))
    fid_net.load_state_dict(load_file(weights), strict=False)
    pytorch_fid.inception.fid_inception_v3 = lambda: fid_net
    return pytorch_fid.inception.InceptionV3([2]).eval()


@torch.no_grad()
def theirs(net, images):
    """Features, as `pytorch_fid.fid_score.get_activations` takes them."""
    out = []
    start = time.perf_counter()
    for batch in images.expand(-1, 3, -1, -1).split(50):
        out.append(net(batch)[0].mean((2, 3)))
    return torch.cat(out), len(images) / (time.perf_counter() - start)


def ours(args, path, out):
    command = [args.features, args.weights, path, out, "fid", "768", "pytorch-fid"]
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(run.stdout.rsplit(":", 1)[1].split()[0])


def both(args, net, path, out):
    """Their features; ours go to `out`."""
    rate = ours(args, path, out)
    features, their_rate = theirs(net, load_file(path)["images"])
    error = (load_file(out)["features"] - features).abs().max().item()
    print(f"{Path(path).stem}: features differ by {error:.1e}, {rate:.1f} against {their_rate:.1f} images/s "
          f"({rate / their_rate:.2f}x)", file=sys.stderr, flush=True)
    return features


def compare(args, names, features, files):
    """Prints a row; whether both distances agree."""
    x, y = [side.double() for side in features]
    stats = [moment for side in (x.numpy(), y.numpy()) for moment in (side.mean(0), np.cov(side, rowvar=False))]
    size = min(len(x), len(y))
    kid = kid_features_to_metric(x, y, verbose=False, kid_subsets=1, kid_subset_size=size, rng_seed=0)
    want = {"fid": calculate_frechet_distance(*stats), "kid_mean": kid["kernel_inception_distance_mean"]}
    command = [args.fid, *files, "--json", "--dims", "768"]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    got = json.loads(run.stdout)
    ok = all(abs(got[name] - want[name]) <= TOLERANCE * abs(want[name]) for name in want)
    print(f"| {Path(names[0]).stem} | {Path(names[1]).stem} | {want['fid']:.6f} | {got['fid']:.6f} "
          f"| {want['kid_mean']:.7f} | {got['kid_mean']:.7f} | {'yes' if ok else '**no**'} |", flush=True)
    return ok


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    net, features, good = network(args.weights), {}, True
    pairs = [pair.split(",") for pair in args.pairs]
    with tempfile.TemporaryDirectory() as folder:
        mine = lambda path: Path(folder) / f"{Path(path).stem}.safetensors"  # noqa: E731
        print("| A | B | FID-768 theirs | ours | KID-768 theirs | ours | ok |\n| --- | --- | --- | --- | --- | --- | --- |")
        for pair in pairs:
            for path in pair:
                if path not in features:
                    features[path] = both(args, net, path, mine(path))
            good &= compare(args, pair, [features[path] for path in pair], [mine(path) for path in pair])
    sys.exit(0 if good else "outside the tolerance")


if __name__ == "__main__":
    main()
