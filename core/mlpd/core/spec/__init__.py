"""What a run is, and the rules that it must keep."""
