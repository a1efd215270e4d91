"""The training loop: what it changes, what it leaves alone, and that it can be interrupted."""

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from refinebox import checkpoint, evaluate, train
from refinebox.data import Batch, CocoData, Target
from refinebox.detector import Detector, DetectorOutput
from refinebox.evaluate import Link
from refinebox.interruption import Interrupted
from refinebox.refiner import Refiner, load_refiner_and_history
from refinebox.train import Settings

QUICK = Settings(epochs=2, batch_size=3, learning_rate=1e-3)


def first_batch(detector: Detector, training: CocoData) -> Batch:
    dataset = train.training_dataset(
        detector, training, Link.between(detector, training), replace(QUICK, augmentation="none")
    )
    batch: Batch = next(iter(train.data.loaded(dataset, [range(3)])))
    return batch


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
        "last",
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
    torch.manual_seed(0)
    batch = first_batch(detector, training)
    refiner = Refiner(detector.channels, detector.strides)
    settings = replace(QUICK, learning_rate=3e-3, clip_norm=1.0)
    optimizer = train.build_optimizer(refiner, settings)
    losses = [train.train_step(detector, refiner, optimizer, [batch], settings)["loss"] for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


def test_one_step_equals_the_authors(shared: Path) -> None:
    """Gradients of the recorded batch through our optimizer: rates, decay, clipping and the size of every update."""
    recorded = torch.load(shared / "fixtures/refinebox/rb_dab_detr_r50_12ep.pt", weights_only=True)
    step = recorded["optimizer_step"]
    refiner = train.Refiner([256, 512, 1024, 2048])
    state, _ = checkpoint.read(shared / "data/refinebox-official/rb_dab_detr_r50_12ep.pth")
    refiner.load_state_dict(state)
    optimizer = train.build_optimizer(refiner, Settings())
    for name, parameter in refiner.named_parameters():
        parameter.grad = recorded["train"]["grads"][name].clone()
    norm = torch.nn.utils.clip_grad_norm_(refiner.parameters(), Settings().clip_norm)
    assert norm.item() == pytest.approx(float(step["clip_norm_before"]), rel=1e-5)
    optimizer.step()
    for name, parameter in refiner.named_parameters():
        assert (parameter.detach() - state[name]).norm().item() == pytest.approx(
            float(step["update_norms"][name]), rel=1e-3
        ), name


def test_jitter_moves_by_at_most_its_amount() -> None:
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.3, 0.6, 0.1, 0.2]])
    noise = 2 * torch.rand(500, 2, 4, generator=torch.Generator().manual_seed(0)) - 1
    sides = boxes[:, [2, 3, 2, 3]]
    change = (train.jittered(boxes, noise) - boxes).abs() / sides  # [500, 2, 4]
    assert 0.14 < change.max() <= 0.1501
    assert (change.mean((0, 1)) > 0.05).all()


