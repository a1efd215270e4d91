"""What an oracle analysis of a COCO-size results file costs, beside one evaluation by other libraries.

    python scripts/benchmark_evaluation.py            # 5,000 images, some minutes
    python scripts/benchmark_evaluation.py --quick    # 200 images

Every contender runs in a process of its own, on the same two generated files. CPU seconds are of the whole process but
for its imports; memory is its peak, imports included.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

IMAGES, QUICK_IMAGES = 5000, 200
OBJECTS, DETECTIONS, CATEGORIES = 7.2, 100, 80  # of each image: objects on average, detections always
WIDTH, HEIGHT = 640, 480


def generate(folder: Path, images: int, seed: int = 0) -> None:
    """Writes ``annotations.json`` and ``results.json``: loose boxes, duplicates, wrong classes, false alarms."""
    random = np.random.default_rng(seed)
    share = 1 / np.arange(1, CATEGORIES + 1)
    share /= share.sum()
    annotations, results = [], []
    for image_id in range(1, images + 1):
        count = random.poisson(OBJECTS)
        boxes = draw_boxes(random, count)
        categories = random.choice(CATEGORIES, count, p=share) + 1
        for box, category in zip(boxes.tolist(), categories.tolist(), strict=True):
            entry = {"id": len(annotations) + 1, "image_id": image_id, "category_id": category, "bbox": box}
            annotations.append({**entry, "area": 0.7 * box[2] * box[3], "iscrowd": int(random.random() < 0.012)})
        found, labels, scores = detect(random, boxes, categories, share)
        for box, category, score in zip(found.tolist(), labels.tolist(), scores.tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
    listed = [{"id": n, "file_name": f"{n:06d}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(1, images + 1)]
    named = [{"id": n, "name": f"category {n}"} for n in range(1, CATEGORIES + 1)]
    content = {"images": listed, "annotations": annotations, "categories": named}
    (folder / "annotations.json").write_text(json.dumps(content))
    (folder / "results.json").write_text(json.dumps(results))


def draw_boxes(random: np.random.Generator, count: int) -> np.ndarray:
    """``[count, 4]`` xywh in pixels, of all three of COCO's sizes."""
    sides = np.exp(random.normal(4.2, 0.9, (count, 2))).clip(6, 400)
    return np.concatenate(
        [random.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - sides.clip(max=HEIGHT)), sides], 1
    ).round(2)


def detect(
    random: np.random.Generator, boxes: np.ndarray, categories: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, categories and scores of one image's detections: most objects once, some again, the rest on nothing."""
    source = np.tile(np.arange(len(boxes)), 3)[:DETECTIONS]
    first = np.arange(len(source)) < len(boxes)
    source = source[random.random(len(source)) < np.where(first, 0.85, 0.3)]
    moved = boxes[source] + random.normal(0, 0.06, (len(source), 4)) * np.tile(boxes[source, 2:], 2)
    labels = np.where(random.random(len(source)) < 0.9, categories[source], random.choice(CATEGORIES, len(source)) + 1)
    rest = DETECTIONS - len(source)
    scores = np.concatenate([random.beta(3, 2, len(source)), random.beta(1, 8, rest)])
    moved[:, 2:] = moved[:, 2:].clip(2)
    alarms = random.choice(CATEGORIES, rest, p=share) + 1
    return np.concatenate([moved, draw_boxes(random, rest)]).round(2), np.append(labels, alarms), scores.round(4)


def refinebox_all_swaps(folder: Path) -> float:
    from refinebox.analysis import analysis
    from refinebox.data import annotations

    truth = annotations.read(folder / "annotations.json", folder, images_needed=False)
    done = analysis.run(truth, results=folder / "results.json")
    return done.evaluations["none"].metrics["AP"] or 0.0


def refinebox_without_hotcoco(folder: Path) -> float:
    sys.modules["hotcoco"] = None  # type: ignore[assignment]
    return refinebox_all_swaps(folder)


def refinebox_one_evaluation(folder: Path) -> float:
    from refinebox.data import annotations
    from refinebox.evaluation.evaluator import coco_ap
    from refinebox.evaluation.results import read_results

    truth = annotations.read(folder / "annotations.json", folder, images_needed=False)
    return coco_ap(truth, read_results(folder / "results.json", truth))["AP"] or 0.0


def hotcoco_one_evaluation(folder: Path) -> float:
    from hotcoco import COCO, COCOeval

    truth = COCO(str(folder / "annotations.json"))
    evaluation = COCOeval(truth, truth.load_res(str(folder / "results.json")), "bbox")
    evaluation.run()
    return 100 * float(evaluation.stats[0])


def pycocotools_one_evaluation(folder: Path) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(folder / "annotations.json")
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0])


