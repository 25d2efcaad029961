"""The words and tables of a comparison and of a cross-validation: from their figures to a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trainer import charts, contrasts, wording
from trainer.tables import Page, Section, Table

SYNTHETIC = (
    "Drawn faces, not people.",
    "The videos are a synthetic test corpus: the scores show that the machinery works, and nothing about people.",
)
LEAKY = (
    "Leaky split: do not quote these scores.",
    "Actors are in training and test at once, so a model is asked about people it knows.",
)


def comparison_page(told: Mapping[str, Any]) -> Page:
    """What `trainer.compare.compare` found."""
    chance = 1 / len(told["labels"])
    told = {**told, "pairs": faced(told["pairs"])}
    told = called_drawn(told) if told["synthetic"] else told
    contenders = told["contenders"]
    rivals = [pair for pair in told["pairs"] if pair["corpus"] is None]
    judged = f"{wording.plural(told['clips'], 'video')} of {wording.plural(told['actors'], 'actor')}"
    return Page(
        kicker=f"{wording.plural(len(contenders), 'model')} on the same {judged}",
        heading=heading(contenders),
        leads=[pair_sentence(pair) for pair in rivals],
        tables=[scores_table(contenders, chance)],
        sections=[section for section in comparison_sections(told) if section],
        banners=[*([SYNTHETIC] if told["synthetic"] else []), *([LEAKY] if told["leaky"] else [])],
        notes=few_actors(told["actors"]),
        leaky=told["leaky"],
    )


def heading(contenders: Sequence[Mapping[str, Any]]) -> str:
    """Who reads best, and how well."""
    best = max(contenders, key=lambda c: c["uar"])
    score, _, bounds = wording.score(best, "uar").partition("\n")
    return f"{best['name']} reads best: {score} UAR (95{wording.NBSP}% interval {bounds})."


def called_drawn(told: Mapping[str, Any]) -> dict[str, Any]:
    """The same with its corpora called drawn: they bear the names of those that they stand in for."""
    pairs = [{**pair, "corpus": pair["corpus"] and f"{pair['corpus']} (drawn)"} for pair in told["pairs"]]
    contenders = [
        {**contender, "corpora": {f"{name} (drawn)": part for name, part in contender["corpora"].items()}}
        for contender in told["contenders"]
    ]
    return {**told, "pairs": pairs, "contenders": contenders}


def faced(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pairs with the one that reads more on the whole first, so that sentence and table have the same signs."""
    worse = {(pair["first"], pair["second"]) for pair in pairs if pair["corpus"] is None and pair["uar"] < 0}
    return [turned(pair) if (pair["first"], pair["second"]) in worse else dict(pair) for pair in pairs]


def turned(pair: Mapping[str, Any]) -> dict[str, Any]:
    """The same difference seen from the other side."""
    low, high = pair["uar_interval"]
    return {
        **pair,
        "first": pair["second"],
        "second": pair["first"],
        "uar": -pair["uar"],
        "uar_interval": [-high, -low],
        "ahead": 1 - pair["ahead"],
    }


def comparison_sections(told: Mapping[str, Any]) -> list[Section | None]:
    """All that stands below the scores; None in place of what these runs do not have."""
    contenders, names = told["contenders"], [contender["name"] for contender in told["contenders"]]
    return [
        Section("pairs", "Is the difference real?", [pairs_table(told["pairs"])]) if told["pairs"] else None,
        contrasts.curves(contenders),
        contrasts.matrices(contenders, told["labels"], recalls_table(contenders)),
        contrasts.groups(contenders),
        contrasts.people(contenders),
        contrasts.confidence(contenders),
        contrasts.gain(contenders),
        contrasts.robustness(contenders),
        contrasts.apart(told["apart"], names),
        Section("settings", "What differs between them", [settings_table(told["settings"], names)])
        if told["settings"]
        else None,
        contrasts.again(contenders),
    ]


