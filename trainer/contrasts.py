"""The sections of a comparison below its scores: each a pure function from the contenders' figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trainer import charts, findings, verdict, wording
from trainer.judgement import heat_row
from trainer.tables import Section, Table

Contenders = Sequence[Mapping[str, Any]]
GROUPS = {
    "corpora": "Each corpus by itself: the larger one cannot hide the other",
    "sex": "By the actor's sex",
    "intensity": "By how strongly the emotion was played",
}
VALIDATION = "UAR on the validation actors, %. Further seeds are drawn faintly."


def curves(contenders: Contenders) -> Section | None:
    """Validation UAR over the steps, a drawing for each contender and a line for each of its runs."""
    drawings = []
    for contender in contenders:
        runs = [[(float(step), float(uar)) for step, uar in run] for run in contender["validation"] if run]
        if not runs:
            continue
        lines = [charts.Line("", run, "faint") for run in runs[1:]] + [charts.Line("UAR", runs[0], "a", dots=True)]
        peaks = ", ".join(wording.percent(max(uar for _, uar in run)) for run in runs)
        said = f"Validation UAR of {contender['name']} over the steps; it peaked at {peaks}."
        drawings.append((contender["name"], charts.line_chart(lines, said, (0, 1), lambda y: f"{100 * y:.0f}")))
    return Section("curves", "How training went", drawings=drawings, says=[VALIDATION]) if drawings else None


def matrices(contenders: Contenders, labels: Sequence[str], table: Table) -> Section:
    """What each confuses, side by side where there is room, and the table of each emotion."""
    told = [(c["name"], labels, [heat_row(row) for row in c["confusion"]]) for c in contenders]
    mistakes = [f"{c['name']}: {verdict.confusions(c['confusion'], labels)}" for c in contenders]
    return Section("confusion", "What they confuse", [table], matrices=told, says=mistakes)


def groups(contenders: Contenders) -> Section | None:
    """Corpora, sexes and intensities, each contender beside the others; the mark is everybody."""
    kinds = [{"corpora": contender["corpora"], **contender["groups"]} for contender in contenders]
    tables = []
    for kind, title in GROUPS.items():
        rows: list[list[str | Markup]] = []
        for name in kinds[0].get(kind, ()):
            for contender, known in zip(contenders, kinds, strict=True):
                part = known[kind][name]
                scores = (wording.score(part, score) for score in ("war", "uar"))
                drawing = charts.whisker(part["war"], part["war_interval"], contender["war"], "a")
                rows.append([name, contender["name"], wording.number(part["clips"], 0), *scores, drawing])
        if rows:
            tables.append(Table(title, ("group", "model", "videos", "WAR", "UAR", ""), rows))
    return Section("groups", "Group by group", tables) if tables else None


def people(contenders: Contenders) -> Section:
    """Every actor, the one that all find hardest first."""
    shares = [contender["actors_war"] for contender in contenders]
    order = sorted(shares[0], key=lambda name: (sum(of[name] for of in shares), name))
    rows: list[list[str | Markup]] = [[name, *(wording.in_hundred(of[name]) for of in shares)] for name in order]
    caption = "Share of each actor's videos that is read right, %; the hardest to read first"
    return Section(
        "people", "Person by person", [Table(caption, ["actor", *(c["name"] for c in contenders)], rows)], long=True
    )


def confidence(contenders: Contenders) -> Section:
    """How far the stated confidence can be trusted."""
    drawings, rows = [], []
    for contender in contenders:
        measured = contender["calibration"]
        points = [(b["confidence"], b["accuracy"], b["clips"]) for b in measured["bins"]]
        said = f"{contender['name']}: share right by confidence. {wording.confidence_sentence(measured)}"
        drawings.append((contender["name"], charts.reliability(points, said)))
        figures = (wording.in_hundred(measured["ece"]), *(wording.number(measured[n], 3) for n in ("nll", "brier")))
        rows.append([contender["name"], *figures])
    caption = "Error of the stated confidence, before any temperature; less is better in each column"
    table = Table(caption, ("model", "ECE %", "NLL", "Brier score"), rows)
    return Section("confidence", "Can their confidence be trusted?", [table], drawings)


def gain(contenders: Contenders) -> Section | None:
    """What more views of a video bring each, and cost; None unless it was measured of all."""
    known = [(contender["name"], contender["gain"]) for contender in contenders if contender["gain"]]
    if len(known) < len(contenders):
        return None
    rows = [
        [
            name,
            wording.number(told["views"], 0),
            *(wording.in_hundred(told[key]) for key in ("uar_one", "uar_most")),
            wording.signed(told["uar_most"] - told["uar_one"]),
            *(findings.seconds(told[key]) for key in ("seconds_per_video_one", "seconds_per_video_most")),
        ]
        for name, told in known
    ]
    columns = ("model", "views", "UAR % of one view", "of all", "gain, points", "time of one view", "of all")
    return Section(
        "gain", "One view or several", [Table("What averaging over views brings and costs, per video", columns, rows)]
    )


def robustness(contenders: Contenders) -> Section | None:
    """What each disturbance leaves; None unless all contenders were disturbed alike."""
    known = [c["robustness"] for c in contenders]
    kinds = [[(v["name"], v["severity"]) for v in figures["variants"]] for figures in known if figures]
    if len(kinds) < len(contenders) or any(kind != kinds[0] for kind in kinds):
        return None
    rows: list[list[str | Markup]] = [["undisturbed", "", *(wording.in_hundred(f["clean"]) for f in known)]]
    for place, (name, severity) in enumerate(kinds[0]):
        rows.append([name, severity, *(wording.in_hundred(f["variants"][place]["uar"]) for f in known)])
    columns = ["disturbance", "how much", *(c["name"] for c in contenders)]
    return Section("robustness", "Worse pictures", [Table("UAR of one view of each video, %", columns, rows)])


def apart(videos: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    """The videos on which they differ most."""
    rows = [
        [
            f"{video['clip_id']}\n{video['actor']}",
            video["played"],
            *(
                f"{read}\n{wording.percent(share, 0)}"
                for read, share in zip(video["read"], video["probability"], strict=True)
            ),
        ]
        for video in videos
    ]
    caption = "What each reads, and below it the probability that it gives the emotion played"
    return Section("apart", "Where they part", [Table(caption, ["video", "played", *names], rows)], long=True)


def again(contenders: Contenders) -> Section:
    """The commands, code and data behind each."""
    rows = [
        [c["name"], c["git_revision"] or "not known", c["manifest_sha256"], "\n".join(c["commands"])]
        for c in contenders
    ]
    return Section(
        "again", "How to make it again",
        [Table("Each run was made by", ("model", "code revision", "manifest sha256", "command"), rows)], long=True,
    )  # fmt: skip
