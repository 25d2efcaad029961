"""What a dataset costs in memory, and what its workers add to that: Linux only, for it reads /proc."""

from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from manifests.clipfile import clip_path
from manifests.clips import ClipStore, read_index
from trainer.dataset import Clips, TrainingClips, collate
from trainer.sampling import TrainingOrder

MIB = 2**20
MEASURABLE = Path("/proc/self/smaps_rollup").exists()


@dataclass(frozen=True)
class Footprint:
    """MiB that a process has to itself, shared with no other: of this one for the rows, and of a worker over time."""

    rows: float
    worker_at_first: float  # after the first tenth of the epoch
    worker_at_last: float


def own_mib(process: int | str = "self") -> float:
    """What would be free again if this process ended."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    sizes = dict(line.split(":", 1) for line in lines)
    return sum(int(sizes[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) / 1024


def footprint(store: ClipStore, clip_ids: list[str], batches: int) -> Footprint:
    """Serve batches of rows from all over a dataset of these rows from one worker, and watch it."""
    before = own_mib()
    clips = Clips(store, clip_ids, [0] * len(clip_ids), ["crema"] * len(clip_ids))
    rows = own_mib() - before
    dataset = TrainingClips(clips, lambda frames: frames, frames=4, span=0.5, clips_per_video=1, seed=1)
    order = TrainingOrder(len(clips), len(clips) // batches, epochs=1, seed=1, first_step=0)
    few = [keys[:8] for keys in order]
    served = iter(DataLoader(dataset, batch_sampler=few, num_workers=1, collate_fn=collate))
    assert isinstance(served, _MultiProcessingDataLoaderIter)
    watched = []
    for step, _ in enumerate(served):
        # Looking takes longer than a batch; and at the end the worker is gone.
        if step % 10 == 0 and served._workers[0].is_alive():
            watched.append(own_mib(served._workers[0].pid or 0))
    return Footprint(rows, watched[len(watched) // 10], watched[-1])


def enlarged(small: Path, large: Path, rows: int) -> tuple[ClipStore, list[str]]:
    """A store of `rows` clip_ids that all stand for the first clip of a small one, and these clip_ids."""
    first = read_index(small)[0]
    clip = clip_path(large, first["key"])
    clip.parent.mkdir(parents=True)
    clip.write_bytes(clip_path(small, first["key"]).read_bytes())
    (large / "rule.json").write_bytes((small / "rule.json").read_bytes())
    names = [f"crema_{number:07}_DFA_HAP_XX" for number in range(rows)]
    header = (small / "index.csv").read_text().splitlines()[0]
    rest = ",".join(value for name, value in first.items() if name != "clip_id")
    with (large / "index.csv").open("w") as index:
        index.write(f"{header}\n")
        index.writelines(f"{name},{rest}\n" for name in names)
    return ClipStore(large), names
