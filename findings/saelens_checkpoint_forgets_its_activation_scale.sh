#!/usr/bin/env bash
# sae-lens 6.54.12: a checkpoint of a trainer that scales activations is opened without the scale, which lies beside it.
#
# Guess: a trainer's checkpoint with normalize_activations "expected_average_only_in", opened by load_from_disk and given
# raw activations, has the latents that it has in training; its factor is in the same folder, activation_scaler.json.
# Seen: no factor is applied, by SAE.load_from_disk nor by TrainingSAE.load_from_disk. Latents and reconstruction are
# those of activations that are not scaled, and no warning says so. Only the last save, after training, has the scale
# folded into the weights.
# Why: the scale lives in the trainer. The flag that stays in cfg.json does nothing on loading: only layer_norm and
# constant_norm_rescale are run-time functions.
# Who meets it: whoever compares checkpoints over training, or takes the last one of a run that was stopped.
#
# Prints "as described" and ends with 0 while this is so; ends with 1 when it has changed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q "sae-lens==6.54.12"
HF_HUB_OFFLINE=1 TQDM_DISABLE=1 "$place/venv/bin/python" - "$place" <<'PY'
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from sae_lens import SAE, TrainingSAE
from sae_lens.config import LoggingConfig, SAETrainerConfig
from sae_lens.saes.standard_sae import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer

print("sae-lens", version("sae-lens"), "torch", torch.__version__)
D, N, BATCH, STEPS = 16, 32, 64, 60
torch.manual_seed(0)
data = torch.Generator().manual_seed(1)


def activations():
    while True:
        yield 20 * torch.randn(BATCH, D, generator=data)  # mean norm about 80, where scaled ones have sqrt(16) = 4


sae = StandardTrainingSAE(StandardTrainingSAEConfig(
    d_in=D, d_sae=N, l1_coefficient=0.1, normalize_activations="expected_average_only_in"))
trainer = SAETrainer(
    cfg=SAETrainerConfig(
        total_training_samples=STEPS * BATCH, train_batch_size_samples=BATCH, lr=1e-3, lr_end=1e-4, device="cpu",
        checkpoint_path=sys.argv[1], n_checkpoints=1, save_final_checkpoint=False, logger=LoggingConfig(log_to_wandb=False),
        n_batches_for_norm_estimate=20, autocast=False, dead_feature_window=1000, feature_sampling_window=1000,
        lr_scheduler_name="constant", adam_beta1=0.9, adam_beta2=0.999, lr_warm_up_steps=0, lr_decay_steps=0,
        n_restart_cycles=1),
    sae=sae, data_provider=activations())
trainer.fit()
folder = next(path.parent for path in Path(sys.argv[1]).rglob("activation_scaler.json")
              if json.loads((path.parent / "cfg.json").read_text())["normalize_activations"] != "none")
scale = json.loads((folder / "activation_scaler.json").read_text())["scaling_factor"]
print("in the checkpoint:", sorted(path.name for path in folder.iterdir()), "scaling_factor", round(scale, 4))
x = 20 * torch.randn(500, D, generator=data)
with warnings.catch_warnings(record=True) as said, torch.no_grad():
    warnings.simplefilter("always")
    opened = {kind.__name__: kind.load_from_disk(folder) for kind in (SAE, TrainingSAE)}
    found = {}
    for name, one in opened.items():
        trained, raw = one.encode(scale * x), one.encode(x)
        found[name] = (raw.norm() / trained.norm()).item(), ((one(x) - x).norm() / x.norm()).item(), (
            (one(scale * x) / scale - x).norm() / x.norm()).item()
        print(f"{name}.load_from_disk: flag {one.cfg.normalize_activations!r}; latents of raw activations are "
              f"{found[name][0]:.1f} times those of training; error of the reconstruction {found[name][1]:.3f}, with the "
              f"scale applied by hand {found[name][2]:.3f}")
told = [str(each.message) for each in said if "normal" in str(each.message) or "scal" in str(each.message)]
print("warnings of it:", told)
as_described = scale < 0.1 and not told and all(ratio > 5 for ratio, _, _ in found.values())
print("as described" if as_described else "CHANGED")
raise SystemExit(not as_described)
PY
