"""The domain: the decision tree of questions and answers, labels, splits and simulated galaxies."""
