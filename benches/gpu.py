#!/usr/bin/env python3
"""Makes tables of what `benches/gpu.sh` measured on a machine with a card.

    benches/gpu.sh OUT target/release/repro TESTS python3
    python3 benches/gpu.py OUT/report.json

Writes `gpu.md` beside this file, or the file that the second argument names. Needs nothing but Python;
takes a report as far as it has come. `gpu.json` is the report that `gpu.md` is made of; `notes` in it, if
there are any, are sentences about how it came to be.
"""

import json
import sys
from pathlib import Path

from compare_report import table

HERE = Path(__file__).resolve().parent
# What PyTorch multiplies in where we multiply in the first: it has tf32 on in f32.
PYTORCH = {"f32": False, "tf32": False, "bf16": True}


class Report:
    def __init__(self, steps, notes=()):
        self.notes = notes
        self.ours, self.torch, self.failed = [], [], {}
        for name, step in steps.items():
            result = step.get("result")
            if result is None:
                if step["status"] != 0:
                    self.failed[name] = step["status"]
            elif name.startswith("ours-"):
                self.ours.append(result | {"precision": precision(result)})
            elif name.startswith("torch-"):
                self.torch.append(result)

    def best(self, ours, compiled):
        """The fastest of PyTorch's configurations for the same work, or for `bn` where it has no such mode."""
        mode = "bn" if ours["mode"] == "random" else ours["mode"]
        key = (ours["arch"], ours["variant"], mode, ours["batch"], PYTORCH[ours["precision"]])
        same = [
            r for r in self.torch
            if (r["arch"], r["variant"], r["mode"], r["batch"], r["bf16"]) == key and bool(r["compile"]) == compiled
        ]
        return max(same, key=lambda r: r["images_per_second"], default=None)


def precision(result):
    """It is the last word of what our engine says of itself."""
    return result["engine"].rsplit(", ", 1)[-1]


def network(ours):
    return ours["arch"] + ("" if ours["variant"] == "paper" else f" ({ours['variant']})")


def seconds(ours):
    return ours["seconds"]["median"]


def configuration(torch):
    words = ["channels-last"] if torch["channels_last"] else []
    if torch["compile"] and torch["compile_mode"] != "default":
        words.append(torch["compile_mode"])
    return ", ".join(words)


def megabytes(count):
    return "" if count is None else f"{count / 1e6:.0f}"


def bold_ratio(one, other):
    return f"**{one / other:.2f}**" if one and other else ""


def speed_table(report):
    lines = []
    for ours in report.ours:
        if ours["instances"] > 1:
            continue
        rate = ours["images_per_second"]
        line = [network(ours), ours["mode"], ours["precision"], f"{1e3 * seconds(ours):.3f}", f"{rate:.0f}"]
        for compiled in (False, True):
            torch = report.best(ours, compiled)
            if torch is None:
                line += ["", "", ""]
            else:
                best = torch["images_per_second"]
                line += [f"{best:.0f}", configuration(torch), bold_ratio(rate, best)]
        lines.append(line)
    heading = ["network", "mode", "precision", "ms per step", "images/s"]
    heading += ["PyTorch eager", "its fastest", "ratio", "PyTorch compiled", "its fastest", "ratio"]
    return table(heading, lines)


def memory_table(report):
    lines = []
    for ours in report.ours:
        if ours["instances"] > 1:
            continue
        found = [report.best(ours, compiled) for compiled in (False, True)]
        peaks = [torch and torch.get("device_peak_bytes") for torch in found]
        least = min((peak for peak in peaks if peak), default=None)
        lines.append([
            network(ours), ours["mode"], ours["precision"], megabytes(ours["buffer_bytes"]), *map(megabytes, peaks),
            bold_ratio(ours["buffer_bytes"], least), ours.get("largest_batch") or "",
        ])
    heading = ["network", "mode", "precision", "buffers, MB", "PyTorch eager, MB", "compiled, MB"]
    return table(heading + ["buffers / the smaller", "largest batch in what was free"], lines)


def group_table(report):
    lines = []
    for group in report.ours:
        if group["instances"] == 1:
            continue
        same = ("arch", "variant", "mode", "batch", "precision")
        alone = [r for r in report.ours if r["instances"] == 1 and all(r[k] == group[k] for k in same)]
        rates = [alone[0]["images_per_second"] if alone else None, group["images_per_second"]]
        lines.append([
            network(group), group["mode"], group["precision"], group["instances"],
            f"{1e3 * seconds(alone[0]):.3f}" if alone else "", f"{1e3 * seconds(group):.3f}",
            f"{rates[0]:.0f}" if alone else "", f"{rates[1]:.0f}", bold_ratio(rates[1], rates[0]),
            megabytes(group["buffer_bytes"]),
        ])
    heading = ["network", "mode", "precision", "trainings", "ms per step of one", "of all", "images/s of one"]
    return table(heading + ["of all", "ratio", "buffers of all, MB"], lines)


def conditions(report):
    cards = sorted({r["engine"].rsplit(", ", 1)[0] for r in report.ours})
    lines = [f"- {card}" for card in cards]
    lines += [f"- {engine}" for engine in sorted({r["engine"] for r in report.torch})]
    if any(not r["optimised"] for r in report.ours):
        lines.append("- **Some numbers are those of a debug build of repro and say nothing.**")
    return "\n".join(lines + [f"- {note}" for note in report.notes])


def failures(report):
    if not report.failed:
        return ""
    why = {124: "took too long", 127: "was not found"}
    lines = [f"- `{name}` {why.get(code, f'ended with status {code}')}" for name, code in report.failed.items()]
    return "\n".join(["## Failed", "", *lines, ""])


def written(report):
    return f"""# On a card

Written by `python3 benches/gpu.py` from a report of `benches/gpu.sh OUT target/release/repro TESTS`.
All numbers are images per second of whole training steps (forward, backward, SGD; ours with augmentation) at batch 128,
variant `paper` unless another is named, medians; eight steps are queued before the card is waited for.

{conditions(report)}

Each of our lines is `repro bench step --batch 128 --device cuda --arch NETWORK --mode MODE --precision PRECISION`, each
of PyTorch's is what `torch_step.py --arch NETWORK --mode MODE --batch 128 --device cuda` measures.

## Speed

PyTorch stands with the fastest of its configurations that ran, eager and compiled. `random` trains two weights of
each filter and stands beside PyTorch's `bn`, which does not know it. PyTorch's convolutions may use tf32 in its f32, so
our `f32`, three products of tf32 for each, stands beside a less exact program; `bf16` is PyTorch's autocast. An empty cell was
not measured.

{speed_table(report)}
## Memory of the card

All buffers of ours, with the images, and the most that PyTorch had allocated at once in those configurations.

{memory_table(report)}
## Trainings that step together

{group_table(report)}
{failures(report)}"""


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    try:
        report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        report = Report(report["steps"], report.get("notes", ()))
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"gpu: `{sys.argv[1]}` is no report of `benches/gpu.sh`: {error}")
    to = Path(sys.argv[2]) if len(sys.argv) == 3 else HERE / "gpu.md"
    to.write_text(written(report).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
