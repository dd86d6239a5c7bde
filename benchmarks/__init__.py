"""Programs that measure. Each writes results/DEVICE/NAME.json, and nothing else writes there."""
