"""Quality over training time, here and in PyTorch + SpikingJelly; `scripts/compare-quality` sets everything up.

A budget of M minutes is training alone: a third of it for the autoencoder, the rest for the denoiser, with the encoding and, where the
preset has them, the clusters of the training images. Drawing images and measuring them is outside the clock.

PyTorch trains the released architecture at its constant rate until the time is up. Here, where schedules must know their end, `--minutes`
times 50 steps of each network first, and sets the number of steps so that the training, and with it the schedule, ends with the
budget. It never does so exactly: what is written down and drawn is the time that the training took, and
where that is more than a tenth off the budget, a line says so. Both sides have the same threads, one runs at a time, and the load of the
machine before and after is written down: on a machine with other work the numbers mean little.

Images of the released architecture are drawn at --temperature on both sides (its authors preview at 0.65 and sweep in the end);
another preset's at its own. Those of PyTorch's networks are drawn by this project, from the imported checkpoints: the logits are the same
(scripts/parity-pytorch), and PyTorch takes half an hour for 1,280 of them. With --peer-draws it draws them itself. FAD and FID-768 by this project's `fid` on PNGs, of all sides alike.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time

from train import read_idx, save_png

PEER, RELEASED = "PyTorch + SpikingJelly", "here, released-code"
BATCH = 32


def run(command, args, log):
    """Runs a command to its end, what it says into a log."""
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    env["CANDLE_NUM_THREADS"] = "1"  # as .cargo/config.toml sets it for what cargo starts; torch does not read it
    with open(log, "a") as file:
        print("$", *command, file=file, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=file, text=True, env=env)
        file.write(done.stdout)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed with {done.returncode}: {log}")
    return done.stdout


def read(path):
    with open(path) as file:
        return json.load(file)


def write(path, value):
    with open(path + ".tmp", "w") as file:
        json.dump(value, file, indent=1)
    os.replace(path + ".tmp", path)


def images_in(folder, args):
    """Where a run's images are: those of another number are others."""
    return os.path.join(folder, f"images-{args.samples}")


class Peer:
    name = PEER

    def __init__(self, args):
        script = os.path.join(os.path.dirname(__file__), "train.py")
        self.args, self.program = args, [sys.executable, script]

    def options(self, folder):
        return ["--out", folder, "--threads", str(self.args.threads), "--seed", str(self.args.seed)]

    def train(self, folder, seconds, log):
        data = ["--data-dir", os.path.join(self.args.data_dir, "mnist")]
        budget = ["--seconds", f"{seconds / 3},{seconds * 2 / 3}"]
        run(self.program + ["train"] + data + budget + self.options(folder), self.args, log)
        return read(os.path.join(folder, "trained.json"))

    def sample(self, folder, log):
        if self.args.peer_draws:
            drawn = ["--n", str(self.args.samples), "--temperature", str(self.args.temperature)]
            drawn += ["--images", images_in(folder, self.args)]
            return run(self.program + ["sample"] + drawn + self.options(folder), self.args, log)
        imported = os.path.join(folder, "imported")
        if not os.path.exists(os.path.join(imported, "sdid.safetensors")):
            shutil.rmtree(imported, ignore_errors=True)
            run(self.program + ["release"] + self.options(folder), self.args, log)
            files = {name: os.path.join(folder, "released", f"{name}.safetensors") for name in ("vqsvae", "sdid")}
            command = [self.args.program, "import_pytorch", "--vqsvae", files["vqsvae"], "--sdid", files["sdid"]]
            run(command + ["--data-dir", os.path.join(self.args.data_dir, "mnist"), "--out", imported], self.args, log)
        draw(imported, folder, self.args, log, self.args.temperature)


