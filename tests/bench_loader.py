"""What feeding a network costs: clips per second and core, from prepared clips and from the raw 720p videos.

Run: make bench, or python tests/bench_loader.py. Measured is processor time, of the loader's worker and of the process
that it serves, on a corpus drawn for the purpose (RAVDESS in its real size) and on real faces where they are there.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from os import times
from pathlib import Path
from typing import Any

import av
import cv2
import films
import numpy as np
import torch
from memory import MEASURABLE, enlarged, footprint
from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler
from rawclips import agreement
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from toys import make_corpus

from manifests.clips import ClipStore, read_index
from manifests.prepare import prepare
from manifests.synth import synthesize
from trainer.augment import ClipTransform
from trainer.config import CONFIGS, Config, read_config
from trainer.dataset import Clips, TestViews, TrainingClips, collate
from trainer.finishing import Unfinished, finish
from trainer.networks import create_model, normalisation, place, to_input
from trainer.sampling import TrainingOrder, view_frames

FRAMES, SPAN, SIZE = 32, 2.1, 224
VIEWS = 3
VIDEOS = 60  # that are read to measure, over and over: starting a worker then weighs little, as in training
ENOUGH = 60.0  # clips/s per core
TIMES_FASTER = 40.0  # than LabeledVideoDataset with PyAV
GPU_RATE = 200.0  # clips/s that a GPU is taken to train at, of 32 frames and 224 pixels
GPU_CORES = 4
GPU_BANDWIDTH = 600e9  # bytes/s, of an A10G as in AWS's g5 (data sheet)
REAL_720P = ("r_woman_a.mp4", "r_single.mp4")


@dataclass(frozen=True)
class Corpus:
    """The same videos, raw and prepared."""

    name: str
    files: list[Path]
    clips: Clips

    @property
    def kilobytes(self) -> float:
        """Mean size of a prepared clip."""
        sizes = [int(self.clips.store.open(str(name)).offsets[-1]) for name in self.clips.clip_ids]
        return float(np.mean(sizes)) / 1000


def corpus(name: str, root: Path, files: list[Path], out: Path) -> Corpus:
    names = {f"{name}_{number}_{path.stem}": path.relative_to(root).as_posix() for number, path in enumerate(files)}
    out.mkdir()
    prepare(films.write_small_manifest(out / "manifest.csv", names), root, out / "clips", workers=1)
    there = {row["clip_id"] for row in read_index(out / "clips")}
    kept = [(clip_id, root / path) for clip_id, path in names.items() if clip_id in there]
    store = ClipStore(out / "clips")
    clips = Clips(store, [clip_id for clip_id, _ in kept], list(range(len(kept))))
    return Corpus(name, [path for _, path in kept], clips)


def rate(loader: Iterable[Any], clips_in: Callable[[Any], int], repeats: int = 2) -> float:
    """Clips per second of processor time, this process's and its ended workers' together: the best of a few runs."""
    best = 0.0
    for _ in range(repeats):
        before, count = sum(times()[:4]), 0
        for batch in loader:
            count += clips_in(batch)
        best = max(best, count / (sum(times()[:4]) - before))
    return best


def clips_of(batch: tuple[Tensor | Unfinished, Any]) -> int:
    pixels = batch[0].frames if isinstance(batch[0], Unfinished) else batch[0]
    return pixels.shape[0] * pixels.shape[1]


def one_thread(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def training_clips(clips: Clips, config: Config, for_gpu: bool) -> TrainingClips:
    data, transform = config.data, ClipTransform(config.data.size, **config.augment.model_dump())
    return TrainingClips(
        clips, transform, frames=data.frames, span=data.span, clips_per_video=data.clips_per_video, seed=1,
        at_least=data.size, draw=transform.draw if for_gpu else None,
    )  # fmt: skip


def training_rate(clips: Clips, config: Config, for_gpu: bool = False) -> float:
    dataset = training_clips(clips, config, for_gpu)
    order = TrainingOrder(len(clips), 2, epochs=VIDEOS // len(clips), seed=1, first_step=0)
    loader = DataLoader(
        dataset, batch_sampler=list(order), num_workers=1, collate_fn=collate, worker_init_fn=one_thread
    )
    return rate(loader, clips_of)


def finishing_seconds(clips: Clips, config: Config) -> float:
    """Processor seconds that finishing takes for each clip where the device is this core, over many draws."""
    dataset = training_clips(clips, config, for_gpu=True)
    batch, _ = collate([dataset[epoch, 0, 0] for epoch in range(20)])
    started = time.process_time()
    finish(batch, config.data.size, torch.device("cpu"))
    return (time.process_time() - started) / clips_of((batch, None))


def finishing_bytes(stored: int, config: Config) -> int:
    """What a GPU's memory moves to finish a clip of squares of `stored` pixels, if blur and the like are left out.

    Bytes are read and floats written; sampled, measured, multiplied, shifted, bounded and rounded; read as floats and
    written as bytes.
    """
    data = config.data
    before, after = (3 * data.frames * side**2 for side in (stored, data.size))
    passes = {"sample": 4, "mean": 4, "multiply": 8, "shift": 8, "bound": 8, "round": 8, "store": 5}
    return (1 + 4 + 4) * before + sum(passes.values()) * after


def testing_rate(clips: Clips) -> float:
    dataset = TestViews(clips, frames=FRAMES, span=SPAN, size=SIZE, views=VIEWS)
    several = [row for _ in range(VIDEOS // len(clips)) for row in range(len(clips))]
    loader = DataLoader(
        dataset, batch_size=2, sampler=several, num_workers=1, collate_fn=collate, worker_init_fn=one_thread
    )
    return rate(loader, clips_of)


def reading_rate(clips: Clips) -> float:
    """Prepared clips decoded and resized one by one, without a loader."""

    def read(clip_id: str) -> int:
        video = clips.store.open(clip_id)
        frames = video.frames(view_frames(video.times, FRAMES, SPAN, 1)[0])
        return len([[cv2.resize(frame, (SIZE, SIZE)) for frame in frames]])

    return rate([str(name) for name in clips.clip_ids] * 2, read)


def peer_rate(files: list[Path]) -> float:
    """LabeledVideoDataset with PyAV: 32 frames of a random 2.1 s, the shorter side resized to 224, centre crop."""
    resize = v2.Compose([v2.Resize(SIZE, antialias=True), v2.CenterCrop(SIZE)])

    def transform(sample: dict[str, Any]) -> Tensor:
        video = sample["video"]
        picked = video[:, torch.linspace(0, video.shape[1] - 1, FRAMES).long()]
        return resize(picked.transpose(0, 1))

    dataset = LabeledVideoDataset(
        [(str(path), {"label": 0}) for path in files], make_clip_sampler("random", SPAN), transform=transform,
        decode_audio=False, decoder="pyav",
    )  # fmt: skip
    loader = DataLoader(dataset, batch_size=2, num_workers=1, worker_init_fn=one_thread)
    return rate(loader, len, repeats=1)


def raw_with_opencv(path: Path, start: float) -> np.ndarray:
    """32 frames of 2.1 s from `start` on, middle square at 224 px, RGB: decoded up to there, converted where needed."""
    film = cv2.VideoCapture(str(path))
    fps = film.get(cv2.CAP_PROP_FPS)
    wanted = np.round((start + (np.arange(FRAMES) + 0.5) * SPAN / FRAMES) * fps).astype(int)
    pictures = []
    for number in range(wanted[-1] + 1):
        if not film.grab():
            break
        pictures += [middle(film.retrieve()[1])[..., ::-1]] * int((wanted == number).sum())
    film.release()
    return np.stack(pictures)


def raw_with_pyav(path: Path, start: float) -> np.ndarray:
    """The same with PyAV."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        wanted = np.round((start + (np.arange(FRAMES) + 0.5) * SPAN / FRAMES) * float(stream.average_rate or 30))
        pictures = []
        for number, frame in enumerate(container.decode(stream)):
            if number > wanted[-1]:
                break
            if number in wanted:
                pictures.append(middle(frame.to_ndarray(format="rgb24")))
    return np.stack(pictures)