def scores_table(contenders: Sequence[Mapping[str, Any]], chance: float) -> Table:
    rows = []
    for contender in contenders:
        seeds = ", ".join(str(seed) for seed in contender["seeds"])
        speed = contender["clips_per_second"]
        rows.append(
            [
                f"{contender['name']}\n{'seeds' if len(contender['seeds']) > 1 else 'seed'} {seeds}",
                wording.score(contender, "war"),
                wording.score(contender, "uar"),
                wording.score(contender, "macro_f1"),
                wording.millions(contender["parameters"]),
                wording.number(speed, 1),
                wording.UNDEFINED if contender["seconds"] is None else wording.duration(contender["seconds"]),
                charts.whisker(contender["uar"], contender["uar_interval"], chance, "a"),
            ]
        )
    columns = ("model", "WAR", "UAR", "macro-F1", "parameters", "clips/s", "time", "")
    return Table(
        f"Scores per video, with 95 % intervals over actors; guessing gives {wording.percent(chance)}", columns, rows
    )


def pairs_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{pair['first']} minus {pair['second']}",
            pair["corpus"] or "all",
            wording.signed(pair["uar"]),
            f"{wording.signed(pair['uar_interval'][0])} to {wording.signed(pair['uar_interval'][1])}",
            wording.percent(pair["ahead"]),
        ]
        for pair in pairs
    ]
    return Table(
        "Differences in UAR, in points, on the same actors",
        ("pair", "corpus", "UAR", "95 % interval", "ahead in"),
        rows,
    )


def recalls_table(contenders: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [label, *(wording.in_hundred(contender["recalls"][label]) for contender in contenders)]
        for label in contenders[0]["recalls"]
    ]
    return Table(
        "Share of each emotion's videos that is read right, %",
        ["emotion", *(contender["name"] for contender in contenders)],
        rows,
    )


