"""TransformerLens with the weights it is given, for workers in its environment.

3.9's HookedTransformer takes arrays; 4.3's TransformerBridge, which has taken its place, wraps a folder's module.

Imports nothing of this project: it runs where this project is not installed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch


def settings(folder: Path) -> dict[str, Any]:
    """What config.json says; the thread count is set."""
    chosen = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.set_num_threads(chosen["threads"])
    return chosen


def load(folder: Path, chosen: dict[str, Any]) -> Any:
    dtype = getattr(torch, chosen["dtype"])
    if (folder / "model").is_dir():
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(str(folder / "model"), device=chosen["device"], dtype=dtype).eval()
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    model = HookedTransformer(HookedTransformerConfig(**chosen["model"], dtype=dtype))
    weights = np.load(folder / "weights.npz")
    given = {name: torch.from_numpy(weights[name]).to(chosen["device"], dtype) for name in weights.files}
    model.load_state_dict({**model.state_dict(), **given})
    return model.eval()


def tokens(folder: Path, device: str) -> dict[str, torch.Tensor]:
    stored = np.load(folder / "tokens.npz")
    return {name: torch.from_numpy(stored[name]).to(device) for name in stored.files}


def array(value: torch.Tensor) -> np.ndarray:
    return value.float().cpu().numpy()


def wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()
