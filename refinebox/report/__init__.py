"""Figures and detections come in; tables, charts, pictures and pages go out. Nothing here prints."""
