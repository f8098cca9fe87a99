"""A task and a learned optimizer outside l2lgd."""
