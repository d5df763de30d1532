"""Spiking layers with other norms, and other neurons: forward and backward.

Run: python scripts/golden/layers.py  (writes crates/snn-core/tests/golden/layers.safetensors)

`none.*`: synapse + bias + SpikingJelly's LIFNode, no norm, for a convolution, a transposed one and a linear map.
`tdbn.*`: threshold-dependent batch norm (Zheng et al. 2021), torch's batch norm times alpha V_th, then SpikingJelly's LIFNode.
`plif.*`: SpikingJelly's ParametricLIFNode, gradients of the input and of w.
`fsvae.{f64,f32}.*`: the neuron of the original FSVAE (Kamata et al. 2022) as a torch autograd function, in both precisions.
`gaussian.*`: a Gaussian stand-in, its primitive the normal distribution function, differentiated by autograd.

Upstream gradients `gs` fall on the spikes. Cases are drawn until every potential is clear of the threshold.
"""

import torch
import torch.nn.functional as F
from common import generator, save
from spikingjelly.activation_based import neuron, surrogate

STEPS, BATCH, MIN_MARGIN = 6, 3, 1e-4
ALPHA, V_TH, EPS, MOMENTUM = 0.7, 0.5, 1e-5, 0.1


def leaf(x):
    return x.clone().requires_grad_(True)


def lif_node(v_threshold):
    return neuron.LIFNode(
        tau=2.0, v_threshold=v_threshold, v_reset=0.0, surrogate_function=surrogate.ATan(2.0),
        step_mode="m", store_v_seq=True,
    )


def margin(currents, v, v_threshold, rate, decay, v_reset):
    """min |H - V_th|, from the membranes behind each step."""
    rest = 0.0 if v_reset is None else v_reset
    before = torch.cat([torch.full_like(v[:1], rest), v[:-1]])
    h = before + ((currents if decay else 0.0) - (before - rest)) * rate + (0.0 if decay else currents)
    return (h - v_threshold).abs().min().item()


def first_clear(draw):
    for seed in range(2000):
        gap, out = draw(generator(seed))
        rate = out["s"].mean().item()
        if gap > MIN_MARGIN and 0.05 < rate < 0.6:
            return {key: value.detach() for key, value in out.items()}
    raise RuntimeError("no seed is clear of the threshold")


def synapse_case(product, x_shape, w_shape, channels, tdbn):
    def draw(rng):
        def randn(*shape):
            return torch.randn(*shape, generator=rng)

        x, w, b = leaf((randn(*x_shape) > 0.3).double()), leaf(0.3 * randn(*w_shape)), leaf(0.2 + 0.2 * randn(channels))
        parameters = {"x": x, "weight": w, "bias": b}
        currents = product(x.flatten(0, 1), w, b)
        out = {}
        if tdbn:
            gain, shift = leaf(1 + 0.2 * randn(channels)), leaf(0.3 + 0.2 * randn(channels))
            mean, var = randn(channels), 0.5 + torch.rand(channels, generator=rng)
            out |= {"running_mean": mean.clone(), "running_var": var.clone()}
            parameters |= {"bn_weight": gain, "bn_bias": shift}
            normed = F.batch_norm(currents, mean, var, None, None, True, MOMENTUM, EPS)
            shape = [1, channels] + [1] * (currents.dim() - 2)
            currents = gain.view(shape) * (ALPHA * V_TH * normed) + shift.view(shape)
            out |= {"after_mean": mean.clone(), "after_var": var.clone()}
            tested = F.batch_norm(product(x.flatten(0, 1), w, b), mean, var, None, None, False, MOMENTUM, EPS)
            out["eval"] = gain.view(shape) * (ALPHA * V_TH * tested) + shift.view(shape)
        currents = currents.unflatten(0, (STEPS, BATCH))
        node = lif_node(V_TH)
        s = node(currents)
        gs = randn(*s.shape)
        grads = torch.autograd.grad(s, list(parameters.values()), gs)
        out |= parameters | {"s": s, "gs": gs}
        out |= {f"g_{name}": grad for name, grad in zip(parameters, grads)}
        return margin(currents, node.v_seq, V_TH, 0.5, True, 0.0), out

    return first_clear(draw)


