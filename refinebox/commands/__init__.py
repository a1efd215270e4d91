"""The command line: words come in, one file a verb; nothing else prints or exits."""
