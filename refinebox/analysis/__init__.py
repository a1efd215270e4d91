"""Detections and the truth come in; what each kind of error costs, and what perfection would be worth, goes out."""
