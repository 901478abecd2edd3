"""Compose the config with Hydra and run the job it names: ``python run.py --help``."""

import hydra
from omegaconf import DictConfig

from statsmerging.app.command_line import main, run_job


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def run(config: DictConfig) -> float | None:
    return run_job(config)


if __name__ == "__main__":
    main(run)
