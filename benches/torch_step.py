#!/usr/bin/env python3
"""Times PyTorch's training step on the networks of this project.

One line of JSON on stdout: median seconds and images per second of forward, backward and the SGD
update, and by how many bytes the process grew from just after `import torch` to its peak.

    python benches/torch_step.py --arch resnet32 --variant paper --mode bn --batch 128 --threads 1
    python benches/torch_step.py --arch vgg16 --mode all --channels-last --compile --bf16

Compiling takes minutes, and nothing else should run while steps are timed. So several configurations can be made
ready beside other work, to be timed one after the other, a line each, once there is a file that says so:

    python benches/torch_step.py --device cuda --ways channels-last,channels-last+reduce-overhead+bf16 --go FILE

Needs only PyTorch. The images are noise made once: neither loading nor augmentation is timed.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

# They are queued before the card is waited for; `repro bench step` does the same.
STEPS_ON_A_CARD = 8

VGG_PLANS = {
    11: [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512],
    13: [64, 64, 0, 128, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512],
    16: [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512],
    19: [64, 64, 0, 128, 128, 0] + [256] * 4 + [0] + [512] * 4 + [0] + [512] * 4,
}


def conv_norm(cin, cout, kernel, stride=1, bias=False):
    conv = nn.Conv2d(cin, cout, kernel, stride=stride, padding=kernel // 2, bias=bias)
    return nn.Sequential(conv, nn.BatchNorm2d(cout))


class Residual(nn.Module):
    def __init__(self, cin, cout, stride, project):
        super().__init__()
        self.first = conv_norm(cin, cout, 3, stride)
        self.second = conv_norm(cout, cout, 3)
        self.shortcut = conv_norm(cin, cout, 1, stride) if project else nn.Identity()

    def forward(self, x):
        hidden = functional.relu(self.first(x), inplace=True)
        return functional.relu(self.second(hidden) + self.shortcut(x), inplace=True)


def resnet(depth, width, variant):
    blocks, base = (depth - 2) // 6, 16 * width
    layers, cin = [conv_norm(3, base, 3), nn.ReLU(inplace=True)], base
    for stage in range(3):
        cout = base << stage
        for block in range(blocks):
            # The origin halves the maps in stage 1 too, with a projection; the paper does not.
            entry = block == 0 and (stage > 0 or variant == "origin")
            layers.append(Residual(cin, cout, 2 if entry else 1, entry))
            cin = cout
    return layers + [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 10)]


def vgg(depth):
    layers, cin = [], 3
    for cout in VGG_PLANS[depth]:
        if cout == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [conv_norm(cin, cout, 3, bias=True), nn.ReLU(inplace=True)]
        cin = cout
    return layers + [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(cin, 10)]


def network(arch, variant):
    """`arch` as `repro` spells it: resnet32, resnet14-8 (8 times wider), vgg16."""
    try:
        if arch.startswith("vgg"):
            return nn.Sequential(*vgg(int(arch[3:])))
        depth, _, width = arch.removeprefix("resnet").partition("-")
        depth, width = int(depth), int(width or 1)
    except (ValueError, KeyError):
        depth, width = 0, 1
    if depth < 8 or depth % 6 != 2 or width < 1:
        sys.exit(f"torch_step: no architecture {arch!r}; use resnetN or resnetN-W with N = 6 D + 2, vgg11, 13, 16, 19")
    return nn.Sequential(*resnet(depth, width, variant))


def initialise(net, mode):
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    if mode == "bn":
        net.requires_grad_(False)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.requires_grad_(True)


def resident_bytes():
    """Resident size now where the system tells it (Linux), else the peak so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return peak_bytes()


def peak_bytes():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet32")
    parser.add_argument("--variant", choices=["paper", "origin"], default="paper")
    parser.add_argument("--mode", choices=["bn", "all"], default="bn")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed (on a card: times 8)")
    parser.add_argument("--warmup", type=int, default=2, help="steps before them")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--compile-mode", default="default", help="default, reduce-overhead, max-autotune, ...")
    parser.add_argument(
        "--ways", type=lambda text: text.split(","),
        help="instead: several, each of `eager`, `channels-last`, `bf16` and modes of compilation, joined by `+`",
    )
    parser.add_argument("--go", type=Path, help="wait for FILE before anything is timed; its neighbour `.ready` tells when that may be", metavar="FILE")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


def configured(args, way):
    """The arguments for one of --ways."""
    words = set(way.split("+")) - {"eager"}
    modes = words - {"channels-last", "bf16"}
    if len(modes) > 1:
        sys.exit(f"torch_step: `{way}` names several modes of compilation: {', '.join(sorted(modes))}")
    one = vars(args) | {
        "channels_last": "channels-last" in words,
        "bf16": "bf16" in words,
        "compile": bool(modes),
        "compile_mode": "".join(modes) or "default",
    }
    return argparse.Namespace(**one)


class Training:
    """A network that has made its first steps, compiled where that is asked for."""

    def __init__(self, args):
        self.args, self.cuda = args, args.device.startswith("cuda")
        torch.manual_seed(0)
        self.before = resident_bytes()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            allocated = torch.cuda.memory_allocated()
        self.net = network(args.arch, args.variant)
        initialise(self.net, args.mode)
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        self.net = self.net.to(args.device, memory_format=layout).train()
        self.images = torch.randn(args.batch, 3, 32, 32).to(args.device).contiguous(memory_format=layout)
        self.labels = torch.randint(10, (args.batch,)).to(args.device)
        self.trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimiser = torch.optim.SGD(self.trained, lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.forward = torch.compile(self.net, mode=args.compile_mode) if args.compile else self.net
        for _ in range(args.warmup):
            self.step()
        self.peak = torch.cuda.max_memory_allocated() - allocated if self.cuda else None

    def step(self):
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(self.args.device).type, torch.bfloat16, enabled=self.args.bf16):
            loss = functional.cross_entropy(self.forward(self.images), self.labels)
        loss.backward()
        self.optimiser.step()

    def seconds(self):
        start = time.perf_counter()
        if not self.cuda:
            self.step()
            return time.perf_counter() - start
        for _ in range(STEPS_ON_A_CARD):
            self.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - start) / STEPS_ON_A_CARD

    def report(self):
        args = {key: value for key, value in vars(self.args).items() if key not in ("ways", "go")}
        if self.cuda:
            torch.cuda.synchronize()
        if self.args.go:
            self.step()  # it has stood still
        median = statistics.median(self.seconds() for _ in range(self.args.steps))
        return args | {
            "engine": f"torch {torch.__version__}",
            "trained_parameters": sum(p.numel() for p in self.trained),
            "parameters": sum(p.numel() for p in self.net.parameters()),
            "step_seconds": median,
            "images_per_second": self.args.batch / median,
            "rss_growth_bytes": max(peak_bytes() - self.before, 0),
            "peak_rss_bytes": peak_bytes(),
            "device_peak_bytes": self.peak,
        }


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    ways = [configured(args, way) for way in args.ways] if args.ways else [args]
    ready = [Training(one) for one in ways]
    if args.go:
        args.go.with_suffix(".ready").touch()
    while args.go and not args.go.exists():
        time.sleep(0.1)
    for training in ready:
        print(json.dumps(training.report()), flush=True)


if __name__ == "__main__":
    main()
