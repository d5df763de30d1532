"""LIF and IF neurons over 16 steps, forward and backward, by SpikingJelly's multi-step nodes.

Run: python scripts/golden/lif.py  (writes crates/snn-core/tests/golden/lif.safetensors)

Each case holds the input `.x`, the spikes `.s`, the membrane after the reset `.v`,
an upstream gradient on the spikes `.gs` and the gradient of the input `.gx`.
The upstream gradient falls on the spikes alone, none on `.v`.
"""

import torch
from common import generator, save
from spikingjelly.activation_based import neuron, surrogate

STEPS, BATCH, NEURONS = 16, 5, 7
RESETS = {"hard0": 0.0, "hard_m01": -0.1, "soft": None}
MIN_MARGIN = 1e-3


def charged(x, v, tau, v_reset, decay_input):
    """H of Eq. 1 from the membranes `v` after every step (tau = None: an IF neuron)."""
    rest = 0.0 if v_reset is None else v_reset
    before = torch.cat([torch.full_like(v[:1], rest), v[:-1]])
    if tau is None:
        return before + x
    if decay_input:
        return before + (x - (before - rest)) / tau
    return before - (before - rest) / tau + x


def run(node, x, gs):
    x = x.clone().requires_grad_(True)
    spikes = node(x)
    (gx,) = torch.autograd.grad(spikes, x, gs)
    return {"x": x, "s": spikes, "v": node.v_seq, "gs": gs, "gx": gx}


def case(make, mean, spread, tau, v_threshold, v_reset, decay_input=True):
    """The first seed whose neurons all stay clear of the threshold."""
    for seed in range(1000):
        rng = generator(seed)
        x = mean + spread * torch.randn(STEPS, BATCH, NEURONS, generator=rng)
        gs = torch.randn(STEPS, BATCH, NEURONS, generator=rng)
        out = run(make(), x, gs)
        h = charged(out["x"], out["v"], tau, v_reset, decay_input)
        # Cross-checks: Eq. 2 (with Theta(0) = 1) and Eq. 3 on SpikingJelly's own output.
        spikes = (h >= v_threshold).double()
        assert torch.equal(spikes, out["s"])
        after = h - v_threshold * spikes if v_reset is None else h * (1 - spikes) + v_reset * spikes
        assert torch.allclose(after, out["v"], rtol=0, atol=1e-14)
        rate = out["s"].mean().item()
        assert 0.1 < rate < 0.4, rate
        if (h - v_threshold).abs().min() > MIN_MARGIN:
            return out
    raise RuntimeError("no seed is clear of the threshold")


def main():
    tensors = {}

    def add(name, out):
        tensors.update({f"{name}.{key}": value for key, value in out.items()})

    shared = {"surrogate_function": surrogate.ATan(2.0), "step_mode": "m", "store_v_seq": True}
    for reset, v_reset in RESETS.items():
        for detach in (False, True):
            kept = {**shared, "v_threshold": 1.0, "v_reset": v_reset, "detach_reset": detach}
            for decay in (True, False):
                # An undecayed input charges tau times as much.
                mean, spread = (0.6, 1.0) if decay else (0.3, 0.5)
                add(
                    f"lif.{reset}.decay{decay:d}.detach{detach:d}",
                    case(
                        lambda: neuron.LIFNode(tau=2.0, decay_input=decay, **kept),
                        mean, spread, 2.0, 1.0, v_reset, decay,
                    ),
                )
            add(
                f"if.{reset}.detach{detach:d}",
                case(lambda: neuron.IFNode(**kept), 0.2, 0.4, None, 1.0, v_reset),
            )
    add(
        "lif.tau3.7",
        case(
            lambda: neuron.LIFNode(tau=3.7, v_threshold=0.6, v_reset=0.0, **shared),
            0.6, 1.0, 3.7, 0.6, 0.0,
        ),
    )
    save("snn-core", "lif", tensors, min_margin=MIN_MARGIN)


if __name__ == "__main__":
    main()
