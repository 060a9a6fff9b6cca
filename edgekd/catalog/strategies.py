"""The strategies of `edgekd select`: which unlabelled images to label next."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.catalog._row import Row


@dataclass(frozen=True)
class StrategyRow(Row):
    paper: str
    embeddings: bool = False  # whether it reads the model's embeddings, which a graph does not give


STRATEGIES = {
    row.name: row
    for row in (
        StrategyRow(
            "pcoreset",
            "edgekd.data.strategies:pcoreset",
            "k-centre greedy in the space of probabilities: what the model says of no labelled image yet",
            paper="Kang et al. 2025, arXiv 2506.00910",
        ),
        StrategyRow("random", "edgekd.data.strategies:random", "every image as likely: the baseline", paper="-"),
        StrategyRow(
            "entropy",
            "edgekd.data.strategies:entropy",
            "where the model is least sure",
            paper="Settles and Craven 2008, EMNLP",
        ),
        StrategyRow(
            "coreset",
            "edgekd.data.strategies:coreset",
            "k-centre greedy in the space of embeddings",
            paper="Sener and Savarese 2018, arXiv 1708.00489",
            embeddings=True,
        ),
        StrategyRow(
            "badge",
            "edgekd.data.strategies:badge",
            "k-means++ on the gradients of the last layer for the class that is predicted: unsure, and unlike",
            paper="Ash et al. 2020, arXiv 1906.03671",
            embeddings=True,
        ),
    )
}
