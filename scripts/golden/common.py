"""Shared by the golden scripts: float64, one thread, paths and the writer with its metadata.

Not run by itself; every other script here imports it.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save as serialize

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)

REPO = Path(__file__).resolve().parents[2]
SIZE_LIMIT = 1_500_000


def generator(seed: int) -> torch.Generator:
    """A seeded generator, so that a script does not depend on the global state."""
    return torch.Generator().manual_seed(seed)


def sort_metadata(data: bytes) -> bytes:
    """Safetensors writes the metadata in random order; sorted, a rerun gives the same bytes."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def save(crate: str, name: str, tensors: dict, **notes) -> None:
    """Writes `crates/<crate>/tests/golden/<name>.safetensors`; `notes` go to the metadata."""
    script = Path(sys.argv[0]).name
    metadata = {
        "made_by": f"scripts/golden/{script}",
        "torch": torch.__version__,
        "spikingjelly": version("spikingjelly"),
        "numpy": version("numpy"),
    }
    metadata |= {key: str(value) for key, value in notes.items()}
    out = {}
    for key, value in tensors.items():
        value = torch.as_tensor(value).detach()
        wanted = torch.float64 if value.is_floating_point() or value.dtype == torch.bool else torch.int64
        out[key] = value.to(wanted).contiguous().clone()
        assert torch.isfinite(out[key]).all(), f"{key} is not finite"
    path = REPO / "crates" / crate / "tests" / "golden" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sort_metadata(serialize(out, metadata=metadata)))
    size = path.stat().st_size
    assert size < SIZE_LIMIT, f"{path} holds {size} bytes"
    print(f"{path.relative_to(REPO)}: {len(out)} tensors, {size:,} bytes")
