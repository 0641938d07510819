"""Pieces that are compressed for several writers at once: how many are in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from pipeline import compression
from pipeline.compression import PIECE, Compression
from pipeline.layers import chunk_writer
from pipeline.layers.chunk_writer import ChunkWriter, CompressionPool
from pipeline.store import Store
from tests.support.patience import HUNG


@pytest.mark.parametrize("codec", Compression)
def test_few_pieces_are_in_memory_however_many_writers_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Compression
) -> None:
    store, go = Store.open(tmp_path / "store"), threading.Event()
    monkeypatch.setattr(chunk_writer, "compression_workers", lambda: 1)
    real = compression.gzip_parts
    monkeypatch.setattr(compression, "gzip_parts", lambda piece: (go.wait(HUNG), real(piece))[1])
    buffers: list[bytearray] = []
    take = CompressionPool.take

    def taken(self: CompressionPool) -> bytearray:
        buffer = take(self)
        if not any(buffer is one for one in buffers):
            buffers.append(buffer)
        return buffer

    monkeypatch.setattr(CompressionPool, "take", taken)

    def write(pool: CompressionPool) -> None:
        with store.writer() as blob:
            writer = ChunkWriter(blob, codec, pool, hashed=False)
            for _ in range(6):
                writer.write(bytes(PIECE))
            writer.finish()

    with CompressionPool() as pool:
        threads = [threading.Thread(target=write, args=(pool,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        threading.Timer(0.3, go.set).start()
        for thread in threads:
            thread.join(HUNG)
    most = {Compression.GZIP: 3 * 2 + 1, Compression.ZSTD: 3 * 3}[codec]
    assert len(buffers) <= most, "one that is filled and one that waits for each writer, and one that is compressed"
