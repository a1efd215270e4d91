"""The script that makes detectors to freeze."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
import typer
from torch import nn
from typer.testing import CliRunner

from refinebox.boxes import inverse_sigmoid
from refinebox.data.annotations import CocoData
from refinebox.data.batches import collate
from refinebox.data.dataset import CocoDataset
from refinebox.data.input_format import InputFormat
from refinebox.detection.zoo import load_detector
from refinebox.files import checkpoint


def run(script: ModuleType, *arguments: str | Path) -> str:
    app = typer.Typer()
    app.command()(script.main)
    result = CliRunner().invoke(
        app, [*map(str, arguments), "--short-side", "64", "--batch-size", "3", "--device", "cpu"]
    )
    assert result.exit_code == 0, result.output
    return result.output


def test_writes_a_detector_that_loads_by_path(script: ModuleType, shapes_folder: Path, tmp_path: Path) -> None:
    run(script, "--data", shapes_folder, "--output", tmp_path / "small.safetensors", "--epochs", "1")
    detector = load_detector(str(tmp_path / "small.safetensors"))
    assert detector.profile.input.short_side == 64
    assert detector.strides == (4, 8, 16, 32)
    assert detector.category_names[1] == "ellipse"
    assert (tmp_path / "small.safetensors").stat().st_size < 10_000_000


def test_writes_a_dino_that_loads_by_path(script: ModuleType, shapes_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    run(script, "--data", shapes_folder, "--output", path, "--epochs", "1", "--architecture", "dino", "--queries", "9")
    detector = load_detector(str(path))
    assert (detector.profile.family, detector.strides) == ("dino", (4, 8, 16, 32))
    assert detector.get_submodule("network").count == 9


@pytest.mark.parametrize(("architecture", "sides"), [("rt-detr", (64, 96)), ("ssdlite", (320, 320))])
def test_writes_detectors_of_other_libraries(
    script: ModuleType, shapes_folder: Path, tmp_path: Path, architecture: str, sides: tuple[int, int]
) -> None:
    path = tmp_path / "small.safetensors"
    options = ("--data", shapes_folder, "--output", path, "--epochs", "1", "--long-side", "96", "--queries", "20")
    run(script, *options, "--architecture", architecture)
    detector = load_detector(str(path))
    assert (detector.profile.input.height, detector.profile.input.width) == sides
    assert detector.category_names[1] == "ellipse"
    again = tmp_path / "again.safetensors"
    learner = script.new_learner(
        detector.category_names, script.Plan(architecture, 20, 64, 96, 1, 1, 0, "none", False, 0)
    )
    script.start_from(learner.network, detector, [])
    script.write(again, learner.frozen("again"))
    images = torch.rand(1, 3, *sides)
    where = torch.tensor([sides])
    assert torch.equal(load_detector(str(again))(images, where).boxes, detector(images, where).boxes)


def test_dilation_is_of_dab_detr_alone(script: ModuleType, shapes_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match=r"^--dilation is for DAB-DETR; leave it out$"):
        script.main(shapes_folder, tmp_path / "small.safetensors", architecture="dino", dilation=True)


def test_a_continued_run_equals_an_uninterrupted_one(script: ModuleType, shapes_folder: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    run(script, "--data", shapes_folder, "--output", whole, "--epochs", "2")
    train_epoch = script.train_epoch
    calls = iter([True])

    def once(*arguments: object) -> dict[str, float]:
        if next(calls, None) is None:
            raise typer.Exit(0)  # the interruption
        losses: dict[str, float] = train_epoch(*arguments)
        return losses

    script.train_epoch = once
    run(script, "--data", shapes_folder, "--output", parts, "--epochs", "2")
    script.train_epoch = train_epoch
    run(script, "--data", shapes_folder, "--output", parts, "--epochs", "2", "--resume")
    one, other = checkpoint.read(whole)[0], checkpoint.read(parts)[0]
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_frozen_statistics_equal_the_live_ones(script: ModuleType, training: CocoData) -> None:
    torch.manual_seed(0)
    network = script.new_network(6, 9, False)
    images, sizes = torch.randn(2, 3, 64, 96), torch.tensor([[64, 96], [64, 80]])
    network(images, sizes)  # in train mode, so that the statistics are not the initial ones
    plan = script.Plan("dab-detr", 9, 64, 128, 1, 2, 1e-3, "none", False, 0)
    detector = script.frozen(script.Learner(network), "small", training.categories, plan)
    with torch.no_grad():
        live = network.eval()(images, sizes)
    torch.testing.assert_close(detector(images, sizes).boxes, live.boxes, atol=1e-5, rtol=1e-4)


def test_starting_from_another_detector_keeps_all_but_new_categories(
    script: ModuleType, shapes_folder: Path, tmp_path: Path
) -> None:
    run(script, "--data", shapes_folder, "--output", tmp_path / "first.safetensors", "--epochs", "1")
    first = load_detector(str(tmp_path / "first.safetensors"))
    network = script.new_network(2, 64, False)
    script.start_from(network, first, ["star", "moon"])
    state, source = network.state_dict(), first.tensors()
    assert torch.equal(state["class_embed.weight"][0], source["class_embed.weight"][3])
    others = [name for name in source if not name.startswith("class_embed")]
    assert all(torch.equal(state[name], source[name]) for name in others)


@pytest.mark.parametrize("architecture", ["dab-detr", "dino"])
def test_overfits_one_batch(architecture: str, script: ModuleType, training: CocoData) -> None:
    torch.manual_seed(0)
    columns = {category: column for column, category in enumerate(training.categories)}
    dataset = CocoDataset(training, columns, form=InputFormat(short_side=64, long_side=96))
    batch = collate([dataset[0], dataset[1]], dataset.form).to(torch.device("cpu"))
    if architecture == "dino":
        learner = script.DinoLearner(script.new_dino(6, 16, script.BACKBONE))
    else:
        learner = script.Learner(script.new_network(6, 16, False))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        total = torch.stack(list(learner(batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        losses.append(total.item())
    assert losses[-1] < 0.7 * losses[0]


def test_anchors_start_as_a_grid(script: ModuleType) -> None:
    anchors = script.new_network(6, 16, False).refpoint_embed.weight
    corners = inverse_sigmoid(torch.tensor([[0.125, 0.125, 0.25, 0.25], [0.875, 0.875, 0.25, 0.25]]))
    torch.testing.assert_close(anchors[[0, 15]], corners)


def test_the_rate_rises_and_falls(script: ModuleType) -> None:
    plan = script.Plan("dab-detr", 9, 64, 128, 1, 2, 1.0, "none", False, 0)
    rates = [script.learning_rate(plan, step, 1000) for step in range(1000)]
    assert rates.index(max(rates)) in (19, 20)
    assert rates[-1] < 1e-4
    assert json.dumps(rates[0]) == "0.05"
