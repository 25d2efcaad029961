"""Settings of one training recipe: read from YAML into frozen models that refuse what they do not know.

The stages of a run (training, validation, the loader) take the config; the layers below them take plain values.
"""

import copy
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from manifests.errors import UserError

CONFIGS = Path(__file__).parent / "configs"


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Settings):
    arch: Literal["slowfast", "r3d18", "single_frame"]
    depth: Literal[18, 50, 101] = Field(50, description="ResNet depth of both pathways (slowfast)")
    width: int = Field(64, ge=8, multiple_of=8, description="stem channels (slow pathway, r3d18); Kinetics has 64")
    alpha: int = Field(4, ge=2, description="fast frames per slow frame")
    beta_inv: Literal[2, 4, 8] = Field(8, description="slow channels per fast channel; Kinetics weights have 8")
    se_ratio: float | None = Field(0.0625, gt=0, le=1, description="squeeze width of the SE gates; null leaves SE out")
    se_place: Literal["residual", "inner"] = Field(
        "residual", description="SE gates at a block's end, before the sum, or behind its middle convolution (as X3D)"
    )
    dropout: float = Field(0.5, ge=0, lt=1)
    pretrained: str | None = Field(
        None,
        description="Kinetics-400 weights: a path, s3:// or https:// address, or kinetics400 for the public one; "
        "null: from scratch",
    )


class DataSettings(Settings):
    frames: int = Field(32, ge=4, description="frames per clip; a multiple of alpha")
    span: float = Field(2.1, gt=0, description="seconds that a clip covers; a shorter video is covered whole")
    size: int = Field(224, ge=32, description="pixels, height and width of the network's input")
    clips_per_video: int = Field(2, ge=1, description="clips drawn from each video per training step, logits averaged")
    batch: int = Field(8, ge=1, description="videos per step, over all processes together")
    balance_classes: float = Field(
        0.0, ge=0, le=1, description="0 draws classes by size, 1 equally often, 0.5 by the square root of their size"
    )
    balance_corpora: float = Field(0.0, ge=0, le=1, description="the same between corpora")
    workers: int = Field(2, ge=0, description="loader processes")
    shard_window: int | None = Field(
        None,
        ge=1,
        description="packed clips: training draws from so many shards at a time, for disks that cannot hold all of "
        "them (trainer/wanted.py); null: from all",
    )


class AugmentSettings(Settings):
    """Every draw is made once per clip, so that nothing moves that did not move before the camera."""

    flip: float = Field(0.5, ge=0, le=1, description="probability of mirroring")
    rotate: float = Field(8.0, ge=0, le=20, description="degrees either way")
    translate: float = Field(0.06, ge=0, le=0.2, description="share of the side either way")
    scale: tuple[float, float] = Field((0.9, 1.1), description="smallest and largest factor on the size")
    brightness: float = Field(0.25, ge=0, lt=1)
    contrast: float = Field(0.25, ge=0, lt=1)
    saturation: float = Field(0.2, ge=0, lt=1)
    hue: float = Field(0.03, ge=0, le=0.1)
    grayscale: float = Field(0.1, ge=0, le=1, description="probability")
    blur: float = Field(0.1, ge=0, le=1, description="probability")
    jpeg: float = Field(0.0, ge=0, le=1, description="probability of JPEG traces, of one quality per clip")
    erase: float = Field(0.25, ge=0, le=1, description="probability of one rectangle, the same in all frames")
    rand_ops: int = Field(
        0, ge=0, le=4, description="RandAugment: operations drawn per clip, from those that suit faces"
    )
    rand_magnitude: float = Field(0.3, ge=0, le=1, description="how strong they are")


class MixingSettings(Settings):
    """Two videos in one, before the pathways part."""

    mixup: float = Field(0.0, ge=0, description="alpha of mixup's Beta(alpha, alpha); 0: off")
    cutmix: float = Field(0.0, ge=0, description="alpha of cutmix's; 0: off")
    probability: float = Field(0.5, ge=0, le=1, description="share of the steps that mix")
    until: float = Field(0.8, ge=0, le=1, description="share of the training after which nothing is mixed")


