"""One side of the comparison: PyTorch + SpikingJelly. `scripts/compare-peer` runs it; see there.

Reads one word a line, answers one JSON object a line. Words: a work of WORKS, `memory`, `density`, `quit`.
"""

import argparse
import functools
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from fsvae import Fsvae
from models import Classifier, Sdid, VqSvae, blocks
from safetensors.torch import load_file
from spikingjelly.activation_based import functional

BATCH = 32
COMPARED = 4  # images of which the FSVAE's values are compared
REPEATS = 20  # of works on a single image, of which the mean is taken


def resident():
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


class Peer:
    def __init__(self, args):
        self.before = resident()
        self.vqsvae, self.sdid = VqSvae(), Sdid()
        for model, path in [(self.vqsvae, args.vqsvae), (self.sdid, args.sdid)]:
            model.load_state_dict(load_file(path), strict=False)
        data = load_file(args.inputs)
        self.images, self.h0 = data["images"], data["codes"].long()
        self.t, self.u = data["t"].long(), data["u"]
        self.classifier = Classifier()
        prefix = "classifier."
        self.classifier.load({n.removeprefix(prefix): t for n, t in data.items() if n.startswith(prefix)})
        self.labelled = data["classifier_images"], data["classifier_labels"]
        self.fsvae, prefix = Fsvae(), "fsvae."
        self.fsvae.load({n.removeprefix(prefix): t for n, t in data.items() if n.startswith(prefix)})
        self.picks, self.sample_picks = data.get("fsvae_picks"), data.get("fsvae_sample_picks")
        optimiser = lambda m: torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=1e-3)
        self.vqsvae_optimiser, self.sdid_optimiser = optimiser(self.vqsvae), optimiser(self.sdid)
        self.classifier_optimiser, self.fsvae_optimiser = optimiser(self.classifier), optimiser(self.fsvae)

    def train(self, model, optimiser, loss):
        model.train()
        start = time.perf_counter()
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
        functional.reset_net(model)
        return time.perf_counter() - start

    def vqsvae_train(self):
        return self.train(self.vqsvae, self.vqsvae_optimiser, lambda: self.vqsvae.loss(self.images))

    def sdid_train(self):
        return self.train(self.sdid, self.sdid_optimiser, lambda: self.sdid.loss(self.h0, self.t, self.u))

    def classifier_train(self):
        loss = lambda: self.classifier.loss(*self.labelled)
        return self.train(self.classifier, self.classifier_optimiser, loss)

    def fsvae_train(self, stepwise=False):
        self.fsvae.stepwise = stepwise
        return self.train(self.fsvae, self.fsvae_optimiser, lambda: self.fsvae.loss(self.images, self.picks))

    @torch.no_grad()
    def infer(self, model, work):
        model.eval()
        start = time.perf_counter()
        work()
        functional.reset_net(model)
        return time.perf_counter() - start

    def classifier_infer(self):
        return self.classify(self.labelled[0])

    classifier_prepared = classifier_infer

    def classifier_1(self):
        return sum(self.classify(self.labelled[0][:1]) for _ in range(REPEATS)) / REPEATS

    def classify(self, images):
        return self.infer(self.classifier, lambda: self.classifier(images))

    def vqsvae_infer(self):
        return self.reconstruct(self.images)

    def vqsvae_1(self):
        return sum(self.reconstruct(self.images[:1]) for _ in range(REPEATS)) / REPEATS

    def reconstruct(self, images):
        return self.infer(self.vqsvae, lambda: self.vqsvae.decode(self.vqsvae.quantise(images)[2]))

    def encode_256(self):
        encode = lambda: self.vqsvae.quantise(self.images)
        return sum(self.infer(self.vqsvae, encode) for _ in range(256 // BATCH))

    def sdid_infer(self):
        return self.infer(self.sdid, lambda: self.sdid(self.h0[:16], self.t[:16]))

    def sample_49(self):
        return self.sample(16)

    def sample_49_1(self):
        return self.sample(1)

    def sample(self, images):
        self.sdid.eval()
        return self.infer(self.vqsvae, lambda: self.vqsvae.decode(self.sdid.sample(images)))

    def fsvae_infer(self, stepwise=False):
        self.fsvae.stepwise = stepwise
        return self.infer(self.fsvae, lambda: self.fsvae.reconstruct(self.images, self.picks))

    def fsvae_sample(self, stepwise=False):
        self.fsvae.stepwise = stepwise
        return self.infer(self.fsvae, lambda: self.fsvae.sample(self.sample_picks))

    fsvae_train_stepwise = functools.partialmethod(fsvae_train, True)
    fsvae_infer_stepwise = functools.partialmethod(fsvae_infer, True)
    fsvae_sample_stepwise = functools.partialmethod(fsvae_sample, True)

    @torch.no_grad()
    def fsvae_value(self, stepwise=False):
        """What the FSVAE computes, in double precision: no neuron is then so near its threshold that rounding decides."""
        model, images = Fsvae(), self.images[:COMPARED].double()
        picks, sample_picks = self.picks[:, :COMPARED], self.sample_picks[:, :COMPARED]
        model.load_state_dict(self.fsvae.state_dict())
        model.double().eval().stepwise = stepwise
        works = {
            "losses": lambda: [loss.item() for loss in model.losses(images, picks)],
            "error": lambda: [F.mse_loss(model.reconstruct(images, picks), images).item()],
            "samples": lambda: [model.sample(sample_picks).square().mean().item()],
        }
        values = {}
        for name, work in works.items():
            values[name] = work()
            functional.reset_net(model)
        return values

    fsvae_value_stepwise = functools.partialmethod(fsvae_value, True)

    def memory(self):
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.before) / 2**20

    def density(self):
        with torch.no_grad():
            self.vqsvae_infer(), self.sdid_infer(), self.classifier_infer()
        rate = lambda block: (block.rate != 0).float().mean().item()
        networks = [("vqsvae", self.vqsvae), ("sdid", self.sdid), ("classifier", self.classifier.parts)]
        if self.picks is not None:
            self.infer(self.fsvae, lambda: self.fsvae.losses(self.images, self.picks))
            networks.append(("fsvae", self.fsvae))
        return {f"{name}.{key}": rate(b) for name, m in networks for key, b in blocks(m).items()}


def main():
    parser = argparse.ArgumentParser()
    for name in ("vqsvae", "sdid", "inputs"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    peer = Peer(args)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "quit":
            break
        value = getattr(peer, word)()
        print(json.dumps({word: value}), flush=True)


if __name__ == "__main__":
    main()
