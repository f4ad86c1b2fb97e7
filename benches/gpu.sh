#!/usr/bin/env bash
# Everything that a machine with an NVIDIA card can say about the CUDA engine, in one go, which takes a quarter of an hour
# or more.
#
#   benches/gpu.sh OUT REPRO TESTS [PYTHON]
#
# OUT    folder for the answers: report.json, and the full output of each step beside it
# REPRO  the command, built with --release
# TESTS  the unit tests of the network crate, as `cargo test --workspace --lib --no-run` names them
# PYTHON an interpreter with PyTorch; without one there is no comparison [default: python3]
#
# First PyTorch compiles, beside the tests of the kernels, also under compute-sanitizer, and everything that will be timed
# runs once. Then, with nothing beside, come our steps, and after them those of PyTorch that are ready by then: it has
# READY_SECONDS for that [default: 330]. Only whoever starts a training beside it spoils that.
#
# NVRTC is looked for as `repro doctor` does; REPRO_NVRTC names another. Steps that fail are reported, and the rest is
# done all the same, each within STEP_SECONDS [default: 240]; the exit status is that of the kernel tests.
# `benches/gpu.py OUT/report.json` makes tables of it.
set -u

out=$1 repro=$2 tests=$3 python=${4:-python3}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
export REPRO_TEST_CARD=1
export REPRO_KERNELS=${REPRO_KERNELS:-$(realpath "$out")/kernels} # compiled once for all steps
if [ -z "${REPRO_NVRTC:-}" ]; then # the tests look nowhere else
    nvrtc=$("$repro" doctor --json | sed -n 's/.*"path": *"\([^"]*libnvrtc[^"]*\)".*/\1/p' | head -n 1)
    [ -n "$nvrtc" ] && export REPRO_NVRTC=$nvrtc
fi
entries=() torches=()
# The process groups of PyTorch, whose compilers are in them.
torch_groups() {
    local each
    for each in "${torches[@]}"; do echo "-${each#*:}"; done
}
trap 'kill -KILL $(jobs -p) $(torch_groups) 2>/dev/null' EXIT

# run NAME COMMAND...: its output goes to OUT/NAME, its status into the report. So does the output of .json, or each
# line of .jsonl.
run() {
    local name=$1
    shift
    timeout "${STEP_SECONDS:-240}" "$@" >"$out/$name" 2>"$out/$name.err"
    local status=$?
    reported "$name" $status
    return $status
}

