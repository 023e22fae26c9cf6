"""Classifiers on the features, how good they and the network are, and the catalogue of new images."""
