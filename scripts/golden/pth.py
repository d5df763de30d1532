"""State dicts as PyTorch writes them, and some that are none.

Run: python scripts/golden/pth.py
Writes crates/spiking-diffusion-metrics/tests/golden/pth/*.pth. The values are counted numbers, which the test counts again.
"""

from collections import OrderedDict

import torch
from common import REPO

torch.set_default_dtype(torch.float32)
FOLDER = REPO / "crates/spiking-diffusion-metrics/tests/golden/pth"


class Call:
    """What a pickle calls when Python reads it."""

    def __init__(self, function, *arguments):
        self.made_by = function, arguments

    def __reduce__(self):
        return self.made_by


def state():
    """Views, transposed tensors, parameters, scalars, several types, and a module's own metadata."""
    module = torch.nn.BatchNorm1d(3)
    module.num_batches_tracked.fill_(7)
    grid = torch.arange(12.0).reshape(3, 4)
    tensors = module.state_dict(prefix="norm.")
    tensors |= OrderedDict(
        grid=grid, rows=grid[1:], columns=grid[:, 1], transposed=grid.T,
        permuted=torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1), scalar=torch.tensor(0.5), empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.arange(4.0)), double=torch.arange(4.0).double() / 3,
        half=torch.arange(4.0).half() / 4, bfloat=torch.arange(4.0).bfloat16() / 4,
        bytes=torch.arange(4).byte(), longs=torch.arange(4) * 10**9,
    )
    tensors._metadata = OrderedDict({"norm": {"version": 2}})
    return tensors


def main():
    import os

    FOLDER.mkdir(parents=True, exist_ok=True)
    torch.save(state(), FOLDER / "state.pth")
    torch.save(state(), FOLDER / "state_before_1_6.pth", _use_new_zipfile_serialization=False)
    good = torch.arange(4.0)
    strange = {
        "good": good, "called": Call(os.system, "touch pickle-was-called"), "shorts": torch.arange(4).short(),
        "step": 3, 5: good, "nested": {"weight": good}, "expanded": torch.ones(1).expand(9),
    }
    torch.save(strange, FOLDER / "strange.pth")
    torch.save(Call(os.system, "touch pickle-was-called"), FOLDER / "call.pth")
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.relative_to(REPO)}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
