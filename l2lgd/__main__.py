"""``python -m l2lgd``."""

from l2lgd.cli.main import program

if __name__ == "__main__":
    program()