class OptimSettings(Settings):
    name: Literal["adamw", "sgd"] = "adamw"
    epochs: int = Field(50, ge=1)
    lr: float = Field(1e-3, gt=0, description="peak rate of the head and the SE gates")
    backbone_lr: float = Field(1e-4, gt=0, description="peak rate of everything else")
    layer_decay: float = Field(1.0, gt=0, le=1, description="factor on the rate per stage from the last to the input")
    weight_decay: float = Field(0.02, ge=0, description="none on BatchNorm, biases and SE gates")
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only")
    warmup: float = Field(
        0.1, ge=0, lt=1, description="share of all steps with a rising rate; a cosine falls to 0 after"
    )
    frozen_epochs: int = Field(0, ge=0, description="first epochs in which only the head and the SE gates learn")
    accumulate: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        1, description="pieces that a step's batch is computed in; auto: as few as fit the device's memory"
    )
    clip_norm: float = Field(5.0, gt=0)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    human_votes: float = Field(
        0.0, ge=0, le=1, description="share of CREMA-D's face-only votes in the targets of training videos"
    )
    consistency: float = Field(0.0, ge=0, description="weight of the divergence between one video's clips")
    class_weights: bool = Field(True, description="weigh the loss by 1/sqrt(clips of the class)")
    batchnorm: Literal["train", "frozen", "sync", "precise"] = Field(
        "train", description="frozen: Kinetics statistics; sync: over all GPUs; precise: measured anew before testing"
    )
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, which are the ones evaluated")
    patience: int | None = Field(
        None, ge=1, description="end after so many epochs without a better validation UAR and test the best; null: last"
    )
    amp: Literal["none", "bf16", "fp16", "auto"] = Field(
        "none", description="mixed precision; fp16 scales the loss, auto is bf16 on GPUs that have it, fp16 on others"
    )
    compile: bool = Field(False, description="torch.compile: a minute or more at the start, faster steps after")


class EvaluationSettings(Settings):
    clips: int = Field(3, ge=1, description="temporal views per video at test time")
    flip: bool = Field(True, description="also look at each view mirrored")
    robustness: bool = Field(False, description="also test blurred, dark, noisy, occluded... videos, one view each")


class Config(Settings):
    seed: int = Field(1, ge=0)
    device: Literal["cpu", "cuda"] = "cuda"
    checkpoint_minutes: float = Field(10.0, gt=0, description="a checkpoint at least this often, besides each epoch's")
    stall_minutes: float = Field(15.0, gt=0, description="a run without progress for so long ends as failed")
    model: ModelSettings
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    mixing: MixingSettings = MixingSettings()
    optim: OptimSettings = OptimSettings()
    evaluation: EvaluationSettings = EvaluationSettings()


def read_config(path: Path, overrides: list[str]) -> Config:
    """Read a recipe and apply `key.sub=value` overrides.

    Raises UserError naming the key, what is allowed and the nearest spelling.
    """
    source = path if path.is_file() else CONFIGS / path.name
    if not source.is_file():
        known = ", ".join(sorted(p.name for p in CONFIGS.glob("*.yaml")))
        raise UserError(f"no config at {path}; give a YAML file, or one of the recipes that come along: {known}")
    try:
        tree = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{source} holds no settings; start from one of the recipes in {CONFIGS}")
    return change_config(tree, overrides)


def change_config(tree: dict[str, Any], overrides: list[str]) -> Config:
    """A config from nested settings with `key.sub=value` overrides applied; raises UserError as `read_config` does."""
    tree = copy.deepcopy(tree)
    for override in overrides:
        _apply(tree, override)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(_explain(error)) from None
    _check_together(config)
    return config


