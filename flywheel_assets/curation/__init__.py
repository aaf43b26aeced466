"""Pure curation of feedback: edit bands, duplicates, policy, resolution of a version. Arrow in, Arrow out."""
