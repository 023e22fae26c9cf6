"""The dataset of views: its schema, how Spark writes it and how training reads it."""
