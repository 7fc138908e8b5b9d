#!/bin/sh
# A distillation of digits in f32 and in f16, teacher included, three seeds each: `sh test/halves.sh FOLDER [--set …]`.
# It goes on where it stopped, and measures each run's teacher and student into FOLDER/PRECISION-SEED.json.
set -e
folder=$1
shift
vpae="node --import tsx cli/main.ts"
for seed in 1 2 3; do
  for precision in f32 f16; do
    name=$folder/$precision-$seed
    [ -s "$name.json" ] && continue
    common="--run $name --seed $seed --set teacher.steps=2000 --set run.precision=$precision"
    $vpae train teacher $common "$@"
    $vpae distill $common "$@"
    $vpae eval --model "$name" --json >"$name.tmp"
    mv "$name.tmp" "$name.json"
  done
done
