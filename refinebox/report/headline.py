"""What an oracle analysis says, in one sentence."""

from refinebox.analysis.analysis import Analysis
from refinebox.evaluation.evaluator import points

LITTLE = 3.0  # points of AP, below which perfect boxes are not worth much
NOTHING = 1.0  # points of AP, below which a detector finds next to nothing


def headline(analysis: Analysis) -> str:
    """Whether boxes limit this detector, and how much of that is within a refiner's reach."""
    ap = {name: points(found.metrics) for name, found in analysis.evaluations.items()}
    if all(entry["iscrowd"] for entry in analysis.data.annotations):
        return "There is no object to find in these images, so nothing can be said."
    if ap["none"] < NOTHING:
        return (
            f"This detector finds next to nothing here (AP {ap['none']:.1f}): check boxes, categories and images "
            "before believing any other figure."
        )
    boxes, classes = ap["box"] - ap["none"], ap["class"] - ap["none"]
    reach = max(0.0, ap["box_from_iou"] - ap["none"])
    worth = (
        f"perfect ones would add {boxes:.1f} to its AP of {ap['none']:.1f}, {reach:.1f} of it within a refiner's reach "
        f"(IoU ≥ {analysis.min_iou:.2f}); perfect classes would add {classes:.1f}."
    )
    if boxes < LITTLE:
        return f"Boxes do not limit this detector: {worth}"
    return f"Boxes limit this detector{'' if boxes >= classes else ', though less than classes do'}: {worth}"
