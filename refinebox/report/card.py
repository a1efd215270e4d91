"""A model card for an upgraded checkpoint, in the form that model hubs show: what is known, and what is not."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import refinebox
from refinebox.refinement.change import decided, deciding

NAME = "README.md"
UNKNOWN = "unknown"
SHOWN = 30  # names of categories that are written out
EXTRAS = ("transformers", "effdet", "libreyolo")  # families whose libraries are extras of the same name
PYTHON = """
```python
import refinebox

model = refinebox.load({arguments})
for found in model.predict(["photo.jpg"]):
    print(found.boxes, found.scores, found.labels)  # xyxy in pixels of the photo, 0 to 1, category ids
```
"""


@dataclass(frozen=True)
class Base:
    """What the upgraded detector is made from, as far as it is known.

    Attributes:
        licence: of its weights, an SPDX identifier; None where nobody knows.
        hub: its ``organisation/name`` on the Hugging Face hub; None where it does not come from there.
        source: address of published weights; None where they are somebody's own.
    """

    licence: str | None = None
    hub: str | None = None
    source: str | None = None


def check_absent(output: Path) -> Path:
    """Where the card of ``output`` goes: beside it.

    Raises:
        FileExistsError: there is a README.md, which is never written over.
    """
    path = output.parent / NAME
    if path.exists():
        raise FileExistsError(f"{path} is there already; move it away, name another folder, or leave out --card")
    return path


def card(metadata: Mapping[str, Any], file: str, sha256: str, base: Base) -> str:
    """The card, Markdown behind a YAML head.

    Args:
        metadata: what the upgraded file carries.
        file, sha256: its name, and the hash of its bytes.
        base: what it is made from.
    """
    detector = metadata["detector"]
    refined = metadata["kind"] == "upgraded detector"
    parts = [
        f"---\n{head(metadata, base)}---",
        f"# {detector['name']} with better boxes\n\n{introduction(metadata, base)}",
        f"## AP\n\n{gains(metadata)}" if refined else "## AP\n\nNot known: candidates vote, which was not evaluated.",
        f"## Data\n\n{data(metadata)}" if refined else "",
        f"## Categories\n\n{categories(detector)}",
        f"## Use\n\n{use(metadata, file)}",
        f"## Files\n\n{files(metadata, file, sha256)}",
        f"## Licence\n\n{licence(base)}",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def head(metadata: Mapping[str, Any], base: Base) -> str:
    """The YAML that hubs read; quoted as JSON, which YAML reads alike."""
    detector = metadata["detector"]
    tags = ["object-detection", "refinebox", detector["family"].replace("_", "-")]
    fields: dict[str, Any] = {
        "library_name": "refinebox",
        "pipeline_tag": "object-detection",
        "license": (base.licence or UNKNOWN).lower(),
        **({"base_model": base.hub} if base.hub else {}),
        "tags": list(dict.fromkeys(tags)),
    }
    if results := measured(metadata):
        fields["model-index"] = [{"name": f"{detector['name']} with better boxes", "results": results}]
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items())


def measured(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The results of a hub's ``model-index``: AP on the validation images, where it and their file are known."""
    validation = (metadata.get("data") or {}).get("val") or {}
    after = metadata.get("after") or {}
    metrics = [
        {"type": "mean_average_precision", "name": f"{name}, refined", "value": round(after[key], 2)}
        for key, name in (("AP", "AP at IoU 0.50 to 0.95"), ("AP50", "AP at IoU 0.50"), ("AP75", "AP at IoU 0.75"))
        if after.get(key) is not None
    ]
    if not metrics or "file" not in validation:
        return []
    dataset = {"type": "custom", "name": validation["file"], "split": "validation"}
    return [{"task": {"type": "object-detection"}, "dataset": dataset, "metrics": metrics}]


def introduction(metadata: Mapping[str, Any], base: Base) -> str:
    """What the file is."""
    source = metadata["sources"]["detector"]
    named = metadata["detector"]["name"]
    made_from = f"[{base.hub}](https://huggingface.co/{base.hub})" if base.hub else f"`{source['file'] or named}`"
    published = f", as published at {base.source}" if base.source else ""
    lines = [f"The detector is {made_from} ({metadata['detector']['family']}{published}), frozen."]
    if about := metadata.get("refiner"):
        recipe = (about.get("settings") or {}).get("epochs")
        epochs = f", trained for {recipe} epochs" if recipe else ""
        lines.append(f"A refiner of {about['steps']} steps reads its feature maps and moves its boxes{epochs}.")
    if (metadata["detector"].get("choice") or {}).get("voting"):
        lines.append("Candidates that suppression drops move the boxes that are kept.")
    lines.append(f"Written by refinebox {refinebox.__version__}.")
    return "\n".join(lines)