def _check_together(config: Config) -> None:
    """Refuse settings that are possible one by one and not together."""
    data, model, optim = config.data, config.model, config.optim
    frames, alpha = data.frames, model.alpha
    if model.arch == "slowfast" and frames % alpha:
        raise UserError(
            f"data.frames={frames} is not a multiple of model.alpha={alpha}; "
            f"try data.frames={max(frames // alpha, 1) * alpha}"
        )
    smallest, largest = config.augment.scale
    if not 0 < smallest <= largest:
        raise UserError(
            f"augment.scale=[{smallest:g}, {largest:g}] is no range of sizes; say the smaller factor first, above 0"
        )
    if data.balance_classes and optim.class_weights:
        raise UserError(
            f"data.balance_classes={data.balance_classes:g} and optim.class_weights=true both make up for rare "
            "classes; say optim.class_weights=false, or data.balance_classes=0"
        )
    if data.shard_window and optim.batchnorm == "precise":
        raise UserError(
            "optim.batchnorm=precise looks back at training videos whose shards may be gone with data.shard_window; "
            "say optim.batchnorm=frozen, or data.shard_window=null"
        )
    if optim.batchnorm == "frozen" and model.pretrained is None:
        raise UserError(
            "optim.batchnorm=frozen keeps the statistics of pretrained weights, and model.pretrained=null has none; "
            "say optim.batchnorm=train, or model.pretrained=kinetics400"
        )
    if optim.frozen_epochs >= optim.epochs:
        raise UserError(
            f"optim.frozen_epochs={optim.frozen_epochs} of optim.epochs={optim.epochs} leave none for the backbone to "
            "learn in; say optim.frozen_epochs=0, or more epochs"
        )
    if optim.consistency and data.clips_per_video == 1:
        raise UserError(
            f"optim.consistency={optim.consistency:g} compares the clips of one video, and "
            "data.clips_per_video=1 draws one; say data.clips_per_video=2, or optim.consistency=0"
        )


def _apply(tree: dict[str, Any], override: str) -> None:
    """Set `key.sub=value` in the tree; the value is read as YAML: numbers, null and lists mean what they look like."""
    key, separator, value = override.partition("=")
    if not separator:
        raise UserError(f"'{override}' is not a setting; write key=value, for example optim.lr=3e-4")
    *parents, leaf = key.split(".")
    branch = tree
    for parent in parents:
        branch = branch.setdefault(parent, {})
        if not isinstance(branch, dict):
            break
    if not isinstance(branch, dict) or key not in setting_names():
        raise UserError(_unknown(key))
    branch[leaf] = yaml.safe_load(value)


def _explain(error: ValidationError) -> str:
    """The first thing wrong, as one sentence."""
    first, *others = error.errors()
    # Behind the name of a setting pydantic says which of its kinds, or which element, it speaks of.
    key = ".".join(str(part) for part in first["loc"][:2])
    if first["type"] == "extra_forbidden":
        return _unknown(key)
    if first["type"] == "missing":
        return f"the config has no {key}; add it, or start from one of the recipes in {CONFIGS}"
    wanted = [first["msg"], *(other["msg"] for other in others if other["loc"][:2] == first["loc"][:2])]
    return f"{key} is {first['input']!r}, but {', or '.join(each[0].lower() + each[1:] for each in wanted)}"


def _unknown(key: str) -> str:
    keys = setting_names()
    near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    # A right name in the wrong section (optim.size) is nearest to the same name elsewhere (data.size).
    same_leaf = [name for name in keys if name.rpartition(".")[2] == key.rpartition(".")[2]]
    sections = dict.fromkeys(name.partition(".")[0] for name in keys)
    every = f".github/SETTINGS.md lists those of {', '.join(sections)}"
    hint = f"did you mean {(same_leaf or near)[0]}?" if same_leaf or near else every
    return f"there is no setting {key}; {hint}"


def setting_names() -> list[str]:
    """Every setting as a dotted name, in the order of declaration."""
    names: list[str] = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            names += [f"{name}.{leaf}" for leaf in section.model_fields]
        else:
            names.append(name)
    return names
