"""A catalogue, every night. Start reading at `pipeline.nightly.narrative`."""
