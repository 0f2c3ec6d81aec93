"""Scorecards: does a version follow the brief, is its copy good, is it stable, and how sure is that."""
