"""A comparison of arms as figures, a page, and text for the documentation."""
