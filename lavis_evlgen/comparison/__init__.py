"""Arms side by side: one base configuration, what differs, the same data in the same order, training by turns."""
