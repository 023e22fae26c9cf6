"""A map of the feature space: test galaxies that look alike to the network lie side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from galaxyspark.report.drawing import MOST_IN_LEGEND, NUM_COLOURS, class_colour
from galaxyspark.report.galaxies import JudgedGalaxies

MOST_GALAXIES = 3_000
"""Galaxies on the map; of more, so many are drawn at random."""

_LEAST_GALAXIES = 5
_COMPONENTS = 50
_PERPLEXITY = 30
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon")


def choose_for_map(galaxies: JudgedGalaxies, seed: int) -> NDArray[np.int64]:
    """Positions of up to ``MOST_GALAXIES`` test galaxies, drawn at random where there are more, in order."""
    total = len(galaxies.ids)
    if total <= MOST_GALAXIES:
        return np.arange(total)
    return np.sort(np.random.default_rng(seed).choice(total, MOST_GALAXIES, replace=False))


def read_features(features: Path, ids: NDArray[np.str_]) -> NDArray[np.float32] | None:
    """Features of view 0, in the order of the ids, shape (galaxies, 1024 in GoogLeNet); None where one is missing."""
    if not features.is_dir():
        return None
    wanted = (ds.field("split") == "test") & (ds.field("view") == 0) & ds.field("galaxy_id").isin(ids)
    table = ds.dataset(features, format="parquet").to_table(columns=["galaxy_id", "features"], filter=wanted)
    of_galaxy = dict(zip(table["galaxy_id"].to_pylist(), table["features"].to_pylist(), strict=True))
    if not all(galaxy_id in of_galaxy for galaxy_id in ids):
        return None
    return np.array([of_galaxy[galaxy_id] for galaxy_id in ids], np.float32)


def place(features: NDArray[np.float32], seed: int) -> NDArray[np.float64] | None:
    """Places on the map: 50 principal components, then t-SNE (van der Maaten & Hinton 2008).

    Args:
        features: Shape (galaxies, numbers).
        seed: Of t-SNE.

    Returns:
        Shape (galaxies, 2), without a unit: near is alike, distances between groups mean nothing. None for fewer than
        five galaxies, or features that are all the same, which make no map.
    """
    if len(features) < _LEAST_GALAXIES or not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
        return None
    scaled = StandardScaler().fit_transform(features.astype(np.float64))
    components = PCA(min(_COMPONENTS, *scaled.shape), random_state=seed).fit_transform(scaled)
    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    return PCA(2, random_state=seed).fit_transform(
        places.astype(np.float64)
    )  # turned so that the longest side lies flat


def interactive_map(
    galaxies: JudgedGalaxies, positions: NDArray[np.int64], places: NDArray[np.float64]
) -> dict[str, Any]:
    """The map for Plotly, data and layout: dots and crosses, where the network is wrong, in the true class's colour."""
    import plotly.graph_objects as go  # takes a second to load

    figure = go.Figure()
    truth, right = galaxies.truth[positions], galaxies.right[positions]
    for each, name in enumerate(galaxies.classes):
        has_dots = bool((right & (truth == each)).any())
        dot = _SYMBOLS[each // NUM_COLOURS % len(_SYMBOLS)]
        for symbol, size, inside in ((dot, 6, right), ("x", 9, ~right)):
            chosen = np.flatnonzero(inside & (truth == each))
            figure.add_trace(
                go.Scatter(
                    x=places[chosen, 0].round(2).tolist(),
                    y=places[chosen, 1].round(2).tolist(),
                    customdata=galaxies.ids[positions][chosen].tolist(),
                    name=_literally(name),
                    legendgroup=str(each),
                    showlegend=len(galaxies.classes) <= MOST_IN_LEGEND and (symbol == dot or not has_dots),
                    mode="markers",
                    hoverinfo="none",
                    marker={"color": class_colour(each), "symbol": symbol, "size": size, "opacity": 0.85},
                )
            )
    cross = {"symbol": "x", "size": 9, "color": "#7d7d7d"}
    figure.add_trace(go.Scatter(x=[None], y=[None], name="network disagrees", mode="markers", marker=cross))
    hidden = {"visible": False}
    figure.update_layout(
        xaxis=hidden,
        yaxis=hidden,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
        dragmode="pan",
        template=None,
    )
    return figure.to_plotly_json()


def _literally(name: str) -> str:
    """A name for Plotly, which takes some tags for its own."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
