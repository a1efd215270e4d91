"""A frozen detector and annotated images come in; the best refiner and the record of its making go out."""
