"""Nightly runs: plan, build, test and publish a catalogue. Start at `run_night`."""
