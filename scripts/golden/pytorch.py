"""State dicts of the two networks as the released code saves them, and what PyTorch computes with them.

Run: python scripts/golden/pytorch.py
Writes crates/spiking-diffusion/tests/golden/{model,diff_model}.pth and pytorch.safetensors. The VQ-SVAE has the released sizes but half
the codes, the SDID is narrow; both are brought to life by running batch norms over images and codes. Values are float64, weights
float32. Seeds are tried until no spike and no code is a near tie.
"""

import torch
from common import REPO, generator, save
from released import Sdid, VqSvae, margins, record_margins
from spikingjelly.activation_based import functional, layer

FOLDER = REPO / "crates/spiking-diffusion/tests/golden"
IMAGES, CODES, SIDE, WIDTHS = 3, 64, 7, (8, 12, 16, 12, 8)
NEAR = 2e-6


def strokes(rng):
    """Images of bytes / 255 - 0.5, each of three soft strokes."""
    axis = torch.arange(28.0)
    images = torch.zeros(IMAGES, 1, 28, 28)
    for image in images:
        for _ in range(3):
            row, col = 5 + 18 * torch.rand(2, generator=rng)
            wide, high = 2 + 4 * torch.rand(2, generator=rng)
            image[0] += torch.exp(-(((axis[:, None] - row) / high) ** 2) - ((axis[None] - col) / wide) ** 2)
    return (images.clamp(max=1) * 255).round()


def liven(model, rng):
    """Norms shifted towards the threshold, by numbers that float32 holds."""
    for module in model.modules():
        if isinstance(module, layer.BatchNorm2d):
            module.momentum = 0.1
            module.weight.data = 1.2 + 0.1 * torch.rand(module.num_features, generator=rng)
            module.bias.data = 0.3 + 0.4 * torch.rand(module.num_features, generator=rng)


@torch.no_grad()
def run(model, function):
    out = function()
    margin = margins(model)
    functional.reset_net(model)
    return out, margin


@torch.no_grad()
def settled(model, forward, rng):
    """In evaluation, with running statistics that have seen the data, and weights rounded to float32."""
    liven(model, rng)
    record_margins(model)
    model.train()
    for _ in range(30):
        run(model, forward)
    for value in [*model.parameters(), *model.buffers()]:
        if value.is_floating_point():
            value.copy_(value.float().double())
    return model.eval()


def make(seed):
    torch.manual_seed(seed)
    rng = generator(seed)
    pixels = strokes(rng)
    images = pixels / 255 - 0.5
    vqsvae = VqSvae(codes=CODES)
    with torch.no_grad():
        vqsvae.vq_layer.embeddings.weight.copy_(torch.rand(CODES, 16, generator=rng))
        vqsvae.vq_layer.alpha.fill_(0.4)
        # The read-out adds up to five times the head's output: keep the tanh out of saturation.
        for parameter in vqsvae.decoder.snn_convs[6].parameters():
            parameter.mul_(0.2)
    settled(vqsvae, lambda: vqsvae.decode(vqsvae.encode(images)), rng)
    distances, margin = run(vqsvae, lambda: vqsvae.vq_layer.distances(vqsvae.features(images)))
    two = distances.topk(2, largest=False).values
    codes = distances.argmin(-1)
    image, margin_decode = run(vqsvae, lambda: vqsvae.decode(codes))

    sdid, t = Sdid(CODES, WIDTHS), torch.tensor([49, 20, 3])
    h = torch.where(torch.rand(IMAGES, SIDE, SIDE, generator=rng) < (t / 49)[:, None, None], CODES, codes)
    settled(sdid, lambda: sdid(h, t), rng)
    logits, margin_sdid = run(sdid, lambda: sdid(h, t))
    notes = {
        "seed": seed, "margin": min(margin, margin_decode, margin_sdid),
        "code_gap": (two[..., 1] - two[..., 0]).min().item(), "codes_used": codes.unique().numel(),
    }
    tensors = {"pixels": pixels, "codes": codes, "reconstruction": image, "h": h, "t": t, "logits": logits}
    return notes, tensors, {"model": vqsvae, "diff_model": sdid}


def main():
    best = None
    for seed in range(40):
        found = make(seed)
        notes = found[0]
        print(notes)
        if notes["codes_used"] >= 8 and notes["code_gap"] > 1e-5 and (best is None or notes["margin"] > best[0]["margin"]):
            best = found
        if best and best[0]["margin"] > NEAR:
            break
    notes, tensors, models = best
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, model in models.items():
        model.float()
        torch.save(model.state_dict(), FOLDER / f"{name}.pth")
        print(name, (FOLDER / f"{name}.pth").stat().st_size)
    save("spiking-diffusion", "pytorch", tensors, **notes)


if __name__ == "__main__":
    main()
