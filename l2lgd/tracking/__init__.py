"""Where numbers go while a run is under way."""