def tidecv_errors(folder: Path) -> float:
    from tidecv import TIDE, Data

    content = json.loads((folder / "annotations.json").read_bytes())
    objects, detections = Data("objects"), Data("detections")
    for entry in content["annotations"]:
        add = objects.add_ignore_region if entry["iscrowd"] else objects.add_ground_truth
        add(entry["image_id"], entry["category_id"], entry["bbox"])
    for row in json.loads((folder / "results.json").read_bytes()):
        detections.add_detection(row["image_id"], row["category_id"], row["score"], row["bbox"])
    run = TIDE().evaluate(objects, detections)
    run.fix_main_errors()
    return float(run.ap)


CONTENDERS: dict[str, tuple[str, Callable[[Path], float]]] = {
    "swaps": ("refinebox, nine swaps and TIDE's errors", refinebox_all_swaps),
    "fallback": ("the same with faster-coco-eval", refinebox_without_hotcoco),
    "evaluation": ("refinebox, one evaluation", refinebox_one_evaluation),
    "hotcoco": ("hotcoco, one evaluation", hotcoco_one_evaluation),
    "pycocotools": ("pycocotools, one evaluation", pycocotools_one_evaluation),
    "tidecv": ("tidecv, errors at one IoU (AP is AP50)", tidecv_errors),
}
IMPORTS = {
    "swaps": "refinebox.analysis.analysis",
    "fallback": "refinebox.analysis.analysis",
    "evaluation": "refinebox.evaluation.results",
    "hotcoco": "hotcoco",
    "pycocotools": "pycocotools.cocoeval",
    "tidecv": "tidecv",
}


def contend(name: str, folder: Path) -> dict[str, float]:
    """Runs one contender in this process."""
    __import__(IMPORTS[name])
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        ap = CONTENDERS[name][1](folder)
    seconds = time.process_time() - start
    return {"cpu_seconds": seconds, "peak_mb": peak_mb(), "AP": ap}


def peak_mb() -> float:
    """Of this process; what ``getrusage`` says on Linux begins with the peak of the process that started it."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(quick: bool) -> dict[str, float]:
    """``<contender>_cpu_seconds``, ``_peak_mb`` and ``_AP`` of each contender that is installed."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), QUICK_IMAGES if quick else IMAGES)
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name, folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if "ModuleNotFoundError" in done.stderr:
                continue
            done.check_returncode()
            figures |= {f"{name}_{key}": value for key, value in json.loads(done.stdout).items()}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 images instead of 5,000")
    parser.add_argument("--contender", nargs=2, metavar=("NAME", "FOLDER"), help="run one on files that are there")
    arguments = parser.parse_args()
    if arguments.contender:
        print(json.dumps(contend(arguments.contender[0], Path(arguments.contender[1]))))
        return
    figures = measure(arguments.quick)
    print(f"{'':42} {'CPU seconds':>12} {'peak MB':>9} {'AP':>7}")
    for name, (title, _) in CONTENDERS.items():
        if f"{name}_AP" in figures:
            seconds, peak, ap = (figures[f"{name}_{key}"] for key in ("cpu_seconds", "peak_mb", "AP"))
            print(f"{title:42} {seconds:12.1f} {peak:9,.0f} {ap:7.2f}")


if __name__ == "__main__":
    main()
