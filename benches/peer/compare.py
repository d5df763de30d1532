"""Times this project and PyTorch + SpikingJelly in alternation; `scripts/compare-peer` sets everything up."""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys

WORKS = [
    "vqsvae_train", "vqsvae_infer", "encode_256", "sdid_train", "sdid_infer", "sample_49",
    "classifier_train", "classifier_infer", "classifier_prepared",  # once laid out, which the peer has no word for
    "classifier_1", "vqsvae_1", "sample_49_1",  # one image
]
# Of --fsvae. The peer's `stepwise` draws one time step after the other, as this side always does; else as its authors' code does.
FSVAE_WORKS = [f"fsvae_{work}{how}" for work in ("train", "infer", "sample") for how in ("", "_stepwise")]
# A network that hardly fires, or fires at random, says nothing about a trained one.
LEAST_DENSITY, MOST_DENSITY = 0.005, 0.5


class Side:
    def __init__(self, command, threads):
        env = os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
        env["CANDLE_NUM_THREADS"] = "1"  # as .cargo/config.toml sets it for what cargo starts; torch does not read it
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, bufsize=1
        )
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"a side of the comparison ended: {self.process.args}")
        return json.loads(line)

    def ask(self, word):
        self.process.stdin.write(word + "\n")
        return self.answer()[word]


def check_values(ours, peer):
    """Both sides' FSVAE compute the same: losses, error of the reconstruction, and samples, at the same draws."""
    for word in ("fsvae_value", "fsvae_value_stepwise"):
        here, there = ours.ask(word), peer.ask(word)
        for name, values in here.items():
            for a, b in zip(values, there[name], strict=True):
                if not abs(a - b) <= 1e-4 * abs(a):
                    sys.exit(f"{word}: {name} is {a} here and {b} there: not the same network")


def spread(values):
    return f"{min(values):.2f}-{max(values):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, help="the program benches/peer/ours.rs")
    parser.add_argument("--vqsvae", required=True, help="a trained vqsvae.safetensors, paper architecture")
    parser.add_argument("--sdid", required=True, help="a trained sdid.safetensors, released architecture")
    parser.add_argument("--fsvae", help="a trained fsvae.safetensors, that of Table 1; without it none is timed")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--inputs", default="/tmp/compare-peer.safetensors")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--works", nargs="+", choices=WORKS + FSVAE_WORKS, metavar="WORK")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()

    works = args.works or WORKS + (FSVAE_WORKS if args.fsvae else [])
    if not args.fsvae and set(works) & set(FSVAE_WORKS):
        parser.error("the works of the FSVAE need --fsvae")

    fsvae = [args.fsvae] if args.fsvae else []
    ours = Side([args.ours, args.vqsvae, args.sdid, args.data_dir, args.inputs, *fsvae], args.threads)
    peer = Side([
        sys.executable, os.path.join(os.path.dirname(__file__), "peer.py"), "--vqsvae", args.vqsvae,
        "--sdid", args.sdid, "--inputs", args.inputs, "--threads", str(args.threads),
    ], args.threads)
    density = ours.ask("density")
    theirs = peer.ask("density")
    for layer, rate in density.items():
        if not LEAST_DENSITY < rate < MOST_DENSITY:
            sys.exit(f"{layer} fires at {rate:.4f}: not the weights of a trained network")
        if abs(rate - theirs[layer]) > 0.02 * rate:
            sys.exit(f"{layer} fires at {rate:.4f} here and at {theirs[layer]:.4f} there: not the same network")

    if args.fsvae:
        check_values(ours, peer)

    rows = []
    for work in works:
        long = work.startswith("sample_49")
        # Steady state on both sides: a block begins with runs that are not timed, in which threads wake up, and caches
        # and allocators get their memory back from the other side. Its time is the median of its timed runs.
        def block(side):
            warm, timed = (0, 1) if long else (2, 3)
            return statistics.median([side.ask(work) for _ in range(warm + timed)][warm:])

        pairs = [(block(ours), block(peer)) for _ in range(2 if long else args.runs)]
        a, b = (statistics.median(side) * 1e3 for side in zip(*pairs))
        ratios = [p / o for o, p in pairs]
        rows.append({
            "work": work, "ours_ms": round(a, 2), "peer_ms": round(b, 2),
            "ratio": round(statistics.median(ratios), 2), "ratio_spread": spread(ratios), "density": density,
        })
        print(f"{work:21} {a:10.2f} ms {b:10.2f} ms   {rows[-1]['ratio']:6.2f} x   ({spread(ratios)})", flush=True)
    memory = {"ours_mib": round(ours.ask("memory"), 1), "peer_mib": round(peer.ask("memory"), 1)}
    print(f"peak memory           {memory['ours_mib']:10.1f} MiB{memory['peer_mib']:10.1f} MiB")
    for side in (ours, peer):
        side.process.stdin.write("quit\n")
    for row in rows:
        row["memory"] = memory
    names = ("torch", "spikingjelly", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}
    print(", ".join(f"{k} {v}" for k, v in versions.items()), f"- {args.threads} threads each")
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"rows": rows, "versions": versions, "threads": args.threads}, f, indent=1)


if __name__ == "__main__":
    main()
