"""FID between two folders of images, from the files on, by torch-fidelity and clean-fid and by ours.

Run by `scripts/parity-real --folders`. Both load the images, resize and scale them as they do, and take the features of
the FID network with the published weights, as far as 768.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torch_fidelity
from cleanfid import fid as clean_fid
from safetensors.torch import load_file
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))
from inception_nets import fid_network, features  # noqa: E402

TOLERANCE = 1e-3  # relative; features are in f32


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fid", required=True, help="the example `fid`")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--dims", default="64", choices=["64", "192", "768"])
    parser.add_argument("folders", nargs=2)
    return parser.parse_args()


def by_clean_fid(args):
    net = fid_network()
    net.load_state_dict(load_file(args.weights), strict=False)

    def model(batch):
        return features(net, (batch - 128) / 128, args.dims)[args.dims]

    stats = []
    for folder in args.folders:
        found = clean_fid.get_folder_features(folder, model, num_workers=0, device="cpu", verbose=False)
        stats += [found.astype(np.float64).mean(0), np.cov(found.astype(np.float64), rowvar=False)]
    return clean_fid.frechet_distance(*stats)


def by_torch_fidelity(args):
    """Its extractor wants a whole file: what the weights lack is random, and is not used."""
    published = load_file(args.weights)
    state = {name: torch.zeros(shape) for name, shape in shapes().items()} | published
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        torch.save(state, path)
        return torch_fidelity.calculate_metrics(
            input1=args.folders[0], input2=args.folders[1], fid=True, cuda=False, cache=False, verbose=False,
            feature_extractor_weights_path=str(path), feature_layer_fid=args.dims,
        )["frechet_inception_distance"]


def shapes():
    """Names and shapes of all tensors, without loading any."""
    names = {}

    def record(self, state, *_, **__):
        names.update({name: value.shape for name, value in torch.nn.Module.state_dict(self).items()})

    usual = FeatureExtractorInceptionV3.load_state_dict
    FeatureExtractorInceptionV3.load_state_dict = record
    with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        torch.save({}, file.name)
        FeatureExtractorInceptionV3("inception-v3-compat", ["64"], feature_extractor_weights_path=file.name)
    FeatureExtractorInceptionV3.load_state_dict = usual
    return names


def ours(args, protocol):
    command = [args.fid, *args.folders, "--json", "--dims", args.dims, "--weights", args.weights, "--protocol", protocol]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout)["fid"]


def main():
    args, good = parse(), True
    warnings.filterwarnings("ignore")
    for protocol, theirs in [("clean-fid", by_clean_fid), ("torch-fidelity", by_torch_fidelity)]:
        want, got = theirs(args), ours(args, protocol)
        ok = bool(abs(got - want) <= TOLERANCE * abs(want))
        good &= ok
        print(f"{protocol}: FID-{args.dims} {want:.6f}, ours {got:.6f}, {'ok' if ok else 'NOT EQUAL'}")
    sys.exit(0 if good else "outside the tolerance")


if __name__ == "__main__":
    main()
