"""Config -> Run."""

from pathlib import Path

from micrographia.labs.projection.config import Config, preset_of
from micrographia.labs.projection.measure import measure

from micrographia.core.claims import Run
from micrographia.core.events import Watch, silent
from micrographia.core.figures import table
from micrographia.core.lab import Findings, run_lab
from micrographia.core.runtime import generator
from micrographia.core.store import RunFolder

CLAIMS = Path(__file__).with_name("claims.toml")


def run(config: Config, *, out: Path | None = None, resume: bool = False, watch: Watch = silent) -> Run:
    preset = preset_of(config)
    return run_lab(config, _work, lab="projection", preset=preset, claims=CLAIMS, out=out, resume=resume, watch=watch)


def _work(config: Config, folder: RunFolder, watch: Watch) -> Findings:
    measures, grown = measure(config, generator(config.seed))
    rows = [{"share": share, "growth_at_most": grown.quantile(share).item()} for share in (0.05, 0.5, 0.95)]
    shown = table("growth", "How distances change", rows, claims=["distances-are-kept"], caption="Shares of all pairs.")
    return Findings({"n_pairs": len(grown)}, [shown], measures, {"growth": grown.tolist()})
