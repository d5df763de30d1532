"""The two networks of the released code under its names, whose forward pass is that of `vqsvae.py` and `sdid.py`.

Not run by itself; `pytorch.py` and `scripts/parity/pytorch.py` import it. A state dict only says names and shapes: this module has
those of the released code, so that `load_state_dict(strict=True)` here is that there.
"""

import torch
from spikingjelly.activation_based import layer, neuron, surrogate


def lif():
    return neuron.LIFNode(
        tau=2.0, v_threshold=1.0, v_reset=0.0, surrogate_function=surrogate.ATan(2.0), step_mode="m", store_v_seq=True
    )


def spiking(conv, c_in, c_out, **geometry):
    """Three places of a Sequential."""
    return [conv(c_in, c_out, **geometry, step_mode="m"), layer.BatchNorm2d(c_out, step_mode="m"), lif()]


class Stage(torch.nn.Module):
    def __init__(self, modules):
        super().__init__()
        self.snn_convs = torch.nn.Sequential(*modules)

    def forward(self, x):
        return self.snn_convs(x)


class ReadOut(torch.nn.Module):
    """sum_t coef_t x_t"""

    def __init__(self, steps):
        super().__init__()
        self.register_buffer("coef", (0.8 ** torch.arange(steps - 1, -1, -1.0))[:, None, None, None, None])

    def forward(self, x):
        return (x * self.coef).sum(0)


class Quantiser(torch.nn.Module):
    def __init__(self, steps, codes, latent):
        super().__init__()
        self.memout = ReadOut(steps)
        self.alpha = torch.nn.Parameter(torch.tensor(0.5))
        self.embeddings = torch.nn.Embedding(codes, latent)
        self.poisson = torch.nn.Sequential(*spiking(layer.Conv2d, latent, latent, kernel_size=1))

    def features(self, spikes):
        return self.alpha * spikes.mean(0) + (1 - self.alpha) * self.memout(spikes)

    def distances(self, z):
        """Squared distances [N, H, W, K]."""
        return (z.permute(0, 2, 3, 1)[..., None, :] - self.embeddings.weight).square().sum(-1)

    def look_up(self, codes):
        return self.embeddings(codes).permute(0, 3, 1, 2)


class VqSvae(torch.nn.Module):
    def __init__(self, channels=1, encoder=(32, 64), latent=16, codes=128, decoder=(64, 32), steps=16):
        super().__init__()
        self.steps = steps
        half, double = {"kernel_size": 3, "stride": 2, "padding": 1}, {"output_padding": 1}
        self.encoder = Stage([
            *spiking(layer.Conv2d, channels, encoder[0], **half),
            *spiking(layer.Conv2d, encoder[0], encoder[1], **half),
            *spiking(layer.Conv2d, encoder[1], latent, kernel_size=1),
        ])
        self.vq_layer = Quantiser(steps, codes, latent)
        self.decoder = Stage([
            *spiking(layer.ConvTranspose2d, latent, decoder[0], **half, **double),
            *spiking(layer.ConvTranspose2d, decoder[0], decoder[1], **half, **double),
            layer.ConvTranspose2d(decoder[1], channels, 3, 1, 1, step_mode="m"),
        ])
        self.memout = ReadOut(steps)

    def repeat(self, x):
        return x.expand(self.steps, *x.shape)

    def features(self, images):
        return self.vq_layer.features(self.encoder(self.repeat(images)))

    def encode(self, images):
        return self.vq_layer.distances(self.features(images)).argmin(-1)

    def decode(self, codes):
        spikes = self.vq_layer.poisson(self.repeat(self.vq_layer.look_up(codes)))
        return self.memout(self.decoder(spikes)).tanh()


class Sdid(torch.nn.Module):
    def __init__(self, codes=128, widths=(64, 128, 256, 512, 256), steps=16):
        super().__init__()
        self.steps, self.codes = steps, codes
        for i, (c_in, c_out) in enumerate(zip((2, *widths), widths), 1):
            setattr(self, f"conv{i}", torch.nn.Sequential(*spiking(layer.Conv2d, c_in, c_out, kernel_size=3, padding=1)))
        head = layer.Conv2d(widths[-1] + widths[0], codes, 3, padding=1, step_mode="m")
        self.conv6 = torch.nn.Sequential(head)

    def forward(self, h, t):
        x = torch.stack([h, t[:, None, None].expand_as(h)], 1).to(self.conv6[0].weight.dtype)
        first = x = self.conv1(x.expand(self.steps, *x.shape))
        for i in range(2, 6):
            x = getattr(self, f"conv{i}")(x)
        return self.conv6(torch.cat([x, first], 2)).mean(0)


def margins(model):
    """min |H - V_th| over all neurons and steps of the last pass: spikes nearer than rounding may flip."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, neuron.LIFNode):
            found.append(module.margin)
    return min(found)


def record_margins(model):
    """Makes every neuron keep the distance of its potentials to the threshold."""
    for module in model.modules():
        if isinstance(module, neuron.LIFNode):
            module.register_forward_hook(keep_margin)


def keep_margin(node, inputs, _):
    v = node.v_seq.detach()
    before = torch.cat([torch.zeros_like(v[:1]), v[:-1]])
    h = before + (inputs[0].detach() - before) / node.tau
    node.margin = (h - node.v_threshold).abs().min().item()
