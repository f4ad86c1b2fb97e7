#!/usr/bin/env python3
"""Writes golden.json: what PyTorch makes of small networks, for the tests of the engines.

    pip install torch blake3 numpy && python make.py

Initial weights, random positions and networks are those of network/export/rebuild.py; data order and augmentation are
drawn here again from the specification of the streams (network/rng.rs). So this and the program exchange nothing but the
numbers in golden.json. Everything is computed in float64, starting from the float32 weights.
"""

import json
import struct
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[2] / "export"))
import rebuild

SEED, K, TRAIN, TEST = 0, 2, 64, 16
DECAY = 0.05  # so much that ten steps show it
# The digest of resnet8's initial weights that network/init.rs pins.
PINNED = "b8642bd7a7848d20c46b0ac5adf90328f2b2ac8c5a061efe3c15cca1349d82fb"


# Streams -------------------------------------------------------------------------------------


def words(name, count, first=0):
    digest = rebuild.stream(SEED, name).digest(length=8 * count, seek=8 * first)
    return struct.unpack(f"<{count}Q", digest)


def below(word, n):
    return (word * n) >> 64


def permutation(name, n):
    order = list(range(n))
    for i, word in zip(range(n - 1, 0, -1), words(name, n - 1)):
        j = below(word, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def thin(name, shape):
    """What a filter tensor begins with in mode `origin-random`."""
    _, channels, rows, columns = shape
    w = words(f"{name} thin", 8)
    values, filters = torch.zeros(shape), [below(w[4], channels), below(w[5], channels)]
    for i, f in enumerate(filters):
        row, column = below(w[2 * i], rows), below(w[2 * i + 1], columns)
        values[f, :, row, column] = 0.001 + 0.999 * ((w[6 + i] >> 11) * 2.0**-53)
    return values.double()


def network(arch, variant, bn_init):
    """The network at its initial weights, and their digest."""
    net = rebuild.build(arch, variant, 10)
    shapes = {name: tuple(p.shape) for name, p in net.named_parameters()}
    weights = rebuild.initial(shapes, SEED, "he-normal", bn_init)
    for name, p in net.named_parameters():
        p.data = torch.tensor(weights[name])
    return net.double(), rebuild.digest(weights)


# Images --------------------------------------------------------------------------------------

LABELS = [i * 7 % 10 for i in range(TRAIN + TEST)]
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def image(i):
    pixels = torch.empty(3, 32, 32, dtype=torch.uint8)
    for c in range(3):
        for y in range(32):
            for x in range(32):
                at = ((i * 3 + c) * 32 + y) * 32 + x
                noise = (at * 2_654_435_761 % 2**32) >> 26
                pixels[c, y, x] = 64 + 16 * ((y * (LABELS[i] + 1) + x * (c + 2)) % 8) + noise
    return pixels


IMAGES = [image(i) for i in range(TRAIN + TEST)]


def normalized(pixels):
    return ((pixels.float() / 255.0 - MEAN) / DEVIATION).double()


def augmented(epoch, i):
    flip, dy, dx = words(f"augment {epoch}", 3, first=3 * i)
    pixels = IMAGES[i].flip(2) if below(flip, 2) else IMAGES[i]
    dy, dx = below(dy, 9), below(dx, 9)
    return normalized(F.pad(pixels, (4, 4, 4, 4))[:, dy : dy + 32, dx : dx + 32])


def batch(step, n):
    epoch, at = divmod(step, TRAIN // n)
    chosen = permutation(f"order {epoch}", TRAIN)[at * n :][:n]
    x = torch.stack([augmented(epoch, i) for i in chosen])
    return x, torch.tensor([LABELS[i] for i in chosen])


# Modes ---------------------------------------------------------------------------------------


def trains(name, mode, variant):
    shortcut = ".shortcut." in name
    if "bn" in name or ".shortcut.1." in name:
        part = "gamma" if name.endswith("weight") else "beta"
        if mode in ("all", "bn+output+shortcut"):
            return True
        return mode in ("bn", part) and (variant == "paper" or not shortcut)
    if name.startswith("linear"):
        return mode == "all" or "output" in mode or mode == "all-but-bn"
    if shortcut:
        return "shortcut" in mode or mode in ("all", "all-but-bn", "origin-random")
    return mode in ("all", "all-but-bn", "origin-random")


def case(arch, variant, bn_init, mode, n, rates):
    net, digest = network(arch, variant, bn_init)
    if (arch, variant, bn_init) == ("resnet8", "paper", "uniform"):
        assert digest == PINNED, "these streams are not those of network/rng.rs"
    fixed, trained, chosen = {}, {}, {}
    for name, p in net.named_parameters():
        if mode == "origin-random" and p.dim() == 4:
            p.data = thin(name, p.shape)
        if mode == "random" and p.dim() == 4:
            at = torch.tensor(rebuild.positions(SEED, name, p.shape, K))
            fixed[name], chosen[name] = p.detach(), at
            trained[f"{name}.values"] = nn.Parameter(p.detach().flatten()[at].clone())
        elif trains(name, mode, variant):
            trained[name] = p
        else:
            fixed[name] = p.detach()

    def logits(x):
        weights = fixed | {name: p for name, p in trained.items() if not name.endswith(".values")}
        for name, at in chosen.items():
            flat = fixed[name].flatten().index_put((at,), trained[f"{name}.values"])
            weights[name] = flat.reshape(fixed[name].shape)
        return torch.func.functional_call(net, weights, (x,))

    sgd = torch.optim.SGD(trained.values(), lr=1.0, momentum=0.9, weight_decay=DECAY) if trained else None
    losses, correct = [], []
    for step, rate in enumerate(rates):
        x, labels = batch(step, n)
        y = logits(x)
        loss = F.cross_entropy(y, labels)
        losses.append(loss.item())
        correct.append((y.argmax(1) == labels).sum().item())
        if sgd:
            sgd.param_groups[0]["lr"] = rate
            sgd.zero_grad()
            loss.backward()
            sgd.step()
    net.eval()
    with torch.no_grad():
        test = logits(torch.stack([normalized(IMAGES[TRAIN + i]) for i in range(4)])).flatten()
    end = dict(trained) | {n: b for n, b in net.named_buffers() if "running" in n}
    short = lambda values: [float(f"{v:.8g}") for v in values]
    print(arch, variant, mode, short(losses))
    return {
        "arch": arch,
        "variant": variant,
        "bn_init": bn_init,
        "digest": digest,
        "mode": mode,
        "batch": n,
        "rates": rates,
        "decay": DECAY,
        "losses": short(losses),
        "correct": correct,
        "logits": short(test.tolist()),
        "norms": short(end[name].detach().norm().item() for name in sorted(end)),
    }


def main():
    modes = ["all", "bn", "random", "all-but-bn", "bn+output+shortcut", "output+shortcut"]
    modes += ["gamma", "beta", "none", "origin-random"]
    # Small rates: each ReLU that rounding switches would otherwise be amplified from step to step.
    rates = [0.005] * 6 + [0.002] * 4
    cases = [case("resnet8", "origin", "fixed", mode, 8, rates) for mode in modes]
    cases += [case("resnet8", "paper", "uniform", mode, 4, rates) for mode in ["all", "bn", "random"]]
    cases += [case("vgg11", "paper", "uniform", mode, 4, [0.005, 0.002]) for mode in ["all", "bn", "random"]]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    Path(__file__).with_name("golden.json").write_text(f"[\n{lines}\n]\n")


main()
