"""Compares Inception features with pytorch-fid's and torchvision's modules. Run by `scripts/parity-inception`.

Random weights (seeded) for every layer of both networks, and pytorch-fid's published ones as far as a file has them;
each of them also in images a second, both sides with the same number of threads.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from inception_nets import LAYERS, NETWORKS, features  # noqa: E402


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, help="the example `inception_features`")
    parser.add_argument("--real", help="a .safetensors or .pth file with the published FID weights")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--speed", type=int, default=0, metavar="N", help="time N passes over the images")
    parser.add_argument("--tolerance", type=float, default=1e-3)
    return parser.parse_args()


def random_state(net, seed):
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in net.state_dict().items():
        if not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("conv.weight"):
            noise *= (2 / value[0].numel()) ** 0.5
        elif name == "fc.weight":
            noise /= value.shape[1] ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            noise = 1 + 0.25 * noise.clamp(-2, 2)
        else:
            noise *= 0.1
        state[name] = noise
    return state


def ours(args, weights, folder, variant, layer):
    out = folder / "features.safetensors"
    command = [args.ours, weights, folder / "images.safetensors", out, variant, layer, "pytorch-fid"]
    command.append(max(args.speed, 1))
    environment = {"RAYON_NUM_THREADS": str(args.threads)}
    run = subprocess.run([str(word) for word in command], env=environment, check=True, capture_output=True, text=True)
    rate = float(run.stdout.rsplit(":", 1)[1].split()[0])
    return load_file(out)["features"], rate


def theirs(net, images, layer, repeats):
    """Features up to `layer`, and images a second of the fastest pass."""
    fastest = float("inf")
    for _ in range(max(repeats, 1)):
        start = time.perf_counter()
        for batch in images.split(16):
            x = 2 * F.interpolate(batch, size=(299, 299), mode="bilinear", align_corners=False) - 1
            last = features(net, x, layer)
        fastest = min(fastest, time.perf_counter() - start)
    whole = 2 * F.interpolate(images, size=(299, 299), mode="bilinear", align_corners=False) - 1
    return (features(net, whole, layer) if len(images) > 16 else last), len(images) / fastest


def compare(args, net, weights, folder, images, variant, layers, label):
    """Whether every layer is within the tolerance."""
    good = True
    for layer in layers:
        wanted, their_rate = theirs(net, images, layer, args.speed)
        got, our_rate = ours(args, weights, folder, variant, layer)
        error = (got - wanted[layer]).abs().max().item()
        good &= error <= args.tolerance
        speed = f"  {our_rate:7.2f} against {their_rate:7.2f} images/s ({our_rate / their_rate:.2f}x)"
        largest = wanted[layer].abs().max().item()
        print(f"{label:20} {layer:7} error {error:.1e} (largest value {largest:.2f})", speed if args.speed else "")
    return good


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    good = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = torch.rand(args.images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        save_file({"images": images}, folder / "images.safetensors")
        for seed, (variant, build) in enumerate(NETWORKS.items()):
            net = build()
            state = random_state(net, seed)
            net.load_state_dict(state, strict=False)
            for kind in ["safetensors", "pth", "old.pth"]:
                weights = folder / f"weights.{kind}"
                if kind == "safetensors":
                    save_file(state, weights)
                else:
                    torch.save(state, weights, _use_new_zipfile_serialization=kind == "pth")
                layers = list(LAYERS) if kind == "safetensors" else ["logits"]
                label = f"{variant} {kind}"
                good &= compare(args, net, weights, folder, images, variant, layers, label)
        if args.real:
            net = NETWORKS["fid"]()
            state = load_file(args.real) if args.real.endswith(".safetensors") else torch.load(args.real)
            missing = net.load_state_dict(state, strict=False).missing_keys
            layers = ["64", "192", "768"] if missing else list(LAYERS)
            good &= compare(args, net, args.real, folder, images, "fid", layers, "fid published")
    sys.exit(0 if good else "outside the tolerance")


main()
