"""Writes those parts of the documents that are made from the program: `python tests/docs.py`.

.github/SETTINGS.md and COMMANDS.md whole, and what stands between `<!-- name -->` and `<!-- /name -->` in README.md and
in .github/CONTRIBUTING.md. tests/test_docs.py fails when a file is not what this command would write.
"""

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any, get_args

import yaml
from bench_processes import R50, UTILISATION, scaling_table
from bench_train import A10G_FLOPS, training_flops
from pydantic_core import PydanticUndefined
from rich.table import Table

from infra.costs import MACHINE_HOUR, REGION_AND_DATE, disk_and_address_hour
from infra.picture import render
from infra.recording import defaults
from trainer.__main__ import EXAMPLES
from trainer.config import CONFIGS, Config, Settings, change_config
from trainer.robustness import DISTURBANCES

ROOT = Path(__file__).parents[1]
SETTINGS, COMMANDS = ROOT / ".github" / "SETTINGS.md", ROOT / ".github" / "COMMANDS.md"
MAKEFILE = ROOT / "Makefile"
RECIPE = CONFIGS / "slowfast_face.yaml"

# Takes of the six common emotions as `manifests build` counts them, and the default shares of its splits.
VIDEOS = 1056 + 7438
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
# What a GPU multiplies at most in 16 bits by its data sheet, and the share of it that 3-D convolutions are supposed to
# reach: less where memory is slow beside the arithmetic (600 GB/s at the A10G, 300 and 320 at the others).
GPUS = {
    "g5.xlarge": ("A10G", A10G_FLOPS, UTILISATION),
    "g6.xlarge": ("L4", 121e12, 0.15),
    "g4dn.xlarge": ("T4", 65e12, 0.15),
}
SPOT = (1 / 3, 2 / 3)  # of the on-demand price, as infra/costs.py says
# Training clips a second that one core brought to a GPU's path in `make bench` (the slower of its two corpora), and the
# cores of these machines: their four vCPUs are two cores of two threads.
LOADED, CORES = 63, 2
NETWORKS = {
    "SlowFast-R50 with SE, the recipe": [],
    "R3D-18, `model.arch=r3d18`": ["model.arch=r3d18"],
    "R3D-18 at the size of its weights, `data.size=112`": ["model.arch=r3d18", "data.size=112"],
    "one frame, `model.arch=single_frame`": ["model.arch=single_frame"],
}


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    line = "| {} |".format
    rule = "|".join("---" for _ in headings)
    return "\n".join([line(" | ".join(headings)), f"|{rule}|", *(line(" | ".join(row)) for row in rows)])


def from_rich(table: Table) -> str:
    rows = [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]
    return markdown([str(column.header) for column in table.columns], rows)


def looks(config: Config) -> float:
    """Clips that a whole run computes forward and back, and what it only looks at counted as a third of one."""
    data, evaluation, epochs = config.data, config.evaluation, config.optim.epochs
    steps = int(VIDEOS * SHARES["train"]) // data.batch
    views = evaluation.clips * (2 if evaluation.flip else 1) + 1 + (len(DISTURBANCES) if evaluation.robustness else 0)
    only_looked_at = VIDEOS * (SHARES["val"] * epochs + SHARES["test"] * views)
    return epochs * steps * data.batch * data.clips_per_video + only_looked_at / 3


def real_runs() -> str:
    extra = disk_and_address_hour(defaults()["volume_gb"], public=True)
    rows = []
    for name, changes in NETWORKS.items():
        config = change_config(R50.model_dump(), changes)
        work = training_flops(config)
        cells = [name, f"{work / 1e9:.0f} GFLOP"]
        for machine, (_, peak, share) in GPUS.items():
            rate = min(peak * share / work, LOADED * CORES)
            hours = looks(config) / rate / 3600
            low, high = (hours * (MACHINE_HOUR[machine] * part + extra) for part in SPOT)
            dollars = hours * (MACHINE_HOUR[machine] + extra)
            cells.append(f"{rate:.0f} clips/s, {hours:.1f} h, ${dollars:.2f}; spot ${low:.2f} to ${high:.2f}")
        rows.append(cells)
    supposed = [
        f"{machine}: {gpu}, {share:.0%} of {peak / 1e12:.0f} TFLOP/s, ${MACHINE_HOUR[machine]:.2f} an hour"
        for machine, (gpu, peak, share) in GPUS.items()
    ]
    told = (
        f"A run is {looks(R50) / 1000:.0f} thousand clips: {R50.optim.epochs} epochs of {VIDEOS * SHARES['train']:.0f} "
        f"videos with {R50.data.clips_per_video} clips each, and a third of what is only looked at, in validation and "
        f"in testing. Supposed: {'; '.join(supposed)}; no more than {LOADED * CORES} clips/s from the loader. Prices "
        f"are {REGION_AND_DATE}; on the spot market a third to two thirds of them; disk and address are in."
    )
    return f"{markdown(['network', 'a clip', *GPUS], rows)}\n\n{told}"


