"""One side of the comparison: PyTorch + SpikingJelly. `scripts/compare-peer` runs it; see there.

Reads one word a line, answers one JSON object a line. Words: a work of WORKS, `memory`, `density`, `quit`.
"""

import argparse
import json
import resource
import sys
import time

import torch
from models import Sdid, VqSvae, blocks
from safetensors.torch import load_file
from spikingjelly.activation_based import functional

BATCH = 32


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
        optimiser = lambda m: torch.optim.AdamW(m.parameters(), 1e-3, weight_decay=1e-3)
        self.vqsvae_optimiser, self.sdid_optimiser = optimiser(self.vqsvae), optimiser(self.sdid)

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

    @torch.no_grad()
    def vqsvae_infer(self):
        self.vqsvae.eval()
        start = time.perf_counter()
        codes = self.vqsvae.quantise(self.images)[2]
        self.vqsvae.decode(codes)
        functional.reset_net(self.vqsvae)
        return time.perf_counter() - start

    @torch.no_grad()
    def encode_256(self):
        self.vqsvae.eval()
        start = time.perf_counter()
        for _ in range(256 // BATCH):
            self.vqsvae.quantise(self.images)
            functional.reset_net(self.vqsvae)
        return time.perf_counter() - start

    @torch.no_grad()
    def sdid_infer(self):
        self.sdid.eval()
        start = time.perf_counter()
        self.sdid(self.h0[:16], self.t[:16])
        functional.reset_net(self.sdid)
        return time.perf_counter() - start

    @torch.no_grad()
    def sample_49(self):
        self.sdid.eval(), self.vqsvae.eval()
        start = time.perf_counter()
        self.vqsvae.decode(self.sdid.sample(16))
        functional.reset_net(self.vqsvae)
        return time.perf_counter() - start

    def memory(self):
        return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - self.before) / 2**20

    def density(self):
        with torch.no_grad():
            self.vqsvae_infer(), self.sdid_infer()
        rate = lambda block: (block.rate != 0).float().mean().item()
        both = {"vqsvae": self.vqsvae, "sdid": self.sdid}
        return {f"{name}.{key}": rate(b) for name, m in both.items() for key, b in blocks(m).items()}


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
