"""Draw the diagrams of the docs into docs/diagrams.

python scripts/diagrams.py
"""

from pathlib import Path

from l2lgd.figures.diagrams import DIAGRAMS, draw

FOLDER = Path(__file__).parents[1] / "docs" / "diagrams"

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DIAGRAMS:
        (FOLDER / f"{name}.png").write_bytes(draw(name))
        print(FOLDER / f"{name}.png")
