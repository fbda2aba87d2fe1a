"""Which patches each merged token covers: drawn, counted, on a page."""
