"""The training loop: what it changes, what it leaves alone, and that it can be interrupted."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from refinebox.data import batches as data_batches
from refinebox.data.annotations import CocoData
from refinebox.data.batches import Batch, Target
from refinebox.detection.detector import Detector
from refinebox.detection.output import DetectorOutput
from refinebox.evaluation import detect
from refinebox.evaluation.evaluator import METRICS, Metrics
from refinebox.evaluation.link import Link
from refinebox.files import checkpoint
from refinebox.refinement.losses import refinement_losses
from refinebox.refinement.matching import match
from refinebox.refinement.refiner import Refiner
from refinebox.refinement.refiner_file import load_refiner_and_history
from refinebox.training import lessons, train
from refinebox.training.interruption import Interrupted
from refinebox.training.learner import Learner, build_optimizer, observed_losses
from refinebox.training.observation import observe
from refinebox.training.settings import PUBLISHED, Settings

QUICK = replace(PUBLISHED, epochs=2, batch_size=3, learning_rate=1e-3)


def first_batch(detector: Detector, training: CocoData) -> Batch:
    dataset = lessons.training_dataset(
        detector, training, Link.between(detector, training), replace(QUICK, augmentation="none")
    )
    return dataset.__getitems__(range(3)).to(torch.device("cpu"))


def test_detector_is_bit_identical_after_training(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    train.train(detector, training, validation, tmp_path / "run", QUICK)
    assert before.keys() == detector.state_dict().keys()
    assert all(torch.equal(tensor, detector.state_dict()[name]) for name, tensor in before.items())


def test_run_folder_holds_everything(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    report = train.train(detector, training, validation, tmp_path / "run", QUICK)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors",
        "config.json",
        "curves.svg",
        "last",
        "losses.jsonl",
        "metrics.jsonl",
    ]
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert {"loss", "before", "after", "seconds"} <= lines[0].keys()
    assert lines[0]["before"] == lines[1]["before"] == report.before
    assert report.after["AP"] == max(line["after"]["AP"] for line in lines)
    _, history = load_refiner_and_history(report.best)
    assert history["detector_sha256"] == detector.weights_sha256()
    assert (history["before"], history["after"]) == (report.before, report.after)
    assert history["data"] == {"train": training.origin(), "val": validation.origin()}
    assert history["data"]["train"]["file"] == "instances_train.json"


def test_the_categories_that_were_learned_are_written(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    detector.category_ids, detector.category_names = tuple(range(6)), {}
    report = train.train(detector, training, validation, tmp_path, QUICK, categories="order")
    _, history = load_refiner_and_history(report.best)
    assert history["categories"] == [
        {"id": category_id, "name": name} for category_id, name in sorted(training.categories.items())
    ]


def test_continued_run_equals_an_uninterrupted_one(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(QUICK, epochs=3, jitter=1)
    train.train(detector, training, validation, tmp_path / "whole", settings)

    real, epochs = train.train_epoch, iter(range(2))

    def interrupted(*args: Any) -> dict[str, float]:
        if next(epochs, None) is None:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(train, "train_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train.train(detector, training, validation, tmp_path / "parts", settings)
    monkeypatch.setattr(train, "train_epoch", real)
    train.train(detector, training, validation, tmp_path / "parts", settings, continued=True)

    whole, parts = (checkpoint.read(tmp_path / run / "last/state.safetensors")[0] for run in ("whole", "parts"))
    assert whole.keys() == parts.keys()
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    refiners = [checkpoint.read(tmp_path / run / "best.safetensors")[0] for run in ("whole", "parts")]
    assert all(torch.equal(tensor, refiners[1][name]) for name, tensor in refiners[0].items())
    records = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert [{**line, "seconds": 0} for line in records[0]] == [{**line, "seconds": 0} for line in records[1]]


def test_overfits_one_batch(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    settings = replace(QUICK, learning_rate=3e-3, clip_norm=1.0)
    learner = Learner.start(detector, settings)
    losses = [learner.step(partial(observe, detector), [batch], settings)["loss"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_one_step_equals_the_authors(shared: Path) -> None:
    """Gradients of the recorded batch through our optimizer: rates, decay, clipping and the size of every update."""
    recorded = torch.load(shared / "fixtures/refinebox/rb_dab_detr_r50_12ep.pt", weights_only=True)
    step = recorded["optimizer_step"]
    refiner = Refiner([256, 512, 1024, 2048])
    state, _ = checkpoint.read(shared / "data/refinebox-official/rb_dab_detr_r50_12ep.pth")
    refiner.load_state_dict(state)
    optimizer = build_optimizer(refiner, PUBLISHED)
    for name, parameter in refiner.named_parameters():
        parameter.grad = recorded["train"]["grads"][name].clone()
    norm = torch.nn.utils.clip_grad_norm_(refiner.parameters(), PUBLISHED.clip_norm)
    assert norm.item() == pytest.approx(float(step["clip_norm_before"]), rel=1e-5)
    optimizer.step()
    for name, parameter in refiner.named_parameters():
        assert (parameter.detach() - state[name]).norm().item() == pytest.approx(
            float(step["update_norms"][name]), rel=1e-3
        ), name


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(
    detector: Detector, training: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = first_batch(detector, training)
    parts = [
        replace(
            batch,
            images=batch.images[piece],
            sizes=batch.sizes[piece],
            targets=batch.targets[piece],
            image_ids=batch.image_ids[piece],
        )
        for piece in (slice(0, 2), slice(2, 3))
    ]
    settings = replace(QUICK, jitter=1)
    gradients: list[dict[str, Any]] = []
    losses = []
    for batches in ([batch], parts):
        learner = Learner.start(detector, settings)
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: None)
        losses.append(learner.step(partial(observe, detector), batches, settings))
        gradients.append({name: parameter.grad for name, parameter in learner.refiner.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_a_training_cuts_its_batches(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    real = Learner.step

    def noted(learner: Learner, observe: Any, batches: list[Batch], *args: Any) -> dict[str, float]:
        seen.append([image_id for batch in batches for image_id in batch.image_ids])
        assert all(len(batch.image_ids) <= 2 for batch in batches)
        return real(learner, observe, batches, *args)

    monkeypatch.setattr(Learner, "step", noted)
    settings = replace(QUICK, epochs=1, batch_size=4, accumulate=2)
    train.train(detector, training, validation, tmp_path, settings)
    assert [len(ids) for ids in seen] == [4, 2]
    assert sorted(image_id for ids in seen for image_id in ids) == sorted(entry["id"] for entry in training.images)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_stopped_run_continues_bit_for_bit(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: int,
) -> None:
    """Stopped between any two steps, in the middle of an epoch or at its end."""
    settings = replace(QUICK, epochs=2, batch_size=3, jitter=1)  # two steps an epoch
    train.train(detector, training, validation, tmp_path / "whole", settings)
    real = Learner.step
    calls = 0

    def counted(*args: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        losses = real(*args)
        if calls == after:
            signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(Learner, "step", counted)
    expected = (
        rf"^stopped after step {(after - 1) % 2 + 1} of epoch {(after - 1) // 2 + 1}, everything is saved in .*--resume"
    )
    with pytest.raises(Interrupted, match=expected) as caught:
        train.train(detector, training, validation, tmp_path / "parts", settings)
    assert caught.value.exit_code == 143
    train.train(detector, training, validation, tmp_path / "parts", settings, continued=True)
    for file in ("last/state.safetensors", "best.safetensors"):
        whole, parts = (checkpoint.read(tmp_path / run / file)[0] for run in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    records = [
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "parts")
    ]
    assert [{**line, "seconds": 0} for line in records[0]] == [{**line, "seconds": 0} for line in records[1]]


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_run_that_is_stopped_while_it_evaluates_ends_with_the_epoch(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    epoch: int,
) -> None:
    train.train(detector, training, validation, tmp_path / "whole", QUICK)
    real, calls = detect.evaluate, iter(range(1, 9))

    def signalled(*args: Any, **options: Any) -> Any:
        if next(calls) == epoch:
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **options)

    monkeypatch.setattr(detect, "evaluate", signalled)
    if epoch == QUICK.epochs:  # nothing is left to stop
        train.train(detector, training, validation, tmp_path / "parts", QUICK)
    else:
        with pytest.raises(Interrupted, match=r"^stopped after epoch 1, everything is saved in .*--resume"):
            train.train(detector, training, validation, tmp_path / "parts", QUICK)
        assert len((tmp_path / "parts/metrics.jsonl").read_text().splitlines()) == 1
        train.train(detector, training, validation, tmp_path / "parts", QUICK, continued=True)
    for file in ("last/state.safetensors", "best.safetensors"):
        whole, parts = (checkpoint.read(tmp_path / run / file)[0] for run in ("whole", "parts"))
        assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())


def test_the_parts_of_a_batch_may_change(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that ran short late must not cost the epochs before; evaluation sees no more images at once either."""
    train.train(detector, training, validation, tmp_path, QUICK)
    settings, sizes = replace(QUICK, accumulate=2), []
    real = detect.evaluate

    def noted(*args: Any, **options: Any) -> Any:
        sizes.append(options["batch_size"])
        return real(*args, **options)

    monkeypatch.setattr(detect, "evaluate", noted)
    train.train(detector, training, validation, tmp_path, settings, continued=True)
    train.train(detector, training, validation, tmp_path / "new", settings)
    assert sizes == [2, 2]


