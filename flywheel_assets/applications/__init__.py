"""One short file per application: what a platform team copies and edits."""
