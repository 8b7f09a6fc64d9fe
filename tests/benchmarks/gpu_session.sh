#!/usr/bin/env bash
# Everything that a GPU is to show, in the minutes that it is lent for; what tells most comes first.
#
#   tests/benchmarks/gpu_session.sh RESULTS [--minutes 14] [--data-root DIR] [--wheels DIR]
#   tests/benchmarks/gpu_session.sh RESULTS --check      # on a CPU: does every command begin?
#
# Each step has a limit of its own and what is left of the minutes; its output is appended to a file
# of RESULTS, and RESULTS/steps.txt has a line for each: name, exit code (124, 137: cut off), seconds.
# A step that ended well is not repeated, so the same command goes on in the next session, with
# RESULTS brought along. Published results are trained in slices on CIFAR-10, DIR/train/<class>/* and
# DIR/test/<class>/*, in what is left; without DIR images are random and there are none. Packages
# that the machine lacks are installed from the wheels, if a folder of them is named. $PYTHON is the
# interpreter. The script leaves NVIDIA's MPS as it is: see trials_per_device.py.
set -uo pipefail
results=${1:?the folder for the results} && shift
minutes=14 root="" wheels="" check=""
while [ $# -gt 0 ]; do
  case $1 in
    --minutes) minutes=$2 && shift 2 ;;
    --data-root) root=$(realpath "$2") && shift 2 ;;
    --wheels) wheels=$(realpath "$2") && shift 2 ;;
    --check) check=yes && shift ;;
    *) echo "unknown: $1" >&2 && exit 2 ;;
  esac
done
mkdir -p "$results" && results=$(realpath "$results")
cd "$(dirname "$0")/../.." || exit 2
export PYTHONPATH=$PWD
python=${PYTHON:-python}
device=cuda networks=() processes=() studies=()
if [ "$check" ]; then
  # Later options count, so that the commands stay those of a GPU. Beginning them is all.
  device=cpu minutes=60 few=(--widening 1 --batch 8)
  networks=("${few[@]}" --steps 1 --repeats 1) processes=("${few[@]}" --counts 1)
  studies=(--set training.epochs=1 --set search.trials=2 --set search.replicates=1)
fi
images=() && [ "$root" ] && images=(--data-root "$root")
begun=$SECONDS failed=0

# step NAME LIMIT COMMAND...: run a command for at most LIMIT seconds, and no longer than is left.
step() {
  local name=$1 limit=$2 left=$((minutes * 60 - SECONDS + begun)) start=$SECONDS code
  shift 2
  grep -qs "^$name 0 " "$results/steps.txt" && return
  [ "$left" -ge 10 ] || return
  [ "$check" ] && limit=${CHECK_SECONDS:-40}
  echo "== $name: $*"
  timeout -s INT -k 10 $((limit < left ? limit : left)) "$@" 2>&1 | tee -a "$results/$name.txt"
  code=${PIPESTATUS[0]}
  echo "$name $code $((SECONDS - start))" | tee -a "$results/steps.txt"
  # A limit that is reached is no failure: what was printed until then stays.
  case $code in 0 | 124 | 137) ;; *) failed=1 ;; esac
}

[ "$wheels" ] && step wheels 90 "$python" -m pip install --no-index --no-deps "$wheels"/*.whl
step machine 30 "$python" -c 'import torch; print(torch.__version__, torch.cuda.device_count() and torch.cuda.get_device_name())'
step tests 120 "$python" -m pytest -m gpu -n 0 tests/training/test_trainer.py \
  tests/training/test_other_tasks.py tests/data/test_augmentation.py tests/pruning/test_patterns.py \
  tests/export/test_latency.py
step profile 90 "$python" tests/benchmarks/profile_training.py --device $device --widening 1 4 \
  --engine auto eager --steps 100 "${images[@]}" "${networks[@]}"
step profile-cudnn 60 "$python" tests/benchmarks/profile_training.py --device $device --widening 1 4 \
  --engine auto --steps 100 --cudnn-benchmark "${images[@]}" "${networks[@]}"
step training 120 "$python" tests/benchmarks/training.py --device $device --widening 1 2 4 8 \
  --steps 100 --repeats 3 "${images[@]}" "${networks[@]}"
step processes 120 "$python" tests/benchmarks/trials_per_device.py --device $device --widening 1 2 4 \
  --counts 1 2 4 "${images[@]}" "${processes[@]}"
step digits 90 "$python" -m sculpt run studies/digits.yaml --device $device \
  --storage "$results/digits.db" "${studies[@]}"
step digits-rank 30 "$python" -m sculpt rank studies/digits.yaml --storage "$results/digits.db"
if [ "$root" ]; then
  # A copy, because the measured figures are written beside it.
  cp studies/paper/table6_short.yaml "$results/"
  step table6_short $((minutes * 60)) "$python" -m sculpt run "$results/table6_short.yaml" \
    --device $device --set data.name=image_folder --set data.root="$root" \
    --storage "$results/table6_short.db"
fi
exit $failed
