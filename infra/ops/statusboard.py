"""What `make status` looks like to a person: tables on stdout, in colour on a terminal."""

import sys
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.ops.ending import sentence, silence
from infra.ops.figures import clock, dollars, duration, gigabytes, mebibytes, parse, percent, since
from infra.ops.fleet import Machine
from infra.ops.record import Record
from infra.ops.screen import COLOURS, bar
from infra.ops.status import Findings

PLAIN_WIDTH = 160  # columns where stdout is no terminal
BAR = 16
WEEK = 7 * 24 * 3600.0  # seconds


def show(found: Findings) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="bold", no_wrap=True)
    rows.add_column()
    rows.add_row("stack", f"{found.outputs.stack} in {found.outputs.region}")
    for name, text in (*machine_rows(found), *run_rows(found.record, found.last), *rest_rows(found)):
        rows.add_row(name, text)
    console.print(rows)
    for stray in found.strays:
        console.print(Text(f"✗ {stray}", style="bold red"))


def machine_rows(found: Findings) -> list[tuple[str, Text]]:
    if not any(found.machines.values()):
        return [("machines", Text("none, so none costs anything"))]
    now = datetime.now(UTC)
    rows = []
    for region, machines in found.machines.items():
        for machine in machines:
            own = machine in found.own
            rows.append(("machine", _machine_line(machine, region, found, now)))
            if own:
                rows += machine_state(found.answers.get(machine.id), found.record, machine.id)
    return rows


def _machine_line(machine: Machine, region: str, found: Findings, now: datetime) -> Text:
    where = machine.zone if machine in found.own else f"{machine.zone} (stack {machine.stack or 'none'} in {region})"
    heard = "SSM online" if machine.id in found.online else "SSM silent" if machine in found.own else "SSM not asked"
    age = duration(since(machine.launched, now))
    words = [machine.id, machine.type, where, machine.market, f"{machine.state} for {age}", heard]
    return Text("  ".join(words), style="green" if machine.state == "running" else "yellow")


def machine_state(answer: dict[str, Any] | None, record: Record | None, instance: str) -> list[tuple[str, Text]]:
    """GPUs, disk, containers and processes as the machine tells them, else as its run last told S3."""
    if answer is not None:
        rows = [*gpu_rows(answer["gpus"])]
        rows += [("disk", used(d["used_bytes"], d["total_bytes"], d["place"])) for d in answer["disks"]]
        rows += [("container", Text(f"{c['names']}  {c['status']}")) for c in answer["containers"]]
        busy = [f"{p['name']} {p['cpu_percent']:.0f} %" for p in answer["processes"][:4]]
        rows += [("processes", Text(", ".join(busy) or "none"))]
        idle = answer["idle"]
        if idle["idle_seconds"] is not None and idle["limit_minutes"]:
            rest = f"{duration(idle['idle_seconds'])} of {idle['limit_minutes']} min, then it gives itself back"
            rows += [("idle", Text(rest))] if not answer["containers"] else []
        return rows
    told = record.machine if record else None
    if told is None or told["instance"] != instance:
        return [("", Text("it has not said anything yet", style="dim"))]
    age = Text(f"  (as told {duration(silence(told))} ago)", style="dim")
    disk = told["disk"]
    rows = [*gpu_rows(told["gpus"]), ("disk", used(disk["used_bytes"], disk["total_bytes"], "/scratch"))]
    return [(name, text + age) for name, text in rows]


def gpu_rows(gpus: list[dict[str, Any]]) -> list[tuple[str, Text]]:
    return [
        (
            f"GPU {number}",
            Text.assemble(
                bar((gpu["use_percent"] or 0) / 100, BAR, COLOURS["gpu"]),
                f" {percent(None if gpu['use_percent'] is None else gpu['use_percent'] / 100)} busy, ",
                f"{mebibytes(gpu['memory_used_mib'], gpu['memory_total_mib'])}  ",
                (gpu["name"], "dim"),
            ),
        )
        for number, gpu in enumerate(gpus)
    ] or [("GPU", Text("none answers", style="yellow"))]


