"""Configs: schemas, objects built from them, words and messages."""
