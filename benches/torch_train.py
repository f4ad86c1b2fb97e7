#!/usr/bin/env python3
"""A second opinion on the accuracies: trains in PyTorch what `experiments/precision.toml --profile hour` trains.

Shares nothing with the project but the JPEG files and the shape of the networks: Pillow decodes, PyTorch draws weights,
subset, order and augmentation, and computes. Writes `torch_train.json` (every epoch of every run) and `torch_train.md`
(its accuracies beside those that the pipeline's trainings came to); runs that the JSON holds are not run again.

    python3 benches/torch_train.py --images target/cifar10

Needs PyTorch, NumPy and Pillow; half an hour on one idle core.
"""

import argparse
import csv
import json
import pathlib
import statistics
import sys

import numpy
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import torch_step

HERE = pathlib.Path(__file__).resolve().parent
OURS = HERE.parent / "artifacts/experiments/precision/hour/train"

ARCH, MODES, SEEDS, OUR_SEEDS = "resnet14", ["all", "bn"], [0, 1], [0, 1, 2]
PER_CLASS, EPOCHS, MILESTONES, BATCH = 2000, 30, [15, 23], 128
LEARNING_RATE, MOMENTUM = 0.1, 0.9  # no weight decay: the origin has none
PADDING = 4
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read(folder, per_class, generator):
    """Pixels [images, 3, 32, 32] in uint8 and labels; `per_class` of each class at random, or all."""
    images, labels = [], []
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    for label, of_class in enumerate(classes):
        files = sorted(of_class.iterdir())
        chosen = torch.randperm(len(files), generator=generator)[:per_class]
        images += [numpy.asarray(Image.open(files[i]).convert("RGB")) for i in chosen]
        labels += [label] * len(chosen)
    return torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normalise(pixels):
    mean, deviation = (torch.tensor(x).view(3, 1, 1) for x in (MEAN, DEVIATION))
    return ((pixels.float() / 255 - mean) / deviation).contiguous(memory_format=torch.channels_last)


def augment(pixels, generator):
    """A flip of every second image on average, then a crop of the image in a black frame."""
    flip = torch.randint(2, (len(pixels),), generator=generator).bool()
    pixels = torch.where(flip.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    framed = functional.pad(pixels, [PADDING] * 4)
    corner = torch.randint(2 * PADDING + 1, (2, len(pixels)), generator=generator)
    rows = (corner[0].view(-1, 1) + torch.arange(32)).view(-1, 1, 32, 1)
    columns = (corner[1].view(-1, 1) + torch.arange(32)).view(-1, 1, 1, 32)
    return framed[torch.arange(len(pixels)).view(-1, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1), rows, columns]


def prepare(net, mode):
    """The origin's beginning: weights from He's normal distribution, scales 1; BatchNorms of shortcuts never train alone."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    if mode == "bn":
        for name, module in net.named_modules():
            trains = isinstance(module, nn.BatchNorm2d) and "shortcut" not in name
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(trains)


def accuracy(net, images, labels):
    net.eval()
    with torch.no_grad():
        right = [net(normalise(x)).argmax(1) == y for x, y in zip(images.split(500), labels.split(500))]
    return torch.cat(right).float().mean().item()


def train(mode, seed, images):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, labels = read(images / "train", PER_CLASS, generator)
    test = read(images / "test", None, generator)
    net = torch_step.network(ARCH, "origin").to(memory_format=torch.channels_last)
    prepare(net, mode)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimiser = torch.optim.SGD(trained, lr=LEARNING_RATE, momentum=MOMENTUM)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, MILESTONES)
    history = []
    for _ in range(EPOCHS):
        net.train()
        for batch in torch.randperm(len(pixels), generator=generator).split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(net(normalise(augment(pixels[batch], generator))), labels[batch]).backward()
            optimiser.step()
        schedule.step()
        history.append(round(accuracy(net, *test), 4))
        print(f"{mode}, seed {seed}, epoch {len(history)}: {100 * history[-1]:.2f} %", file=sys.stderr, flush=True)
    values = sum(p.numel() for p in trained)
    return {"mode": mode, "seed": seed, "trained_values": values, "torch": torch.__version__, "test_accuracy": history}


def ours(mode, seed):
    """What the pipeline's training in float32 came to, in per cent."""
    file = OURS / f"arch={ARCH},mode={mode},precision=f32,seed={seed}" / "history.csv"
    with open(file, encoding="utf-8", newline="") as lines:
        return 100 * float(list(csv.DictReader(lines))[-1]["test_accuracy"])


def page(runs):
    said = lambda values: f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f} (n = {len(values)})"
    rows = []
    for mode in MODES:
        theirs = [100 * run["test_accuracy"][-1] for run in runs if run["mode"] == mode]
        mine = [ours(mode, seed) for seed in OUR_SEEDS]
        values = next(run["trained_values"] for run in runs if run["mode"] == mode)
        rows.append(f"| {mode} | {values:,} | {said(theirs)} | {said(mine)} |")
    versions = ", ".join(sorted({run["torch"] for run in runs}))
    return f"""# A second opinion

Written by `python3 benches/torch_train.py`; `torch_train.json` holds every epoch. Top-1 test accuracy (%) of {ARCH}, variant
`origin`, after {EPOCHS} epochs of {10 * PER_CLASS:,} training images from JPEG files: mean and standard deviation over seeds, by
PyTorch {versions} and by the trainings of `experiments/precision.toml --profile hour` in float32. The two
have no random number in common, nor any code that decodes, augments, trains or evaluates.

| mode | trained values | PyTorch | repro |
|---|---:|---:|---:|
""" + "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=pathlib.Path, required=True, help="folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = HERE / "torch_train.json"
    runs = json.loads(results.read_text(encoding="utf-8")) if results.exists() else []
    for seed in SEEDS:
        for mode in MODES:
            if not any((run["mode"], run["seed"]) == (mode, seed) for run in runs):
                runs.append(train(mode, seed, args.images))
                lines = ",\n".join(json.dumps(run) for run in runs)
                results.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    (HERE / "torch_train.md").write_text(page(runs), encoding="utf-8")


if __name__ == "__main__":
    main()
