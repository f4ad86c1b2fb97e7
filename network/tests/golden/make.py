#!/usr/bin/env python3
"""Writes golden.json: what PyTorch makes of small networks, for the tests of the engines.

    pip install torch blake3 && python make.py

Initial weights, data order, augmentation and random positions are drawn here again from the
specification of the streams (network/rng.rs), so that the two programs exchange nothing but the
numbers in golden.json. Everything is computed in float64, starting from the float32 weights.
"""

import json
import math
import struct
from pathlib import Path

import torch
from blake3 import blake3
from torch import nn
from torch.nn import functional as F

SEED, K, TRAIN, TEST = 0, 2, 64, 16
DECAY = 0.05  # so much that ten steps show it
CONTEXT = "repro random stream v1"
# The digest of resnet8's initial weights that network/init.rs pins.
PINNED = "b8642bd7a7848d20c46b0ac5adf90328f2b2ac8c5a061efe3c15cca1349d82fb"


# Streams -------------------------------------------------------------------------------------


def words(name, count, first=0):
    stream = blake3(struct.pack("<Q", SEED) + name.encode(), derive_key_context=CONTEXT)
    return struct.unpack(f"<{count}Q", stream.digest(length=8 * count, seek=8 * first))


def uniform(name, count):
    return [(word >> 11) * 2.0**-53 for word in words(name, count)]


def below(word, n):
    return (word * n) >> 64


def normal(name, count):
    u = uniform(name, 2 * ((count + 1) // 2))
    values = []
    for a, b in zip(u[::2], u[1::2]):
        radius = math.sqrt(-2.0 * math.log(1.0 - a))
        values += [radius * math.cos(2.0 * math.pi * b), radius * math.sin(2.0 * math.pi * b)]
    return values[:count]


def permutation(name, n):
    order = list(range(n))
    for i, word in zip(range(n - 1, 0, -1), words(name, n - 1)):
        j = below(word, i + 1)
        order[i], order[j] = order[j], order[i]
    return order


def positions(name, shape):
    filters, fan_in = shape[0], math.prod(shape[1:])
    draws, chosen = iter(words(f"{name} positions", filters * K)), []
    for f in range(filters):
        order = list(range(fan_in))
        for i in range(K):
            j = i + below(next(draws), fan_in - i)
            order[i], order[j] = order[j], order[i]
        chosen += [f * fan_in + p for p in sorted(order[:K])]
    return torch.tensor(chosen)


def thin(name, shape):
    """What a filter tensor begins with in mode `origin-random`."""
    _, channels, rows, columns = shape
    w = words(f"{name} thin", 8)
    values, filters = torch.zeros(shape), [below(w[4], channels), below(w[5], channels)]
    for i, f in enumerate(filters):
        row, column = below(w[2 * i], rows), below(w[2 * i + 1], columns)
        values[f, :, row, column] = 0.001 + 0.999 * ((w[6 + i] >> 11) * 2.0**-53)
    return values.double()


# Networks ------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, cin, cout, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.shortcut = nn.Sequential()
        if stride != 1 or cin != cout:
            projection = nn.Conv2d(cin, cout, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(cout))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet8(nn.Module):
    def __init__(self, variant):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(Block(16, 16, 2 if variant == "origin" else 1))
        self.layer2 = nn.Sequential(Block(16, 32, 2))
        self.layer3 = nn.Sequential(Block(32, 64, 2))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


class Layer(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, 1, 1)
        self.bn = nn.BatchNorm2d(cout)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Vgg11(nn.Module):
    def __init__(self, _variant):
        super().__init__()
        layers, cin = [], 3
        for cout in [64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512]:
            if cout == "pool":
                layers.append(nn.MaxPool2d(2))
            else:
                layers.append(Layer(cin, cout))
                cin = cout
        self.layers = nn.Sequential(*layers)
        self.linear = nn.Linear(512, 10)

    def forward(self, x):
        return self.linear(self.layers(x).mean((2, 3)))


def network(arch, variant, bn_init):
    """The network at its initial weights, and their digest."""
    net = {"resnet8": ResNet8, "vgg11": Vgg11}[arch](variant)
    fan_in = None
    for name, p in net.named_parameters():
        kind = name.rsplit(".", 1)[1]
        if p.dim() > 1:  # filters, output weight
            fan_in = math.prod(p.shape[1:])
            deviation = math.sqrt(2.0 / fan_in)
            values = [deviation * x for x in normal(name, p.numel())]
        elif "bn" in name or "shortcut.1" in name:
            if kind == "bias":
                values = [0.0] * p.numel()
            else:
                values = [1.0] * p.numel() if bn_init == "fixed" else uniform(name, p.numel())
        else:  # a bias, behind its weight
            bound = 1.0 / math.sqrt(fan_in)
            values = [-bound + (bound - -bound) * u for u in uniform(name, p.numel())]
        p.data = torch.tensor(values, dtype=torch.float64).float().reshape(p.shape)
    hasher = blake3()
    for name, p in sorted(net.named_parameters()):
        data = p.detach().numpy().astype("<f4").tobytes()
        hasher.update(name.encode() + b"\0" + struct.pack("<Q", p.numel()) + data)
    return net.double(), hasher.hexdigest()


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
            at = positions(name, p.shape)
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
