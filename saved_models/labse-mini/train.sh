#!/usr/bin/env bash
# Train labse-mini from labse-nano and a directory of pair files en-XX.tsv.gz:
#
#   bash saved_models/labse-mini/train.sh CORPUS OUTPUT [DEV_FILE...]
#
# DEV_FILEs are held-out pair files; their accuracy is written to the log. If
# interrupted, run the same command to resume. Takes about an hour on two cores.
set -euo pipefail
corpus=$1 output=$2
shift 2
dev=()
if [ $# -gt 0 ]; then dev=(--dev "$@" --dev-every 500 --no-keep-best); fi
languages="hi bn mr ta te ml gu kn pa ur or as ne si sa mai
  fr de es pt it nl af id vi tr fa ru zh ar fi bg eu"
files=()
for code in $languages; do files+=("$corpus/en-$code.tsv.gz"); done
# Growing one block keeps the function of the bag of tokens at first. The batches contain
# near neighbors of mixed lengths and are encoded in groups of similar length.
labse-tf train "${files[@]}" --model labse-nano --output "$output/grown" \
  --num-layers 1 --stages 1:1 --hidden-dim 384 --num-heads 6 --intermediate-dim 768 \
  --dropout 0 --pooling weighted_mean --optimizer lazy_adamw --batches one_language \
  --margin 0.2 --scale 20 --sequence-length 64 --max-sequence-length 64 \
  --length-buckets none --length-groups 8 --hard-negatives 64 --batch-size 512 \
  --train-steps 5000 --warmup-steps 50 --learning-rate 1e-3 --log-every 50 \
  ${dev[@]+"${dev[@]}"}
labse-tf convert "$output/grown" --storage int8 --output "$output/labse-mini"
