"""What the station's pages share: the config, the records, the reviews, the accounts and the pictures."""

import threading
from collections.abc import Callable
from pathlib import Path

from inspection.config import StationConfig
from inspection.hmi.accounts import Accounts
from inspection.hmi.people_file import people_path
from inspection.hmi.pictures import Pictures
from inspection.record_reader import RecordReader
from inspection.reviews import ReviewStore, reviews_path


class Context:
    """Given to every ``routes(context)``; used by any number of threads.

    ``reader`` and ``reviews`` are opened when first asked for, and raise StoreError while that is not possible: a station
    that was never started has no record store yet.  The page then says so, and finds it at its next request.
    """

    def __init__(self, config: StationConfig) -> None:
        self.config = config
        self.store = Path(config.store)
        self.accounts = Accounts(people_path(self.store))
        self.pictures = Pictures(config, lambda: self.reader)
        self.at_close: list[Callable[[], None]] = [self.pictures.close]  # what pages started; ended before the files
        self._lock = threading.Lock()
        self._reader: RecordReader | None = None
        self._reviews: ReviewStore | None = None

    @property
    def reader(self) -> RecordReader:
        """The station's records, read only."""
        with self._lock:
            if self._reader is None:
                self._reader = RecordReader(self.store)
            return self._reader

    @property
    def reviews(self) -> ReviewStore:
        """What people said of them."""
        with self._lock:
            if self._reviews is None:
                self._reviews = ReviewStore(reviews_path(self.store))
            return self._reviews

    def close(self) -> None:
        """End what pages started, close what was opened."""
        for end in self.at_close[::-1]:
            end()
        with self._lock:
            for opened in (self._reader, self._reviews, self.accounts):
                if opened is not None:
                    opened.close()
            self._reader = self._reviews = None