reported() {
    local name=$1 status=$2 line count=0
    case $name:$status in
    *.json:0) entries+=("\"$name\": {\"status\": 0, \"result\": $(cat "$out/$name")}") ;;
    *.jsonl:*)
        while read -r line; do
            count=$((count + 1))
            entries+=("\"$name-$count\": {\"status\": 0, \"result\": $line}")
        done <"$out/$name"
        ;;
    esac
    case $name:$status in
    *.json:0 | *.jsonl:0) ;;
    *) entries+=("\"$name\": {\"status\": $status}") ;;
    esac
    echo "$name: $status (${SECONDS} s)" >&2
    # After each step: a machine may be taken away.
    {
        printf '{"steps": {\n  %s' "${entries[0]}"
        [ ${#entries[@]} -gt 1 ] && printf ',\n  %s' "${entries[@]:1}"
        printf '\n}}\n'
    } >"$out/report.json.draft"
    mv "$out/report.json.draft" "$out/report.json"
}

# PyTorch in several ways, which waits when it is ready. It has no mode `random`; what it compiles takes longest, so each
# network that is tuned has a process of its own.
torch() {
    local name=torch-$1-$2-$3
    setsid "$python" "$here/torch_step.py" --arch "$1" --mode "$2" --batch 128 --device cuda --warmup 10 --steps 10 --ways "$4" \
        --go "$out/$name.go" >"$out/$name.jsonl" 2>"$out/$name.jsonl.err" &
    torches+=("$name:$!")
}
rm -f "$out"/*.go "$out"/*.ready "$out"/*.jsonl
for arch in resnet32 resnet56 resnet110; do
    for mode in bn all; do
        torch $arch $mode compiled channels-last,channels-last+bf16,channels-last+reduce-overhead,channels-last+reduce-overhead+bf16
        torch $arch $mode tuned channels-last+max-autotune+bf16
    done
done
torch resnet32 bn contiguous eager,bf16,reduce-overhead
for arch in vgg16 resnet14-8; do # wide ones
    torch $arch bn eager channels-last,channels-last+bf16
done

on_card=cuda::trainer::tests::card::
run doctor.txt "$repro" doctor
# What compiles for other cards too needs none.
run tests.txt "$tests" "$on_card" cuda::driver:: cuda::cards:: --skip every_kernel_compiles --skip an_emulated_one_does --nocapture
kernel_tests=$?
if command -v compute-sanitizer >/dev/null; then
    tools=(memcheck racecheck synccheck initcheck) checks=()
    for tool in "${tools[@]}"; do
        timeout "${STEP_SECONDS:-240}" compute-sanitizer --tool "$tool" --error-exitcode 9 "$tests" "${on_card}gradients" \
            "${on_card}every_kernel_on_a_card" "${on_card}two_trainings" >"$out/$tool.txt" 2>&1 &
        checks+=($!)
    done
    for i in "${!tools[@]}"; do
        wait "${checks[$i]}"
        reported "${tools[$i]}.txt" $?
    done
fi

# ours NAME FLAG...: speed, memory and the largest batch of one training, or of trainings that step together.
ours() {
    local name=$1
    shift
    run "ours-$name.json" "$repro" bench step --batch 128 --device cuda --warmup 3 --repeats 12 --json "$@"
}
all_of() {
    local arch mode precision
    for precision in f32 tf32 bf16; do
        for arch in resnet32 resnet56 resnet110; do
            for mode in bn random all; do
                "$1" "$arch-$mode-$precision" --arch "$arch" --mode "$mode" --precision "$precision"
            done
        done
        "$1" "resnet32-bn-$precision-10" --arch resnet32 --mode bn --precision "$precision" --instances 10
        for mode in bn random; do
            "$1" "origin-resnet32-$mode-$precision" --arch resnet32 --variant origin --mode "$mode" --precision "$precision"
        done
        "$1" "origin-resnet32-bn-$precision-10" --arch resnet32 --variant origin --mode bn --precision "$precision" --instances 10
        for arch in vgg16 resnet14-8; do
            "$1" "$arch-bn-$precision" --arch "$arch" --mode bn --precision "$precision"
        done
    done
}
once() {
    timeout 60 "$repro" bench step --batch 128 --device cuda --warmup 0 --repeats 1 "${@:2}" >/dev/null 2>&1
}
all_of once

all_ready() { # or dead
    local each
    for each in "${torches[@]}"; do
        kill -0 "${each#*:}" 2>/dev/null && ! [ -e "$out/${each%:*}.ready" ] && return 1
    done
    return 0
}
until all_ready || [ $SECONDS -ge "${READY_SECONDS:-330}" ]; do sleep 1; done
for each in "${torches[@]}"; do # what still compiles stands still, with its compilers
    [ -e "$out/${each%:*}.ready" ] || kill -STOP -- "-${each#*:}" 2>/dev/null
done
echo "nothing beside from here on ($SECONDS s)" >&2
all_of ours
for each in "${torches[@]}"; do
    name=${each%:*} process=${each#*:}
    if [ -e "$out/$name.ready" ]; then
        touch "$out/$name.go"
        kill -CONT -- "-$process" 2>/dev/null
        for _ in $(seq "${STEP_SECONDS:-240}"); do
            kill -0 "$process" 2>/dev/null || break
            sleep 1
        done
    fi
    kill -KILL -- "-$process" 2>/dev/null
    wait "$process"
    status=$?
    [ $status = 137 ] && status=124
    reported "$name.jsonl" $status
done

exit "$kernel_tests"
