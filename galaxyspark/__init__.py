"""galaxyspark sorts galaxies by shape at any scale: Spark from pixels to views, Horovod for the network."""

__version__ = "0.1.0"