def middle(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return cv2.resize(picture[top : top + side, left : left + side], (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)


def raw_rate(files: list[Path], read: Callable[[Path, float], np.ndarray]) -> float:
    starts = np.random.default_rng(1).uniform(0, 0.3, len(files))  # the shortest film leaves no more
    return rate(
        [(path, start) for path, start in zip(files, starts, strict=True)][:4], lambda job: len([read(*job)]), repeats=2
    )


def step_seconds(config: Config) -> float:
    """Processor seconds that a training step takes for each clip, on one core."""
    model = place(create_model(6, **config.model.model_dump(exclude={"pretrained"})), torch.device("cpu"))
    pixels = torch.randint(0, 255, (2, config.data.frames, 3, config.data.size, config.data.size), dtype=torch.uint8)
    best = float("inf")
    for _ in range(2):
        started = time.process_time()
        logits = model(to_input(pixels, *normalisation(config.model.arch)))
        torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])).backward()
        best = min(best, time.process_time() - started)
    return best / len(pixels)


def loaders_share(load: float, step: float) -> float:
    """Share of one core's time that loading takes, from clips/s of the loader and seconds of a step per clip."""
    return 1 / load / (1 / load + step)


def gpu_share(load: float) -> float:
    """Share of the time that a GPU training GPU_RATE clips/s waits for GPU_CORES cores that load, each at this rate."""
    return max(0.0, 1 - load * GPU_CORES / GPU_RATE)


def verdict(met: bool) -> str:
    return "[green]met[/]" if met else "[red]missed[/]"


