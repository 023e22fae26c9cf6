"""From views to features and class probabilities, at scale: one pandas UDF around one pure function."""
