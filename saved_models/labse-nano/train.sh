#!/usr/bin/env bash
# Train labse-nano from a directory of pair files en-XX.tsv.gz:
#
#   bash saved_models/labse-nano/train.sh CORPUS OUTPUT [DEV_FILE...]
#
# DEV_FILEs are held-out pair files; their accuracy in the last run is written to the log.
# If interrupted, run the same command to resume. Takes about 35 minutes on one core, and
# 6 more minutes on two cores.
set -euo pipefail
corpus=$1 output=$2
shift 2
dev=()
if [ $# -gt 0 ]; then dev=(--dev "$@" --dev-every 100 --no-keep-best); fi
languages="hi bn mr ta te ml gu kn pa ur or as ne si sa mai
  fr de es pt it nl af id vi tr fa ru zh ar fi bg eu"
files=()
for code in $languages; do files+=("$corpus/en-$code.tsv.gz"); done
flags=(--num-layers 0 --hidden-dim 384 --num-heads 6 --intermediate-dim 768 --dropout 0
  --pooling weighted_mean --optimizer lazy_adamw --batches one_language --margin 0.2
  --scale 20 --sequence-length 64 --max-sequence-length 64)
mkdir -p "$output"
[ -f "$output/vocab.txt" ] || labse-tf vocab "${files[@]}" --size 64000 \
  --lowercase --no-strip-accents --output "$output/vocab.txt"
labse-tf train "${files[@]}" --vocab "$output/vocab.txt" --lowercase --no-strip-accents \
  --output "$output/first" "${flags[@]}" --batch-size 512 --train-steps 10000 \
  --warmup-steps 200 --learning-rate 6e-3 --log-every 100
# The translation is by now nearly always the nearest of 512, so use four times as many
# negatives.
labse-tf train "${files[@]}" --model "$output/first" --output "$output/second" \
  "${flags[@]}" --batch-size 2048 --train-steps 600 --warmup-steps 30 \
  --learning-rate 4e-3 --log-every 50
# Batches of near neighbors of mixed lengths: the pairs that are still confused.
labse-tf train "${files[@]}" --model "$output/second" --output "$output/third" \
  "${flags[@]}" --length-buckets none --hard-negatives 64 --batch-size 512 \
  --train-steps 700 --warmup-steps 20 --learning-rate 2e-3 --log-every 50 \
  ${dev[@]+"${dev[@]}"}
labse-tf convert "$output/third" --storage int8 --output "$output/labse-nano"
