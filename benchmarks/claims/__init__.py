"""The parts of `ablations.py`: `settings`, `text`, `runs` and `report`."""