def scaling() -> str:
    table = scaling_table(R50)
    work = training_flops(R50)
    rate = A10G_FLOPS * UTILISATION / work
    return (
        f"S{str(table.title)[1:]}. A GPU that computes {rate:.0f} clips/s wants {rate / LOADED:.1f} cores to load "
        f"them, so that eight in one machine want {8 * rate / LOADED:.0f}. Reckoned, not measured.\n\n"
        f"{from_rich(table)}"
    )


def remarks(recipe: Path) -> dict[str, str]:
    """The comment behind each value of a recipe, by dotted name; the form of our recipes is enough."""
    found, section = {}, ""
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"( *)(\w+):\s*([^#]*?)\s*(?:# (.*))?$", line):
            indent, key, value, remark = match.groups()
            if not indent:
                section = "" if value else f"{key}."
            if remark:
                found[f"{section}{key}" if indent else key] = remark
    return found


def settings() -> Iterator[tuple[str, Any]]:
    """(dotted name, pydantic's field) of every setting."""
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Settings):
            yield from ((f"{name}.{leaf}", inner) for leaf, inner in section.model_fields.items())
        else:
            yield name, field


def allowed(field: Any) -> str:
    """What a setting may be, as far as its type and bounds say."""
    if (choices := get_args(field.annotation)) and all(isinstance(choice, str | int) for choice in choices):
        return ", ".join(str(choice) for choice in choices)
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "multiple_of": "a multiple of"}
    bounds = [(sign, getattr(limit, name)) for limit in field.metadata for name, sign in signs.items()
              if getattr(limit, name, None) is not None]  # fmt: skip
    return ", ".join(f"{sign} {value:g}" for sign, value in bounds)


def word(value: Any) -> str:
    """A value as a recipe writes it."""
    if value is PydanticUndefined:
        return "(must be said)"
    return "null" if value is None else yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()


def settings_page() -> str:
    recipe, why = yaml.safe_load(RECIPE.read_text(encoding="utf-8")), remarks(RECIPE)
    rows = []
    for name, field in settings():
        section, _, leaf = name.rpartition(".")
        tree = recipe[section] if section else recipe
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        used = word(tree[leaf]) if leaf in tree else ""
        cells = [f"`{name}`", allowed(field), word(default), used, field.description or "", why.get(name, "")]
        rows.append([cell.replace("|", "\\|") for cell in cells])
    return (
        "# Settings of a recipe\n\n"
        "Made from `trainer/config.py` and `trainer/configs/slowfast_face.yaml` by `python tests/docs.py`. Any of them "
        "can be said behind a command as `key=value`, for example `optim.lr=3e-4`; where a recipe says nothing the "
        "default holds.\n\n"
        + markdown(["setting", "allowed", "default", "slowfast_face", "what it is", "why this value"], rows)
        + "\n"
    )


def help_of(module: str, *words: str) -> str:
    """What `python -m module ... --help` prints."""
    main = import_module(module if module.startswith("infra.ops.") else f"{module}.__main__").main
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


def commands_page() -> str:
    """Every command with what its help says of it and its examples; the options are left to the help itself."""
    made = re.findall(r"^([a-z-]+): \.venv/ready .*\n\t\$\(OPS\)", MAKEFILE.read_text(), re.M)
    verbs = re.findall(r"^    (\w+)  ", help_of("manifests"), re.M)
    known = [
        ("The data", [(f"python -m manifests {verb}", help_of("manifests", verb)) for verb in verbs]),
        ("The model", [(f"python -m trainer {verb}", help_of("trainer", verb)) for verb in EXAMPLES]),
        ("Your AWS account", [(f"make {verb}", help_of(f"infra.ops.{verb}")) for verb in made]),
    ]
    lines = [
        "# Commands",
        "",
        "Made from what each says at `--help`, which has the options too, by `python tests/docs.py`.",
    ]
    for title, commands in known:
        lines += ["", f"## {title}"]
        for command, told in commands:
            # The usage ends at the first empty line; the first group of options has a heading of its own.
            about = re.split(r"^[a-z][a-z ,()'-]*:$", told.partition("\n\n")[2], maxsplit=1, flags=re.M)[0].strip()
            about = about.removeprefix(f"{command}: ")
            examples, _, more = told.partition("\nexamples:\n")[2].rstrip().partition("\n\n")
            lines += ["", f"### {command}", "", about[0].upper() + about[1:], "", "```", dedent(examples), "```"]
            lines += ["", more] if more else []
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Each document that has generated parts, as it should be."""
    readme, contributing = ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md"
    return {
        SETTINGS: settings_page(),
        COMMANDS: commands_page(),
        readme: render(readme.read_text(encoding="utf-8"), {"real runs": real_runs()}),
        contributing: render(contributing.read_text(encoding="utf-8"), {"scaling": scaling()}),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
