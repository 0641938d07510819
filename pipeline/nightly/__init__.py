"""A catalogue, every night. Start reading at `pipeline.nightly.run_night`."""
