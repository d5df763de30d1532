"""One run of the released architecture in PyTorch + SpikingJelly: `scripts/compare-quality` starts it; see there.

    train.py train --data-dir DIR --seconds A,B --out RUN    both networks, for so many seconds each
    train.py sample --n N --temperature T --images DIR --out RUN    N images of them as PNGs
    train.py release --out RUN    both under the released code's names, as `import_pytorch` takes them: RUN/released/*.safetensors

The losses, sizes and optimiser are those of docs/deviations.md, column "released code". Its learning rate is constant, so that a
training needs no end in advance: the clock is asked after each step.
"""

import argparse
import gzip
import json
import os
import time

import numpy
import torch
from models import Sdid, VqSvae
from PIL import Image
from safetensors.torch import load_file, save_file
from spikingjelly.activation_based import functional

BATCH = 32


def read_idx(folder, name):
    """The images of an IDX file, plain or gzip, `[N, 1, rows, columns]` in [-0.5, 0.5]."""
    path = os.path.join(folder, name)
    opened = gzip.open(path + ".gz") if os.path.exists(path + ".gz") else open(path, "rb")
    with opened as file:
        data = file.read()
    count, rows, columns = numpy.frombuffer(data, ">u4", 3, 4).astype(int)
    pixels = numpy.frombuffer(data, numpy.uint8, count * rows * columns, 16)
    return torch.from_numpy(pixels.reshape(count, 1, rows, columns).copy()).float() / 255 - 0.5


def save_png(images, folder):
    """Images in [-0.5, 0.5] as `0000000.png`, .. ."""
    os.makedirs(folder, exist_ok=True)
    pixels = ((images + 0.5) * 255).round().clamp(0, 255).to(torch.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(os.path.join(folder, f"{i:07}.png"))


def batches(count):
    """The numbers of the items of one batch after the other, in a new order in each epoch."""
    while True:
        yield from torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH)


def train(model, seconds, count, loss):
    """Trains until the time is up, and returns the steps and the seconds that it took."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-3)
    model.train()
    start, steps, order = time.perf_counter(), 0, batches(count)
    while time.perf_counter() - start < seconds:
        optimiser.zero_grad()
        loss(next(order)).backward()
        optimiser.step()
        functional.reset_net(model)
        steps += 1
    return {"steps": steps, "seconds": time.perf_counter() - start}


class Codes:
    """The codes of the training images, found when they are first asked for and kept, so that a short training does not pay for
    images that it never sees."""

    def __init__(self, vqsvae, images):
        self.vqsvae, self.images = vqsvae.eval(), images
        self.codes = torch.full((len(images), 7, 7), -1)

    @torch.no_grad()
    def of(self, items):
        new = items[self.codes[items, 0, 0] < 0]
        if len(new) > 0:
            self.codes[new] = self.vqsvae.quantise(self.images[new])[2]
            functional.reset_net(self.vqsvae)
        return self.codes[items]


def train_both(args):
    images = read_idx(args.data_dir, "train-images-idx3-ubyte")
    vqsvae, sdid = VqSvae(released=True), Sdid(released=True)
    of_vqsvae, of_sdid = (float(seconds) for seconds in args.seconds.split(","))
    done = {"vqsvae": train(vqsvae, of_vqsvae, len(images), lambda items: vqsvae.loss(images[items]))}
    codes = Codes(vqsvae, images)

    def loss(items):
        t = torch.randint(1, sdid.diffusion_steps + 1, (BATCH,))
        return sdid.loss(codes.of(items), t, torch.rand(BATCH, 7, 7))

    done["sdid"] = train(sdid, of_sdid, len(images), loss)
    for name, model in [("vqsvae", vqsvae), ("sdid", sdid)]:
        save_file(model.state_dict(), os.path.join(args.out, f"{name}.safetensors"))
    with open(os.path.join(args.out, "trained.json"), "w") as file:
        json.dump(done, file)


@torch.no_grad()
def sample(args):
    networks = {"vqsvae": VqSvae(released=True), "sdid": Sdid(released=True)}
    for name, model in networks.items():
        model.load_state_dict(load_file(os.path.join(args.out, f"{name}.safetensors")))
        model.eval()
    parts = []
    for start in range(0, args.n, BATCH):
        codes = networks["sdid"].sample(min(BATCH, args.n - start), temperature=args.temperature)
        parts.append(networks["vqsvae"].decode(codes))
        functional.reset_net(networks["vqsvae"])
        print(f"{start + len(codes)} of {args.n} images", flush=True)
    save_png(torch.cat(parts), os.path.join(args.images, "png"))


def released_name(ours):
    """What the released code calls a parameter of `models.py`."""
    place, _, kind = ours.rpartition(".")
    if ours in ("features.k", "codebook.weight"):
        return {"features.k": "vq_layer.alpha", "codebook.weight": "vq_layer.embeddings.weight"}[ours]
    block, _, layer = place.rpartition(".")
    norm = int(layer == "bn")
    if block == "generator":
        return f"vq_layer.poisson.{norm}.{kind}"
    part, _, number = block.partition(".")
    if part == "layers":
        return f"conv{int(number) + 1}.{norm}.{kind}"
    return f"{part}.snn_convs.{3 * int(number) + norm}.{kind}"


def release(args):
    folder = os.path.join(args.out, "released")
    os.makedirs(folder, exist_ok=True)
    for name, head in [("vqsvae", "decoder.snn_convs.6"), ("sdid", "conv6.0")]:
        released = {}
        for ours, tensor in load_file(os.path.join(args.out, f"{name}.safetensors")).items():
            theirs = f"{head}.{ours[5:]}" if ours.startswith("head.") else released_name(ours)
            released[theirs] = tensor.reshape(()) if ours == "features.k" else tensor
        save_file(released, os.path.join(folder, f"{name}.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["train", "sample", "release"])
    parser.add_argument("--out", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--seconds")
    parser.add_argument("--n", type=int)
    parser.add_argument("--images")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    {"train": train_both, "sample": sample, "release": release}[args.what](args)


if __name__ == "__main__":
    main()
