"""The commands of ``evlgen``: options, and what each does, by the heading of the help under which it stands."""