def test_without_jitter_only_matched_boxes_count(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    observed = observe(detector, batch)
    plain = observed_losses(refiner, observed)
    output = detector(batch.images, batch.sizes)
    matches = match(detector.scores(output.logits), output.boxes, batch.targets, "sigmoid")
    boxes = output.boxes[matches.image, matches.query]
    steps = refiner.refine(output.features, boxes, matches.image, batch.sizes)
    wanted = refinement_losses(steps, matches.boxes, len(matches.boxes))
    assert {key: loss.item() for key, loss in plain.items()} == {key: loss.item() for key, loss in wanted.items()}
    assert observed_losses(refiner, observed, jitter=2).keys() == plain.keys()


def test_normalisation_does_not_decay() -> None:
    decayed, kept = build_optimizer(Refiner((8, 8), (4, 8)), Settings()).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0.0)
    assert len(kept["params"]) == 2 * (9 + 2)  # weight and bias of nine group and two layer normalisations


def test_loss_that_is_not_finite_stops_with_the_image_ids(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    learner = Learner.start(detector, QUICK)
    refiner = learner.refiner
    with torch.no_grad():
        refiner.bboxes_refiner.bboxes_deltas.bias.fill_(float("nan"))
    weights = {name: tensor.clone() for name, tensor in refiner.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"images 1, 2, 3: the loss is nan"):
        learner.step(partial(observe, detector), [batch], QUICK)
    for name, tensor in refiner.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], equal_nan=True, atol=0, rtol=0)


