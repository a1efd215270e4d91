"""A name or a file comes in; a frozen detector goes out, which turns a batch into features, boxes and scores."""