class Here:
    def __init__(self, args, preset):
        self.args, self.preset, self.name = args, preset, f"here, {preset}"

    def train(self, folder, seconds, log):
        out = os.path.join(folder, "run")
        command = [self.args.program, "train", "mnist", "--data-dir", self.args.data_dir, "--preset", self.preset]
        command += ["--seed", str(self.args.seed), "--out", out, "--samples", "2", "--distance-images", "0"]
        command += ["--set", "evaluation.bound_images=2", "--batch-size", str(BATCH), "--minutes", str(seconds / 60)]
        run(command, self.args, log)
        took, config = (read(os.path.join(out, name)) for name in ("timing.json", "config.json"))
        took["sdid"] += took["encode"] + took.get("clusters", 0)
        steps = {stage: config[f"{stage}_training"]["max_steps"] for stage in ("vqsvae", "sdid")}
        return {stage: {"steps": count, "seconds": took[stage]} for stage, count in steps.items()}

    def sample(self, folder, log):
        temperature = self.args.temperature if self.name == RELEASED else None
        draw(os.path.join(folder, "run"), folder, self.args, log, temperature)


def draw(trained, folder, args, log, temperature):
    """Images of a run, by this project."""
    command = [args.program, "generate", "--run", trained, "--n", str(args.samples), "--format", "png"]
    command += ["--out", images_in(folder, args)]
    run(command + (["--temperature", str(temperature)] if temperature else []), args, log)


def fid(args, log, *words):
    return json.loads(run([args.program, "fid", *words, "--json"], args, log))


def measure(args, images, log):
    """FAD to the published statistics of the test images, and FID-768 to as many test images as there are samples."""
    stats = os.path.join(args.out, f"test-{args.samples}-768.npz")
    inception = ["--dims", "768", "--weights", args.inception]
    if not os.path.exists(stats):
        test = os.path.join(args.out, f"test-{args.samples}")
        data = read_idx(os.path.join(args.data_dir, "mnist"), "t10k-images-idx3-ubyte")
        save_png(data[: args.samples], test)
        run([args.program, "fid", test, "--save-stats", stats, *inception], args, log)
    published, network = (os.path.join(args.fad, name) for name in ("mnist_test_64.npz", "mnist_64.pth"))
    return {
        "fad": fid(args, log, published, images, "--protocol", "fad", "--weights", network)["fad"],
        "fid": fid(args, log, stats, images, *inception)["fid"],
    }


def folder_of(args, side, minutes):
    """The run's folder: that of a finished training, or a new one; a training that was cut off has lost its clock, and stays aside."""
    name = side.name.replace(", ", "-").replace(" + ", "-").lower()
    for attempt in range(1, 1000):
        folder = os.path.join(args.out, f"{name}-{minutes:g}min-seed{args.seed}-{args.threads}threads-{attempt}")
        if not os.path.exists(folder) or os.path.exists(os.path.join(folder, "budget.json")):
            os.makedirs(folder, exist_ok=True)
            return folder
    sys.exit(f"no folder left for {name}")


def one(args, side, minutes):
    """One run: whatever of it is there already is taken."""
    folder = folder_of(args, side, minutes)
    log, trained = os.path.join(folder, "log.txt"), os.path.join(folder, "budget.json")
    if not os.path.exists(trained):
        print(f"{side.name}: {minutes:g} minutes of training", flush=True)
        before = os.getloadavg()[0]
        done = side.train(folder, minutes * 60, log)
        write(trained, done | {"load": [before, os.getloadavg()[0]]})
    done = read(trained)
    took = done["vqsvae"]["seconds"] + done["sdid"]["seconds"]
    if abs(took - minutes * 60) > 6 * minutes:
        print(f"  trained for {took / 60:.2f} minutes, not {minutes:g}: the steps took longer or shorter than those that were timed")
    print(f"{side.name}: drawing {args.samples} images", flush=True)
    start = time.perf_counter()
    side.sample(folder, log)
    drawn = time.perf_counter() - start
    scores = measure(args, os.path.join(images_in(folder, args), "png"), log)
    return {
        "side": side.name, "minutes": minutes, "seed": args.seed, "threads": args.threads, "samples": args.samples,
        "temperature": args.temperature if side.name in (PEER, RELEASED) else None, "trained_minutes": took / 60,
        **done, "sampling_seconds": drawn, **scores, "machine": machine(), "folder": os.path.basename(folder),
    }


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), "unknown")
    names = ("torch", "spikingjelly")
    return {name: importlib.metadata.version(name) for name in names} | {"cpu": model, "python": platform.python_version()}


