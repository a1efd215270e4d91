"""Training images a second with one process and with several that share every batch.

python scripts/benchmark_processes.py            # DAB-DETR-R50 on images of 800 x 1216, up to a process a core
python scripts/benchmark_processes.py --quick    # one process and two
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
from benchmark_training import OBJECTS, R50, SIZE, random_batch, untrained
from refinebox.adapters.parts.sizes import Sizes
from torch import distributed, multiprocessing

from refinebox.data.batches import Batch
from refinebox.training.learner import Learner
from refinebox.training.observation import observe
from refinebox.training.settings import Settings


def measure(quick: bool = False) -> dict[str, float]:
    """``images a second, 1 process`` and so on; every process has its share of the cores."""
    cores = os.cpu_count() or 1
    counts = [1, 2] if quick else [2**power for power in range(cores.bit_length())]
    figures: dict[str, float] = {}
    for count in counts:
        name = f"images a second, {count} process{'es' * (count > 1)}"
        figures[name] = throughput(R50, count, max(counts), SIZE, 2 if quick else 5, threads=max(1, cores // count))
        print(f"{name:60} {figures[name]:9.3f}", flush=True)
    return figures


def throughput(sizes: Sizes, count: int, batch_size: int, size: tuple[int, int], repeats: int, threads: int) -> float:
    """Images of batches of ``batch_size`` that ``count`` processes train on in a second, of median steps."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting")
        arguments = sizes, count, batch_size, size, repeats, threads, meeting
        multiprocessing.spawn(work, arguments, nprocs=count)
        return batch_size / float(meeting.with_suffix(".seconds").read_text())


def work(
    rank: int,
    sizes: Sizes,
    count: int,
    batch_size: int,
    size: tuple[int, int],
    repeats: int,
    threads: int,
    meeting: Path,
) -> None:
    """One process: its share of every batch; the first writes down the median step."""
    torch.set_num_threads(threads)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=count)
    detector = untrained(sizes)
    learner = Learner.start(detector, Settings())
    batch = share(random_batch([OBJECTS] * batch_size, size, len(detector.category_ids)), rank, count)
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        learner.step(partial(observe, detector), [batch], Settings())
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        meeting.with_suffix(".seconds").write_text(str(median(seconds[1:])))
    distributed.destroy_process_group()


def share(batch: Batch, rank: int, count: int) -> Batch:
    """The images of a batch that belong to one process."""
    return replace(
        batch,
        images=batch.images[rank::count],
        sizes=batch.sizes[rank::count],
        targets=batch.targets[rank::count],
        image_ids=batch.image_ids[rank::count],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one process and two")
    measure(parser.parse_args().quick)