def test_detector_output_that_is_not_finite_stops_with_the_image_ids(
    detector: Detector, training: CocoData, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = first_batch(detector, training)
    output = detector(batch.images, batch.sizes)
    monkeypatch.setattr(
        detector, "detect", lambda *_: DetectorOutput(output.features, output.boxes * float("nan"), output.logits)
    )
    learner = Learner.start(detector, QUICK)
    with pytest.raises(FloatingPointError, match=r"images 1, 2, 3: the detector's scores or boxes are not finite"):
        learner.step(partial(observe, detector), [batch], QUICK)


def test_batch_without_objects_gives_zero_gradients(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    refiner = Refiner(detector.channels, detector.strides)
    losses = observed_losses(refiner, observe(detector, replace(batch, targets=[nothing] * 3)))
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in refiner.parameters())


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def states_equal(run: Path, other: Path) -> bool:
    states = [checkpoint.read(folder / "last/state.safetensors")[0] for folder in (run, other)]
    return states[0].keys() == states[1].keys() and all(torch.equal(t, states[1][n]) for n, t in states[0].items())


def spoiled(folder: Path, training: CocoData, validation: CocoData) -> tuple[CocoData, CocoData]:
    return replace(training, folder=folder / "train"), replace(validation, folder=folder / "val")


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_unreadable_images_are_left_out_counted_and_named(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    spoiled_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In steps of one image two steps are without any; with and without a process that reads images."""
    data = spoiled(spoiled_folder, training, validation)
    settings = replace(QUICK, batch_size=1)
    for workers in (0, 1):
        train.train(detector, *data, tmp_path / f"run{workers}", settings, workers=workers)
    assert [line["unreadable"] for line in lines_of(tmp_path / "run0")] == [3, 3]
    name = spoiled_folder / "train/000002.jpg"
    said = f" s; left out 3 images that could not be read, such as: {name} is not a readable image: cannot identify"
    assert capsys.readouterr().out.count(said) == 4
    assert states_equal(tmp_path / "run0", tmp_path / "run1")
    train.train(detector, training, validation, tmp_path / "whole", settings)
    assert all("unreadable" not in line for line in lines_of(tmp_path / "whole"))
    assert "left out" not in capsys.readouterr().out


def test_leaving_out_is_as_if_the_image_were_not_in_the_batch(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    spoiled_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(data_batches, "shuffled", lambda count, *_: list(range(count)))  # sums depend on the order
    settings = replace(QUICK, batch_size=6, jitter=1)
    train.train(detector, *spoiled(spoiled_folder, training, validation), tmp_path / "spoiled", settings)
    kept = [annotation for annotation in training.annotations if annotation["image_id"] not in (3, 6)]
    train.train(detector, replace(training, annotations=kept), validation, tmp_path / "alone", settings)
    assert states_equal(tmp_path / "spoiled", tmp_path / "alone")


def test_a_step_without_images_teaches_nothing(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    empty = data_batches.collate([data_batches.Unreadable("gone")], detector.profile.input).to(torch.device("cpu"))
    learner = Learner.start(detector, QUICK)
    refiner, see = learner.refiner, partial(observe, detector)
    learner.step(see, [batch], QUICK)
    weights = {name: tensor.clone() for name, tensor in refiner.state_dict().items()}
    for batches in ([empty], [empty, empty], []):
        losses = learner.step(see, batches, QUICK)
        assert losses["loss"] == 0
        assert all(torch.equal(tensor, weights[name]) for name, tensor in refiner.state_dict().items())
    assert losses.keys() == learner.step(see, [empty, batch], QUICK).keys()
    assert not all(torch.equal(tensor, weights[name]) for name, tensor in refiner.state_dict().items())


def test_a_run_with_unreadable_images_continues_bit_for_bit(
    detector: Detector,
    training: CocoData,
    validation: CocoData,
    spoiled_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = spoiled(spoiled_folder, training, validation)
    settings = replace(QUICK, batch_size=2)  # three steps an epoch
    train.train(detector, *data, tmp_path / "whole", settings)
    real, steps = Learner.step, iter(range(100))

    def stopped(*args: Any) -> dict[str, float]:
        losses = real(*args)
        if next(steps) in (1, 3):
            signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(Learner, "step", stopped)
    for continued in (False, True):
        with pytest.raises(Interrupted):
            train.train(detector, *data, tmp_path / "parts", settings, continued=continued)
    train.train(detector, *data, tmp_path / "parts", settings, continued=True)
    assert states_equal(tmp_path / "whole", tmp_path / "parts")
    whole, parts = ([{**line, "seconds": 0} for line in lines_of(tmp_path / run)] for run in ("whole", "parts"))
    assert whole == parts
    assert [line["unreadable"] for line in parts] == [3, 3]


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_strict_training_stops_at_an_unreadable_image(
    split: str, detector: Detector, training: CocoData, validation: CocoData, spoiled_folder: Path, tmp_path: Path
) -> None:
    data = [
        part if part.folder.name != split else replace(part, folder=spoiled_folder / split)
        for part in (training, validation)
    ]
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{split}/00000\d\.jpg is not (there|a readable image)"):
        train.train(detector, *data, tmp_path / "run", QUICK, strict=True)


def test_no_readable_training_image_at_all_is_an_error(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    expected = r"^none of 6 training images could be read: .*000000\.jpg is not there$"
    with pytest.raises(ValueError, match=expected):
        train.train(detector, replace(training, folder=tmp_path), validation, tmp_path / "run", QUICK)


def test_a_used_folder_is_not_overwritten(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=1)
    train.train(detector, training, validation, tmp_path / "run", settings)
    with pytest.raises(FileExistsError, match="already holds a run; pass --resume"):
        train.train(detector, training, validation, tmp_path / "run", settings)
    with pytest.raises(ValueError, match="started with other settings: epochs was 1, now 2"):
        train.train(detector, training, validation, tmp_path / "run", replace(settings, epochs=2), continued=True)


def test_other_weights_do_not_continue_a_run(
    make_detector: Callable[..., Detector], training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    train.train(make_detector(seed=0), training, validation, tmp_path / "run", replace(QUICK, epochs=1))
    with pytest.raises(ValueError, match="detector_sha256 was"):
        train.train(
            make_detector(seed=1), training, validation, tmp_path / "run", replace(QUICK, epochs=1), continued=True
        )


@pytest.mark.parametrize("content", [None, b"", b"noise that is no file of tensors"])
def test_a_run_whose_best_refiner_is_gone_does_not_end_in_the_dark(
    content: bytes | None, detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=1)
    best = train.train(detector, training, validation, tmp_path / "run", settings).best
    best.unlink()
    if content is not None:
        best.write_bytes(content)
    with pytest.raises(
        FileNotFoundError, match=r"best\.safetensors, the best refiner so far, is gone or damaged; put it"
    ):
        train.train(detector, training, validation, tmp_path / "run", settings, continued=True)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "losses.jsonl"])
@pytest.mark.parametrize("content", ["[1]\n", '{"epoch": 1'])
def test_a_damaged_record_is_named(
    name: str, content: str, detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    settings = replace(QUICK, epochs=1, batch_size=6)
    train.train(detector, training, validation, tmp_path / "run", settings)
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is damaged \(.*\); start a new run in another folder"):
        train.train(detector, training, validation, tmp_path / "run", settings, continued=True)


def test_output_must_be_a_folder(detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError, match="is a file; name a folder for the run"):
        train.train(detector, training, validation, tmp_path / "file", QUICK)
    assert (tmp_path / "file").read_text() == "kept"
    with pytest.raises(FileNotFoundError, match="holds no run to continue"):
        train.train(detector, training, validation, tmp_path / "none", QUICK, continued=True)


def test_training_images_need_objects(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="none of the 6 training images has an object"):
        train.train(detector, replace(training, annotations=[]), validation, tmp_path / "run", QUICK)


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    metrics: Metrics = dict.fromkeys(METRICS, 40.0)
    worse = train.Report(tmp_path / "best.safetensors", metrics, {**metrics, "AP": 39.0}, "last", 60.0)
    assert worse.gain == -1
    chose = "by which the epoch was chosen, in 60 s"
    assert f"AP 40.0 → 39.0, {chose}: the refiner makes these boxes WORSE" in worse.verdict()
    better = train.Report(tmp_path / "best.safetensors", metrics, {**metrics, "AP": 42.5}, "averaged", 60.0)
    assert f"AP 40.0 → 42.5, {chose}; the refiner (averaged weights) is in" in better.verdict()


def test_the_better_of_two_weights_is_kept(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best are the averaged weights of the second epoch, which the third only equals."""
    points = iter([(30.0, 20.0), (31.0, 32.0), (32.0, 31.0)])
    averages = []
    real = detect.evaluate

    def judged(model: Any, *args: Any, others: dict[str, Refiner], **options: Any) -> dict[str, Metrics]:
        metrics = real(model, *args, others=others, **options)
        metrics["after"]["AP"], metrics["averaged"]["AP"] = next(points)
        averages.append({name: tensor.clone() for name, tensor in others["averaged"].state_dict().items()})
        return metrics

    monkeypatch.setattr(detect, "evaluate", judged)
    settings = replace(QUICK, average=0.9, epochs=3)
    report = train.train(detector, training, validation, tmp_path / "run", settings)
    assert (report.weights, report.after["AP"]) == ("averaged", 32.0)
    kept, history = load_refiner_and_history(report.best)
    assert (history["epoch"], history["weights"]) == (2, "averaged")
    assert all(torch.equal(tensor, averages[1][name]) for name, tensor in kept.state_dict().items())


def test_the_average_follows_the_weights_ever_more_slowly(detector: Detector) -> None:
    learner = Learner.start(detector, replace(QUICK, average=0.5))
    weight, average = (model.bboxes_refiner.bboxes_deltas.weight for model in (learner.refiner, learner.averaged))
    start = weight.detach().clone()
    shares = []
    for _ in range(12):
        with torch.no_grad():
            weight.copy_(start + 1)
            average.copy_(start)
        learner.average.update_parameters(learner.refiner)
        shares.append((average - start).mean().item())
    # the first update copies, those after it keep (1 + n) / (10 + n) of what was there, but no more than half
    expected = [1.0, *(1 - min(0.5, (1 + n) / (10 + n)) for n in range(1, 12))]
    assert shares == pytest.approx(expected, abs=1e-5)


def test_event_files_are_written_on_demand(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train.train(detector, training, validation, tmp_path / "run", QUICK, tensorboard=True)
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]
    assert [event.step for event in events.Scalars("after/AP")] == [2, 4]


def test_a_compiled_detector_trains_alike(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced for real, and run without generated code, which would take minutes."""
    settings = replace(QUICK, epochs=1, augmentation="none")
    whole = train.train(detector, training, validation, tmp_path / "whole", settings)
    real, traced = torch.compile, []

    def noted(*args: Any, **options: Any) -> Any:
        traced.append(options)
        return real(*args, backend="eager", **options)

    monkeypatch.setattr(torch, "compile", noted)
    compiled = train.train(detector, training, validation, tmp_path / "compiled", replace(settings, compile=True))
    assert traced == [{"dynamic": True}]
    assert lines_of(tmp_path / "compiled")[0]["loss"] == pytest.approx(
        lines_of(tmp_path / "whole")[0]["loss"], rel=1e-4
    )
    assert compiled.before == pytest.approx(whole.before, abs=1e-3)