def used(size: float, total: float, place: str) -> Text:
    return Text.assemble(bar(size / total, BAR, COLOURS["disk"]), f" {gigabytes(size, total)}  ", (place, "dim"))


def last_row(last: Record) -> list[tuple[str, Text]]:
    """How the newest run ended, with what is next; nothing of one that was finished longer ago than a week."""
    age = silence(last.machine)
    if last.state == "finished" and age > WEEK:
        return []
    told = sentence(last).removeprefix("run ")
    ago = f"{last.state} {duration(age)} ago:" if age < float("inf") else f"{last.state}:"
    style = "green" if last.state == "finished" else "red" if last.state == "failed" else "yellow"
    return [("last", Text(told.replace(f"{last.state}:", ago, 1), style=style))]


def refused(found: Findings) -> Text:
    """That AWS has no machine for us, in its own words. Only whoever waits at the start goes on demand by himself."""
    words = f"AWS says: {' '.join(found.refusals[0].split())}, {len(found.refusals)} times within the hour"
    if found.record:
        words += f"; `make stop`, then `make resume RUN={found.record.run_id} SPOT=0` asks for one on demand"
    return Text(words, style="yellow")


def run_rows(record: Record | None, last: Record | None) -> list[tuple[str, Text]]:
    if record is None:
        return [("run", Text("none is active")), *(last_row(last) if last else [])]
    told, machine = record.status or {}, record.machine or {}
    rows = [("run", Text(f"{record.run_id}  {record.state}", style="bold cyan"))]
    if steps := told.get("steps"):
        done = told["step"] / steps
        words = f" {percent(done)}  epoch {told['epoch']} of {told['epochs']}, step {told['step']} of {steps}"
        rows.append(("progress", bar(done, BAR, COLOURS["run"]) + Text(words)))
        rows.append(("left", Text(duration(told.get("eta")))))
        rows.append(("metrics", Text(metrics(told))))
    if machine:
        spent = f"{dollars(machine['dollars'])} so far, {dollars(machine['dollars_at_finish'])} at its finish"
        rows.append(("money", Text(f"{spent}, cap {dollars(machine['cap_dollars'])}")))
    else:
        rows.append(("money", Text(f"cap {dollars(record.request['cap_dollars'])}")))
    deadline = parse(record.request["deadline"])
    if deadline:
        rows.append(("deadline", Text(f"{clock(deadline)}, in {duration(-since(deadline))}")))
    return rows


def metrics(status: dict[str, Any]) -> str:
    """`loss 0.813, validation UAR 61.2%, 31.4 clips/s`, as far as they are known."""
    words = [f"loss {status['loss']:.3f}"] if status.get("loss") is not None else []
    if validation := status.get("val"):
        words.append(f"validation UAR {validation['uar']:.1%}")
    if speed := status.get("clips_per_second"):
        words.append(f"{speed:.1f} clips/s")
    return ", ".join(words) or "none yet"


def rest_rows(found: Findings) -> list[tuple[str, Text]]:
    rows = []
    if found.group:
        ends = found.group.deadline
        until = f"; AWS empties it at {clock(ends)}" if ends else ""
        rows.append(("group", Text(f"asks for {found.group.desired} of {found.group.limit} machines{until}")))
    if found.refusals:
        rows.append(("refused", refused(found)))
    waits = ", ".join(found.waiting)
    words = f"{waits} (`make resume RUN=...` goes on with one)" if waits else "no other run waits to be gone on with"
    rows.append(("waiting", Text(words)))
    rows += [(site.stack, Text(f"not looked into: {site.trouble}", "dim")) for site in found.sites.values()
             if site.trouble and site.exists]  # fmt: skip
    if not found.strays:
        rows.append(("strays", Text(f"none in {', '.join(found.machines)}", style="green")))
    return rows
