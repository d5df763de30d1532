"""Round trips between PyTorch and this project. Run by `scripts/parity-pytorch`, which says how.

The networks are those of `scripts/golden/released.py`: the released code's architecture and names. PyTorch computes in float64, from
the float32 weights of the files.
"""

import argparse
import gzip
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from pytorch import liven, strokes  # noqa: E402
from released import Sdid, VqSvae, margins, record_margins  # noqa: E402
from spikingjelly.activation_based import functional  # noqa: E402

# Relative: the mean squared error is of f32 images.
TOLERANCE = 1e-5
BATCH = 50


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", required=True, type=Path, help="folder of import_pytorch and export_pytorch")
    parser.add_argument("--vqsvae", type=Path, help="model.pth")
    parser.add_argument("--sdid", type=Path, help="diff_model.pth")
    parser.add_argument("--run", type=Path, help="a run of ours, in their place")
    parser.add_argument("--data-dir", type=Path, help="MNIST's official files")
    parser.add_argument("--images", type=int, default=100)
    return parser.parse_args()


def start(args, program, **flags):
    words = [str(args.programs / program)]
    for flag, value in flags.items():
        words += [f"--{flag.replace('_', '-')}"] + ([] if value is True else [str(value)])
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{program}: {done.stderr}")
    return done.stdout


def idx(values, dims):
    header = bytes([0, 0, 8, len(dims)]) + b"".join(n.to_bytes(4, "big") for n in dims)
    return header + values.to(torch.uint8).numpy().tobytes()


def draw_data(folder, count):
    """Images of our own under MNIST's names."""
    rng = torch.Generator().manual_seed(5)
    pixels = torch.cat([strokes(rng) for _ in range(-(-count // 3))])[:count]
    for split in ["train", "t10k"]:
        (folder / f"{split}-images-idx3-ubyte").write_bytes(idx(pixels, (count, 28, 28)))
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(idx(torch.zeros(count), (count,)))


def read_images(folder, count):
    """The first test images, in [-0.5, 0.5]."""
    name = "t10k-images-idx3-ubyte"
    places = [place for place in [folder / name, folder / f"{name}.gz", folder / "mnist" / f"{name}.gz"] if place.exists()]
    if not places:
        sys.exit(f"{folder}: no {name}")
    data = places[0].read_bytes()
    data = gzip.decompress(data) if places[0].suffix == ".gz" else data
    pixels = torch.frombuffer(bytearray(data[16 : 16 + count * 784]), dtype=torch.uint8)
    return pixels.reshape(-1, 1, 28, 28).double() / 255 - 0.5


@torch.no_grad()
def draw_networks(folder, images):
    """Random weights, and running statistics that have seen some images, so that there are spikes everywhere."""
    torch.manual_seed(3)
    rng = torch.Generator().manual_seed(4)
    vqsvae, sdid = VqSvae(), Sdid()
    vqsvae.vq_layer.embeddings.weight.copy_(torch.rand(128, 16, generator=rng))
    for model in (vqsvae, sdid):
        liven(model, rng)
    few, t = images[:8], torch.full((8,), 20)
    for _ in range(20):
        codes = vqsvae.encode(few)
        functional.reset_net(vqsvae)
        vqsvae.decode(codes)
        sdid(torch.where(torch.rand(codes.shape, generator=rng) < 0.4, 128, codes), t[: len(codes)])
        functional.reset_net(vqsvae), functional.reset_net(sdid)
    for name, model in [("model", vqsvae), ("diff_model", sdid)]:
        torch.save(model.float().state_dict(), folder / f"{name}.pth")
    return folder / "model.pth", folder / "diff_model.pth"


def load(files):
    """Both networks, strictly."""
    vqsvae, sdid = (torch.load(file, map_location="cpu") for file in files)
    encoder = [vqsvae[f"encoder.snn_convs.{i}.weight"].shape[0] for i in (0, 3)]
    decoder = [vqsvae[f"decoder.snn_convs.{i}.weight"].shape[1] for i in (0, 3)]
    codes, latent = vqsvae["vq_layer.embeddings.weight"].shape
    widths = [sdid[f"conv{i}.0.weight"].shape[0] for i in range(1, 6)]
    models = VqSvae(1, encoder, latent, codes, decoder, len(vqsvae["memout.coef"])), Sdid(codes, widths)
    for model, state in zip(models, (vqsvae, sdid)):
        model.load_state_dict(state, strict=True)
        model.double().eval()
    return models


@torch.no_grad()
def theirs(model, images):
    record_margins(model)
    codes, errors, margin = [], [], 1.0
    for batch in images.split(BATCH):
        codes.append(model.encode(batch))
        margin = min(margin, margins(model.encoder))
        functional.reset_net(model)
        errors.append((model.decode(codes[-1]) - batch).square().mean((1, 2, 3)))
        margin = min(margin, margins(model.decoder), margins(model.vq_layer))
        functional.reset_net(model)
    return torch.cat(codes), torch.cat(errors).mean().item(), margin


def main():
    args = parse()
    failed = []

    def check(what, good, text):
        print(f"{'ok    ' if good else 'FAILED'} {what}: {text}")
        if not good:
            failed.append(what)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = args.data_dir or folder
        if not args.data_dir:
            draw_data(folder, args.images)
        images = read_images(data, args.images)
        if args.run:
            start(args, "export_pytorch", run=args.run, out=folder)
            files = folder / "model.pth", folder / "diff_model.pth"
        elif args.vqsvae and args.sdid:
            files = args.vqsvae, args.sdid
        else:
            torch.set_default_dtype(torch.float64)
            files = draw_networks(folder, images)
        torch.set_default_dtype(torch.float64)
        models = load(files)
        run = folder / "run"
        out = start(
            args, "import_pytorch", vqsvae=files[0], sdid=files[1], data_dir=data, allow_partial=True, out=run, encode=args.images
        )
        ours = load_file(run / "codes.safetensors")["codes"].long()
        codes, mse, margin = theirs(models[0], images)
        different = (ours != codes).sum().item()
        check("codes", different == 0, f"{different} of {codes.numel()} differ, {codes.unique().numel()} in use; nearest potential {margin:.1e}")
        printed = float(re.search(r"MSE (\S+)", out)[1])
        check("mean squared error", abs(printed - mse) <= TOLERANCE * mse, f"{printed} here, {mse} in PyTorch")

        start(args, "export_pytorch", run=run, out=folder / "out")
        back = folder / "out/model.pth", folder / "out/diff_model.pth"
        load(back)
        for name, before, after in zip(["VQ-SVAE", "SDID"], files, back):
            before, after = (torch.load(file, map_location="cpu") for file in (before, after))
            # The coefficients are computed anew, and the counter of batches, which nothing reads, starts again.
            exact = [key for key in before if not key.endswith(("coef", "num_batches_tracked"))]
            same = sum(torch.equal(before[key].float(), after[key]) for key in exact)
            near = all(torch.allclose(before[key].float(), after[key], rtol=1e-6, atol=0) for key in before if key.endswith("coef"))
            check(f"{name} out again, strictly loaded", same == len(exact) and near, f"{same} of {len(exact)} tensors bit by bit")
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
