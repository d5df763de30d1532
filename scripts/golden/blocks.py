"""Convolution + batch norm + LIF blocks of SpikingJelly, with weights kept clear of the threshold.

Not run by itself; `vqsvae.py` and `sdid.py` import it. A golden is only of use to an f32
implementation when no neuron sits so near the threshold that rounding flips its spike.
`settle` therefore draws several BN biases for each channel and keeps, channel by channel,
the one with the widest gap min |H - V_th| over the training and the evaluation pass.
"""

import torch
import torch.nn.functional as F
from spikingjelly.activation_based import functional, layer, neuron, surrogate

TAU, V_TH, MOMENTUM, EPS = 2.0, 1.0, 0.1, 1e-5


class Block(torch.nn.Module):
    """conv + BN + LIF on [T, N, C, H, W]; `widths` are (in, out)."""

    def __init__(self, conv, *widths, **geometry):
        super().__init__()
        self.conv = conv(*widths, **geometry, step_mode="m")
        self.bn = layer.BatchNorm2d(widths[1], eps=EPS, momentum=MOMENTUM, step_mode="m")
        self.lif = neuron.LIFNode(
            tau=TAU, v_threshold=V_TH, v_reset=0.0, detach_reset=False,
            surrogate_function=surrogate.ATan(2.0), step_mode="m", store_v_seq=True,
        )
        self.h = None

    def forward(self, x):
        current = self.bn(self.conv(x))
        spikes = self.lif(current)
        v = self.lif.v_seq.detach()
        before = torch.cat([torch.zeros_like(v[:1]), v[:-1]])
        self.h = before + (current.detach() - before) / TAU
        self.rate = spikes.detach().mean()
        return spikes

    def margin(self):
        return (self.h - V_TH).abs().min().item()


def channel_margin_and_rate(current):
    """min |H - V_th| and the firing rate of each channel, by a plain loop."""
    v, margin, rate = 0.0, None, 0.0
    for x in current:
        h = v + (x - v) / TAU
        s = (h >= V_TH).double()
        v = h * (1 - s)
        gap = (h - V_TH).abs().amin((0, 2, 3))
        margin = gap if margin is None else torch.minimum(margin, gap)
        rate = rate + s.mean((0, 2, 3)) / len(current)
    return margin, rate


@torch.no_grad()
def settle(block, train_in, eval_in, rng, gain, shift, candidates=24, rates=(0.02, 0.6)):
    """Sets the BN of `block`, returns its spikes for the training and the evaluation pass.

    The running statistics are drawn near those of the batch, so that the evaluation
    pass fires too. A candidate bias out of the range `rates` is taken only if all are.
    """
    bn = block.bn
    out = torch.flatten(block.conv(train_in), 0, 1)
    mean, var = out.mean((0, 2, 3)), out.var((0, 2, 3))

    def draw(kind):
        return kind(bn.num_features, generator=rng)

    bn.weight.copy_(gain * (1 + 0.1 * draw(torch.randn)))
    bn.running_mean.copy_(mean + 0.1 * var.sqrt() * draw(torch.randn))
    bn.running_var.copy_(var * (0.7 + 0.6 * draw(torch.rand)))
    bn.bias.zero_()
    kept = bn.running_mean.clone(), bn.running_var.clone()

    steps = len(train_in)
    train = F.batch_norm(out, *kept, bn.weight, None, True, MOMENTUM, EPS)
    train = train.unflatten(0, (steps, -1))
    tested = F.batch_norm(
        torch.flatten(block.conv(eval_in), 0, 1), *kept, bn.weight, None, False, MOMENTUM, EPS
    ).unflatten(0, (steps, -1))

    best = torch.full((bn.num_features,), -1.0)
    for _ in range(candidates):
        bias = shift + 0.1 * draw(torch.randn)
        both = torch.cat([train, tested], 1) + bias[:, None, None]
        margin, rate = channel_margin_and_rate(both)
        margin = torch.where((rate > rates[0]) & (rate < rates[1]), margin, margin * 1e-6)
        better = margin > best
        bn.bias.copy_(torch.where(better, bias, bn.bias))
        best = torch.where(better, margin, best)

    saved = bn.running_mean.clone(), bn.running_var.clone()
    block.train()
    train_out = block(train_in)
    functional.reset_net(block)
    block.eval()
    eval_out = block(eval_in)
    functional.reset_net(block)
    block.train()
    bn.running_mean.copy_(saved[0])
    bn.running_var.copy_(saved[1])
    return train_out, eval_out


def named_state(model):
    """Copies of the parameters and BN statistics under the names the files use."""
    return {
        name: value.clone()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
