"""Registration of the schemas with Hydra, and of the resolvers that name a run's folder."""

from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from srp_exp.config import identity, preprocessing
from srp_exp.config.schemas import datasets as d
from srp_exp.config.schemas import loggers as l
from srp_exp.config.schemas import networks as n
from srp_exp.config.schemas import run as s
from srp_exp.config.schemas import training as t

SCHEMAS: dict[str, dict[str, type[Any]]] = {
    "dataset": {
        "in_memory": d.InMemoryConfig,
        "cifar": d.CifarConfig,
        "synthetic": d.SyntheticConfig,
        "files": d.FilesConfig,
        "published": d.PublishedConfig,
        "folder": d.FolderConfig,
        "table": d.TableConfig,
        "hub": d.HubConfig,
        "imagenet_parquet": d.ImageNetParquetConfig,
        "boxed_files": d.BoxedFilesConfig,
    },
    "attention": {
        "plain": n.AttentionConfig,
        "reduction": n.ReductionConfig,
        "cbam": n.CbamConfig,
        "gc": n.GlobalContextConfig,
        "sk": n.SelectiveKernelConfig,
        "splat": n.SplitAttnConfig,
        "ese": n.EffectiveSeConfig,
        "eca": n.EcaConfig,
        "ge": n.GatherExciteConfig,
    },
    "backbone": {
        "resnet": n.ResNetConfig,
        "wrn": n.WideResNetConfig,
        "resnext": n.ResNeXtConfig,
        "densenet": n.DenseNetConfig,
        "timm": n.TimmConfig,
    },
    "srp": {
        "gap": s.GapConfig,
        "fixed": s.FixedConfig,
        "linear": s.LinearConfig,
        "cosine": s.CosineConfig,
        "stages": s.StagesConfig,
    },
    "optimizer": {"sgd": t.SgdConfig, "adamw": t.AdamWConfig},
    "lr_schedule": {"cosine": t.CosineLrConfig, "step": t.StepLrConfig, "one_cycle": t.OneCycleLrConfig},
    "loss": {"plain": t.LossConfig, "bce": t.BinaryCrossEntropyConfig, "focal": t.FocalConfig},
    "mixing": {"none": t.MixingConfig, "mix": t.MixConfig, "mixup_or_cutmix": t.MixUpOrCutMixConfig},
    "logger": {"logger": l.LoggerConfig, "wandb": l.WandbConfig, "mlflow": l.MLflowConfig},
}
"""Schemas by group; a file of conf/<group>/ names its own by `defaults: [/hydra/schema/<group>/<name>@_here_, _self_]`.

Under hydra/ they stay out of the choices that --help lists.
"""


@cache
def register() -> None:
    """Make the schemas and resolvers known to Hydra and OmegaConf; calling it again does nothing."""
    store = ConfigStore.instance()
    store.store("schema", s.Config)
    for group, schemas in SCHEMAS.items():
        for name, node in schemas.items():
            store.store(name, node, group=f"hydra/schema/{group}")
    OmegaConf.register_new_resolver("run_id", lambda *, _root_: identity.job_folder(_root_).name, replace=True)
    OmegaConf.register_new_resolver(
        "run_parent", lambda *, _root_: str(identity.job_folder(_root_).parent), replace=True
    )
    OmegaConf.register_new_resolver(
        "output_folder", lambda *, _root_: str(identity.output_folder(_root_)), replace=True
    )
    OmegaConf.register_new_resolver("sha256_of_file", identity.sha256_of_file, replace=True)
    OmegaConf.register_new_resolver("folder_name", lambda root: Path(root).expanduser().absolute().name, replace=True)
    OmegaConf.register_new_resolver("from_weights", preprocessing.from_weights, replace=True)
    OmegaConf.register_new_resolver("eval_resize", preprocessing.eval_resize, replace=True)
    OmegaConf.register_new_resolver("fitting_warmup", lambda own, epochs: min(own, epochs / 2), replace=True)
    OmegaConf.register_new_resolver("scaled_lr", lambda lr, size, per: lr * size / per, replace=True)