def table(rows):
    lines = [
        "| side | budget | trained | steps | samples | FAD | FID-768 | load before, after |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        steps = f"{row['vqsvae']['steps']} + {row['sdid']['steps']}"
        load = ", ".join(f"{load:.1f}" for load in row["load"])
        lines.append(
            f"| {row['side']} | {row['minutes']:g} min | {row['trained_minutes']:.2f} min | {steps} | {row['samples']} "
            f"| {row['fad']:.2f} | {row['fid']:.3f} | {load} |"
        )
    seeds, threads = sorted({row["seed"] for row in rows}), sorted({row["threads"] for row in rows})
    said = [f"MNIST, seeds {seeds}, threads {threads}, {rows[0]['machine']['cpu']}."]
    said += ["FAD: against the published statistics of the test images, batches of 256; FID-768: against as many test images."]
    return "\n".join(lines + [""] + said) + "\n"


def mean_of(rows, side, minutes, key):
    """The point of a side and a budget, the mean over its seeds; none if it has not run."""
    found = [row for row in rows if (row["side"], row["minutes"]) == (side, minutes)]
    mean = lambda name: sum(row[name] for row in found) / len(found)
    return (mean("trained_minutes"), mean(key)) if found else None


def plot(rows, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    budgets = sorted({row["minutes"] for row in rows})
    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for panel, (key, label) in zip(panels, [("fad", "FAD"), ("fid", "FID-768")]):
        for side, mark in zip(dict.fromkeys(row["side"] for row in rows), "os^Dv"):
            points = [mean_of(rows, side, minutes, key) for minutes in budgets]
            panel.plot(*zip(*(point for point in points if point)), mark + "-", label=side)
        panel.set(xscale="log", yscale="log", xlabel="minutes of training", ylabel=label)
        panel.set_xticks(budgets, [f"{minutes:g}" for minutes in budgets])
        panel.minorticks_off()
        panel.yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
    panels[0].legend(loc="lower left")
    figure.suptitle(f"MNIST, {rows[0]['samples']} samples, threads: {rows[0]['threads']}. Lower is better.")
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the program spiking-diffusion")
    parser.add_argument("--data-dir", required=True, help="folder with a folder mnist")
    parser.add_argument("--fad", required=True, help="folder with mnist_64.pth and mnist_test_64.npz")
    parser.add_argument("--inception", required=True, help="weights of the FID network")
    parser.add_argument("--out", required=True)
    parser.add_argument("--preset", default="best")
    parser.add_argument("--minutes", default="10,30,60")
    parser.add_argument("--sides", default="peer,released-code,preset")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1280)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--peer-draws", action="store_true", help="draw the images of PyTorch's networks by PyTorch")
    args = parser.parse_args()
    sides = {"peer": Peer(args), "released-code": Here(args, "released-code"), "preset": Here(args, args.preset)}
    os.makedirs(args.out, exist_ok=True)
    results = os.path.join(args.out, "results.json")
    rows = read(results) if os.path.exists(results) else []
    key = lambda row: tuple(row[name] for name in ("side", "minutes", "seed", "threads", "samples"))
    for minutes in map(float, args.minutes.split(",")):
        for side in (sides[name] for name in args.sides.split(",")):
            if any(key(row) == (side.name, minutes, args.seed, args.threads, args.samples) for row in rows):
                continue
            rows.append(one(args, side, minutes))
            write(results, rows)
    text = table(rows)
    with open(os.path.join(args.out, "quality.md"), "w") as file:
        file.write(text)
    alike = [row for row in rows if (row["threads"], row["samples"]) == (args.threads, args.samples)]
    plot(alike, os.path.join(args.out, "quality.png"))
    print(text)


if __name__ == "__main__":
    main()