def use(metadata: Mapping[str, Any], file: str) -> str:
    """How the file is run: from a shell, and from Python where that needs nothing beside it."""
    family = metadata["detector"]["family"]
    package = f"'refinebox[{family}]'" if family in EXTRAS else "refinebox"
    words, python = f"predict {file} photos/", PYTHON.format(arguments=f'"{file}"')
    if ":" in family:  # a function that builds the detector, whose code the file does not hold
        words, python = f"predict {family} --weights {file} photos/", PYTHON.format(arguments=f'"{file}", "{family}"')
    if family == "given":  # it takes its boxes from a results file
        words, python = f"refine {file} --results detections.json --images photos/ --output refined.json", ""
    shell = f"```sh\npip install {package}\nrefinebox {words}\n```\n"
    return f"{shell}{python}\nThe detector inside is as it was, weight by weight; {moved(metadata)}."


def moved(metadata: Mapping[str, Any]) -> str:
    """What is done to its detections."""
    if "refiner" not in metadata:
        return "its boxes move, scores and categories stay"
    asked = (metadata["refiner"].get("settings") or {}).get("quality", False)
    rescored = (metadata.get("choice") or {}).get("rescore", asked)
    more = "and its scores follow how good the boxes are now" if rescored else "scores and categories stay"
    return f"the refiner moves its boxes, {more}"


def gains(metadata: Mapping[str, Any]) -> str:
    """AP before and after, with the interval where there is one; what is not known is said."""
    before, cut, after = (metadata.get(name) or {} for name in ("before", "clipped", "after"))
    lines = []
    if choice := metadata.get("choice"):
        flattery = "" if choice.get("known") else " A detector that was trained on these looks better there than it is."
        lines.append(f"What {deciding(choice)} say: AP **{decided(choice)}**.{flattery}")
    known = [name for name, value in after.items() if value is not None and before.get(name) is not None]
    if known:
        lines.append("On the validation images, by which the epoch was chosen (AP in points, IoU 0.50 to 0.95):")
        rows = [["", "detector", *(["cut at the borders"] if cut else []), "refined"]]
        for name in known:
            stages = [before[name], *([cut[name]] if cut else [])]
            rows.append([name, *(f"{value:.1f}" for value in (*stages, after[name]))])
        lines.append(table(rows))
    if cut:
        lines.append("Cut at the borders of the image, as refined boxes are, the detector's own gain a little, too.")
    return "\n\n".join(lines) or "Not known: the refiner's file does not say. `refinebox eval` measures it."


def data(metadata: Mapping[str, Any]) -> str:
    """What the refiner was trained on and judged by."""
    found = metadata.get("data") or {}
    if not found:
        return "Not known: the refiner's file does not say what it was trained on."
    rows = [["", "annotations", "images", "boxes", "SHA-256"]]
    for split, name in (("train", "training"), ("val", "validation")):
        entry = found[split]
        file = f"`{entry['file']}`" if "file" in entry else "not from a file"
        rows.append([name, file, f"{entry['images']:,}", f"{entry['boxes']:,}", f"`{entry.get('sha256', '–')}`"])
    return f"{table(rows)}\n\nWhat the detector itself was trained on is its authors' to say."


def categories(detector: Mapping[str, Any]) -> str:
    """Their names."""
    names = [entry["name"] or f"category {entry['id']}" for entry in detector["categories"]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}." if names else "Those of the data that it is used with."


def files(metadata: Mapping[str, Any], file: str, sha256: str) -> str:
    """This file and what went into it, with hashes."""
    rows = [["", "file", "SHA-256"], ["this", f"`{file}`", f"`{sha256}`"]]
    for name, source in metadata["sources"].items():
        # without a file the hash is that of the tensors
        rows.append([name, f"`{source['file']}`" if source["file"] else "(its tensors)", f"`{source['sha256']}`"])
    return table(rows)


def licence(base: Base) -> str:
    """Of the detector's weights, which the file contains."""
    if base.licence is None:
        return (
            "Not known. The file contains the detector's weights: their licence holds for it; ask who trained them "
            "before you pass it on, and write it here and above."
        )
    return f"{base.licence}: that of the detector's weights, which the file contains."


def table(rows: list[list[str]]) -> str:
    """Markdown; the first row is the head."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])
