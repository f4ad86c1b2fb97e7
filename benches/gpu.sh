#!/usr/bin/env bash
# Everything that a machine with an NVIDIA card can say about the CUDA engine, in one go.
#
#   benches/gpu.sh OUT REPRO TESTS [PYTHON]
#
# OUT    folder for the answers: report.json, and the full output of each step beside it
# REPRO  the command, built with --release
# TESTS  the unit tests of the network crate, as `cargo test --workspace --lib --no-run` names them
# PYTHON an interpreter with PyTorch; without one there is no comparison [default: python3]
#
# NVRTC is looked for as `repro doctor` does; REPRO_NVRTC names another. Steps that fail are reported, and the rest is
# done all the same, each within STEP_SECONDS [default: 300], PyTorch's within TORCH_SECONDS [default: 180]; the exit
# status is that of the kernel tests. `benches/gpu.py OUT/report.json` makes tables of it.
set -u

out=$1 repro=$2 tests=$3 python=${4:-python3}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
export REPRO_TEST_CARD=1
if [ -z "${REPRO_NVRTC:-}" ]; then # the tests look nowhere else
    nvrtc=$("$repro" doctor --json | sed -n 's/.*"path": *"\([^"]*libnvrtc[^"]*\)".*/\1/p' | head -n 1)
    [ -n "$nvrtc" ] && export REPRO_NVRTC=$nvrtc
fi
names=() codes=()

# run NAME COMMAND...: its output goes to OUT/NAME.txt (or .json), its status into the report.
run() {
    local name=$1 file=$out/$1
    shift
    timeout "${STEP_SECONDS:-300}" "$@" >"$file" 2>"$file.err"
    names+=("$name") codes+=($?)
    echo "$name: ${codes[-1]}" >&2
    report # after each step: a machine may be taken away
}

report() {
    local i
    {
        echo '{"steps": {'
        for i in "${!names[@]}"; do
            [ "$i" -gt 0 ] && echo ,
            printf '  "%s": {"status": %d' "${names[$i]}" "${codes[$i]}"
            case ${names[$i]} in
            *.json) [ "${codes[$i]}" = 0 ] && printf ', "result": %s' "$(cat "$out/${names[$i]}")" ;;
            esac
            printf '}'
        done
        echo '}}'
    } >"$out/report.json.draft"
    mv "$out/report.json.draft" "$out/report.json"
}

on_card=cuda::trainer::tests::card::
run doctor.txt "$repro" doctor
run tests.txt "$tests" "$on_card" --nocapture
kernel_tests=${codes[-1]}
# Speed, memory and the largest batch of one training, and of trainings that step together.
ours() {
    local name=$1
    shift
    run "ours-$name.json" "$repro" bench step --batch 128 --device cuda --warmup 20 --repeats 200 --json "$@"
}
# Every mode and precision of a network, and ten of its trainings at once.
all_of() {
    for precision in f32 tf32 bf16; do
        for mode in bn random all; do
            ours "$1-$mode-$precision" --arch "$1" --mode "$mode" --precision "$precision"
        done
        ours "$1-bn-$precision-10" --arch "$1" --mode bn --precision "$precision" --instances 10
    done
}
# PyTorch has no mode `random`. What it compiles takes longest.
torch() {
    local arch=$1 mode=$2
    shift 2
    local name=torch-$arch-$mode$*
    STEP_SECONDS=${TORCH_SECONDS:-180} run "${name// /}.json" "$python" "$here/torch_step.py" --arch "$arch" \
        --mode "$mode" --batch 128 --device cuda --warmup 20 --steps 25 "$@"
}

# What matters most comes first: a machine may be taken away.
all_of resnet32
for mode in bn all; do
    torch resnet32 "$mode" --channels-last
    torch resnet32 "$mode" --channels-last --bf16
    torch resnet32 "$mode" --compile --compile-mode reduce-overhead
    torch resnet32 "$mode" --compile --compile-mode reduce-overhead --bf16
done
all_of resnet56
all_of resnet110
for arch in resnet14-32 vgg16; do # wide ones
    for precision in f32 tf32 bf16; do
        ours "$arch-bn-$precision" --arch "$arch" --mode bn --precision "$precision"
    done
    torch "$arch" bn --channels-last
    torch "$arch" bn --channels-last --bf16
done
for arch in resnet56 resnet110; do
    for mode in bn all; do
        torch "$arch" "$mode" --channels-last
        torch "$arch" "$mode" --channels-last --bf16
    done
done
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        run "$tool.txt" compute-sanitizer --tool "$tool" --error-exitcode 9 "$tests" \
            "${on_card}gradients" "${on_card}every_kernel_on_a_card"
    done
fi

for arch in resnet32 resnet56 resnet110; do
    for mode in bn all; do
        torch "$arch" "$mode"
        torch "$arch" "$mode" --bf16
    done
done
for arch in resnet56 resnet110; do
    torch "$arch" bn --compile --compile-mode reduce-overhead
    torch "$arch" bn --compile --compile-mode reduce-overhead --bf16
done
for arch in resnet32 resnet56 resnet110; do
    torch "$arch" bn --compile
    torch "$arch" bn --compile --bf16
    torch "$arch" bn --compile --compile-mode max-autotune --bf16
done

exit "$kernel_tests"
