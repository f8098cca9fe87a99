"""A small graph whose nodes have classes."""

import csv
from dataclasses import dataclass
from importlib.resources import files

import torch
from torch import Tensor

from l2lgd.data.splits import SPLITS, Split
from l2lgd.seeding import generator

CLUBS = ("instructor", "officers")


@dataclass(frozen=True)
class Graph:
    """N nodes, undirected edges between them, and the class of each."""

    edges: Tensor  # (edges, 2), each once
    labels: Tensor  # (N,), int64

    def adjacency(self) -> Tensor:
        """(N, N), 1 where an edge is, else 0."""
        count = len(self.labels)
        found = torch.zeros(count, count)
        found[self.edges[:, 0], self.edges[:, 1]] = 1
        return found + found.mT

    def divided(self) -> dict[Split, Tensor]:
        """The nodes of each split, always the same: a third each, and of every class."""
        own: dict[Split, list[Tensor]] = {split: [] for split in SPLITS}
        begun = 0  # so that what is left over does not always go to the same split
        for label in self.labels.unique():
            nodes = (self.labels == label).nonzero().squeeze(1)
            order = torch.randperm(len(nodes), generator=generator(0, "nodes", int(label)))
            for k, split in enumerate(SPLITS):
                own[split].append(nodes[order[(k - begun) % len(SPLITS) :: len(SPLITS)]])
            begun += len(nodes)
        return {split: torch.cat(parts).sort().values for split, parts in own.items()}


def karate_club() -> Graph:
    """Zachary's karate club (1977): 34 members, 78 friendships, and which club they went to."""
    text = (files("l2lgd.data") / "karate_club.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    edges = [
        (int(row["member"]) - 1, int(other) - 1) for row in rows for other in row["meets"].split()
    ]
    labels = [CLUBS.index(row["club"]) for row in rows]
    return Graph(torch.tensor(edges), torch.tensor(labels))
