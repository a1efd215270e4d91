"""Images and annotations come in as people have them; checked, augmented, padded batches go out."""
