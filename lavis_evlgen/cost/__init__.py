"""What a configuration costs, without weights and without data: see docs/cost.md."""