def throughput(corpora: list[Corpus], face: Config, table: Table) -> float:
    """Fill the rows about clips per second; return the rate for a GPU on the first corpus."""
    rates = {}
    for each in corpora:
        peer = peer_rate(each.files)
        raw = {"OpenCV": raw_rate(each.files, raw_with_opencv), "PyAV": raw_rate(each.files, raw_with_pyav)}
        fastest = max(raw, key=lambda name: raw[name])
        train, test = training_rate(each.clips, face), testing_rate(each.clips)
        for_gpu = training_rate(each.clips, face, for_gpu=True)
        rates[each.name] = for_gpu
        about = f"{each.name}, {len(each.files)} videos"
        table.add_row(f"LabeledVideoDataset + PyAV, raw 720p ({about})", f"{peer:.2f} clips/s", "", "")
        decoded = f"{raw[fastest]:.2f} clips/s, {raw[fastest] / peer:.1f}x"
        table.add_row(f"{fastest}, raw 720p, only decoded ({about})", decoded, "", "")
        alone = reading_rate(each.clips)
        table.add_row(
            f"prepared, only decoded and resized ({about})", f"{alone:.1f} clips/s, {alone / peer:.0f}x", "", ""
        )
        for what, got in (
            ("training clips for a CPU, augmented", train),
            ("training clips for a GPU, which augments", for_gpu),
            (f"test views, {VIEWS} per video", test),
        ):
            met = verdict(got >= ENOUGH and got >= TIMES_FASTER * peer)
            limit = f">= {ENOUGH:.0f} clips/s, >= {TIMES_FASTER:.0f}x"
            table.add_row(f"{what} ({about})", f"{got:.1f} clips/s, {got / peer:.0f}x", limit, met)
        table.add_row(f"a prepared clip ({about})", f"{each.kilobytes:.0f} kB", "", "")
    return rates[corpora[0].name]


def shares(clips: Clips, load: float, face: Config, demo: Config, table: Table) -> None:
    for name, config in (("the demo's model", demo), ("slowfast_face", face)):
        got = training_rate(clips, config)
        share = loaders_share(got, step_seconds(config))
        table.add_row(f"loader's share of a training step, {name}, one core", f"{share:.1%}", "", "")
    moved = finishing_bytes(int(clips.store.open(str(clips.clip_ids[0])).meta["rule"]["size"]), face)
    spent = GPU_RATE * moved / GPU_BANDWIDTH
    alone = finishing_seconds(clips, face)
    table.add_row("augmenting a clip of slowfast_face where one core is the device", f"{alone * 1000:.0f} ms", "", "")
    what = f"where it is a GPU of {GPU_BANDWIDTH / 1e9:.0f} GB/s that trains {GPU_RATE:.0f} clips/s (computed)"
    table.add_row(what, f"{moved / 1e6:.0f} MB, {spent:.0%} of its time", "", "")
    waits = gpu_share(load)
    about = f"a GPU at {GPU_RATE:.0f} clips/s waits for {GPU_CORES} cores (computed)"
    table.add_row(about, f"{waits:.0%} of its time", "0%", verdict(waits == 0))


def memory(root: Path, table: Table) -> None:
    _, small = make_corpus(root / "toys", actors=1, takes=1)
    found = footprint(*enlarged(small, root / "large", 1_000_000), batches=200)
    table.add_row("a million rows, in the process that starts the workers", f"{found.rows:.0f} MiB", "", "")
    grown = found.worker_at_last - found.worker_at_first
    what = f"what an epoch of them adds to a worker's own {found.worker_at_first:.0f} MiB"
    table.add_row(what, f"{grown:.1f} MiB", "< 4 MiB", verdict(grown < 4))


def main() -> int:
    one_thread(0)
    face, demo = (read_config(CONFIGS / name, []) for name in ("slowfast_face.yaml", "demo.yaml"))
    table = Table(title=f"feeding a network: {FRAMES} frames of {SIZE} px, per second of one core")
    for heading in ("what", "measured", "limit", "verdict"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if MEASURABLE:
            memory(root, table)  # first, while this process is small
        synthesize(root / "drawn", actors=2, seed=1, takes=1, full_size=True, workers=1)
        drawn = sorted((root / "drawn").glob("ravdess/*/02-*.mp4"))
        corpora = [corpus("drawn", root / "drawn", drawn, root / "d")]
        if films.MEDIA.is_dir():
            real = [films.MEDIA / name for name in REAL_720P]
            corpora.append(corpus("real", films.MEDIA, real, root / "r"))
        load = throughput(corpora, face, table)
        shares(corpora[0].clips, load, face, demo, table)
        for each in corpora:
            found = agreement(each.clips, each.files, frames=8, size=64, views=3, steps=30)
            what = f"prepared against raw, {found.views} views ({each.name}): same class, largest change of probability"
            met = verdict(found.same == 1 and found.probability < 0.05)
            table.add_row(what, f"{found.same:.0%}, {found.probability:.3f}", "100%, < 0.05", met)
    Console(width=140).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
