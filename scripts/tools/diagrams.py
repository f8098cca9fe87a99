"""Draw the diagrams of the docs into docs/diagrams.

python scripts/tools/diagrams.py
"""

from pathlib import Path

from l2lgd.figures.diagrams import DIAGRAMS, draw

FOLDER = Path(__file__).parents[2] / "docs" / "diagrams"

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in DIAGRAMS:
        (FOLDER / f"{name}.png").write_bytes(draw(name))
        print(FOLDER / f"{name}.png")
