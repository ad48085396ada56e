"""A folder for the Hugging Face hub: the weights, how to build the network, and a model card.

Where timm builds the network the folder has timm's layout. `srp_exp.load_run` reads it in any case.
"""

import json
import math
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import EvalResult, ModelCardData
from timm.models import save_for_hf

from srp_exp.export.network import Logits, Network
from srp_exp.export.weights import read_safetensors, timm_kwargs, write_safetensors

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"

_OTHER_METRICS = {"macro_f1": "f1"}
_USE = {
    "timm": """import timm
from PIL import Image

model = timm.create_model("hf-hub:OWNER/NAME", pretrained=True).eval()  # or local-dir:FOLDER
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
probabilities = model(transform(Image.open("picture.png").convert("RGB"))[None]).softmax(1)
print(model.pretrained_cfg["label_names"][probabilities.argmax()])""",
    "srp_exp": """from huggingface_hub import snapshot_download
from srp_exp import load_run

run = load_run(snapshot_download("OWNER/NAME"))  # or load_run("FOLDER")
probabilities = run.network(run.transform("picture.png")[None]).softmax(1)
print(run.class_names[probabilities.argmax()])""",
}


def write_hub(network: Network, folder: Path) -> dict[str, Any]:
    """Write model.safetensors, config.json and README.md into a new `folder`; returns which library builds it."""
    folder.mkdir()
    kwargs = timm_kwargs(network)
    if kwargs is None:
        write_safetensors(network, folder / WEIGHTS)
        config = {"library_name": "srp_exp", "label_names": network.facts["class_names"]}
    else:
        assert network.timm_model is not None
        model = timm.create_model(network.timm_model, **kwargs)
        model.load_state_dict(network.model.state_dict())
        names = {"label_names": network.facts["class_names"]}
        save_for_hf(
            model, str(folder), model_config=names, model_args=kwargs, safe_serialization=True,
            data_config=_timm_data(network.facts["images"]),
        )  # fmt: skip
        config = json.loads((folder / CONFIG).read_text())
        for of_timm in ("tag", "license"):  # of the weights that timm has
            config["pretrained_cfg"].pop(of_timm, None)
    (folder / CONFIG).write_text(json.dumps({**config, "srp_exp": network.stored}, indent=1))
    library = "srp_exp" if kwargs is None else "timm"
    (folder / CARD).write_text(_card(network.facts, library), encoding="utf-8")
    return {"library": library}


def read_hub_folder(network: Network, folder: Path, facts: dict[str, Any]) -> Logits:
    """The logits of the network that timm builds from the folder, or of a new one with its weights."""
    if facts["library"] == "timm":
        logits: Logits = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        return logits
    return read_safetensors(network, folder / WEIGHTS, {})


def _timm_data(images: dict[str, Any]) -> dict[str, Any]:
    """How pictures become input, as timm says it."""
    size = (images["channels"], images["height"], images["width"])
    crop = min(size[1:])
    part = crop / images.get("resize", crop)
    if math.floor(crop / part) < images.get("resize", crop):  # by the rounding of the division, which timm does again
        part = math.nextafter(part, 0)
    return {
        "input_size": size,
        "mean": tuple(images["mean"]),
        "std": tuple(images["std"]),
        "interpolation": images.get("interpolation", "bilinear"),
        "crop_pct": part,
        "crop_mode": images.get("eval_crop", "center"),
    }


def _card(facts: dict[str, Any], library: str) -> str:
    """README.md: what the hub reads at its top, then what it is, how well it answers, and how it is used."""
    name = facts["checkpoint"].partition("/")[0]
    test = {metric: value for metric, value in facts.get("test", {}).items() if metric != "loss"}
    results = [
        EvalResult(
            task_type="image-classification", dataset_type=facts["dataset"], dataset_name=facts["dataset"],
            dataset_split="test", metric_type=_OTHER_METRICS.get(metric, "accuracy"), metric_name=metric,
            metric_value=round(value, 6),
        )
        for metric, value in test.items()
    ]  # fmt: skip
    top = ModelCardData(
        library_name=library, pipeline_tag="image-classification", tags=["image-classification", "srp_exp"],
        model_name=name, eval_results=results or None,
    )  # fmt: skip
    images = facts["images"]
    lines = [
        f"---\n{top.to_yaml()}\n---",
        f"# {name}",
        f"`{facts['backbone']}` with `attention={facts['attention']}`, trained on `{facts['dataset']}` with "
        f"`srp={facts['srp']}` by srp_exp. Stochastic Region Pooling (arXiv:1904.09853) is of training alone: this is "
        f"the plain network. It takes {images['channels']} x {images['height']} x {images['width']} pixels and knows "
        f"{len(facts['class_names'])} classes.",
    ]
    if test:
        rows = "\n".join(f"| {metric} | {value:.4f} |" for metric, value in test.items())
        lines.append(f"On the test part of the data set (one run, seed {facts['seed']}):")
        lines.append(f"| metric | value |\n| --- | ---: |\n{rows}")
    lines.append(f"```python\n{_USE[library]}\n```")
    return "\n\n".join(lines) + "\n"
