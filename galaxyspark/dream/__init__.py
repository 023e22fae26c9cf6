"""Pictures of what a trained network responds to, and of where it looks."""
