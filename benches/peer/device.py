"""What `gpu_steps` (benches/gpu/steps.rs) measures, in PyTorch + SpikingJelly on the same device: one JSON object a line.

    device.py DEVICE SECONDS PRECISIONS WORKS BATCH...       e.g.  device.py cuda:0 20 f32,tf32,bf16 all 32 256 1024

Networks are in channels last; SpikingJelly 2 takes the fastest kernel of its neurons that is there by itself (Triton's on a GPU). bf16 is torch's
autocast. What fails, for want of memory say, is written down, and the rest goes on.
"""

import contextlib
import json
import sys
import time

import torch
from models import Sdid, VqSvae
from spikingjelly.activation_based import functional

WARM_UP = 3
WORKS = ("vqsvae_train", "sdid_train", "sample_49")


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median(device, seconds, work):
    start = time.perf_counter()
    for i in range(WARM_UP):
        if i == 0 or time.perf_counter() - start < seconds:
            work()
            synchronise(device)
    start, times = time.perf_counter(), []
    while not times or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - before)
    return sorted(times)[len(times) // 2], len(times)


def precise(precision, device):
    """Sets how products are computed, and returns the context of a forward pass."""
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def network(make, device):
    return make().to(device).to(memory_format=torch.channels_last)


class Works:
    """The works of one device, precision and batch."""

    def __init__(self, device, precision, batch):
        self.device, self.batch, self.context = device, batch, precise(precision, device)

    def training(self, model, loss):
        optimiser = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=1e-3)

        def step():
            optimiser.zero_grad()
            with self.context:
                value = loss(model)
            value.backward()
            optimiser.step()
            functional.reset_net(model)

        return step

    def vqsvae_train(self):
        images = torch.rand(self.batch, 1, 28, 28, device=self.device) - 0.5
        make = lambda: VqSvae(released=True)
        return self.training(network(make, self.device), lambda model: model.loss(images))

    def sdid_train(self):
        model = network(lambda: Sdid(released=True), self.device)
        codes = torch.arange(self.batch * 49, device=self.device).mul(13).remainder(model.codes).view(-1, 7, 7)

        def loss(model):
            t = torch.randint(1, model.diffusion_steps + 1, (self.batch,), device=self.device)
            return model.loss(codes, t, torch.rand(codes.shape, device=self.device))

        return self.training(model, loss)

    def sample_49(self):
        vqsvae, sdid = (network(make, self.device).eval() for make in (VqSvae, Sdid))

        @torch.no_grad()
        def draw():
            with self.context:
                vqsvae.decode(sdid.sample(self.batch))
            functional.reset_net(vqsvae)

        return draw


def main():
    if len(sys.argv) < 6:
        sys.exit(__doc__)
    device, seconds, precisions, works, *batches = sys.argv[1:]
    device, seconds = torch.device(device), float(seconds)
    for precision in precisions.split(","):
        for batch in map(int, batches):
            for work in WORKS if works == "all" else works.split(","):
                line = {"work": work, "precision": precision, "batch": batch}
                try:
                    took, times = median(device, seconds, getattr(Works(device, precision, batch), work)())
                    line |= {"seconds": took, "images_per_second": batch / took, "times": times}
                except Exception as error:  # whatever torch raises
                    line |= {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
