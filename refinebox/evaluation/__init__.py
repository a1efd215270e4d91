"""Detections come in; result rows, AP and its uncertainty go out."""
