"""Bytes on the disk and from the net: read without running code, written whole or not at all."""