def test_jitter_depends_on_the_image_alone(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    output = detector(batch.images, batch.sizes)
    whole = train.match(detector.scores(output.logits), output.boxes, batch.targets, "sigmoid")
    noise = train.jitter_noise(batch, whole, 2, "0 1")
    assert noise.shape == (2, len(whole.image), 4)
    assert noise.min() >= -1
    assert noise.max() <= 1
    second = replace(batch, targets=batch.targets[1:2], image_ids=batch.image_ids[1:2])
    part = replace(whole, image=whole.image[whole.image == 1] - 1, boxes=whole.boxes[whole.image == 1])
    assert torch.equal(train.jitter_noise(second, part, 2, "0 1"), noise[:, whole.image == 1])
    assert not torch.equal(train.jitter_noise(batch, whole, 2, "0 2"), noise)


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
        torch.manual_seed(0)
        refiner = Refiner(detector.channels, detector.strides)
        monkeypatch.setattr(train.nn.utils, "clip_grad_norm_", lambda *_: None)
        losses.append(train.train_step(detector, refiner, train.build_optimizer(refiner, settings), batches, settings))
        gradients.append({name: parameter.grad for name, parameter in refiner.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, gradient in gradients[0].items():
        assert (gradients[1][name] - gradient).norm() <= 1e-3 * gradient.norm(), name


def test_a_training_cuts_its_batches(
    detector: Detector, training: CocoData, validation: CocoData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    real = train.train_step

    def noted(*args: Any) -> dict[str, float]:
        seen.append([image_id for batch in args[3] for image_id in batch.image_ids])
        assert all(len(batch.image_ids) <= 2 for batch in args[3])
        return real(*args)

    monkeypatch.setattr(train, "train_step", noted)
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
    real = train.train_step
    calls = 0

    def counted(*args: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        losses = real(*args)
        if calls == after:
            signal.raise_signal(signal.SIGTERM)
        return losses

    monkeypatch.setattr(train, "train_step", counted)
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
    real, calls = evaluate.evaluate, iter(range(1, 9))

    def signalled(*args: Any, **options: Any) -> Any:
        if next(calls) == epoch:
            signal.raise_signal(signal.SIGTERM)
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate", signalled)
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
    real = evaluate.evaluate

    def noted(*args: Any, **options: Any) -> Any:
        sizes.append(options["batch_size"])
        return real(*args, **options)

    monkeypatch.setattr(evaluate, "evaluate", noted)
    train.train(detector, training, validation, tmp_path, settings, continued=True)
    train.train(detector, training, validation, tmp_path / "new", settings)
    assert sizes == [2, 2]


def test_without_jitter_only_matched_boxes_count(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    torch.manual_seed(0)
    refiner = Refiner(detector.channels, detector.strides)
    plain = train.batch_losses(detector, refiner, batch)
    output = detector(batch.images, batch.sizes)
    matches = train.match(detector.scores(output.logits), output.boxes, batch.targets, "sigmoid")
    boxes = output.boxes[matches.image, matches.query]
    steps = refiner.refine(output.features, boxes, matches.image, batch.sizes)
    wanted = train.refinement_losses(steps, matches.boxes, len(matches.boxes))
    assert {key: loss.item() for key, loss in plain.items()} == {key: loss.item() for key, loss in wanted.items()}
    assert train.batch_losses(detector, refiner, batch, jitter=2).keys() == plain.keys()


def test_the_rate_falls_in_the_last_twelfth() -> None:
    rates = [Settings().rate(step, 90_000) for step in (0, 82_499, 82_500, 89_999)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])


def test_the_cosine_rises_and_falls_to_zero() -> None:
    settings = Settings(schedule="cosine", learning_rate=1.0)
    rates = [settings.rate(step, 1000) for step in range(1000)]
    assert rates[0] == pytest.approx(0.02)
    assert rates.index(max(rates)) == 49
    assert rates[500] == pytest.approx(0.5)
    assert rates[-1] < 1e-4


def test_normalisation_does_not_decay() -> None:
    decayed, kept = train.build_optimizer(Refiner((8, 8), (4, 8)), Settings()).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (1e-4, 0.0)
    assert len(kept["params"]) == 2 * (9 + 2)  # weight and bias of nine group and two layer normalisations


def test_loss_that_is_not_finite_stops_with_the_image_ids(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    refiner = Refiner(detector.channels, detector.strides)
    with torch.no_grad():
        refiner.bboxes_refiner.bboxes_deltas.bias.fill_(float("nan"))
    weights = {name: tensor.clone() for name, tensor in refiner.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"images 1, 2, 3: the loss is nan"):
        train.train_step(detector, refiner, train.build_optimizer(refiner, QUICK), [batch], QUICK)
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
    refiner = Refiner(detector.channels, detector.strides)
    with pytest.raises(FloatingPointError, match=r"images 1, 2, 3: the detector's scores or boxes are not finite"):
        train.train_step(detector, refiner, train.build_optimizer(refiner, QUICK), [batch], QUICK)


def test_batch_without_objects_gives_zero_gradients(detector: Detector, training: CocoData) -> None:
    batch = first_batch(detector, training)
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    refiner = Refiner(detector.channels, detector.strides)
    losses = train.batch_losses(detector, refiner, replace(batch, targets=[nothing] * 3))
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in refiner.parameters())


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
    metrics: evaluate.Metrics = dict.fromkeys(evaluate.METRICS, 40.0)
    worse = train.Report(tmp_path / "best.safetensors", metrics, {**metrics, "AP": 39.0}, 60.0)
    assert worse.gain == -1
    assert "AP 40.0 → 39.0 (-1.0) in 60 s: the refiner makes these boxes WORSE" in worse.verdict()
    better = train.Report(tmp_path / "best.safetensors", metrics, {**metrics, "AP": 42.5}, 60.0)
    assert "AP 40.0 → 42.5 (+2.5) in 60 s; the refiner is in" in better.verdict()
