"""What to do about what reading counted: whether a note is of something wrong, and the way out of it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Remedy:
    """Of one kind of note.

    Attributes:
        pattern: how such notes begin, as an expression.
        wrong: whether something is lost or figures mislead; else it is mended, or as it should be.
        advice: what to do; empty where nothing need be done.
    """

    pattern: str
    wrong: bool
    advice: str = ""


READ = "nothing for refinebox, which reads it so; other tools may not"
EXPORT = "complete or delete them in the labelling tool, and export again"
REMEDIES = (
    # images
    Remedy("image entries that are there twice", False, "list each image once"),
    Remedy("(image|category) ids numbered inside", False, READ),
    Remedy("images that are listed under several ids", True, "list each file once, with all of its annotations"),
    Remedy("image sizes that cannot be", False, "write the files' width and height"),
    Remedy("image files missing", True, "copy these files, or take their images out of the annotations"),
    Remedy("images found under another path", False, READ),
    Remedy("images without objects", False, "nothing if they are empty; label them if they are not"),
    Remedy("image sizes taken from the files", False, "write the files' width and height into the annotations"),
    Remedy("image sizes read from files", False),
    Remedy("images with an EXIF orientation", False, READ),
    Remedy("images of more than 8 bits", False, "nothing, if the detector was trained on pictures scaled like that"),
    Remedy("files with several frames", False, "nothing, if the first is the one that was labelled"),
    Remedy(
        "images of another size than labelled",
        False,
        "nothing; the pictures that were labelled may show more",
    ),
    Remedy("images that are not as they were labelled", True, "use the pictures that were labelled"),
    # categories
    Remedy("category entries that are there twice", False, "list each category once"),
    Remedy("categories of equal names", True, "join them, or name them differently"),
    Remedy("categories without objects", False, "nothing; they are ignored"),
    Remedy("(neg|not_exhaustive)_category_ids of", False, "nothing; nobody looks for categories that are not listed"),
    Remedy("(neg|not_exhaustive)_category_ids that are no lists", True, "write lists of category ids, as LVIS does"),
    # annotations
    Remedy("annotations that are no objects", True, EXPORT),
    Remedy("annotations without", True, EXPORT),
    Remedy("annotations of images that are not listed", True, "list these images, or delete their annotations"),
    Remedy("annotations of categories that are not listed", True, "list these categories, or delete their annotations"),
    Remedy("boxes taken from segmentations", False, READ),
    Remedy("boxes without area", True, "draw these boxes again, or delete them"),
    Remedy("annotations that are there twice", True, "write each once; was a data set joined with itself?"),
    Remedy("objects annotated twice", True, "delete one of each two: no detector can find both"),
    Remedy("boxes outside of their image", True, "draw them again; are they of another image, or of another size?"),
    Remedy("boxes read as", False, "write them as COCO's x, y, width and height for other tools"),
    Remedy("boxes reach beyond their image", False, "nothing if it is by little; cut them at the borders if not"),
    Remedy("boxes with negative sides", False, READ),
    Remedy("iscrowd flags that are neither", True, "write 1 for a region of many objects, 0 for all others"),
    Remedy("iscrowd flags filled in", False, READ),
    Remedy("crowd regions", False),
    Remedy("areas", False, "nothing; APs, APm and APl go by the boxes' areas"),
    Remedy("annotation ids renumbered", False, READ),
    Remedy(
        "images with more than",
        True,
        "cut these images into parts, or take AP for what it is: no detector reaches more",
    ),
    # detections
    Remedy("boxes of detections read as", False, "nothing, as long as you pass --boxes"),
    Remedy("detections with negative sides", False, READ),
    Remedy("detections reach beyond their image", False, "nothing if they are few; look at --boxes if they are not"),
    Remedy("repeated detections", True, "write each once; several processes may have written the same images"),
    Remedy("images without detections", False, "nothing, unless the detector was stopped before its end"),
    Remedy("detections beyond the best", False, "nothing; COCO counts no more"),
    Remedy("all detections are of one category", True, "write the category of each, if the detector knows several"),
    Remedy("all detections have the same score", True, "write the detector's own scores"),
    Remedy("image ids (matched|that are not)", False, READ),
    Remedy("category ids read as names", False, READ),
)


def remedy(note: str) -> Remedy | None:
    """For a note as :class:`refinebox.data.tally.Tally` words it; None for one that is a sentence of its own."""
    return next((found for found in REMEDIES if re.match(found.pattern, note)), None)
