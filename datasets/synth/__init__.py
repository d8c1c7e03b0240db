"""Boards and defects made from nothing: artwork, defect injection, camera model."""