def settings_table(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Table:
    rows = [[setting["setting"], *(_short(value) for value in setting["values"])] for setting in settings]
    return Table("Settings, inputs and surroundings; what is alike is left out", ["setting", *names], rows)


def pair_sentence(pair: Mapping[str, Any]) -> str:
    """Who reads more, by how much, and whether these actors tell the two apart."""
    pair = turned(pair) if pair["uar"] < 0 else pair
    gap, (low, high), ahead = pair["uar"], pair["uar_interval"], pair["ahead"]
    one, other = pair["first"], pair["second"]
    if wording.points(gap) == wording.points(0):
        return f"{one} and {other} read equally well ({wording.signed(low)} to {wording.signed(high)})."
    sure = "" if low > 0 else " These actors do not tell the two apart."
    return (
        f"{one} is {wording.points(gap)} of UAR above {other} (95{wording.NBSP}% interval {wording.signed(low)} to "
        f"{wording.signed(high)}), ahead in {wording.percent(ahead)} of the resamplings of actors.{sure}"
    )


def crossval_page(result: Mapping[str, Any]) -> Page:
    """What crossval.json holds."""
    pooled, mean, spread = result["pooled"], result["mean"], result["sd"]
    model = wording.model(result["config"]["model"])
    judged = f"{wording.plural(pooled['clips'], 'video')} of {wording.plural(pooled['actors'], 'actor')}"
    across = (
        f"Over {len(result['folds'])} folds the mean is {wording.percent(mean['uar'])} UAR "
        f"(SD {wording.in_hundred(spread['uar'])}), {wording.percent(mean['war'])} WAR "
        f"(SD {wording.in_hundred(spread['war'])}). "
        if spread["uar"] is not None
        else ""
    )
    return Page(
        kicker=f"{model}, protocol {result['protocol']}: {result['about']}",
        heading=(
            f"{wording.percent(pooled['uar'])} UAR, {wording.percent(pooled['war'])} WAR on {judged}, "
            "each tested once by a model that has not seen the actor."
        ),
        leads=[
            f"{across}95{wording.NBSP}% intervals over actors: {wording.interval(pooled['uar_interval'])} UAR, "
            f"{wording.interval(pooled['war_interval'])} WAR. No fold chose anything by its test actors.",
            *([leak_sentence(result)] if result["leaky"] else []),
        ],
        tables=[folds_table(result)],
        sections=[Section("emotions", "Emotion by emotion", [emotions_table(result["per_class"])])],
        banners=[SYNTHETIC] if result["manifest"]["synthetic"] else [],
        notes=[*left_out(result), *few_actors(pooled["actors"])],
    )


def folds_table(result: Mapping[str, Any]) -> Table:
    """Each fold, the mean over folds, all pooled, each corpus, the leaky probe, and what others reached."""
    chance = 1 / len(result["labels"])
    rows = [figures_row(fold["name"].replace("-", " "), fold, chance) for fold in result["folds"]]
    if len(result["folds"]) > 1:
        summary = {**result["mean"], **{f"{name}_sd": value for name, value in result["sd"].items()}}
        cells = [wording.score(summary, name) for name in ("war", "uar", "macro_f1")]
        rows.append(["mean of folds ± SD", "", "", *cells, ""])
        rows.append(figures_row("all folds pooled", result["pooled"], chance))
    if len(result["corpora"]) > 1:
        rows += [figures_row(f"pooled, {corpus['name']}", corpus, chance) for corpus in result["corpora"]]
    if result["leaky"]:
        rows.append(figures_row("LEAKY probe\nactors cross splits", result["leaky"], chance, "b"))
    rows.append(["guessing", "", "", "", wording.percent(chance), "", charts.whisker(chance, None, chance, "c")])
    for other in result["references"]:
        cells = [wording.percent(other[name]) for name in ("war", "uar")]
        rows.append(
            [f"{other['who']}\nas published", "", "", *cells, "", charts.whisker(other["uar"], None, chance, "c")]
        )
    columns = ("fold", "videos", "actors", "WAR", "UAR", "macro-F1", "")
    return Table("Scores per video, with 95 % intervals over actors", columns, rows)


def figures_row(name: str, figures: Mapping[str, Any], chance: float, look: str = "a") -> list[str | Markup]:
    return [
        name,
        wording.number(figures["clips"], 0),
        wording.number(figures["actors"], 0),
        *(wording.score(figures, each) for each in ("war", "uar", "macro_f1")),
        charts.whisker(figures["uar"], figures["uar_interval"], chance, look),
    ]


def emotions_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    cells = [
        [
            row["label"],
            wording.number(row["clips"], 0),
            *(wording.in_hundred(row[n]) for n in ("precision", "recall", "f1")),
        ]
        for row in rows
    ]
    return Table("Each emotion, all folds pooled, %", ("emotion", "videos", "precision", "recall", "F1"), cells)


def leak_sentence(result: Mapping[str, Any]) -> str:
    """What the same recipe would have claimed with videos, not actors, dealt to training and test."""
    probe, honest = result["leaky"], result["mean"]
    gain = probe["uar"] - honest["uar"]
    return (
        f"The same recipe on a LEAKY split, where actors are in training and test at once, scores "
        f"{wording.percent(probe['uar'])} UAR: {wording.points(gain)} {'above' if gain >= 0 else 'below'} the mean of "
        "the honest folds. Only the honest ones say how it reads people it has never seen."
    )


def left_out(result: Mapping[str, Any]) -> list[str]:
    """What of the manifest was not counted, and why."""
    told = list(result["notes"])
    if result["left_out"]:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in result["left_out"].items())
        told.append(f"Not part of {result['protocol']}: {reasons}.")
    if result["skipped"]:
        videos = wording.plural(len(result["skipped"]), "video")
        told.append(f"{videos} without a prepared face left out, named in crossval.json.")
    if result["references"]:
        told.append("Published figures are their authors' own; the code of some chose the epoch by the test fold.")
    return told


def few_actors(actors: int) -> list[str]:
    if actors >= wording.FEW_ACTORS:
        return []
    return [f"With only {wording.plural(actors, 'actor')}, intervals are rough and tend to be too narrow."]


def _short(value: str, most: int = 24) -> str:
    """A value for a table: a sha256 or a revision is told apart by its beginning."""
    bare = value.replace('"', "")
    return bare if len(bare) <= most else f"{bare[: most - 12]}…"
