"""SAEDashboard's side of the feature bundles, in a process and an environment of its own.

A number asks for that many latents, batch after batch spread over the dictionary, each as `NeuronpediaRunner.run` makes
it: SaeVisRunner with the layout that it uses, activations of the model cached on disk, then the JSON of a batch.
"compare" makes the first batch and writes what is told of its latents to compared.npz. Imports nothing of this project
but `lens_model`.
Usage: python dashboard_worker.py FOLDER    (config.json, weights.npz, tokens.npz and the SAE's folder lie there)
"""

import contextlib
import io
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lens_model
import numpy as np
import torch
from sae_dashboard.components_config import (
    ActsHistogramConfig,
    Column,
    FeatureTablesConfig,
    LogitsHistogramConfig,
    LogitsTableConfig,
    SequencesConfig,
)
from sae_dashboard.layout import SaeVisLayoutConfig
from sae_dashboard.neuronpedia.neuronpedia_converter import NeuronpediaConverter
from sae_dashboard.neuronpedia.neuronpedia_runner_config import NeuronpediaRunnerConfig
from sae_dashboard.sae_vis_data import SaeVisConfig
from sae_dashboard.sae_vis_runner import SaeVisRunner
from sae_lens import SAE

IN_FORWARD_PASS = 32  # rows: the runner's default


class Dashboard:
    def __init__(self, folder: Path, chosen: dict[str, Any]) -> None:
        self.folder, self.batch, self.hook = folder, chosen["batch"], chosen["hook"]
        self.model = lens_model.load(folder, chosen)
        self.sae = SAE.load_from_disk(folder / "sae")
        self.tokens = lens_model.tokens(folder, "cpu")["tokens"]
        self.words = {i: f"w{i}" for i in range(chosen["model"]["d_vocab"])}
        n = self.sae.cfg.d_sae // self.batch
        self.order = [i * 37 % n for i in range(n)] if n % 37 else list(range(n))
        self.made = 0
        self.settings = NeuronpediaRunnerConfig(
            sae_set="benchmark", sae_path="", outputs_dir="", n_prompts_total=len(self.tokens),
            n_tokens_in_prompt=self.tokens.shape[1], model_id="gpt2", layer=1,
        )  # fmt: skip

    def next(self) -> None:
        number = self.order[self.made % len(self.order)]
        self.made += 1
        (self.folder / f"batch-{number}.json").write_text(self.json(number))

    def json(self, number: int) -> str:
        made = self.settings
        sequences = SequencesConfig(
            stack_mode="stack-all", buffer=None, compute_buffer=True, n_quantiles=made.n_quantiles,
            top_acts_group_size=made.top_acts_group_size, quantile_group_size=made.quantile_group_size,
        )  # fmt: skip
        parts = [sequences, ActsHistogramConfig(), LogitsHistogramConfig(), LogitsTableConfig()]
        config = SaeVisConfig(
            hook_point=self.hook,
            features=list(range(number * self.batch, (number + 1) * self.batch)),
            minibatch_size_features=self.batch,
            minibatch_size_tokens=IN_FORWARD_PASS,
            quantile_feature_batch_size=made.quantile_feature_batch_size,
            device="cpu",
            feature_centric_layout=SaeVisLayoutConfig(columns=[Column(*parts, FeatureTablesConfig(n_rows=3))]),
            dtype="float32",
            cache_dir=self.folder / "cached",
            ignore_positions=[0],
        )
        found = SaeVisRunner(config).run(encoder=self.sae, model=self.model, tokens=self.tokens)
        return NeuronpediaConverter.convert_to_np_json(self.model, found, made, self.words)

    def compare(self) -> None:
        features = json.loads(self.json(0))["features"]
        largest = [max((max(each["values"]) for each in one["activations"]), default=0.0) for one in features]
        np.savez(
            self.folder / "compared.npz",
            latents=np.array([one["feature_index"] for one in features]),
            max=np.array(largest),
            share=np.array([one["frac_nonzero"] for one in features]),
        )


def main() -> None:
    folder = Path(sys.argv[1])
    dashboard = Dashboard(folder, lens_model.settings(folder))
    print("ready", version("sae-dashboard"), version("sae-lens"), torch.__version__, flush=True)
    for line in sys.stdin:
        with contextlib.redirect_stdout(io.StringIO()):
            if line.strip() == "compare":
                dashboard.compare()
            else:
                for _ in range(int(line) // dashboard.batch):
                    dashboard.next()
        print("done", flush=True)


if __name__ == "__main__":
    main()
