"""Puts what scripts/gpu-suite has run into OUT_DIR/suite.json and OUT_DIR/suite.md.

    summary.py OUT_DIR

Reads OUT_DIR/parts.tsv (name, how it ended, seconds) and the lines of JSON in OUT_DIR/*.log. Exits with 1 if a part did not pass.
"""

import json
import pathlib
import re
import subprocess
import sys


def command(*words):
    """The first line that a command says, or nothing."""
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=30).stdout.strip().splitlines()[0]
    except (OSError, IndexError, subprocess.SubprocessError):
        return None


def objects(log):
    """The JSON objects among a log's lines; a test's own output may stand in front of one."""
    for line in log.read_text(errors="replace").splitlines():
        start = line.find('{"')
        if start >= 0:
            try:
                yield json.loads(line[start:])
            except json.JSONDecodeError:
                continue


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def of_peer(steps, ours):
    """Seconds of PyTorch in the same work, precision and batch, if this is a step of ours on the GPU."""
    same = lambda s: all(s[key] == ours[key] for key in ("work", "precision", "batch"))
    if ours["device"] == "gpu":
        return next((s["seconds"] for s in steps if s["device"] == "peer" and same(s) and "seconds" in s), None)


def time_of(step, peer):
    """The cells of a measurement: milliseconds or why there are none, images a second, and how many times the peer's speed that is."""
    if "error" in step:
        return step["error"], "", ""
    ratio = f"{peer / step['seconds']:.2f}" if peer else ""
    return f"{1e3 * step['seconds']:.2f}", f"{step['images_per_second']:.0f}", ratio


def main():
    out = pathlib.Path(sys.argv[1])
    parts = [line.split("\t") for line in (out / "parts.tsv").read_text().splitlines()]
    parts = [{"part": name, "result": result, "seconds": int(seconds)} for name, result, seconds in parts]
    logs = {log.stem: list(objects(log)) for log in sorted(out.glob("*.log"))}
    kernels = [entry for entries in logs.values() for entry in entries if "kernel" in entry]
    device = lambda name: re.sub("^steps_|_(f32|tf32|bf16|losses)$", "", name)
    steps = [{"device": device(name), **entry} for name, entries in logs.items() for entry in entries if "work" in entry]
    query = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    suite = {
        "gpu": command(*query),
        "commit": command("git", "rev-parse", "HEAD"),
        "nvcc": (command("nvcc", "--version") or "").strip() or None,
        "parts": parts,
        "kernels": kernels,
        "steps": steps,
    }
    (out / "suite.json").write_text(json.dumps(suite, indent=2) + "\n")

    copy = next((k["bytes_per_second"] for k in kernels if k["kernel"] == "copy"), None)
    share = lambda k: f"{100 * k['bytes_per_second'] / copy:.0f} %" if copy else ""
    text = [f"# GPU suite\n\n{suite['gpu']}, commit {suite['commit']}\n"]
    text.append("## Parts\n\n" + table(["part", "result", "s"], [p.values() for p in parts]))
    if kernels:
        rows = [[k["kernel"], f"{1e3 * k['seconds']:.3f}", f"{k['bytes_per_second'] / 1e9:.0f}", share(k)] for k in kernels]
        text.append("## Bandwidth\n\n" + table(["kernel", "ms", "GB/s", "of a copy's"], rows))
    times = [s for s in steps if "loss" not in s]
    if times:
        rows = [
            [s["device"], s["work"], s["precision"], s["batch"], *time_of(s, of_peer(times, s))]
            for s in times
        ]
        text.append("## Steps\n\n" + table(["device", "work", "precision", "batch", "ms", "images/s", "x PyTorch's"], rows))
    losses = [[s["work"], s["precision"], f"{s['loss']:.5f}"] for s in steps if "loss" in s]
    if losses:
        text.append("## Losses after 200 steps\n\n" + table(["work", "precision", "loss"], losses))
    (out / "suite.md").write_text("\n\n".join(text) + "\n")
    failed = [p["part"] for p in parts if p["result"] != "passed" and not p["result"].startswith("skipped")]
    print((out / "suite.md").read_text())
    sys.exit(f"did not pass: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
