"""The page that shows a run: read with pyarrow, drawn with matplotlib, filled in by Jinja2."""
