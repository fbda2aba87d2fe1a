"""A page to try models in a browser: ``evlgen serve``. What models do is in `captioner`, what one sees in `view`."""
