"""The two Inception networks of other people's software, without their published weights.

Not run by itself; `inception.py` and `scripts/parity/inception.py` import it.
"""

import numpy as np
import torch
import torchvision
from pytorch_fid import inception as pytorch_fid

LAYERS = {"64": 64, "192": 192, "768": 768, "2048": 2048, "logits": None}


def fid_network():
    """pytorch-fid's modules in torchvision's network."""
    net = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, weights=None, init_weights=False
    )
    for letter, inputs, pooled in [("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)]:
        setattr(net, f"Mixed_{letter}", pytorch_fid.FIDInceptionA(inputs, pool_features=pooled))
    for letter, narrow in [("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)]:
        setattr(net, f"Mixed_{letter}", pytorch_fid.FIDInceptionC(768, channels_7x7=narrow))
    net.Mixed_7b = pytorch_fid.FIDInceptionE_1(1280)
    net.Mixed_7c = pytorch_fid.FIDInceptionE_2(2048)
    return net.eval()


def imagenet_network():
    """torchvision's network; the auxiliary classifier does not take part in evaluation."""
    return torchvision.models.inception_v3(
        aux_logits=False, weights=None, init_weights=False, transform_input=False
    ).eval()


NETWORKS = {"fid": fid_network, "imagenet": imagenet_network}
STAGES = {
    "64": ["Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"],
    "192": ["Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"],
    "768": ["Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"],
    "2048": ["Mixed_7a", "Mixed_7b", "Mixed_7c"],
}


@torch.no_grad()
def features(net, x, deepest="logits"):
    """`{layer: [N, D]}` of every layer up to `deepest`, from the network's own input."""
    out = {}
    for layer, names in STAGES.items():
        for name in names:
            x = getattr(net, name)(x)
        out[layer] = x.mean(dim=(2, 3))
        if layer == deepest:
            return out
    out["logits"] = net.fc(out["2048"])
    return out


def hashed(name, count):
    """`count` numbers in [-1, 1) from the name and the position; the Rust test has the same formula."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 & 0xFFFFFFFF
    x = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    x = x ^ (x >> np.uint32(16))
    return x.astype(np.float64) / 2**31 - 1


def hashed_weight(name, shape):
    """He's uniform bound for kernels, values around (1, 0, 0, 1) for batch norm; rounded to f32."""
    u = hashed(name, int(np.prod(shape)))
    fan_in = int(np.prod(shape[1:]))
    if name.endswith("conv.weight"):
        u = u * np.sqrt(6 / fan_in)
    elif name == "fc.weight":
        u = u * np.sqrt(3 / fan_in)
    elif name.endswith(("bn.weight", "running_var")):
        u = 1 + 0.25 * u
    else:
        u = 0.1 * u
    return torch.from_numpy(u.astype(np.float32).reshape(shape))


def fill(net):
    """Gives a network its hashed weights."""
    state = net.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            state[name] = hashed_weight(name, tuple(value.shape)).to(value.dtype)
    net.load_state_dict(state)
    return net
