"""Draws the stack and counts its cost from the program itself, so that neither can drift, into infra/README.md.

    python -m infra.picture          write the parts of infra/README.md that are made from the program

A test fails when the file is not what this command would write.
"""

import re
from collections import Counter
from pathlib import Path

import yaml

from infra.costs import REGION_AND_DATE, cost_table, disk_and_address_hour, idle_month
from infra.recording import PULUMI_YAML, Declared, Recording, defaults, record

README = Path(__file__).parent / "README.md"
Part = tuple[str, str]  # the module that declares it, and its kind


def mermaid(recording: Recording) -> str:
    """The stack as a Mermaid flow chart: a frame for each file of infra/, an arrow from a part to what it needs.

    Parts that no other file needs, and that need none, share one box of their frame.
    """
    parts = {resource.urn: (resource.module, _kind(resource)) for resource in recording.resources}
    counts = Counter(parts.values())
    arrows = {(parts[r.urn], parts[urn]) for r in recording.resources for urn in r.needs if urn in parts}
    shown = {part for arrow in arrows for part in arrow if arrow[0][0] != arrow[1][0]}
    lines = ["flowchart LR"]
    for module in sorted({module for module, _ in counts}):
        own = sorted(part for part in counts if part[0] == module)
        lines.append(f'  subgraph {module.strip("_")}["{module}.py"]')
        lines += [f'    {_id(part)}["{_words(part, counts)}"]' for part in own if part in shown]
        if rest := [_words(part, counts) for part in own if part not in shown]:
            lines.append(f'    {module.strip("_")}_rest["{"<br/>".join(rest)}"]')
        lines.append("  end")
    ends = sorted(arrow for arrow in arrows if arrow[0] != arrow[1] and shown.issuperset(arrow))
    return "\n".join(lines + [f"  {_id(part)} --> {_id(need)}" for part, need in ends])


def _kind(resource: Declared) -> str:
    """`aws:ec2/securityGroup:SecurityGroup` as `ec2 security group`."""
    _, package, name = resource.type.split(":")
    return f"{package.partition('/')[0]} {re.sub(r'(?<=[a-z])(?=[A-Z])', ' ', name).lower()}"


def _id(part: Part) -> str:
    return re.sub(r"\W", "_", "_".join(word.strip("_") for word in part))


def _words(part: Part, counts: Counter[Part]) -> str:
    return f"{part[1]} x {counts[part]}" if counts[part] > 1 else part[1]


def settings_table() -> str:
    """The settings as Pulumi.yaml declares them, as a Markdown table."""
    declared = yaml.safe_load(PULUMI_YAML.read_text(encoding="utf-8"))["config"]
    rows = ["| setting | default | what it is |", "|---|---|---|"]
    for name, entry in declared.items():
        default = str(entry["default"]).lower() if isinstance(entry["default"], bool) else entry["default"]
        rows.append(f"| `{name}` | {default if default != '' else '(empty)'} | {entry['description']} |")
    return "\n".join(rows)


def costs() -> str:
    plain, private = record(), record({"private_subnets": True})
    extra = idle_month(private) - idle_month(plain)
    volume = defaults()["volume_gb"]
    return "\n\n".join(
        [
            f"Dollars, {REGION_AND_DATE} (infra/costs.py); with the default settings:",
            cost_table(plain),
            f"While a machine runs its disk of {volume} GB and its address add "
            f"${disk_and_address_hour(volume, public=True):.4f} an hour. `private_subnets` adds "
            f"${extra:.2f} a month, machines or not. Whatever is not in the table costs nothing.",
        ]
    )


def left_by_destroy(recording: Recording) -> str:
    """What `destroy` leaves, as a Markdown list."""
    return "\n".join(f"- {kind}" for kind in sorted(_kind(r) for r in recording.resources if r.kept))


def blocks() -> dict[str, str]:
    """The generated parts of the README, by their marks."""
    plain = record()
    return {
        "picture": f"```mermaid\n{mermaid(plain)}\n```",
        "settings": settings_table(),
        "costs": costs(),
        "left": left_by_destroy(plain),
    }


def render(text: str, generated: dict[str, str]) -> str:
    """The README with its generated parts renewed, each between `<!-- name -->` and `<!-- /name -->`."""
    for name, block in generated.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        text, found = mark.subn(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)  # type: ignore[misc]
        assert found == 1, f"{README} has {found} places for {name}"
    return text


if __name__ == "__main__":
    README.write_text(render(README.read_text(encoding="utf-8"), blocks()), encoding="utf-8")
