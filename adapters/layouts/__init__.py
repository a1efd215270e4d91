"""A checkpoint as somebody published it comes in; the same tensors under the names that the families read go out."""