def plif_case(w, decay, v_reset, mean=0.6):
    def draw(rng):
        x = leaf((mean if decay else 0.3) + (1.0 if decay else 0.5) * torch.randn(16, 5, 7, generator=rng))
        node = neuron.ParametricLIFNode(
            init_tau=2.0, decay_input=decay, v_reset=v_reset, surrogate_function=surrogate.ATan(2.0),
            step_mode="m", store_v_seq=True,
        )
        # SpikingJelly makes its w in float32.
        node.w = torch.nn.Parameter(torch.tensor(w, dtype=torch.float64))
        s = node(x)
        gs = torch.randn(*s.shape, generator=rng)
        gx, gw = torch.autograd.grad(s, [x, node.w], gs)
        gap = margin(x, node.v_seq, 1.0, torch.sigmoid(node.w), decay, v_reset)
        return gap, {"x": x, "w": node.w, "s": s, "gs": gs, "gx": gx, "gw": gw}

    return first_clear(draw)


class FsvaeSpike(torch.autograd.Function):
    """Theta(u - 0.2), strictly; derivative 1 where |u| < 0.5."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return torch.gt(u, 0.2).to(u.dtype)

    @staticmethod
    def backward(ctx, grad):
        (u,) = ctx.saved_tensors
        return grad * (u.abs() < 0.5).to(u.dtype)


def fsvae_case(dtype):
    rng = generator(1)
    # Short binary fractions too: |u| = 0.5 happens.
    x = 0.5 * torch.randn(16, 5, 8, generator=rng)
    x[:, :, 4:] = (8 * x[:, :, 4:]).round() / 8
    x[0, 0, :4] = torch.tensor([0.2, 0.5, -0.5, 0.25])
    x, gs = leaf(x.to(dtype)), torch.randn(16, 5, 8, generator=rng).to(dtype)
    u = o = torch.zeros_like(x[0])
    spikes = []
    for current in x:
        u = 0.25 * u * (1 - o) + current
        o = FsvaeSpike.apply(u)
        spikes.append(o)
    s = torch.stack(spikes)
    (gx,) = torch.autograd.grad(s, x, gs)
    assert 0.05 < s.mean() < 0.6
    return {"x": x, "s": s, "gs": gs, "gx": gx}


def main():
    tensors = {}

    def add(name, out):
        tensors.update({f"{name}.{key}": value for key, value in out.items()})

    maps = {
        "conv": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (STEPS, BATCH, 2, 6, 5), (4, 2, 3, 3)),
        "transposed": (
            lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1), (STEPS, BATCH, 2, 3, 4), (2, 4, 3, 3)
        ),
        "linear": (F.linear, (STEPS, BATCH, 9), (4, 9)),
    }
    for name, (product, x_shape, w_shape) in maps.items():
        add(f"none.{name}", synapse_case(product, x_shape, w_shape, 4, False))
        add(f"tdbn.{name}", synapse_case(product, x_shape, w_shape, 4, True))
    for reset, v_reset in {"hard0": 0.0, "hard_m01": -0.1, "soft": None}.items():
        for decay in (True, False):
            add(f"plif.{reset}.decay{decay:d}", plif_case(-0.83, decay, v_reset))
    add("plif.hard0.decay1.slow", plif_case(-1.7, True, 0.0, 1.2))
    add("fsvae.f64", fsvae_case(torch.float64))
    add("fsvae.f32", fsvae_case(torch.float32))
    x, sigma = leaf(torch.arange(-300, 301) / 100), 0.6
    value = torch.distributions.Normal(torch.tensor(0.0), torch.tensor(sigma)).cdf(x)
    add("gaussian", {"x": x, "sigma": torch.tensor(sigma), "value": value, "grad": torch.autograd.grad(value.sum(), x)[0]})
    save("snn-core", "layers", tensors, min_margin=MIN_MARGIN, alpha=ALPHA, v_threshold=V_TH)


if __name__ == "__main__":
    main()
