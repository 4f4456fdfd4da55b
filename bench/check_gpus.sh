#!/usr/bin/env bash
# What can only be measured on GPUs, in one go; hours on one machine with one to eight of them. Runs go to runs/gpus, figures to results.
#   bash bench/check_gpus.sh            # all of it
set -euo pipefail
cd "$(dirname "$0")/.."
n=$(nvidia-smi --list-gpus | wc -l)
mkdir -p runs/gpus

# peak memory: chunked head, estimate against measurement
python bench/check_memory.py --device cuda

# models of a billion parameters: decoding with CUDA graphs and without against the memory's speed, transformers' generate, training against the matrix products'
python bench/bench_billion.py --transformers

# the same steps by all GPUs as by one
if [ "$n" -ge 2 ]; then python bench/check_processes.py --processes "$n"; fi

# the laptop's run on one GPU in float32, and on one and all in bfloat16: the same curves within the spread over seeds?
python train_zero.py --out runs/gpus/tiny-float32
python train_zero.py --out runs/gpus/tiny-bfloat16 --precision bfloat16
torchrun --standalone --nproc-per-node "$n" train_zero.py --out runs/gpus/tiny-all --precision bfloat16

# sampler against trainer in bfloat16: sampling/sampling_logp_difference in the logs; with the two remedies
python train_zero.py --out runs/gpus/tiny-remedies --precision bfloat16 --grpo.importance_cap 2 --grpo.replay_routes true --init runs/gpus/tiny-bfloat16/base/model

# the presets, a few steps each, on one GPU and on all: the memory that was estimated (first line) and taken, tokens a second, share of the GPU's speed
for processes in $(printf '1\n%s\n' "$n" | sort -u); do
  for name in small big; do
    run="runs/gpus/$name-$processes"
    torchrun --standalone --nproc-per-node "$processes" train_zero.py --config $name --out "$run" --sft.tokens 20000000 --grpo.steps 5 | tee "$run.txt"
    python bench/check_speed.py "$run" --processes "$processes"
  done
done

# ten minutes of the small preset on the laptop's problems (results/small-gpu.json)
timeout --signal INT 600 python train_zero.py --config small --out runs/gpus/small-ten --world.level 1 --sft.tokens 24_000_000 --sft.tokens_per_step 49_152 --grpo.problems_per_step 32 --grpo.lr 1.5e-4 --grpo.warmup 3 --grpo.max_new_tokens 400 || true

# the small preset to its end
torchrun --standalone --nproc-per-node "$n" train_zero.py --config small --out runs/gpus/small
python bench/check_speed.py runs/gpus/small --processes "$n"

# several nodes: the same command on each, with the address of the first; the run folder on a file system they share
#   torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint FIRST:29500 train_r1.py --config big
