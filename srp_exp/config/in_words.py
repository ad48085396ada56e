"""What runs train, and the text of the file that asks for it, for people who read a report."""

import re
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig


def trained(configs: Iterable[DictConfig]) -> dict[str, str]:
    """Training data, network and recipe of runs, " / " between those of different runs."""
    found: dict[str, dict[str, None]] = {"training data": {}, "network": {}, "recipe": {}}
    for config in configs:
        data, recipe = config.dataset, config.recipe
        few = f", {data.train_per_class} training pictures of every class" if data.train_per_class else ""
        held_out = f", {data.val_fraction:.0%} held out" if data.val_fraction else ""
        rate = f"learning rate {config.optimizer.lr:g} by {config.optimizer.name} and {config.lr_schedule.name}"
        found["training data"][f"{data.name}{few}{held_out}"] = None
        found["network"][f"{config.backbone.name} with {config.attention.name}"] = None
        found["recipe"][
            f"{recipe.name}: {recipe.epochs} epoch{'s' * (recipe.epochs > 1)}, batches of {recipe.batch_size}, {rate}"
        ] = None
    return {name: " / ".join(texts) for name, texts in found.items()}


def study_file(config: DictConfig) -> str:
    """The file of the study that a composed configuration chooses, after those of the studies that it builds on."""
    name = config.hydra.runtime.choices.get("study")
    places = [Path(source.path, "study") for source in config.hydra.runtime.config_sources if source.schema == "file"]
    texts: list[str] = []
    while name and (file := next((p / f"{name}.yaml" for p in places if (p / f"{name}.yaml").is_file()), None)):
        texts.insert(0, file.read_text())
        parents = re.findall(r"^  - (\w+)$", texts[0].partition("\nstudy:")[0], re.MULTILINE)
        name = next((parent for parent in parents if parent != "_self_"), None)
    return "\n".join(texts)
